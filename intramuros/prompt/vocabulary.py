"""The vocabulary of a GGUF file, and text to token ids as llama.cpp makes them.

The control tokens are not in the tokenizer that text goes through, so no spelling of theirs can
become one. Does not truncate, adds no token of its own, and does not turn ids into text.
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from intramuros.errors import CannotDo, CorruptWeights

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {"gpt-2": (GPT2,), "qwen2": (QWEN2,), "smollm": (r"\p{N}", GPT2)}
"""How text is cut into words before they are encoded, by `tokenizer.ggml.pre`."""

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
WIDTHS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


class Vocabulary(NamedTuple):
    """`controls` maps the spelling of every token that text must not become to its id."""

    size: int
    controls: dict[str, int]
    tokenizer: Tokenizer

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a text; raises UnicodeEncodeError where it holds half a surrogate pair."""
        text.encode()
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def read(gguf: Path) -> Vocabulary:
    """The vocabulary of a GGUF file; raises CannotDo for a kind that is not known here."""
    keys = {name.removeprefix("tokenizer.ggml."): value for name, value in metadata(gguf)}
    kind, splitting = keys.get("model"), keys.get("pre")
    if kind != "gpt2" or splitting not in SPLITS:
        raise CannotDo(
            f"the tokenizer of {gguf.name!r} ({kind!r}, {splitting!r}) is not one that is known",
            hint=f"known are byte-level BPE with {', '.join(SPLITS)}",
        )
    tokens, kinds = keys["tokens"], keys["token_type"]
    controls = {
        token: number
        for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (CONTROL, USER_DEFINED)
    }
    normal = {
        token: number
        for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind == NORMAL
    }
    merges = [tuple(merge.split(" ", 1)) for merge in keys["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=normal, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(split), "isolated") for split in SPLITS[splitting]),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return Vocabulary(len(tokens), controls, tokenizer)


def metadata(gguf: Path) -> Iterator[tuple[str, Any]]:
    """The keys of a GGUF file with their values.

    The `gguf` package takes seconds over the arrays of a large vocabulary; this takes a tenth.
    """
    with gguf.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != b"GGUF":
            raise CorruptWeights(f"{gguf} is not a GGUF file")
        count, position = struct.unpack_from("<Q", data, 16)[0], 24
        for _ in range(count):
            name, position = _value(data, position, STRING)
            (kind,) = struct.unpack_from("<I", data, position)
            value, position = _value(data, position + 4, kind)
            yield name, value


def _value(data: mmap.mmap, position: int, kind: int) -> tuple[Any, int]:
    """A value of a kind and the position behind it."""
    if kind == STRING:
        start = position + 8
        end = start + struct.unpack_from("<Q", data, position)[0]
        return data[start:end].decode("utf-8", errors="replace"), end
    if kind != ARRAY:
        form = "<" + WIDTHS[kind]
        return struct.unpack_from(form, data, position)[0], position + struct.calcsize(form)
    inner, count = struct.unpack_from("<IQ", data, position)
    position += 12
    if inner in WIDTHS:
        form = f"<{count}{WIDTHS[inner]}"
        return struct.unpack_from(form, data, position), position + struct.calcsize(form)
    values = []
    for _ in range(count):
        value, position = _value(data, position, inner)
        values.append(value)
    return values, position
