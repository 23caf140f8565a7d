"""Probabilities over a trie of option tokens, checked against sums done by hand."""

import math

import pytest

from intramuros.prompt.trie import MOST_FORKS, build, variants

END = 0


def spell(text: str) -> list[int]:
    """One token for each character: the simplest vocabulary that shares prefixes."""
    return [ord(character) for character in text]


def words(text: str) -> list[int]:
    """One token for each word with its leading space."""
    vocabulary = ["book", " book", "Book", " Book", " a", " flight", " hotel"]
    ids = []
    while text:
        token = max((t for t in vocabulary if text.startswith(t)), key=len)
        ids.append(1 + vocabulary.index(token))
        text = text[len(token) :]
    return ids


def test_single_tokens_are_a_softmax_over_the_options_with_variants_summed() -> None:
    trie = build(["a", "b"], spell, END)
    (root, space) = trie.forks
    assert root.path == ()
    assert space.path == (ord(" "),)
    logits = {root.path: [0.0] * len(root.children), space.path: [0.0] * len(space.children)}
    logits[root.path][root.children.index(ord("a"))] = math.log(3)
    chances = trie.probabilities(logits)
    # a 3, A 1, b 1, B 1 and the space 1, which splits evenly into its four letters
    assert chances["a"] == pytest.approx((3 + 1 + 0.5) / 7)
    assert sum(chances.values()) == pytest.approx(1)


def test_the_end_of_the_answer_is_a_leaf_where_one_option_begins_another() -> None:
    trie = build(["book", "book a flight"], words, END)
    fork = next(fork for fork in trie.forks if fork.path == (1,))
    assert set(fork.children) == {END, 5}
    logits = {f.path: [0.0] * len(f.children) for f in trie.forks}
    logits[(1,)] = [9.0 if child == END else 0.0 for child in fork.children]
    assert trie.probabilities(logits)["book"] > 0.6


def test_options_that_share_a_prefix_fork_after_it() -> None:
    trie = build(["book a flight", "book a hotel"], words, END)
    assert all(fork.path == () or fork.path[-1] == 5 for fork in trie.forks)
    logits = {fork.path: [0.0] * len(fork.children) for fork in trie.forks}
    for fork in trie.forks:
        if fork.path:
            logits[fork.path] = [math.log(4) if child == 6 else 0.0 for child in fork.children]
    assert trie.probabilities(logits)["book a flight"] == pytest.approx(0.8)


def test_a_spelling_counts_for_the_option_whose_own_text_it_is() -> None:
    assert variants(["yes", "Yes"]) == [["yes"], ["Yes"]]
    assert variants(["US", "us"])[1] == ["us", "Us", " Us"]


def test_many_forks_are_answered_by_number() -> None:
    options = [f"{a}{b} word" for a in "abcdefghijklmnopqrstuvwxy" for b in "abcdefghijklmnopqrst"]
    assert len(options) == 500
    trie = build(options, spell, END)
    assert trie.numbered
    assert len(trie.forks) <= MOST_FORKS
    logits = {fork.path: [0.0] * len(fork.children) for fork in trie.forks}
    chances = trie.probabilities(logits)
    assert list(chances) == options
    assert sum(chances.values()) == pytest.approx(1)


def test_forks_come_before_the_forks_below_them() -> None:
    trie = build(["book", "book a flight", "book a hotel"], words, END)
    depths = [len(fork.path) for fork in trie.forks]
    assert depths == sorted(depths)
