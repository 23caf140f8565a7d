"""The probability of each option, from the logits at the forks of a trie of option tokens.

P(option) is the product, along its path, of the softmax restricted to each node's children. The end
of the answer is a child where one option is the beginning of another (`book` beside `book a
flight`). The same answer in another case or with a leading space is a leaf of its own, and the
leaves of an option add up. Only forks need logits: a node with one child has probability 1.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

MOST_FORKS = 64
"""With more forks than this, options are shown and answered as numbers."""

Path = tuple[int, ...]


class Fork(NamedTuple):
    """A node with several children: `path` is read after the prompt, then one of `children`."""

    path: Path
    children: Path


class Trie(NamedTuple):
    options: tuple[str, ...]
    leaves: tuple[tuple[Path, int], ...]  # path, the end token included where it forks; option
    forks: tuple[Fork, ...]  # parents before children; the root is first if it forks
    numbered: bool = False

    def probabilities(self, logits: Mapping[Path, Sequence[float]]) -> dict[str, float]:
        """Weigh every option; `logits[fork.path]` are those of `fork.children`, in order."""
        step: dict[tuple[Path, int], float] = {}
        for fork in self.forks:
            for child, probability in zip(fork.children, softmax(logits[fork.path]), strict=True):
                step[fork.path, child] = probability
        weights = [0.0] * len(self.options)
        for path, option in self.leaves:
            weights[option] += math.prod(
                step.get((path[:depth], token), 1.0) for depth, token in enumerate(path)
            )
        total = sum(weights)
        return {
            option: weight / total for option, weight in zip(self.options, weights, strict=True)
        }


def softmax(logits: Sequence[float]) -> list[float]:
    highest = max(logits)
    powers = [math.exp(logit - highest) for logit in logits]
    total = sum(powers)
    return [power / total for power in powers]


def variants(options: Sequence[str]) -> list[list[str]]:
    """Spellings of each option that count as that option.

    A spelling that two options could claim counts for the one whose own text it is, else for none.
    """
    spellings = [
        dict.fromkeys(
            space + text
            for text in (option, option.lower(), option[:1].upper() + option[1:])
            for space in ("", " ")
        )
        for option in options
    ]
    claims: dict[str, int] = {}
    for texts in spellings:
        for text in texts:
            claims[text] = claims.get(text, 0) + 1
    own = set(options)
    return [
        [text for text in texts if text == option or (claims[text] == 1 and text not in own)]
        for option, texts in zip(options, spellings, strict=True)
    ]


def build(options: Sequence[str], encode_text: Callable[[str], Sequence[int]], end: int) -> Trie:
    """The trie of `options`, numbered if spelling them out would fork more than MOST_FORKS times.

    `encode_text` gives the ids of a text that continues the prompt, without special tokens;
    `end` is the token that closes an answer.
    """
    trie = _trie(options, variants(options), encode_text, end, numbered=False)
    if len(trie.forks) <= MOST_FORKS:
        return trie
    numbers = [[str(number)] for number in range(1, len(options) + 1)]
    return _trie(options, numbers, encode_text, end, numbered=True)


def _trie(
    options: Sequence[str],
    spellings: Sequence[Sequence[str]],
    encode_text: Callable[[str], Sequence[int]],
    end: int,
    numbered: bool,
) -> Trie:
    owner: dict[Path, int] = {}
    for option, texts in enumerate(spellings):
        for text in texts:
            owner.setdefault(tuple(encode_text(text)), option)
    children: dict[Path, dict[int, None]] = {}
    for path in owner:
        for depth, token in enumerate(path):
            children.setdefault(path[:depth], {})[token] = None
    leaves = []
    for path, option in owner.items():
        if path in children:  # another answer begins with this one
            children[path][end] = None
            path = (*path, end)
        leaves.append((path, option))
    forks = [Fork(path, tuple(tokens)) for path, tokens in children.items() if len(tokens) > 1]
    forks.sort(key=lambda fork: len(fork.path))
    return Trie(tuple(options), tuple(leaves), tuple(forks), numbered)
