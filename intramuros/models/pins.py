"""What a name on the hub meant when it was first pulled: commit, size and digest of the file.

A name on the hub can come to mean other bytes; a pin makes that visible. Does not fetch.
"""

from pathlib import Path

import msgspec

from intramuros.errors import CorruptWeights
from intramuros.models.store import locked, read_json, write_json


class Pin(msgspec.Struct, frozen=True):
    commit: str
    size: int
    sha256: str


def key(repo: str, file: str, revision: str) -> str:
    return f"{repo}/{file}@{revision}"


def read(home: Path) -> dict[str, Pin]:
    return read_json(home / "pins.json", dict[str, Pin], {})


def add(home: Path, name: str, pin: Pin) -> None:
    with locked(home, "pins"):
        write_json(home / "pins.json", {**read(home), name: pin})


def drop(home: Path, name: str) -> None:
    with locked(home, "pins"):
        write_json(home / "pins.json", {key: pin for key, pin in read(home).items() if key != name})


def require_same(home: Path, name: str, now: Pin) -> None:
    """Refuse a hub file that is no longer what it was when its name was pinned."""
    pin = read(home).get(name)
    if pin and pin.sha256 != now.sha256:
        raise CorruptWeights(
            f"{name} was pinned as {pin.sha256[:12]}… and the hub now offers {now.sha256[:12]}…",
            hint=f"pull hf:{name.rpartition('@')[0]}@{pin.commit} for the pinned bytes, "
            "or remove the model with its pin and pull it anew",
        )
