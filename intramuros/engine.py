"""The contract of an engine, and Guard, the wrapper that every guard extends.

An engine answers a batch of asks. A chat is a batch of one, streaming is not a second path, and
pieces carry the number of their ask, so an engine may answer out of order.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from intramuros.errors import CannotDo
from intramuros.types import Ask, Piece, Verb

Admit = Callable[[], bool]
"""Asked before an engine takes more asks of its batch in hand. False: finish what is in flight,
answer nothing further, and return. Asks that were never taken get no piece at all."""


def always() -> bool:
    return True


class Can(msgspec.Struct, frozen=True):
    """What an engine can do with one card: data, read before anything is asked."""

    verbs: frozenset[Verb]
    context: int  # tokens of prompt and answer together
    streaming: bool = False
    probabilities: bool = True  # `choose` gives them
    lora: bool = False
    inside: bool = True  # the walls


class Engine(Protocol):
    """Answers asks with one card's weights.

    `identity` names all that changes an answer apart from the ask: digest of the prepared
    weights, engine and its version, template. It is part of the ledger's key.

    `generate` yields pieces of text where the engine streams, and for each ask it took exactly one
    piece with an Answer or a Failure. It raises only when no ask can be answered at all (the model
    is gone); what is wrong with one ask is that ask's Failure. `count` gives the tokens of a text.
    """

    name: str
    card: str
    identity: str
    can: Can

    def generate(self, asks: Sequence[Ask], admit: Admit = always) -> Iterator[Piece]: ...

    def count(self, text: str) -> int: ...

    def close(self) -> None: ...


class Guard:
    """Has the shape of what it surrounds; a guard overrides `generate` and leaves the rest."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.name = engine.name
        self.card = engine.card
        self.identity = engine.identity
        self.can = engine.can

    def generate(self, asks: Sequence[Ask], admit: Admit = always) -> Iterator[Piece]:
        return self.engine.generate(asks, admit)

    def count(self, text: str) -> int:
        return self.engine.count(text)

    def close(self) -> None:
        self.engine.close()


class ByVerb(Guard):
    """Sends each ask to the engine that serves its verb; the same weights, whichever answers."""

    def __init__(self, engines: Mapping[Verb, Engine]) -> None:
        super().__init__(next(iter(engines.values())))
        self.engines = dict(engines)
        verbs = frozenset(verb for verb, engine in engines.items() if verb in engine.can.verbs)
        self.can = msgspec.structs.replace(
            self.can, verbs=verbs, context=min(engine.can.context for engine in engines.values())
        )

    def generate(self, asks: Sequence[Ask], admit: Admit = always) -> Iterator[Piece]:
        require(self, asks)
        rows: dict[Verb, list[int]] = {}
        for row, ask in enumerate(asks):
            rows.setdefault(verb_of(ask), []).append(row)
        for verb, own in rows.items():
            for piece in self.engines[verb].generate([asks[row] for row in own], admit):
                yield msgspec.structs.replace(piece, row=own[piece.row])

    def close(self) -> None:
        for engine in {id(engine): engine for engine in self.engines.values()}.values():
            engine.close()


def verb_of(ask: Ask) -> Verb:
    """The verb of an ask, as `Can.verbs` names it."""
    return type(ask).__struct_config__.tag  # type: ignore[return-value]


def require(engine: Engine, asks: Sequence[Ask]) -> None:
    """Refuse a batch with a verb the engine cannot answer, before any of it is asked."""
    missing = {verb_of(ask) for ask in asks} - engine.can.verbs
    if missing:
        raise CannotDo(
            f"{engine.card!r} on engine {engine.name!r} cannot {', '.join(sorted(missing))}",
            hint="intramuros models list shows what each card can do",
        )
