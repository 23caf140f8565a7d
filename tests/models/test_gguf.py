"""The header check: true files pass, hostile ones are CorruptWeights and never anything else."""

import random
import struct
from pathlib import Path

import pytest

from intramuros.errors import CorruptWeights
from intramuros.models import gguf
from tests.models.conftest import MakeGguf


def checked(path: Path) -> bool:
    """Whether a file passes; anything but CorruptWeights is the test's failure."""
    try:
        gguf.check(path)
    except CorruptWeights:
        return False
    return True


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def pair(key: bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


ARCHITECTURE = pair(b"general.architecture", 8, text(b"llama"))


def tensor(
    name: bytes = b"t", dimensions: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0
) -> bytes:
    rank = len(dimensions)
    return text(name) + struct.pack(f"<I{rank}QIQ", rank, *dimensions, kind, offset)


def file_of(
    pairs: list[bytes], tensors: list[bytes], data: int = 128, version: int = 3, **counts: int
) -> bytes:
    head = struct.pack(
        "<4sIQQ",
        b"GGUF",
        version,
        counts.get("tensor_count", len(tensors)),
        counts.get("pair_count", len(pairs)),
    )
    header = head + b"".join(pairs) + b"".join(tensors)
    return header + bytes(-len(header) % 32 + data)


GOOD = file_of([ARCHITECTURE], [tensor()])
HUGE = 2**64 - 1

HOSTILE = {
    "empty": b"",
    "another magic": b"GGML" + GOOD[4:],
    "version 1": file_of([ARCHITECTURE], [tensor()], version=1),
    "big-endian": file_of([ARCHITECTURE], [tensor()], version=3 << 24),
    "no tensors": file_of([ARCHITECTURE], []),
    "endless tensors": file_of([ARCHITECTURE], [tensor()], tensor_count=HUGE),
    "endless keys": file_of([ARCHITECTURE], [tensor()], pair_count=HUGE),
    "one key too many": file_of([ARCHITECTURE], [tensor()], pair_count=2),
    "no architecture": file_of([], [tensor()]),
    "architecture is a number": file_of(
        [pair(b"general.architecture", 4, struct.pack("<I", 1))], [tensor()]
    ),
    "a key twice": file_of([ARCHITECTURE, ARCHITECTURE], [tensor()]),
    "a key that is not text": file_of([ARCHITECTURE, pair(b"\xff", 7, b"\0")], [tensor()]),
    "an endless string": file_of(
        [ARCHITECTURE, pair(b"k", 8, struct.pack("<Q", HUGE))], [tensor()]
    ),
    "an unknown type": file_of([ARCHITECTURE, pair(b"k", 13, bytes(8))], [tensor()]),
    "a boolean of 2": file_of([ARCHITECTURE, pair(b"k", 7, b"\2")], [tensor()]),
    "an endless array": file_of(
        [ARCHITECTURE, pair(b"k", 9, struct.pack("<IQ", 8, HUGE))], [tensor()]
    ),
    "an array past the end": file_of(
        [ARCHITECTURE, pair(b"k", 9, struct.pack("<IQ", 10, 1 << 20))], [tensor()]
    ),
    "arrays of arrays": file_of(
        [ARCHITECTURE, pair(b"k", 9, struct.pack("<IQIQ", 9, 1, 0, 0))], [tensor()]
    ),
    "alignment 0": file_of(
        [ARCHITECTURE, pair(b"general.alignment", 4, struct.pack("<I", 0))], [tensor()]
    ),
    "alignment 24": file_of(
        [ARCHITECTURE, pair(b"general.alignment", 4, struct.pack("<I", 24))], [tensor()]
    ),
    "a tensor twice": file_of([ARCHITECTURE], [tensor(), tensor(offset=128)], data=256),
    "a long tensor name": file_of([ARCHITECTURE], [tensor(name=b"n" * 65)]),
    "no dimensions": file_of([ARCHITECTURE], [tensor(dimensions=())]),
    "five dimensions": file_of([ARCHITECTURE], [tensor(dimensions=(1, 1, 1, 1, 32))]),
    "an empty dimension": file_of([ARCHITECTURE], [tensor(dimensions=(32, 0))]),
    "dimensions that overflow": file_of(
        [ARCHITECTURE], [tensor(dimensions=(1 << 32, 1 << 32, 1 << 32))]
    ),
    "an unknown tensor type": file_of([ARCHITECTURE], [tensor(kind=4)]),
    "half a block": file_of([ARCHITECTURE], [tensor(dimensions=(33,), kind=8)]),
    "a gap": file_of([ARCHITECTURE], [tensor(offset=32)], data=256),
    "overlapping tensors": file_of([ARCHITECTURE], [tensor(), tensor(b"u")]),
    "a tensor past the end": file_of([ARCHITECTURE], [tensor(dimensions=(33,))]),
    "an offset past the end": file_of([ARCHITECTURE], [tensor(offset=HUGE - 31)]),
    "scores for another vocabulary": file_of(
        [
            ARCHITECTURE,
            pair(b"tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 1) + text(b"a")),
            pair(b"tokenizer.ggml.scores", 9, struct.pack("<IQff", 6, 2, 0.0, 0.0)),
        ],
        [tensor()],
    ),
    "a token outside the vocabulary": file_of(
        [
            ARCHITECTURE,
            pair(b"tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 1) + text(b"a")),
            pair(b"tokenizer.ggml.eos_token_id", 4, struct.pack("<I", 1)),
        ],
        [tensor()],
    ),
}  # fmt: skip


def test_a_true_file_is_read(tmp_path: Path, make_gguf: MakeGguf) -> None:
    path = tmp_path / "true.gguf"
    path.write_bytes(make_gguf(type_name="Q5_0", padding=512))
    header = gguf.check(path)
    assert (header.architecture, header.context, header.version) == ("llama", 512, 3)
    assert header.tensor_types == {"Q5_0", "F32"}
    assert header.parameters == 512 + 256
    tokens = gguf.strings(path, header.pairs["tokenizer.ggml.tokens"])
    assert tokens == ["a", "b", "<|im_start|>", "<|im_end|>", "é"]


def test_the_smallest_good_file(tmp_path: Path) -> None:
    path = tmp_path / "good.gguf"
    path.write_bytes(GOOD)
    assert checked(path)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(CorruptWeights, match=r"hostile.gguf is not a whole GGUF file: \w"):
        gguf.check(path)


def test_every_shorter_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    for length in range(len(GOOD)):
        path.write_bytes(GOOD[:length])
        assert not checked(path), length


def test_arrays_may_not_claim_more_than_anyone_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf, "MAX_ITEMS", 10)
    path = tmp_path / "many.gguf"
    many = pair(b"k", 9, struct.pack("<IQ", 0, 11) + bytes(11))
    path.write_bytes(file_of([ARCHITECTURE, many], [tensor()]))
    with pytest.raises(CorruptWeights, match="claim 11 items"):
        gguf.check(path)


def test_flipped_bytes_of_a_tiny_file(tmp_path: Path, make_gguf: MakeGguf) -> None:
    """Accepted or CorruptWeights: the seed is fixed, so a failure can be looked at again."""
    good = make_gguf(padding=256)
    path = tmp_path / "flipped.gguf"
    chance = random.Random(20261122)
    outcomes = set()
    for _ in range(1500):
        content = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            content[chance.randrange(900)] = chance.choice(
                [0, 1, 8, 9, 127, 255, chance.randrange(256)]
            )
        path.write_bytes(content)
        outcomes.add(checked(path))
    assert outcomes == {True, False}


def test_flipped_bytes_of_a_real_header(tmp_path: Path, smollm2: Path) -> None:
    header = gguf.check(smollm2)
    end = min(tensor.start for tensor in header.tensors)
    path = tmp_path / "flipped.gguf"
    with smollm2.open("rb") as file, path.open("wb") as sparse:
        good = file.read(end)
        sparse.write(good)
        sparse.truncate(smollm2.stat().st_size)
    assert checked(path)
    chance = random.Random(20261122)
    tensors = header.pairs_end
    with path.open("r+b", buffering=0) as file:
        for turn in range(120):
            # the keys' beginning, or the tensors: the middle is a vocabulary of plain strings
            at = chance.randrange(2000) if turn % 2 else chance.randrange(tensors, end)
            file.seek(at)
            file.write(bytes([chance.choice([0, 1, 255, chance.randrange(256)])]))
            checked(path)
            file.seek(at)
            file.write(good[at : at + 1])
    assert checked(path)
