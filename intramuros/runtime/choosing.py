"""Compare the options of many prompts together: shared beginnings are read once, then forked.

Rows that begin alike are a group. A group's beginning is read once; its rows continue from there
in sub-batches of like lengths; the forks of their options continue from the rows. Does not encode,
and does not know what an ask is.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from intramuros.prompt.trie import Fork, Trie, softmax
from intramuros.prompt.trie import Path as Branch
from intramuros.runtime.reading import NOTHING, Floats, Reader, State

Ids = tuple[int, ...]
Logits = dict[Branch, list[float]]

TOKENS = 384
"""Most tokens of a sub-batch, padding included."""

HELD = 8192
"""Most tokens whose keys and values a sub-batch holds; each costs 25 kB on a 0.5B model."""

KEPT = 4
"""Beginnings that are remembered from one batch to the next."""

WORTHWHILE = 16
"""A beginning that is shorter, or hardly longer than one that is known, is read with each row."""

NEGLIGIBLE = 1e-4
"""A fork that is reached with less probability is not read: its children share that evenly."""


class Row(NamedTuple):
    number: int
    ids: Ids
    tree: Trie


class Chosen(NamedTuple):
    """What became of a row; `cached` of its tokens were read for another."""

    number: int
    probabilities: dict[str, float]
    cached: int


class Group(NamedTuple):
    shared: int  # so many tokens, with which all rows begin
    rows: list[Row]


class _Place(NamedTuple):
    """A sequence of the batch in hand: the row it belongs to, and the options' tokens behind it."""

    row: int
    branch: Branch


class Chooser:
    """Answers rows with one reader; not safe for two threads at once."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._kept: dict[Ids, State] = {}
        self._single: Ids = ()

    def choose(self, rows: Sequence[Row], admit: Callable[[], bool]) -> Iterator[list[Chosen]]:
        """Answer every row, a sub-batch at a time; `admit` is asked before each."""
        for group in groups(rows):
            state: State | None = None
            for batch in _batches(group):
                if not admit():
                    return
                known = group.shared
                if state is None:
                    known, state = self._begin(group)
                yield self._answer(batch, state, known)

    def _begin(self, group: Group) -> tuple[int, State]:
        """Read a group's beginning; how much of it was known, and the state behind it.

        Of a row that is alone, what it shares with the last such row is its beginning: somebody
        asks row by row.
        """
        ids, shared = group.rows[0].ids, group.shared
        if len(group.rows) == 1:
            shared = min(_alike(ids, self._single), len(ids) - 1)
            self._single = ids
        begins = (kept for kept in self._kept if kept == ids[: len(kept)] and len(kept) <= shared)
        known = max(begins, key=len, default=())
        state = self._kept.get(known, NOTHING)
        if shared - len(known) >= WORTHWHILE:
            self._reader.restore(state)
            self._reader.extend([0], [ids[len(known) : shared]])
            state = self._reader.keep()
            if shared <= HELD // KEPT:
                self._kept[ids[:shared]] = state
                if len(self._kept) > KEPT:
                    del self._kept[next(iter(self._kept))]
        return len(known), state

    def _answer(self, batch: list[Row], state: State, known: int) -> list[Chosen]:
        """Probabilities of a sub-batch; `known` tokens had been read before its first row."""
        self._reader.restore(state)
        read = state.mask.shape[1]
        logits: list[Logits] = [{} for _ in batch]
        hidden = self._reader.extend([0] * len(batch), [row.ids[read:] for row in batch])
        places: list[_Place | None] = [_Place(number, ()) for number in range(len(batch))]
        self._descend(_Walk(batch, logits, may_fork=True), places, hidden)
        chosen: list[Chosen] = []
        for row, found in zip(batch, logits, strict=True):
            for fork in row.tree.forks:
                found.setdefault(fork.path, [0.0] * len(fork.children))
            cached = read if chosen else known
            chosen.append(Chosen(row.number, row.tree.probabilities(found), cached))
        return chosen

    def _descend(self, walk: "_Walk", places: list[_Place | None], hidden: Floats) -> None:
        """Compare the children at the forks where the sequences stand, then go down to the next.

        Where there is room, the sequences are forked and all next forks are read at once. Where
        there is not, they are read in turns, and what a turn read is hidden again: so a long prompt
        is never copied. A sequence that stands nowhere only keeps its place.
        """
        below: list[list[_Place]] = []
        for place, state in zip(places, hidden, strict=True):
            below.append([])
            if place is None:
                continue
            forks, logits = walk.batch[place.row].tree.forks, walk.logits[place.row]
            for fork in forks:
                if fork.path == place.branch:
                    logits[fork.path] = (self._reader.weights(fork.children) @ state).tolist()
            for path in _below(forks).get(place.branch, ()):
                if _reach(path, forks, logits) >= NEGLIGIBLE:
                    below[-1].append(_Place(place.row, path))
        count = sum(len(ways) for ways in below)
        if walk.may_fork and count * self._reader.length <= HELD:
            steps = [(parent, step) for parent, ways in enumerate(below) for step in ways]
            if steps:
                self._follow(walk, places, steps)
            return
        for turn in range(max(len(ways) for ways in below)):
            mark = self._reader.mark()
            ways_now = [ways[turn] if turn < len(ways) else None for ways in below]
            self._follow(walk._replace(may_fork=False), places, list(enumerate(ways_now)))
            self._reader.hide(mark)

    def _follow(
        self,
        walk: "_Walk",
        places: list[_Place | None],
        steps: Sequence[tuple[int, _Place | None]],
    ) -> None:
        """Read the way from each parent's place to the next, and go on from there."""
        texts = []
        for parent, step in steps:
            above = places[parent]
            known = len(above.branch) if above else 0
            texts.append(step.branch[known:] if step else (0,))
        hidden = self._reader.extend([parent for parent, _ in steps], texts)
        self._descend(walk, [step for _, step in steps], hidden)


class _Walk(NamedTuple):
    """A sub-batch whose forks are read, and the logits found so far."""

    batch: list[Row]
    logits: list[Logits]
    may_fork: bool


def groups(rows: Sequence[Row]) -> list[Group]:
    """Rows that begin alike, together; a longer common beginning is worth a group of its own
    where reading it once saves more tokens than starting the group costs."""
    ordered = sorted(rows, key=lambda row: row.ids)
    alike = [_alike(one.ids, other.ids) for one, other in pairwise(ordered)]
    return _split(ordered, alike)


def _split(rows: list[Row], alike: list[int]) -> list[Group]:
    if len(rows) <= 1:
        return [Group(0, rows)] if rows else []
    shared = min(alike)
    edges = [0, *(at + 1 for at, same in enumerate(alike) if same == shared), len(rows)]
    together: list[Row] = []
    apart: list[Group] = []
    for start, end in pairwise(edges):
        part, inside = rows[start:end], alike[start : end - 1]
        if inside and (len(part) - 1) * (min(inside) - shared) > min(inside):
            apart += _split(part, inside)
        else:
            together += part
    # A row's last token is always its own: what stands behind it is asked for.
    shared = min([shared, *(len(row.ids) - 1 for row in together)])
    return [*([Group(shared, together)] if together else []), *apart]


def _batches(group: Group) -> Iterator[list[Row]]:
    """Sub-batches of rows of like length, as large as the limits allow."""
    batch: list[Row] = []
    for row in sorted(group.rows, key=lambda row: len(row.ids)):
        count = len(batch) + 1
        if batch and (
            count * (len(row.ids) - group.shared) > TOKENS or count * len(row.ids) > HELD
        ):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _alike(one: Ids, other: Ids) -> int:
    """With how many of the same tokens two prompts begin."""
    for number, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return number
    return min(len(one), len(other))


@lru_cache(64)
def _below(forks: tuple[Fork, ...]) -> dict[Branch, list[Branch]]:
    """The paths of the forks right below each fork; below () if there is none at the root."""
    paths = {fork.path for fork in forks}
    below: dict[Branch, list[Branch]] = {}
    for path in paths - {()}:
        above = (path[:depth] for depth in range(len(path) - 1, -1, -1))
        below.setdefault(next((part for part in above if part in paths), ()), []).append(path)
    return {path: sorted(under) for path, under in below.items()}


def _reach(branch: Branch, forks: Sequence[Fork], logits: Logits) -> float:
    """With which probability the path of a fork is taken, as far as it has been read."""
    reach = 1.0
    for path, children in forks:
        if path in logits and len(path) < len(branch) and path == branch[: len(path)]:
            reach *= softmax(logits[path])[children.index(branch[len(path)])]
    return reach
