"""Texts cut at their seams add up again, and no part is larger than asked."""

import random

import pytest

from intramuros.prompt.parts import margins, parts


@pytest.mark.parametrize("size", [1, 7, 40, 1000])
def test_parts_add_up_and_fit(size: int) -> None:
    chance = random.Random(size)
    letters = ["word", " ", "\n", "\n\n", ". ", "é", "語", "👩‍👩‍👧", "longwordwithoutseams" * 3]
    for _ in range(50):
        text = "".join(chance.choices(letters, k=60))
        cut = parts(text, size)
        assert "".join(cut) == text
        assert all(0 < len(part) <= size for part in cut)


def test_paragraphs_are_the_first_seams() -> None:
    assert parts("One one.\n\nTwo two.\n\nThree.", 12) == ["One one.\n\n", "Two two.\n\n", "Three."]


def test_short_neighbours_are_joined() -> None:
    assert parts("a\n\nb\n\nc", 100) == ["a\n\nb\n\nc"]


def test_an_empty_text_has_no_parts() -> None:
    assert parts("", 10) == []


def test_margins_keep_the_whitespace_around() -> None:
    assert margins("\n  a b \n") == ("\n  ", "a b", " \n")
    assert margins("  ") == ("  ", "", "")
