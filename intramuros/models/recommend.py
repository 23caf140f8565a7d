"""Recommend: the best card for this machine's memory and these languages, and why.

Goes by size, because among cards of this kind the larger one answers better; among equals, the one
whose bytes are known. Does not measure: what a card is worth on your task, `evaluate` finds out.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from intramuros.errors import BadArgument, CannotDo, NotFound
from intramuros.models import catalog
from intramuros.models.catalog import Card, Carrier
from intramuros.models.store import gigabytes
from intramuros.types import Verb

SHARE = 0.9  # of the memory; the rest is the system's
GROWTH = 5.3  # memory that preparing takes at its highest, against the file of 4 bits (seen: 5.2)


class Recommendation(msgspec.Struct, frozen=True):
    card: Card
    why: str

    def __str__(self) -> str:
        return self.why


def memory() -> int:
    """Bytes of memory this process may use: the machine's, or the container's limit if lower."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return min(physical, int(Path(limit).read_text()))
        except (OSError, ValueError):  # no such limit, or the word "max"
            continue
    return physical


def needed(card: Card) -> int:
    """Memory a card needs at its highest point, which is when it is prepared."""
    return int(card.size * GROWTH)


def recommend(
    memory_bytes: int | None,
    home: Path,
    languages: Sequence[str] = (),
    needs: Iterable[Verb] = ("say", "choose", "fill"),
    offline: bool = False,
) -> Recommendation:
    """Name the best card that fits in that memory (None: this machine's).

    `offline` leaves out the cards that only the hub has.
    """
    available = memory() if memory_bytes is None else memory_bytes
    if available <= 0:
        raise BadArgument(f"memory is a number of bytes above 0, not {available}")
    wanted = {language.lower() for language in languages}
    able = [card for card in catalog.cards(home).values() if _serves(card, wanted, set(needs))]
    if offline:
        able = [card for card in able if _carried(card) or card.origin == "admitted"]
    if not able:
        what = f"languages {', '.join(sorted(wanted))}" if wanted else "these needs"
        raise NotFound(f"no card of the catalogue meets {what}", hint="intramuros models list")
    fitting = [card for card in able if needed(card) <= available * SHARE]
    if not fitting:
        least = min(able, key=needed)
        raise CannotDo(
            f"no card fits in {gigabytes(available)} of memory: the smallest, {least.name!r}, "
            f"needs {gigabytes(needed(least))} and some for the system",
            hint="use a machine with more memory, or name a card yourself",
        )
    best = max(fitting, key=lambda card: (card.parameters, bool(card.sha256), card.size))
    return Recommendation(best, _why(best, able, available))


def _serves(card: Card, languages: set[str], needs: set[Verb]) -> bool:
    try:
        catalog.require_served(card)
    except CannotDo:
        return False
    return needs <= set(card.verbs) and languages <= set(card.languages)


def _carried(card: Card) -> bool:
    return any(isinstance(source, Carrier) for source in card.sources)


def _why(best: Card, able: Sequence[Card], available: int) -> str:
    why = (
        f"{best.name} is the largest card that fits: preparing it takes about "
        f"{gigabytes(needed(best))} of {gigabytes(available)} of memory. "
        f"Its licence: {best.licence}."
    )
    larger = [card for card in able if needed(card) > available * SHARE]
    if larger:
        following = min(larger, key=needed)
        why += f" The next, {following.name}, takes {gigabytes(needed(following))}."
    if not _carried(best) and best.origin == "shipped":
        why += " It comes from the hub only."
    smaller = [card for card in able if card.parameters < best.parameters]
    if best.parameters > 4e9 and smaller:
        why += " On a processor without a graphics card a smaller one answers sooner: measure both."
    return why
