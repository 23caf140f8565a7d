"""Grouping rows by their beginnings, and walking the forks, on a reader that only counts."""

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest

from intramuros.prompt import trie
from intramuros.runtime import choosing
from intramuros.runtime.choosing import Chooser, Row, groups
from intramuros.runtime.reading import NOTHING, Floats, State

END = 0


class Counting:
    """Stands for the model: the hidden state behind a text is a number made of all its tokens."""

    def __init__(self) -> None:
        self.texts: list[tuple[int, ...]] = [()]
        self.read = 0

    def keep(self) -> State:
        return State(np.ones((len(self.texts), len(self.texts[0])), np.int64), list(self.texts))

    def restore(self, state: State) -> None:
        self.texts = list(state.tensors) or [()]

    @property
    def length(self) -> int:
        return max(len(text) for text in self.texts)

    def mark(self) -> list[tuple[int, ...]]:
        return self.texts

    def hide(self, mark: list[tuple[int, ...]]) -> None:
        assert len(mark) == len(self.texts)
        self.texts = mark

    def extend(self, parents: Sequence[int], texts: Sequence[Sequence[int]]) -> Floats:
        assert all(texts)
        self.read += sum(len(text) for text in texts)
        self.texts = [
            self.texts[parent] + tuple(text) for parent, text in zip(parents, texts, strict=True)
        ]
        return np.array([self.state(text) for text in self.texts], np.float32)

    def weights(self, tokens: tuple[int, ...]) -> Floats:
        return np.array([[math.sin(token), math.cos(token)] for token in tokens], np.float32)

    def state(self, text: tuple[int, ...]) -> tuple[float, float]:
        mixed = random.Random(repr(text))
        return mixed.uniform(-2, 2), mixed.uniform(-2, 2)

    def expected(self, row: Row) -> dict[str, float]:
        """The probabilities by reading every fork of a row from its beginning."""
        return row.tree.probabilities(
            {
                fork.path: (
                    self.weights(fork.children) @ np.array(self.state((*row.ids, *fork.path)))
                ).tolist()
                for fork in row.tree.forks
            }
        )


def spelled(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def rows_of(prompts: Sequence[str], options: Sequence[str]) -> list[Row]:
    tree = trie.build(options, spelled, END)
    return [Row(number, tuple(spelled(text)), tree) for number, text in enumerate(prompts)]


def answers(rows: list[Row], reader: Counting) -> dict[int, dict[str, float]]:
    chooser = Chooser(reader)  # type: ignore[arg-type]
    return {
        chosen.number: chosen.probabilities
        for batch in chooser.choose(rows, lambda: True)
        for chosen in batch
    }


OPTIONS = ("book", "book a flight", "book a hotel", "weather", "what")


@pytest.mark.parametrize("held", [40, 8192], ids=["in turns", "at once"])
def test_every_row_gets_the_probabilities_of_its_own_text(
    held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "HELD", held)
    monkeypatch.setattr(choosing, "NEGLIGIBLE", 0.0)
    shared = "one beginning that all rows have in common: "
    rows = rows_of([shared + text for text in ("a", "bc", "dddd", "a")] + ["apart"], OPTIONS)
    reader = Counting()
    found = answers(rows, reader)
    for row in rows:
        assert found[row.number] == pytest.approx(reader.expected(row), abs=1e-6)


def test_a_fork_that_is_hardly_reached_is_not_read() -> None:
    reader, exact = Counting(), Counting()
    rows = rows_of(["a prompt", "another prompt"], OPTIONS)
    found = answers(rows, reader)
    for row in rows:
        assert found[row.number] == pytest.approx(exact.expected(row), abs=1e-3)


def test_a_common_beginning_is_read_once() -> None:
    shared = "the same long instruction for every row. "
    rows = rows_of([shared + str(number) for number in range(10)], ("yes", "no"))
    reader = Counting()
    answers(rows, reader)
    assert reader.read < 2 * len(shared)


def test_rows_asked_one_by_one_reuse_their_beginning() -> None:
    shared = "the same long instruction for every row. "
    reader = Counting()
    chooser = Chooser(reader)  # type: ignore[arg-type]
    cached = []
    for number in range(4):
        rows = rows_of([shared + str(number)], ("yes", "no"))
        cached += [row.cached for batch in chooser.choose(rows, lambda: True) for row in batch]
    assert cached == [0, 0, len(shared), len(shared)]


def test_questions_on_one_document_fork_from_it() -> None:
    documents = ("first " * 20, "second " * 20, "third " * 20)
    prompts = [text + question for text in documents for question in ("a?", "b?", "c?", "d?")]
    found = groups(rows_of(prompts, ("yes", "no")))
    assert sorted(len(group.rows) for group in found) == [4, 4, 4]


def test_documents_that_begin_alike_by_chance_stay_together() -> None:
    prompts = ["instruction " * 10 + text for text in ("the film", "the book", "a play", "it")]
    (group,) = groups(rows_of(prompts, ("yes", "no")))
    assert group.shared == len("instruction " * 10)


def test_admit_is_asked_before_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "TOKENS", 1)
    reader = Counting()
    chooser = Chooser(reader)  # type: ignore[arg-type]
    rows = rows_of([f"prompt {number}" for number in range(5)], ("yes", "no"))
    allowed = iter([True, True, False])
    batches = list(chooser.choose(rows, lambda: next(allowed)))
    assert len(batches) == 2


def test_nothing_is_a_state_of_one_sequence() -> None:
    assert NOTHING.mask.shape == (1, 0)
