"""Write many texts together with OpenVINO's continuous batching, and pass them on as they grow.

Prompts are token ids and texts are made from the vocabulary's bytes, so a piece never ends within a
character. Stop texts are found here and not in the library. Does not encode, and does not know what
an ask is.
"""

import codecs
import itertools
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import RLock
from typing import Any, Literal, NamedTuple

import numpy as np
import openvino
import openvino_genai

from intramuros.runtime.reading import EXACT

TOGETHER = 48
"""Texts written at the same time."""

BLOCK = 32
"""Tokens of a block of OpenVINO's cache on a CPU."""

CACHED = 16384
"""Tokens whose keys and values are kept, or one whole context if that is more."""

BATCHED = 1024
"""Most tokens read or written in one step."""


class Order(NamedTuple):
    """A text to write: at most `limit` tokens behind the prompt `ids`."""

    number: int
    ids: Sequence[int]
    limit: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    schema: str = ""


class Growth(NamedTuple):
    """More text of an order, and in the last one of it why it ended."""

    number: int
    text: str
    end: Literal["", "stop", "length", "memory"] = ""
    tokens: int = 0


class Writer:
    """One pipeline, whose steps serve the orders of every thread that writes."""

    def __init__(self, folder: Path, context: int, threads: int, ends: Sequence[int]) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = True
        scheduler.num_kv_blocks = max(context, CACHED) // BLOCK + 1
        scheduler.max_num_batched_tokens = BATCHED
        scheduler.max_num_seqs = 2 * TOGETHER
        hints: dict[str, Any] = {**EXACT}
        if threads:
            hints["INFERENCE_NUM_THREADS"] = threads
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", hints)
        spelled = self._pipeline.get_tokenizer().get_vocab()
        self._bytes = {number: spelling for spelling, number in spelled.items()}
        self._end, self._ends = ends[0], set(ends)
        self._numbers = itertools.count()
        self._lock = RLock()

    def write(self, orders: Sequence[Order], admit: Callable[[], bool]) -> Iterator[Growth]:
        """Write every order, several together; `admit` is asked before each is begun."""
        waiting = deque(orders)
        growing: list[_Text] = []
        try:
            while True:
                while waiting and len(growing) < TOGETHER:
                    if not admit():
                        waiting.clear()
                        break
                    growing.append(self._begin(waiting.popleft()))
                if not growing:
                    return
                self._step()
                for text in growing:
                    yield from text.grown()
                growing = [text for text in growing if not text.ended]
        finally:
            for text in growing:
                text.handle.cancel()
            if growing:
                self._step()

    def _begin(self, order: Order) -> "_Text":
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = order.limit
        config.apply_chat_template = False
        config.set_eos_token_id(self._end)
        config.stop_token_ids = self._ends
        if order.temperature > 0:
            config.do_sample = True
            config.temperature = order.temperature
            config.top_p = order.top_p
            config.rng_seed = secrets.randbits(31) if order.seed is None else order.seed
        if order.schema:
            config.structured_output_config = openvino_genai.StructuredOutputConfig(
                json_schema=order.schema
            )
        ids = openvino.Tensor(np.array([order.ids], np.int64))
        with self._lock:
            handle = self._pipeline.add_request(next(self._numbers), ids, config)
        return _Text(order, handle, self._bytes, self._ends)

    def holds(self, schema: str) -> bool:
        """Whether an answer can be held to a JSON schema: tried by writing one token of it.

        A schema that the library cannot read fails the step of every text that is in it. So those
        that are in flight are finished first, whoever waits for them, and the trial is alone.
        """
        with self._lock:
            while self._pipeline.has_non_finished_requests():
                self._pipeline.step()
            trial = self._begin(Order(-1, [self._end], 1, schema=schema))
            try:
                while self._pipeline.has_non_finished_requests():
                    self._pipeline.step()
                return True
            except RuntimeError:
                trial.handle.cancel()
                while self._pipeline.has_non_finished_requests():
                    self._pipeline.step()
                return False

    def _step(self) -> None:
        """One token more for each text, and for those of other threads."""
        with self._lock:
            if self._pipeline.has_non_finished_requests():
                self._pipeline.step()


class _Text:
    """A text while it grows."""

    def __init__(
        self, order: Order, handle: Any, spelled: dict[int, bytes], ends: set[int]
    ) -> None:
        self.order = order
        self.handle = handle
        self.ended = False
        self._bytes = spelled
        self._ends = ends
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._tokens = 0
        self._held = ""  # may be the beginning of a stop text

    def grown(self) -> Iterator[Growth]:
        """What was written since the last time."""
        finish = openvino_genai.GenerationFinishReason.NONE
        added = b""
        while self.handle.can_read():
            for output in self.handle.read().values():
                finish = output.finish_reason
                self._tokens += len(output.generated_ids)
                added += b"".join(
                    self._bytes[token] for token in output.generated_ids if token not in self._ends
                )
        done = finish != openvino_genai.GenerationFinishReason.NONE
        text = self._held + self._decoder.decode(added)  # half a character at the end is dropped
        cut = min((at for stop in self.order.stop if (at := text.find(stop)) >= 0), default=-1)
        if cut >= 0:
            self.handle.stop()
            yield self._end(text[:cut], "stop")
        elif done:
            length = finish == openvino_genai.GenerationFinishReason.LENGTH
            yield self._end(text, "length" if length else "stop")
        elif self.handle.get_status() == openvino_genai.GenerationStatus.IGNORED:
            yield self._end(text, "memory")
        else:
            keep = _beginning(text, self.order.stop)
            self._held = text[len(text) - keep :]
            if shown := text[: len(text) - keep]:
                yield Growth(self.order.number, shown)

    def _end(self, text: str, why: Literal["stop", "length", "memory"]) -> Growth:
        self.ended = True
        return Growth(self.order.number, text, why, self._tokens)


def _beginning(text: str, stops: Sequence[str]) -> int:
    """How many of the last characters may be the beginning of a stop text."""
    longest = max((len(stop) for stop in stops), default=1) - 1
    for count in range(min(longest, len(text)), 0, -1):
        if any(stop.startswith(text[-count:]) for stop in stops):
            return count
    return 0
