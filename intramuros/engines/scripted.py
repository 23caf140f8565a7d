"""An engine without a model: it says what it is told. For tests, documentation and dry runs.

Without a script it gives the first option, repeats the text, or fills the smallest record that the
schema allows, so that a dry run shows what would be asked. It does not judge anything.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from intramuros.engine import Admit, Can, always, require
from intramuros.models.prepared import Prepared
from intramuros.settings import Settings
from intramuros.types import Answer, Ask, Choice, Choose, Embed, Failure, Fill, Piece, Say, Usage

Reply = str | Choice | dict[str, Any] | list[float] | Answer | Failure
Script = Callable[[Ask], Reply]

NEEDS_WEIGHTS = False


def load(prepared: Prepared | None, settings: Settings) -> "Scripted":
    return Scripted(first_of_all)


class Scripted:
    """Answers with `script(ask)`; keeps every ask it was given in `asked`, batch by batch."""

    name = "scripted"
    card = "scripted"
    identity = "scripted"

    def __init__(self, script: Script, keep_asked: bool = True) -> None:
        self.script = script
        self.keep_asked = keep_asked
        self.asked: list[list[Ask]] = []
        self.can = Can(
            verbs=frozenset({"say", "choose", "fill", "embed"}), context=1_000_000, streaming=True
        )

    def generate(self, asks: Sequence[Ask], admit: Admit = always) -> Iterator[Piece]:
        require(self, asks)
        if self.keep_asked:
            self.asked.append(list(asks))
        for row, ask in enumerate(asks):
            if not admit():
                return
            reply = self.script(ask)
            if isinstance(reply, Answer | Failure):
                yield Piece(row, answer=reply)
                continue
            if isinstance(ask, Choose) and isinstance(reply, str):
                reply = certain(reply, ask.options)
            if isinstance(ask, Say) and isinstance(reply, str):
                yield Piece(row, text=reply)
            yield Piece(
                row,
                answer=Answer(
                    reply,
                    usage=Usage(prompt_tokens=1, completion_tokens=1),
                    card=self.card,
                    engine=self.name,
                ),
            )

    def count(self, text: str) -> int:
        return len(text.split())

    def close(self) -> None:
        self.asked.clear()


def certain(label: str, options: Sequence[str]) -> Choice:
    """The choice of `label` with probability 1."""
    return Choice(label, {option: float(option == label) for option in options})


def first_of_all(ask: Ask) -> Reply:
    """The reply of a dry run."""
    match ask:
        case Choose(options=options):
            return certain(options[0], options)
        case Fill(schema=schema):
            record = smallest(json.loads(schema))
            return record if isinstance(record, dict) else {}
        case Embed():
            return [1.0]
        case Say(prompt=prompt):
            return prompt.document if prompt.document is not None else prompt.question
    return Failure("cannot", "the scripted engine has no documents to search")


def smallest(schema: dict[str, Any]) -> Any:
    """A small value that a schema of the usual keywords allows."""
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return smallest(schema["anyOf"][0])
    kinds = schema.get("type", "object")
    kind = kinds[0] if isinstance(kinds, list) else kinds
    if kind == "object":
        required = schema.get("required", [])
        properties = schema.get("properties", {})
        return {name: smallest(properties.get(name, {"type": "null"})) for name in required}
    empty: dict[str, Any] = {"string": "", "integer": 0, "number": 0.0, "boolean": False}
    return [] if kind == "array" else empty.get(kind)
