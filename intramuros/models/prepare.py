"""Prepare: turn a pulled file into what engines load, once.

Where OpenVINO cannot read a file's types it is rewritten to Q8_0 (every engine then loads the
rewritten file); then OpenVINO's own form is made in a child process. Everything is written in a
folder beside and renamed whole. Does not load a model for use.
"""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from intramuros.errors import CorruptWeights, NotFound
from intramuros.models import catalog, gguf, store
from intramuros.models.catalog import Card
from intramuros.models.prepared import Prepared
from intramuros.models.rewrite import rewrite, rewritten_size
from intramuros.models.store import Progress, Tell, silent
from intramuros.settings import Settings

# What OpenVINO's reader takes as it is; a file with any other type is rewritten whole. Q4_1 and
# Q4_K are left out although they are read: their offsets are rounded to whole steps there, which
# is an error of 8 % in the weights, and the engines would disagree (DECISIONS.md).
OPENVINO_TYPES = frozenset({"F32", "F16", "Q4_0", "Q8_0", "Q6_K"})
OPENVINO_ARCHITECTURES = frozenset({"llama", "qwen2", "qwen3"})
OPENVINO_FILES = (
    "openvino_model.xml",
    "openvino_model.bin",
    "openvino_tokenizer.xml",
    "openvino_detokenizer.xml",
)
RECORD = "prepared.json"


class Member(msgspec.Struct, frozen=True):
    """A line of the manifest: one file that is read."""

    path: str
    size: int
    sha256: str


class Record(msgspec.Struct, frozen=True):
    """What stands beside prepared weights."""

    manifest: tuple[Member, ...]
    gguf: str  # relative to the store
    openvino_refusal: str = ""  # why OpenVINO has no form of them

    @property
    def digest(self) -> str:
        return hashlib.sha256(msgspec.json.encode(self.manifest)).hexdigest()


def prepare(
    card: Card, home: Path, settings: Settings, progress: Progress = silent, tell: Tell = silent
) -> Prepared:
    """The card's weights in the form engines load; instant when that was done before."""
    catalog.require_served(card)
    if done := prepared(card, home):
        return done
    original = store.weights_path(home, card.sha256, card.file)
    if not card.sha256 or not original.exists():
        raise NotFound(
            f"the weights of {card.name!r} are not in the store",
            hint=f"intramuros models pull {card.name}",
        )
    with store.locked(home, card.sha256, tell):
        return prepared(card, home) or _make(card, original, home, progress, tell)


def prepared(card: Card, home: Path) -> Prepared | None:
    """What was prepared before, if all of it is there."""
    folder = store.prepared_path(home, card.sha256)
    record = _record(card, home)
    if record is None:
        return None
    whole = home / record.gguf
    forms = (
        [] if record.openvino_refusal else [folder / "openvino" / name for name in OPENVINO_FILES]
    )
    if not whole.exists() or whole.stat().st_size != record.manifest[0].size:
        return None
    if not all(form.exists() for form in forms):
        return None
    return Prepared(
        card=card.name,
        digest=record.digest,
        gguf=whole,
        openvino=folder / "openvino",
        template=card.template,
        context=card.context,
    )


def openvino_refusal(card: Card, home: Path) -> str:
    """Why there is no form of these weights for OpenVINO; empty if there is one."""
    record = _record(card, home)
    return record.openvino_refusal if record else ""


def verify(card: Card, home: Path) -> None:
    """Read the card's stored and prepared files again, and refuse any that changed."""
    store.verify(store.weights_path(home, card.sha256, card.file), card.sha256)
    record = _record(card, home)
    for member in record.manifest if record else ():
        path = home / record.gguf if record else home
        if store.digest(path) != member.sha256:
            shutil.rmtree(store.prepared_path(home, card.sha256))
            raise CorruptWeights(
                f"the prepared form of {card.name!r} changed on disk; it was deleted",
                hint="it is prepared anew at its next use",
            )


def _record(card: Card, home: Path) -> Record | None:
    path = store.prepared_path(home, card.sha256) / RECORD
    return store.read_json(path, Record, None) if card.sha256 else None


def _make(card: Card, original: Path, home: Path, progress: Progress, tell: Tell) -> Prepared:
    header = gguf.check(original)
    folder = store.prepared_path(home, card.sha256)
    unfinished = folder.with_name(f"{folder.name}.{os.getpid()}.unfinished")
    readable = header.tensor_types <= OPENVINO_TYPES
    rewritten = 0 if readable else rewritten_size(header)
    store.require_space(home, rewritten + int(1.1 * (rewritten or card.size)))
    for left in folder.parent.glob(f"{folder.name}.*.unfinished"):  # we hold the lock: nobody's
        shutil.rmtree(left, ignore_errors=True)  # a child that outlived its parent may write there
    try:
        with store.writing(unfinished):
            unfinished.mkdir(parents=True)
        source, member = original, Member(card.file, card.size, card.sha256)
        if not readable:
            source = unfinished / f"{Path(card.file).stem}-Q8_0.gguf"
            member = _rewritten(card, original, header, source, progress, tell)
        tell(f"turning {card.name} into OpenVINO's form")
        refusal = _openvino_form(source, header.architecture, unfinished / "openvino")
        if refusal:
            tell(refusal)
        place = source if readable else folder / source.name
        record = Record((member,), str(place.relative_to(home)), refusal)
        store.write_json(unfinished / RECORD, record)
        with store.writing(folder):
            if folder.exists():
                shutil.rmtree(folder)
            unfinished.rename(folder)
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(unfinished)
    found = prepared(card, home)
    if found is None:
        raise CorruptWeights(f"what was prepared of {card.name!r} is not whole", hint="try again")
    return found


def _rewritten(
    card: Card, original: Path, header: gguf.Header, written: Path, progress: Progress, tell: Tell
) -> Member:
    """Rewrite the file, and make sure that the copy speaks the same language: equal keys."""
    unread = ", ".join(sorted(header.tensor_types - OPENVINO_TYPES))
    tell(f"rewriting {card.name} as Q8_0, because OpenVINO does not take {unread} as it is")
    done = 0

    def count(read: int) -> None:
        nonlocal done
        done += read
        progress(min(done, card.size), card.size)

    with store.writing(written, rewritten_size(header)):
        rewrite(original, header, written, count)
    copy = gguf.check(written)
    if _tokenizer_bytes(original, header) != _tokenizer_bytes(written, copy):
        raise CorruptWeights(f"the rewritten {card.file} has another tokenizer", hint="report this")
    os.chmod(written, 0o444)
    return Member(written.name, written.stat().st_size, store.digest(written))


def _tokenizer_bytes(path: Path, header: gguf.Header) -> dict[str, bytes]:
    """Every key of the tokenizer as it stands in the file."""
    keys = sorted(header.value_starts, key=lambda key: header.value_starts[key])
    ends = [*(header.value_starts[key] for key in keys[1:]), header.pairs_end]
    found = {}
    with path.open("rb") as file:
        for key, end in zip(keys, ends, strict=True):
            if key.startswith("tokenizer."):
                file.seek(header.value_starts[key])
                found[key] = file.read(end - header.value_starts[key])
    return found


def _openvino_form(source: Path, architecture: str, folder: Path) -> str:
    """Make OpenVINO's form of `source` in `folder`; gives a sentence if it cannot."""
    if architecture not in OPENVINO_ARCHITECTURES:
        return f"OpenVINO does not read {architecture} from GGUF; engine llamacpp serves it"
    with store.writing(folder, source.stat().st_size):
        folder.mkdir()
        link = folder / source.name
        link.symlink_to(source.resolve())
    program = Path(__file__).with_name("openvino_form.py")
    ended = _run([sys.executable, "-I", str(program), str(link)])
    link.unlink()
    missing = [name for name in OPENVINO_FILES if not (folder / name).exists()]
    if not ended.returncode and not missing:
        return ""
    store.require_space(folder, source.stat().st_size // 10)  # a full disk is no refusal of weights
    shutil.rmtree(folder)
    return f"OpenVINO cannot read these weights ({_reason(ended)}); engine llamacpp serves them"


def _reason(ended: subprocess.CompletedProcess[str]) -> str:
    """Why a child failed: its last words, or the signal that stopped it."""
    if ended.returncode == -signal.SIGKILL:
        return "the system stopped it, often for want of memory; remove and pull to try again"
    lines = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"it ended with code {ended.returncode}"


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a child with nothing of our environment but what finds programs and libraries."""
    kept = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "SYSTEMROOT", "TEMP", "HOME")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    return subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
