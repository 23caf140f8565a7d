"""Cut a long text into parts at its natural seams, and put it together again.

Does not count tokens: sizes are characters, and callers scale them by the counts an engine gave.
"""

import re
from itertools import pairwise

SEAMS = (r"\n\s*\n", r"\n", r"(?<=[.!?…。！？])\s*", r"\s+")
"""Where a text may be cut, best first: paragraphs, lines, sentences, words."""


def parts(text: str, size: int) -> list[str]:
    """Parts of at most `size` characters that add up to `text`, whitespace included."""
    return _joined(_cut(text, size, SEAMS), size)


def margins(text: str) -> tuple[str, str, str]:
    """The leading whitespace, the text itself, and the trailing whitespace."""
    core = text.strip()
    start = text.index(core) if core else len(text)
    return text[:start], core, text[start + len(core) :]


def _cut(text: str, size: int, seams: tuple[str, ...]) -> list[str]:
    if len(text) <= size:
        return [text] if text else []
    if not seams:
        return [text[start : start + size] for start in range(0, len(text), size)]
    ends = [match.end() for match in re.finditer(seams[0], text)]
    edges = [0, *(end for end in ends if end < len(text)), len(text)]
    pieces = [text[start:end] for start, end in pairwise(edges) if end > start]
    return [part for piece in pieces for part in _cut(piece, size, seams[1:])]


def _joined(pieces: list[str], size: int) -> list[str]:
    """Join neighbours for as long as they fit, so that parts are few and even."""
    joined: list[str] = []
    for piece in pieces:
        if joined and len(joined[-1]) + len(piece) <= size:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined
