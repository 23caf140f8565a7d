"""Read a GGUF header by hand and check it against the file, before any engine sees it.

The file comes from a stranger and engines are native code, so every count, length, type and offset
is bounded here, and nothing is allocated by a number the file names. Does not read the weights
themselves, and does not say whether a model is any good.
"""

import mmap
import struct
from pathlib import Path
from typing import Any, NamedTuple

from intramuros.errors import CorruptWeights

MAX_PAIRS = 4_096
MAX_TENSORS = 65_536
MAX_DIMENSIONS = 4
MAX_NAME = 1_024
MAX_TENSOR_NAME = 64  # what llama.cpp has room for
MAX_STRING = 16 << 20  # a chat template is the longest string there is
MAX_ITEMS = 8_000_000  # of all arrays together; a vocabulary has a quarter of a million
MAX_HEADER = 512 << 20
MAX_ELEMENTS = 1 << 62

STRING, ARRAY, BOOL = 8, 9, 7
SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip

# Tensor types: name, elements of a block, bytes of a block. Numbers that were retired are absent.
TENSOR_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4),
    27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip


class Tensor(NamedTuple):
    """One tensor as the header describes it; `start` is counted from the beginning of the file."""

    name: str
    dimensions: tuple[int, ...]
    type: str
    start: int
    size: int


class Array(NamedTuple):
    """An array of the header: only its place, because most of them are never read."""

    item_type: int
    length: int
    start: int
    end: int


class Header(NamedTuple):
    """What a checked file says of itself."""

    version: int
    pairs: dict[str, Any]  # scalars and strings as values, arrays as Array
    value_starts: dict[str, int]  # where in the file each value begins
    tensors: tuple[Tensor, ...]
    alignment: int
    pairs_start: int
    pairs_end: int

    @property
    def architecture(self) -> str:
        return str(self.pairs["general.architecture"])

    @property
    def context(self) -> int:
        found = self.pairs.get(f"{self.architecture}.context_length", 0)
        return found if isinstance(found, int) else 0

    @property
    def tensor_types(self) -> frozenset[str]:
        return frozenset(tensor.type for tensor in self.tensors)

    @property
    def parameters(self) -> int:
        return sum(elements(tensor.dimensions) for tensor in self.tensors)


def elements(dimensions: tuple[int, ...]) -> int:
    product = 1
    for length in dimensions:
        product *= length
    return product


def check(path: Path) -> Header:
    """Read the header of `path`, or raise CorruptWeights with what is wrong with it."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if size < 24 or file.read(4) != b"GGUF":
                raise _Wrong("it does not begin as a GGUF file does")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _Reader(content, size).header()
    except _Wrong as error:
        raise CorruptWeights(
            f"{path.name} is not a whole GGUF file: {error}",
            hint="delete it and pull it again, or ask whoever made it",
        ) from None


def strings(path: Path, array: Array) -> list[str]:
    """The strings of an array that `check` passed, such as the vocabulary."""
    found = []
    with path.open("rb") as file:
        file.seek(array.start)
        data = file.read(array.end - array.start)
    at = 0
    for _ in range(array.length if array.item_type == STRING else 0):
        (length,) = struct.unpack_from("<Q", data, at)
        found.append(data[at + 8 : at + 8 + length].decode("utf-8", "replace"))
        at += 8 + length
    return found


class _Wrong(Exception):
    pass


class _Reader:
    def __init__(self, content: mmap.mmap, size: int) -> None:
        self.content = content
        self.end = min(size, MAX_HEADER)  # the header may reach to here
        self.size = size
        self.at = 4
        self.items = 0

    def header(self) -> Header:
        version, tensor_count, pair_count = self._take("I"), self._take("Q"), self._take("Q")
        if version not in (2, 3):
            raise _Wrong(f"its version is {version}, and only 2 and 3 are known")
        if pair_count > MAX_PAIRS or not 0 < tensor_count <= MAX_TENSORS:
            raise _Wrong(f"it claims {pair_count} keys and {tensor_count} tensors")
        pairs_start = self.at
        pairs: dict[str, Any] = {}
        starts: dict[str, int] = {}
        for _ in range(pair_count):
            key = self._name(MAX_NAME)
            if key in pairs:
                raise _Wrong(f"the key {key!r} stands in it twice")
            value_type = self._take("I")
            starts[key] = self.at
            pairs[key] = self._value(value_type)
        pairs_end = self.at
        alignment = pairs.get("general.alignment", 32)
        if (
            type(alignment) is not int
            or not 0 < alignment <= 1 << 20
            or alignment & (alignment - 1)
        ):
            raise _Wrong(f"its alignment {alignment!r} is no power of two")
        if not isinstance(pairs.get("general.architecture"), str):
            raise _Wrong("it names no architecture")
        _check_vocabulary(pairs)
        tensors = self._tensors(tensor_count, alignment)
        return Header(version, pairs, starts, tensors, alignment, pairs_start, pairs_end)

    def _tensors(self, count: int, alignment: int) -> tuple[Tensor, ...]:
        described = []
        names = set()
        for _ in range(count):
            name = self._name(MAX_TENSOR_NAME)
            if name in names:
                raise _Wrong(f"the tensor {name!r} stands in it twice")
            names.add(name)
            rank = self._take("I")
            if not 0 < rank <= MAX_DIMENSIONS:
                raise _Wrong(f"the tensor {name!r} claims {rank} dimensions")
            dimensions = tuple(self._take("Q") for _ in range(rank))
            type_number, offset = self._take("I"), self._take("Q")
            described.append((name, dimensions, type_number, offset))
        data_start = _aligned(self.at, alignment)
        expected = 0
        tensors = []
        for name, dimensions, type_number, offset in described:
            type_name, size = _tensor_size(name, dimensions, type_number)
            if offset != expected:  # tensors follow one another: no gap, no overlap
                raise _Wrong(f"the tensor {name!r} does not follow the one before it")
            if data_start + offset + size > self.size:
                raise _Wrong(
                    f"the tensor {name!r} ends at byte {data_start + offset + size:,} "
                    f"and the file at {self.size:,}"
                )
            tensors.append(Tensor(name, dimensions, type_name, data_start + offset, size))
            expected = _aligned(offset + size, alignment)
        return tuple(tensors)

    def _value(self, value_type: int) -> Any:
        if value_type == STRING:
            return self._string(MAX_STRING).decode("utf-8", "replace")
        if value_type == ARRAY:
            return self._array()
        if value_type not in SCALARS:
            raise _Wrong(f"a value is of unknown type {value_type}")
        value = self._take(SCALARS[value_type])
        if value_type != BOOL:
            return value
        if value > 1:
            raise _Wrong("a yes-or-no value is neither")
        return bool(value)

    def _array(self) -> Array:
        item_type, count = self._take("I"), self._take("Q")
        start = self.at
        if item_type == STRING:
            self._count(count)
            for _ in range(count):
                self._string(MAX_STRING, keep=False)
        elif item_type in SCALARS:
            self._count(count)
            self._skip(count * struct.calcsize("<" + SCALARS[item_type]))
        else:
            raise _Wrong(f"an array is of items of unknown type {item_type}")
        return Array(item_type, count, start, self.at)

    def _count(self, count: int) -> None:
        self.items += count
        if self.items > MAX_ITEMS:
            raise _Wrong(f"its arrays claim {self.items:,} items")

    def _name(self, longest: int) -> str:
        try:
            name = self._string(longest).decode("utf-8")
        except UnicodeDecodeError:
            raise _Wrong("a name in it is not text") from None
        if not name or not name.isprintable():
            raise _Wrong(f"a name in it is {name!r}")
        return name

    def _string(self, longest: int, keep: bool = True) -> bytes:
        length = self._take("Q")
        if length > longest:
            raise _Wrong(f"a string claims {length:,} bytes")
        start = self.at
        self._skip(length)
        return self.content[start : self.at] if keep else b""

    def _take(self, code: str) -> Any:
        start = self.at
        self._skip(struct.calcsize("<" + code))
        return struct.unpack_from("<" + code, self.content, start)[0]

    def _skip(self, count: int) -> None:
        if count > self.end - self.at:
            raise _Wrong("its header is cut off")
        self.at += count


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def _tensor_size(name: str, dimensions: tuple[int, ...], type_number: int) -> tuple[str, int]:
    if type_number not in TENSOR_TYPES:
        raise _Wrong(f"the tensor {name!r} is of unknown type {type_number}")
    type_name, block, block_bytes = TENSOR_TYPES[type_number]
    count = elements(dimensions)
    if not 0 < count <= MAX_ELEMENTS:
        raise _Wrong(f"the tensor {name!r} claims {count:,} elements")
    if dimensions[0] % block:
        raise _Wrong(
            f"the tensor {name!r} has rows of {dimensions[0]}, not whole blocks of {block}"
        )
    return type_name, count // block * block_bytes


def _check_vocabulary(pairs: dict[str, Any]) -> None:
    """Engines index the vocabulary with the numbers beside it, so those must lie within it."""
    tokens = pairs.get("tokenizer.ggml.tokens")
    if tokens is None:
        return
    if not isinstance(tokens, Array) or tokens.item_type != STRING:
        raise _Wrong("its vocabulary is not a list of strings")
    for key in ("tokenizer.ggml.scores", "tokenizer.ggml.token_type"):
        beside = pairs.get(key)
        if beside is None:
            continue
        if (
            not isinstance(beside, Array)
            or beside.length != tokens.length
            or beside.item_type == STRING
        ):
            raise _Wrong(f"{key} does not fit a vocabulary of {tokens.length:,} tokens")
    for key, value in pairs.items():
        names_token = key.startswith("tokenizer.ggml.") and key.endswith("_token_id")
        # llama.cpp reads 2**32 - 1 as "none"
        if names_token and (
            type(value) is not int or not (0 <= value < tokens.length or value == 0xFFFFFFFF)
        ):
            raise _Wrong(f"{key} is {value!r}, and the vocabulary has {tokens.length:,} tokens")
