"""Fetch one file over HTTP into a partial file: resumed where it stopped, checked when it is whole.

Does not decide where a file comes from, and gives nothing its final name.
"""

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import httpx

from intramuros.errors import CorruptWeights, DownloadFailed
from intramuros.models.store import BLOCK, silent, writing

T = TypeVar("T")

ANSWER_WITHIN = 4.5  # seconds until a source's first answer; then it counts as unreachable
TIMEOUT = httpx.Timeout(30.0, connect=ANSWER_WITHIN)  # within a download
ATTEMPTS = 5  # in a row that bring no byte
PAUSE = 0.2  # seconds before another attempt; doubled each time


class Place(NamedTuple):
    """Where a file can be read now; signed addresses expire, so it is asked for at each attempt."""

    url: str
    headers: dict[str, str]


def in_time(who: str, ask: Callable[[], T]) -> T:
    """Ask a source, but do not wait for long: name lookups know no timeout of their own."""
    answer: list[T] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            answer.append(ask())
        except BaseException as error:  # handed to the thread that waits
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(ANSWER_WITHIN)
    if failed:
        raise failed[0]
    if not answer:
        raise DownloadFailed(f"{who} did not answer within {ANSWER_WITHIN:.1f} s")
    return answer[0]


def fetch(
    client: httpx.Client,
    locate: Callable[[], Place],
    part: Path,
    size: int,
    sha256: str,
    progress: Callable[[int], None] = silent,
) -> None:
    """Bring `part` to `size` bytes of digest `sha256`; a wrong file is deleted, a cut one kept."""
    with writing(part.parent, size):
        part.parent.mkdir(parents=True, exist_ok=True)
        running = _resume(part, size, progress)
        failures = 0
        while running.bytes < size:
            before = running.bytes
            reason = _attempt(client, locate(), part, size, running, progress)
            failures = failures + 1 if running.bytes <= before else 0
            if failures >= ATTEMPTS:
                raise DownloadFailed(
                    f"{part.name} stopped at {running.bytes:,} of {size:,} bytes: {reason}",
                    hint="pull again: it goes on where it stopped",
                )
            if running.bytes < size:
                time.sleep(PAUSE * 2**failures)
        found = running.digest.hexdigest()
        if running.bytes > size or found != sha256:
            part.unlink(missing_ok=True)
            progress(-running.bytes)
            raise CorruptWeights(
                f"the bytes received are not the file that was asked for (SHA-256 {found[:12]}…, "
                f"not {sha256[:12]}…); they were deleted",
                hint="pull again; if it happens again, the source serves another file",
            )


class _Running:
    """Bytes in the partial file, and the digest of them so far."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.bytes = 0
        self.digest = hashlib.sha256()

    def add(self, block: bytes) -> None:
        self.bytes += len(block)
        self.digest.update(block)


def _resume(part: Path, size: int, progress: Callable[[int], None]) -> _Running:
    running = _Running()
    with contextlib.suppress(FileNotFoundError):
        if part.stat().st_size > size:
            part.unlink()
        else:
            with part.open("rb") as file:
                while block := file.read(BLOCK):
                    running.add(block)
            progress(running.bytes)
    return running


def _attempt(
    client: httpx.Client,
    place: Place,
    part: Path,
    size: int,
    running: _Running,
    progress: Callable[[int], None],
) -> str:
    """Read until the end or a cut, whose reason it gives; raises where trying again is vain."""
    headers = {**place.headers, "Accept-Encoding": "identity"}
    if running.bytes:
        headers["Range"] = f"bytes={running.bytes}-"
    try:
        with client.stream("GET", place.url, headers=headers, timeout=TIMEOUT) as response:
            if response.status_code in (408, 429) or response.status_code >= 500:
                return f"the server answered {response.status_code}"
            if response.status_code not in (200, 206):
                raise DownloadFailed(f"{response.url.host} answered {response.status_code}")
            if running.bytes and not _goes_on(response, running.bytes):
                progress(-running.bytes)
                running.restart()
            with part.open("ab" if running.bytes else "wb") as file:
                for block in response.iter_raw():  # as it comes: a cut then loses nothing
                    file.write(block)
                    running.add(block)
                    progress(len(block))
                    if running.bytes > size:
                        break
                file.flush()
                os.fsync(file.fileno())
    except httpx.TransportError as error:
        return str(error) or type(error).__name__
    return "the connection was cut"


def _goes_on(response: httpx.Response, position: int) -> bool:
    """Whether the server really sends the rest; one that cannot sends the whole file again."""
    return response.status_code == 206 and response.headers.get("content-range", "").startswith(
        f"bytes {position}-"
    )
