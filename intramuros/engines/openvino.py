"""OpenVINO in this process: texts by continuous batching, choices by comparing logits.

Two models are made of the same weights, each when it is first needed: one that writes (`say` and
`fill`, see runtime.writing) and one that compares (`choose`, see runtime.choosing). Reads what
models.prepare made, on the processor. Does not embed and does not search.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.metadata import version
from threading import Lock, RLock

from intramuros.engine import Admit, Can, always, require
from intramuros.errors import CannotDo, CorruptWeights
from intramuros.models.prepared import Prepared
from intramuros.prompt import record, template, trie, vocabulary
from intramuros.runtime.choosing import Chooser, Chosen, Row
from intramuros.runtime.reading import Reader
from intramuros.runtime.signals import signal_stack_kept
from intramuros.runtime.writing import Growth, Order, Writer
from intramuros.settings import Settings
from intramuros.types import Answer, Ask, Choice, Choose, Failure, Fill, Piece, Say, Usage


def load(prepared: Prepared, settings: Settings) -> "OpenVino":
    """Take prepared weights; raises CorruptWeights where OpenVINO's form of them is missing."""
    return OpenVino(prepared, settings)


class OpenVino:
    """One card's weights."""

    name = "openvino"

    def __init__(self, prepared: Prepared, settings: Settings) -> None:
        if not (prepared.openvino / "openvino_model.xml").exists():
            raise CorruptWeights(
                f"{prepared.openvino} holds no model in OpenVINO's form",
                hint="remove the model and pull it again, or use the engine llamacpp",
            )
        context = min(settings.context, prepared.context)
        self.card = prepared.card
        self.can = Can(verbs=frozenset({"say", "choose", "fill"}), context=context, streaming=True)
        self.identity = (
            f"{prepared.digest} openvino {version('openvino')} genai {version('openvino_genai')}"
            f" f32 {prepared.template} {template.wording(template.TEMPLATES[prepared.template])}"
        )
        self._folder = prepared.openvino
        self._threads = settings.threads
        self._template = template.TEMPLATES[prepared.template]
        self._vocabulary = vocabulary.read(prepared.gguf)
        self._controls = self._vocabulary.controls
        for token in (self._template.opening, self._template.end):
            if token not in self._controls:
                raise CannotDo(
                    f"the vocabulary of {prepared.card!r} has no {token!r}",
                    hint=f"its turns are not marked as the template {prepared.template!r} says",
                )
        self._pattern = template.control_pattern(self._controls)
        self._trie = lru_cache(64)(self._build_trie)
        self._held = lru_cache(256)(self._is_held)
        self._loading = Lock()
        self._comparing = RLock()
        self._chooser: Chooser | None = None
        self._writer: Writer | None = None

    def generate(self, asks: Sequence[Ask], admit: Admit = always) -> Iterator[Piece]:
        require(self, asks)
        orders: list[Order] = []
        rows: list[Row] = []
        refused: list[Piece] = []
        for number, ask in enumerate(asks):
            match self._taken(number, ask):
                case Row() as row:
                    rows.append(row)
                case Order() as order:
                    orders.append(order)
                case Failure() as failure:
                    refused.append(Piece(number, answer=failure))
        if refused and admit():
            yield from refused
        if orders:
            yield from self._write(orders, asks, admit)
        if rows:
            yield from self._choose(rows, admit)

    def count(self, text: str) -> int:
        return len(self._encode_text(text))

    def close(self) -> None:
        self._trie.cache_clear()
        self._held.cache_clear()
        with signal_stack_kept():
            self._chooser = self._writer = None

    def __del__(self) -> None:
        if hasattr(self, "_writer"):
            self.close()

    def _taken(self, number: int, ask: Ask) -> Row | Order | Failure:
        """An ask as token ids, or why it cannot be answered."""
        try:
            return self._row(number, ask) if isinstance(ask, Choose) else self._order(number, ask)
        except UnicodeEncodeError:
            return Failure("not_unicode", "the text holds half a character")

    def _row(self, number: int, ask: Choose) -> Row | Failure:
        tree = self._trie(ask.options)
        ids = self._encode(ask, tree.numbered)
        room = self.can.context - max((len(fork.path) for fork in tree.forks), default=0) - 1
        return too_long(len(ids), room) if len(ids) > room else Row(number, tuple(ids), tree)

    def _order(self, number: int, ask: Ask) -> Order | Failure:
        assert isinstance(ask, Say | Fill)
        ids = self._encode(ask)
        room = self.can.context - min(ask.max_tokens, self.can.context // 2)
        if len(ids) > room:
            return too_long(len(ids), room)
        limit = min(ask.max_tokens, self.can.context - len(ids))
        if isinstance(ask, Fill):
            schema = record.schema_of(ask.schema)
            if isinstance(schema, Failure):
                return schema
            if not self._held(ask.schema):
                return Failure(
                    "schema",
                    "OpenVINO cannot hold an answer to this schema",
                    "leave out its rarer keywords, such as look-ahead in a pattern",
                )
            return Order(number, ids, limit, schema=ask.schema)
        stop = tuple(text for text in ask.stop if text)
        return Order(number, ids, limit, ask.temperature, ask.top_p, ask.seed, stop)

    def _choose(self, rows: list[Row], admit: Admit) -> Iterator[Piece]:
        by_number = {row.number: row for row in rows}
        with self._loading:
            if self._chooser is None:
                with signal_stack_kept():
                    self._chooser = Chooser(Reader(self._folder, self._threads))
            chooser = self._chooser
        batches = chooser.choose(rows, admit)
        while True:
            with self._comparing:
                batch = next(batches, None)
            if batch is None:
                return
            for chosen in batch:
                yield Piece(chosen.number, answer=self._chosen(by_number[chosen.number], chosen))

    def _chosen(self, row: Row, chosen: Chosen) -> Answer:
        label = max(chosen.probabilities, key=chosen.probabilities.__getitem__)
        usage = Usage(len(row.ids), 1, chosen.cached)
        choice = Choice(label, chosen.probabilities, row.tree.numbered)
        return Answer(choice, usage, self.card, self.name)

    def _write(self, orders: list[Order], asks: Sequence[Ask], admit: Admit) -> Iterator[Piece]:
        by_number = {order.number: order for order in orders}
        texts = dict.fromkeys(by_number, "")
        for growth in self._loaded_writer().write(orders, admit):
            number = growth.number
            texts[number] += growth.text
            if growth.text and isinstance(asks[number], Say):
                yield Piece(number, growth.text)
            if growth.end:
                answer = self._written(asks[number], by_number[number], texts.pop(number), growth)
                yield Piece(number, answer=answer)

    def _is_held(self, schema: str) -> bool:
        return self._loaded_writer().holds(schema)

    def _loaded_writer(self) -> Writer:
        with self._loading:
            if self._writer is None:
                with signal_stack_kept():
                    ends = self._ends()
                    self._writer = Writer(self._folder, self.can.context, self._threads, ends)
            return self._writer

    def _written(self, ask: Ask, order: Order, text: str, last: Growth) -> Answer | Failure:
        if last.end == "memory":
            return Failure(
                "no_memory",
                f"the keys and values of {len(order.ids)} tokens do not fit beside those of others",
                "ask for fewer rows at once, or lower the setting context",
            )
        usage = Usage(len(order.ids), last.tokens)
        if last.end == "length" and not (isinstance(ask, Say) and ask.truncate):
            return Failure(
                "unfinished",
                f"the answer was not finished after {order.limit} tokens",
                "allow more tokens, or ask for less",
                tokens=last.tokens,
                limit=order.limit,
            )
        if isinstance(ask, Say):
            return Answer(text, usage, self.card, self.name, last.end or "stop")
        schema = record.schema_of(order.schema)
        filled = schema if isinstance(schema, Failure) else record.record_of(text, schema)
        return (
            filled if isinstance(filled, Failure) else Answer(filled, usage, self.card, self.name)
        )

    def _ends(self) -> list[int]:
        """Tokens that close an answer: the template's, and one that small models write too."""
        names = (self._template.end, "<|endoftext|>")
        return [self._controls[name] for name in names if name in self._controls]

    def _encode(self, ask: Ask, numbered: bool = False) -> list[int]:
        assert isinstance(ask, Say | Choose | Fill)
        segments = template.render(ask, self._template, numbered)
        return template.encode(
            segments, self._pattern, self._vocabulary.encode_text, self._controls
        )

    def _encode_text(self, text: str) -> list[int]:
        segments = [template.Segment(text, control=False)]
        return template.encode(
            segments, self._pattern, self._vocabulary.encode_text, self._controls
        )

    def _build_trie(self, options: tuple[str, ...]) -> trie.Trie:
        return trie.build(options, self._encode_text, self._controls[self._template.end])


def too_long(tokens: int, limit: int) -> Failure:
    return Failure(
        "too_long",
        f"the prompt has {tokens} tokens, and {limit} fit beside the answer",
        "shorten the text, or raise the setting context if the card allows it",
        tokens=tokens,
        limit=limit,
    )
