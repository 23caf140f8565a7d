"""Rewrite a GGUF file's weights to Q8_0 for an engine that cannot read their type.

The header's keys are copied byte for byte, tokenizer and template included; only the number that
names the file's type changes. Holds a few rows at a time, never a whole model. Does not check the
file: gguf.check did.
"""

import mmap
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import gguf as quantization
import numpy as np

from intramuros.errors import CannotDo
from intramuros.models.gguf import TENSOR_TYPES, Header, Tensor, elements
from intramuros.models.store import silent

ELEMENTS_AT_ONCE = 1 << 22
MOSTLY_Q8_0 = 7  # the value of general.file_type
TYPE_NUMBERS = {name: number for number, (name, _, _) in TENSOR_TYPES.items()}


class _Target(NamedTuple):
    type: str
    size: int


def rewritten_size(header: Header) -> int:
    """Bytes that `rewrite` will write, nearly."""
    return header.pairs_end + sum(_target(tensor).size + 512 for tensor in header.tensors)


def rewrite(
    original: Path, header: Header, written: Path, progress: Callable[[int], None] = silent
) -> None:
    """Write the same model with its matrices in Q8_0; `progress` counts bytes of the original."""
    targets = [_target(tensor) for tensor in header.tensors]
    with (
        original.open("rb") as file,
        written.open("wb") as out,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        out.write(_header_bytes(content, header, targets))
        for tensor, target in zip(header.tensors, targets, strict=True):
            _pad(out, header.alignment)
            for block in _converted(content, tensor, target.type):
                out.write(block)
            progress(tensor.size)
        _pad(out, header.alignment)


def _target(tensor: Tensor) -> _Target:
    count = elements(tensor.dimensions)
    whole_blocks = tensor.dimensions[0] % 32 == 0
    if tensor.type in ("F32", "Q8_0"):
        return _Target(tensor.type, tensor.size)
    if len(tensor.dimensions) > 1 and whole_blocks:
        return _Target("Q8_0", count // 32 * 34)
    return _Target("F32", count * 4)


def _header_bytes(content: mmap.mmap, header: Header, targets: list[_Target]) -> bytes:
    pairs = bytearray(content[header.pairs_start : header.pairs_end])
    if "general.file_type" in header.pairs:
        at = header.value_starts["general.file_type"] - header.pairs_start
        struct.pack_into("<I", pairs, at, MOSTLY_Q8_0)
    described = [struct.pack("<4sIQQ", b"GGUF", 3, len(targets), len(header.pairs)), bytes(pairs)]
    offset = 0
    for tensor, target in zip(header.tensors, targets, strict=True):
        name = tensor.name.encode()
        described.append(struct.pack("<Q", len(name)) + name)
        rank = len(tensor.dimensions)
        described.append(struct.pack(f"<I{rank}Q", rank, *tensor.dimensions))
        described.append(struct.pack("<IQ", TYPE_NUMBERS[target.type], offset))
        offset += -(-target.size // header.alignment) * header.alignment
    return b"".join(described)


def _converted(content: mmap.mmap, tensor: Tensor, target: str) -> Iterator[bytes]:
    """The tensor's bytes in its new type, a few rows at a time."""
    if tensor.type == target:
        for start in range(tensor.start, tensor.start + tensor.size, ELEMENTS_AT_ONCE):
            yield content[start : min(start + ELEMENTS_AT_ONCE, tensor.start + tensor.size)]
        return
    row = tensor.dimensions[0]
    rows = elements(tensor.dimensions) // row
    row_bytes = tensor.size // rows
    from_type = quantization.GGMLQuantizationType[tensor.type]
    to_type = quantization.GGMLQuantizationType[target]
    step = max(1, ELEMENTS_AT_ONCE // row)
    for first in range(0, rows, step):
        some = min(step, rows - first)
        start = tensor.start + first * row_bytes
        raw = np.frombuffer(content[start : start + some * row_bytes], dtype=np.uint8)
        shaped = raw.reshape(some, row_bytes)
        try:
            numbers = quantization.dequantize(
                shaped.view(np.float16) if tensor.type == "F16" else shaped, from_type
            )
        except NotImplementedError:
            raise CannotDo(f"weights of type {tensor.type} cannot be rewritten") from None
        yield quantization.quantize(numbers.astype(np.float32, copy=False), to_type).tobytes()


def _pad(out: BinaryIO, alignment: int) -> None:
    out.write(b"\0" * (-out.tell() % alignment))
