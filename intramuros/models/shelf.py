"""The shelf: what a person is shown of the cards, and taking one away. Prints nothing itself."""

from pathlib import Path

import msgspec

from intramuros.errors import CannotDo, NotFound
from intramuros.models import catalog, pins, prepare, store
from intramuros.models.catalog import Admitted, Card, Carrier, Hub
from intramuros.models.pull import is_pulled
from intramuros.models.store import gigabytes


class Row(msgspec.Struct, frozen=True):
    """One line of `models list`, every field ready to print."""

    name: str
    parameters: str
    size: str
    state: str  # prepared, pulled, '' or 'not served'
    verbs: str
    languages: str
    licence: str
    from_where: str


def rows(home: Path) -> list[Row]:
    return [
        Row(
            name=card.name,
            parameters=_parameters(card),
            size=_size(card),
            state=state(card, home),
            verbs=" ".join(card.verbs),
            languages=_languages(card),
            licence=card.licence,
            from_where=", ".join(_kind(source) for source in card.sources),
        )
        for card in catalog.cards(home).values()
    ]


def state(card: Card, home: Path) -> str:
    """How far a card is: prepared, pulled, nothing yet, or not served by this version."""
    try:
        catalog.require_served(card)
    except CannotDo:
        return "not served"
    if card.sha256 and prepare.prepared(card, home):
        return "prepared"
    return "pulled" if is_pulled(card, home) else ""


def show(card: Card, home: Path) -> str:
    """All that is known of a card, a line each."""
    lines = [
        ("name", card.name),
        ("family", card.family),
        ("parameters", f"{card.parameters:,}"),
        ("size", f"{_size(card)} ({card.size:,} bytes)" if card.sha256 else _size(card)),
        ("licence", card.licence),
        ("languages", ", ".join(card.languages) or "not stated"),
        ("context", f"{card.context:,} tokens"),
        ("verbs", ", ".join(card.verbs)),
        ("template", card.template or "none that is available"),
        ("file", card.file),
        ("SHA-256", card.sha256 or "pinned at the first pull"),
        *(("source", _source(source)) for source in card.sources),
        ("state", _state(card, home)),
        *_prepared(card, home),
        ("note", card.note),
    ]
    return "\n".join(f"{name:<11} {value}" for name, value in lines if value)


def remove(name: str, home: Path, forget: bool = False) -> str:
    """Delete a card's weights and what was prepared; gives a sentence.

    A hub pin is kept, so that the same name must bring the same bytes again, unless `forget`. An
    admitted card goes with its weights.
    """
    card = catalog.find(name, home)
    if not card.sha256 and not forget:
        raise NotFound(f"{name!r} is not in the store, so there is nothing to remove")
    shared = [
        other.name
        for other in catalog.cards(home).values()
        if card.sha256 and other.sha256 == card.sha256 and other.name != name
    ]
    freed = store.remove(home, card.sha256) if card.sha256 and not shared else 0
    for source in card.sources:
        if isinstance(source, Carrier):
            freed += store.discard(home, [wheel.sha256 for wheel in source.wheels])
        if isinstance(source, Hub) and forget:
            pins.drop(home, pins.key(source.repo, source.file, source.revision))
    if card.origin == "admitted":
        with store.locked(home, "cards"):
            catalog.forget(name, home)
        kept = f"; its weights stay for {', '.join(shared)}" if shared else ""
        return f"{name} was removed, {gigabytes(freed) if freed else 'nothing'} freed{kept}"
    if not freed and not forget:
        raise NotFound(f"{name!r} is not in the store, so there is nothing to remove")
    return f"the weights of {name} were removed, {gigabytes(freed) if freed else 'nothing'} freed"


def _state(card: Card, home: Path) -> str:
    now = state(card, home)
    return now or "not in the store: intramuros models pull " + card.name


def _prepared(card: Card, home: Path) -> list[tuple[str, str]]:
    done = prepare.prepared(card, home) if card.sha256 else None
    if not done:
        return []
    return [
        ("digest", done.digest),
        ("GGUF", str(done.gguf)),
        ("OpenVINO", prepare.openvino_refusal(card, home) or str(done.openvino)),
        ("on disk", gigabytes(store.held(home, card.sha256))),
    ]


def _parameters(card: Card) -> str:
    if card.parameters >= 1e9:
        return f"{card.parameters / 1e9:.1f} B"
    return f"{card.parameters / 1e6:.0f} M" if card.parameters else "?"


def _size(card: Card) -> str:
    return gigabytes(card.size) if card.sha256 else f"about {gigabytes(card.size)}"


def _languages(card: Card) -> str:
    named = [language for language in card.languages if language != "multilingual"]
    return ", ".join(named) if len(named) <= 2 else f"{len(named)} languages"


def _kind(source: catalog.Source) -> str:
    return {Hub: "hub", Carrier: "PyPI", Admitted: "file"}[type(source)]


def _source(source: catalog.Source) -> str:
    if isinstance(source, Hub):
        return f"hub: hf:{source.repo}/{source.file}@{source.revision}"
    if isinstance(source, Carrier):
        count, first = len(source.wheels), source.wheels[0].file
        return f"PyPI: {count} wheel{'s' * (count > 1)}, {first}" + (" and on" if count > 1 else "")
    return f"file: {source.path}"
