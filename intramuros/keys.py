"""The key of an ask: SHA-256 over all that changes its answer, and over nothing else.

What is the same for many rows (engine, verb, instruction, options, decoding parameters, history)
makes a frame, whose digest is computed once; then only document and question are hashed for each
row. Who asks and the name the model was asked by are not part of a key.
"""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from intramuros.types import Choose, Embed, Fill, Say

Keyed = Say | Choose | Fill | Embed
"""Asks that have a key: a search depends on what its library holds, so it has none."""

MOST_FRAMES = 1024
"""Frames whose digests are kept in memory."""

OUTSIDE = ("history", "options", "descriptions", "schema", "stop")
"""Parts of a frame that come from outside: left out of the ledger with `keep_text = false`."""


class Frame(NamedTuple):
    """All that is constant between rows: its digest, and the canonical JSON of its parts."""

    digest: bytes
    verb: str
    identity: str
    content: str
    content_without_text: str


class Keys:
    """The keys of asks to one engine; `identity` names its weights, itself and its template."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self._frames: dict[tuple[Any, ...], Frame] = {}

    def key(self, ask: Keyed) -> tuple[bytes, Frame]:
        """The key of an ask and its frame. A text that is not Unicode raises UnicodeEncodeError."""
        what: Any = ask
        document: str | None
        if type(ask) is Embed:  # isinstance is slow for these values
            document, question = what.text, ""
        else:
            document, question = what.prompt.document, what.prompt.question
        parts = _parts(ask)
        frame = self._frames.get(parts)
        if frame is None:
            frame = self._frame(parts)
        if document is None:
            whole = frame.digest + NO_DOCUMENT + question.encode()
        else:
            encoded = document.encode()
            size = len(encoded).to_bytes(8, "big")
            whole = frame.digest + size + encoded + question.encode()
        return hashlib.sha256(whole).digest(), frame

    def _frame(self, parts: tuple[Any, ...]) -> Frame:
        verb, values = parts[0], dict(zip(NAMES[parts[0]], parts[1:], strict=True))
        for name, kind in NUMBERS.items():
            if values.get(name) is not None:
                values[name] = kind(values[name])
        whole = {"verb": verb, "identity": self.identity, **values}
        content = msgspec.json.encode(whole)
        ours = {name: value for name, value in whole.items() if name not in OUTSIDE}
        without = msgspec.json.encode(ours).decode()
        digest = hashlib.sha256(content).digest()
        if len(self._frames) >= MOST_FRAMES:
            self._frames.clear()
        frame = Frame(digest, verb, self.identity, content.decode(), without)
        self._frames[parts] = frame
        return frame


NUMBERS: dict[str, Callable[[Any], Any]] = {
    "fence": bool,
    "truncate": bool,
    "max_tokens": int,
    "seed": int,
    "temperature": float,  # 0 and 0.0 are equal, so they must be written alike
    "top_p": float,
}

NO_DOCUMENT = b"\xff" * 8
"""Stands where the length of a document would."""

SHARED = ("instruction", "layout", "fence", "history")
NAMES = {
    "say": (*SHARED, "max_tokens", "temperature", "top_p", "seed", "stop", "truncate"),
    "choose": (*SHARED, "options", "descriptions"),
    "fill": (*SHARED, "schema", "max_tokens"),
    "embed": ("kind",),
}


def _parts(ask: Any) -> tuple[Any, ...]:
    """The verb of an ask, and what else stands in its frame, in the order of NAMES."""
    if type(ask) is Embed:
        return "embed", ask.kind
    prompt = ask.prompt
    a, b, c, d = prompt.instruction, prompt.layout, prompt.fence, prompt.history
    if type(ask) is Choose:
        return "choose", a, b, c, d, ask.options, ask.descriptions
    if type(ask) is Fill:
        return "fill", a, b, c, d, ask.schema, ask.max_tokens
    sampling = ask.max_tokens, ask.temperature, ask.top_p, ask.seed, ask.stop, ask.truncate
    return "say", a, b, c, d, *sampling
