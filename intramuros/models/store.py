"""The store of weights: every file lies under its own SHA-256, and is named only once it is whole.

    home/weights/<sha256>/<file>   checked bytes
    home/prepared/<sha256>/        forms made from them for engines
    home/partial/                  what is still coming; safe to delete
    home/locks/                    one process at a time works on one digest

Does not know cards or networks. Does not re-read whole files on use: `verify` does, when asked.
"""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import filelock
import msgspec

from intramuros.errors import Broken, CorruptWeights, NoSpace, ReadOnly

T = TypeVar("T")
D = TypeVar("D")
Progress = Callable[[int, int], None]  # bytes done, bytes in all
Tell = Callable[[str], None]  # a sentence for the person who waits

BLOCK = 1 << 20
MARGIN = 64 << 20  # bytes left free beside what is about to be written


def silent(*_: object) -> None:
    """Stands in for a Progress or a Tell nobody listens to."""


def weights_path(home: Path, sha256: str, file: str) -> Path:
    return home / "weights" / sha256 / file


def partial_path(home: Path, name: str) -> Path:
    return home / "partial" / name


def prepared_path(home: Path, sha256: str) -> Path:
    return home / "prepared" / sha256


@contextlib.contextmanager
def locked(home: Path, name: str, tell: Tell = silent) -> Iterator[None]:
    """Hold the store's lock of that name; waits for another process, and says that it does."""
    folder = home / "locks"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            tell("another process is working on the same weights; waiting for it")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def writing(path: Path, needed: int = 0) -> Iterator[None]:
    """Turn the system's refusals to write `path` into sentences."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(path, needed) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise ReadOnly(
                f"{path} cannot be written: {os.strerror(error.errno)}",
                hint="set INTRAMUROS_HOME to a folder of yours, or ask for the right to write",
            ) from None
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise ReadOnly(
                f"{path} is not a folder that can be used: {os.strerror(error.errno)}",
                hint="set INTRAMUROS_HOME to a folder",
            ) from None
        raise


def require_space(home: Path, needed: int) -> None:
    """Refuse before the first byte what will not fit."""
    with writing(home):
        home.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(home).free < needed + MARGIN:
        raise _no_space(home, needed + MARGIN)


def digest(path: Path, progress: Callable[[int], None] = silent) -> str:
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            sha256.update(block)
            progress(len(block))
    return sha256.hexdigest()


def settle(home: Path, part: Path, sha256: str, file: str) -> Path:
    """Give a partial file whose digest has been checked its name and place."""
    place = weights_path(home, sha256, file)
    with writing(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        os.chmod(part, 0o444)
        os.replace(part, place)
    return place


def verify(path: Path, sha256: str) -> None:
    """Read a stored file again and compare; a file that changed is taken out of use."""
    if not path.exists():
        raise CorruptWeights(f"{path} is not in the store", hint="pull the model again")
    found = digest(path)
    if found != sha256:
        with writing(path):
            path.unlink()
        raise CorruptWeights(
            f"{path.name} changed on disk (SHA-256 {found[:12]}…, not {sha256[:12]}…) "
            "and was deleted",
            hint="pull the model again",
        )


def remove(home: Path, sha256: str) -> int:
    """Delete a file, what was prepared from it and what was left of its download; bytes freed."""
    freed = held(home, sha256)
    with locked(home, sha256), writing(home):
        for folder in (home / "weights" / sha256, prepared_path(home, sha256)):
            if folder.exists():
                shutil.rmtree(folder)
    return freed + discard(home, [sha256])


def discard(home: Path, digests: Iterable[str]) -> int:
    """Delete what is left of downloads; bytes freed."""
    freed = 0
    for sha256 in digests:
        for left in (home / "partial").glob(f"{sha256}.*"):
            freed += size(left)
            with writing(left):
                left.unlink(missing_ok=True)
    return freed


def held(home: Path, sha256: str) -> int:
    """Bytes that weights and their prepared forms take."""
    return size(home / "weights" / sha256) + size(prepared_path(home, sha256))


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 if there is none."""
    if path.is_dir():
        return sum(inner.stat().st_size for inner in path.rglob("*") if inner.is_file())
    return path.stat().st_size if path.exists() else 0


def read_json(path: Path, kind: type[T], default: D) -> T | D:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, NotADirectoryError):
        return default
    except OSError as error:
        raise Broken(f"{path} cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise Broken(
            f"{path} is damaged: {error}", hint="restore it, or delete it to start afresh"
        ) from None


def write_json(path: Path, value: Any) -> None:
    """Write the whole file or leave the old one."""
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.{os.getpid()}")
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=1))
        os.replace(beside, path)


def gigabytes(count: int) -> str:
    """A number of bytes, as people say it."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6)):,} MB"


def _no_space(path: Path, needed: int) -> NoSpace:
    existing = next((parent for parent in (path, *path.parents) if parent.exists()), Path("/"))
    free = shutil.disk_usage(existing).free
    wanted = f"{gigabytes(needed)} are needed and " if needed else ""
    return NoSpace(
        f"no space left at {path}: {wanted}{gigabytes(free)} are free",
        hint="free some space and pull again: what has come so far is kept; or set INTRAMUROS_HOME",
    )
