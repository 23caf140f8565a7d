"""llama.cpp in this process, through the xllamacpp wheels: any GGUF, on the chips they serve.

Prompts go in as token ids of our own (see prompt.vocabulary); the slots of its server answer
several asks together. The server that the library starts listens on a socket in a private folder,
which is removed at once, so nothing can reach it. Does not embed and does not search.
"""

import json
import os
import secrets
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import takewhile
from math import log, prod
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Lock
from typing import Any, Literal, NamedTuple

import xllamacpp

from intramuros.engine import Admit, Can, always, require
from intramuros.errors import Broken, CannotDo, CorruptWeights
from intramuros.models.prepared import Prepared
from intramuros.prompt import record, trie
from intramuros.prompt.encoder import Encoder, too_long
from intramuros.settings import Settings
from intramuros.types import Answer, Ask, Choice, Choose, Failure, Fill, Piece, Say, Usage, Value

Finish = Literal["stop", "length"]

SLOTS = 4
"""Asks answered at the same time; each has a whole context of its own."""

READ_TOGETHER = 512
"""Tokens of a prompt that are read in one step."""

LIFT = 200.0
"""Added to the logits of a fork's children, so that they are the likeliest; their ratios stay."""

AHEAD = 40.0
"""How far the decoy is lifted beyond them: it is sampled, and their ratios keep all digits."""

NEGLIGIBLE = 1e-4
"""A fork that is reached with less probability is not read: its children share that evenly."""

SMALLEST = 1e-30
"""Stands for a probability that was rounded to 0, whose logarithm there is not."""

GREEDY = {"temperature": 0.0, "samplers": ["temperature"]}

COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""How a record is spaced. Where any whitespace may stand, small models write it to the end."""


def load(prepared: Prepared, settings: Settings) -> "LlamaCpp":
    """Load prepared weights; raises CorruptWeights where llama.cpp does not read the file."""
    return LlamaCpp(prepared, settings)


class LlamaCpp:
    """One card's weights, and the slots that read and write with them."""

    name = "llamacpp"

    def __init__(self, prepared: Prepared, settings: Settings) -> None:
        context = min(settings.context, prepared.context)
        self.card = prepared.card
        self.can = Can(verbs=frozenset({"say", "choose", "fill"}), context=context, streaming=True)
        self._encoder = Encoder(prepared)
        self.identity = (
            f"{prepared.digest} llamacpp {xllamacpp.__version__} {self._encoder.wording}"
        )
        self._held = lru_cache(64)(self._is_held)
        self._free = [_Slot(number) for number in range(SLOTS)]
        self._taking = Lock()
        self._reading = Lock()
        self._server: Any = _server(prepared.gguf, context, settings.threads)
        self._threads = ThreadPoolExecutor(SLOTS, thread_name_prefix="llamacpp")

    def generate(self, asks: Sequence[Ask], admit: Admit = always) -> Iterator[Piece]:
        require(self, asks)
        pieces: SimpleQueue[Piece | BaseException] = SimpleQueue()
        abandoned = Event()
        waiting = deque(enumerate(asks))
        taken = 0
        try:
            while True:
                while waiting and taken < SLOTS:
                    if not admit():
                        waiting.clear()
                        break
                    self._threads.submit(self._answer, *waiting.popleft(), pieces.put, abandoned)
                    taken += 1
                if not taken:
                    return
                piece = pieces.get()
                if isinstance(piece, BaseException):
                    raise piece
                taken -= piece.answer is not None
                yield piece
        finally:
            abandoned.set()

    def count(self, text: str) -> int:
        return len(self._encoder.text(text))

    def close(self) -> None:
        self._threads.shutdown()
        self._held.cache_clear()
        self._server = None

    def _answer(
        self, row: int, ask: Ask, put: Callable[[Piece | BaseException], None], abandoned: Event
    ) -> None:
        """Put the pieces of one ask, in a thread of the pool."""
        if abandoned.is_set():
            return

        def show(text: str) -> bool:
            """Pass a piece on; True stops the writing."""
            put(Piece(row, text))
            return abandoned.is_set()

        try:
            match ask:
                case Choose():
                    reply = self._choose(ask, abandoned)
                case Fill():
                    reply = self._fill(ask, abandoned)
                case Say():
                    reply = self._say(ask, show)
                case _:
                    raise CannotDo(f"llamacpp cannot answer {ask!r}")
        except UnicodeEncodeError:
            reply = Failure("not_unicode", "the text holds half a character")
        except BaseException as error:
            put(error)
            return
        put(Piece(row, answer=reply))

    def _say(self, ask: Say, show: Callable[[str], bool]) -> Answer | Failure:
        sampling = {
            "temperature": ask.temperature,
            "top_p": ask.top_p,
            "samplers": ["temperature", "top_p"],
            "seed": secrets.randbits(31) if ask.seed is None else ask.seed,
        }
        stop = [text for text in ask.stop if text]
        request = {**(sampling if ask.temperature > 0 else GREEDY), "stop": stop}
        written = self._write(ask, request, show, ask.truncate)
        return written if isinstance(written, Failure) else self._answered(*written)

    def _fill(self, ask: Fill, abandoned: Event) -> Answer | Failure:
        schema = record.schema_of(ask.schema)
        if isinstance(schema, Failure):
            return schema
        request = {**GREEDY, "json_schema": {**schema, "x-guidance": COMPACT}}
        if not self._held(ask.schema):
            return Failure(
                "schema",
                "llama.cpp cannot hold an answer to this schema",
                "leave out its rarer keywords, such as uniqueItems and not",
            )
        written = self._write(ask, request, lambda text: abandoned.is_set())
        if isinstance(written, Failure):
            return written
        filled = record.record_of(written.value, schema)
        return filled if isinstance(filled, Failure) else self._answered(filled, written.usage)

    def _choose(self, ask: Choose, abandoned: Event) -> Answer | Failure:
        """Read the prompt once, and behind it each fork of the options that is likely reached.

        One choice reads at a time, so that its logits do not depend on what is asked beside it;
        nothing is lost by that, because reading one prompt already keeps the processor busy.
        """
        tree = self._encoder.trie(ask.options)
        ids = self._encoder.prompt(ask, tree.numbered)
        room = self.can.context - max((len(fork.path) for fork in tree.forks), default=0) - 1
        if len(ids) > room:
            return too_long(len(ids), room)
        chances: dict[trie.Path, dict[int, float]] = {}
        usage = Usage()
        with self._reading, self._slot(ids) as slot:
            for path, children in tree.forks:
                reach = prod(
                    chances[path[:depth]][token]
                    for depth, token in enumerate(path)
                    if path[:depth] in chances
                )
                if reach < NEGLIGIBLE:
                    chances[path] = dict.fromkeys(children, 1 / len(children))
                    continue
                if abandoned.is_set():
                    return Failure("abandoned", "nobody waits for this answer")
                reply = self._complete(
                    slot, [*ids, *path], _one_of(children, self._encoder.opening)
                )
                if isinstance(reply, Failure):
                    return reply
                chances[path] = _chances(reply, children)
                usage = usage if path else _usage(reply)
        logits = {
            path: [log(max(chances[path][child], SMALLEST)) for child in children]
            for path, children in tree.forks
        }
        probabilities = tree.probabilities(logits)
        label = max(probabilities, key=probabilities.__getitem__)
        return self._answered(Choice(label, probabilities, tree.numbered), usage)

    def _write(
        self,
        ask: Say | Fill,
        request: dict[str, Any],
        show: Callable[[str], bool],
        truncate: bool = False,
    ) -> "_Written | Failure":
        ids = self._encoder.prompt(ask)
        room = self.can.context - min(ask.max_tokens, self.can.context // 2)
        if len(ids) > room:
            return too_long(len(ids), room)
        limit = min(ask.max_tokens, self.can.context - len(ids))
        texts: list[str] = []

        def take(text: str) -> bool:
            texts.append(text)
            return show(text) if text else False

        with self._slot(ids) as slot:
            reply = self._complete(slot, ids, {**request, "n_predict": limit}, take)
        if isinstance(reply, Failure):
            return reply
        unfinished = reply["choices"][0]["finish_reason"] == "length"
        usage = _usage(reply)
        if unfinished and not truncate:
            return Failure(
                "unfinished",
                f"the answer was not finished after {limit} tokens",
                "allow more tokens, or ask for less",
                tokens=usage.completion_tokens,
                limit=limit,
            )
        return _Written("".join(texts), usage, "length" if unfinished else "stop")

    def _complete(
        self,
        slot: "_Slot",
        ids: list[int],
        request: dict[str, Any],
        take: Callable[[str], bool] | None = None,
    ) -> dict[str, Any] | Failure:
        """Send a request to the library; with `take`, give it the texts as they are written."""
        reuse = slot.shared(ids) > 0
        slot.ids = ids
        body = {"prompt": ids, "id_slot": slot.number, "cache_prompt": reuse, **request}
        reply: dict[str, Any] = {}
        if take is None:
            reply = self._server.handle_completions(body)
        else:

            def each(chunk: dict[str, Any]) -> bool:
                reply.update(chunk)
                return "error" in chunk or take(chunk["choices"][0]["text"])

            self._server.handle_completions({**body, "stream": True}, each)
        if "error" in reply:
            return Failure("engine", f"llama.cpp: {reply['error']['message']}")
        return reply

    @contextmanager
    def _slot(self, ids: list[int]) -> Iterator["_Slot"]:
        """The free slot that has read most of what `ids` begins with.

        A token that is read alone gets slightly other logits than one read among others. So where
        one alone would be left to read (the same prompt again), the slot reads all of it anew.
        """
        with self._taking:
            slot = max(self._free, key=lambda slot: slot.shared(ids))
            self._free.remove(slot)
        if max(len(ids) - slot.shared(ids), 1) % READ_TOGETHER == 1:
            slot.ids = []
        try:
            yield slot
        finally:
            with self._taking:
                self._free.append(slot)

    def _is_held(self, schema: str) -> bool:
        """Whether the library makes a grammar of a schema; it ignores those it cannot read.

        Tried by asking for a letter in a record's place: only a grammar prevents it.
        """
        letter = self._encoder.text("x")
        request = {
            **GREEDY,
            "json_schema": {**json.loads(schema), "x-guidance": COMPACT},
            "logit_bias": [[letter[0], LIFT]],
            "n_predict": 1,
        }
        with self._slot(letter) as slot:
            reply = self._complete(slot, letter, request)
        return not isinstance(reply, Failure) and reply["choices"][0]["text"].startswith("{")

    def _answered(self, value: Value, usage: Usage, finish: Finish = "stop") -> Answer:
        return Answer(value, usage, self.card, self.name, finish)


class _Written(NamedTuple):
    value: str
    usage: Usage
    finish: Finish


class _Slot:
    """One of the server's sequences; `ids` is what it read last and need not read again."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.ids: list[int] = []

    def shared(self, ids: list[int]) -> int:
        """With how many of the tokens that it has read `ids` begins."""
        same = (mine == other for mine, other in zip(self.ids, ids, strict=False))
        return sum(1 for _ in takewhile(bool, same))


def _server(gguf: Path, context: int, threads: int) -> Any:
    """Start the library's server on the weights, where nobody can connect to it."""
    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.n_ctx = context * SLOTS
    params.n_parallel = SLOTS
    params.n_ubatch = READ_TOGETHER
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads or -1
    # With its flash attention the logits of a prompt depend on what was read before and beside it
    # (probabilities moved by up to 0.08); without, reading takes a fifth to a third more time.
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.verbosity = 0
    params.offline = True
    params.ui = params.endpoint_slots = params.enable_chat_template = params.use_jinja = False
    params.cache_ram_mib = params.n_ctx_checkpoints = (
        0  # slots keep what they read; no second cache
    )
    params.api_keys = [secrets.token_urlsafe()]
    with tempfile.TemporaryDirectory(prefix="intramuros-") as folder:
        if os.name != "nt":
            params.hostnames = [f"{folder}/unreachable.sock"]
        try:
            return xllamacpp.Server(params)
        except Exception as error:
            raise CorruptWeights(
                f"llama.cpp cannot load {gguf}: {error}",
                hint="pull the model again; a file of a new kind may need a newer xllamacpp",
            ) from error


def _one_of(children: Sequence[int], decoy: int) -> dict[str, Any]:
    """The request that compares the logits of `children`.

    It samples the decoy, a token without text: a sampled token that ends within a character would
    come back without probabilities.
    """
    lifted = [[child, LIFT] for child in children]
    return {
        "n_predict": 1,
        "logit_bias": [*lifted, [decoy, LIFT + AHEAD]],
        "samplers": ["top_k"],
        "top_k": len(children) + 1,
        "n_probs": len(children) + 1,
        "post_sampling_probs": True,
        "seed": 0,
    }


def _chances(reply: dict[str, Any], children: Sequence[int]) -> dict[int, float]:
    """The probability of each child in a reply to `_one_of`."""
    first = reply["choices"][0]["logprobs"]["content"][0]
    found = {token["id"]: token["prob"] for token in first["top_probs"]}
    try:
        total = sum(found[child] for child in children)
        return {child: found[child] / total for child in children}
    except (KeyError, ZeroDivisionError) as error:
        raise Broken("llama.cpp compared other tokens than it was asked to") from error


def _usage(reply: dict[str, Any]) -> Usage:
    usage = reply["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return Usage(usage["prompt_tokens"], usage["completion_tokens"], cached)
