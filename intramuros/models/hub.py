"""Weights from a Hugging Face hub: asked through its own client, pinned, fetched by digest.

The hub's client says which commit, size and digest a name means and where the bytes are; the bytes
themselves come the way all ours do (fetch.py). Does not use the hub's cache folder.
"""

import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import huggingface_hub
import huggingface_hub.errors as hub_errors
import huggingface_hub.utils as hub_utils

from intramuros.errors import BadArgument, DownloadFailed, NotFound, Refused
from intramuros.models import pins
from intramuros.models.catalog import Hub
from intramuros.models.fetch import TIMEOUT, Place, fetch, in_time
from intramuros.models.store import Progress, partial_path, require_space, size
from intramuros.settings import Settings

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
PREFERRED = "q4_k_m"


class Offer(NamedTuple):
    """What the hub has under a name now."""

    source: Hub
    pin: pins.Pin


def offered(source: Hub, settings: Settings) -> Offer:
    """Ask the hub what the name means; an empty `file` is chosen from the repository's."""
    endpoint = settings.hub.rstrip("/")
    where = urllib.parse.urlsplit(endpoint).netloc
    api = huggingface_hub.HfApi(endpoint=endpoint)

    def ask() -> Any:
        return api.model_info(
            source.repo, revision=source.revision, files_metadata=True, timeout=30
        )

    info = _asked(source, where, lambda: in_time(where, ask))
    files = {sibling.rfilename: sibling for sibling in info.siblings or []}
    name = source.file or _choose(source.repo, list(files))
    if name not in files:
        raise NotFound.among(
            f"file in {source.repo}", name, [f for f in files if f.endswith(".gguf")]
        )
    commit = str(info.sha)
    source = Hub(source.repo, name, source.revision)
    details = files[name]
    digest = getattr(details.lfs, "sha256", None) if details.lfs else None
    if digest and details.lfs.size:
        return Offer(source, pins.Pin(commit, details.lfs.size, digest))
    found = _metadata(source, commit, endpoint)
    if not found.size or not found.etag or len(found.etag) != 64:
        raise DownloadFailed(
            f"{where} gives no SHA-256 for {source.repo}/{name}, so it cannot be pinned"
        )
    return Offer(source, pins.Pin(commit, found.size, found.etag))


def bring(offer: Offer, settings: Settings, home: Path, progress: Progress) -> Path:
    """The offered file, whole and checked, still under its partial name."""
    endpoint, pin = settings.hub.rstrip("/"), offer.pin
    part = partial_path(home, f"{pin.sha256}.part")
    require_space(home, pin.size - size(part))
    done = 0

    def count(received: int) -> None:
        nonlocal done
        done += received
        progress(done, pin.size)

    def locate() -> Place:
        found = _metadata(offer.source, pin.commit, endpoint)
        url = urllib.parse.urljoin(endpoint, found.location)
        ours = urllib.parse.urlsplit(url)[:2] == urllib.parse.urlsplit(endpoint)[:2]
        # a token is for the hub, not for the storage it points to
        return Place(url, hub_utils.build_hf_headers() if ours else {})

    with httpx.Client(follow_redirects=True, timeout=TIMEOUT) as client:
        fetch(client, locate, part, pin.size, pin.sha256, count)
    return part


def _metadata(source: Hub, commit: str, endpoint: str) -> huggingface_hub.HfFileMetadata:
    url = huggingface_hub.hf_hub_url(source.repo, source.file, revision=commit, endpoint=endpoint)
    where = urllib.parse.urlsplit(endpoint).netloc
    return _asked(
        source,
        where,
        lambda: huggingface_hub.get_hf_file_metadata(url, timeout=30, endpoint=endpoint),
    )


def _asked(source: Hub, where: str, ask: Callable[[], Any]) -> Any:
    """Ask the hub, and say in a sentence what it refuses."""
    token_hint = "accept its terms on the hub and set HF_TOKEN to a token of yours"
    try:
        return ask()
    except hub_errors.GatedRepoError:
        raise DownloadFailed(
            f"{source.repo} is gated: {where} asks who you are", token_hint
        ) from None
    except hub_errors.RevisionNotFoundError:
        raise DownloadFailed(
            f"{source.repo} has no revision {source.revision!r} at {where}"
        ) from None
    except hub_errors.RepositoryNotFoundError:
        raise DownloadFailed(
            f"{where} shows no repository {source.repo}",
            hint=f"check its name; if it is private or gated, {token_hint}",
        ) from None
    except hub_errors.EntryNotFoundError:
        raise DownloadFailed(f"{source.repo} has no file {source.file!r} at {where}") from None
    except hub_errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "an error")
        hint = token_hint if status in (401, 403) else "try again later"
        raise DownloadFailed(f"{where} answered {status} for {source.repo}", hint) from None
    except hub_errors.HFValidationError as error:
        raise BadArgument(f"{source.repo!r} is no name of a repository: {error}") from None
    except DownloadFailed:
        raise
    except Exception as error:  # the client's transport raises its own library's kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DownloadFailed(f"{where} cannot be reached: {reason[0]}") from None


def _choose(repo: str, files: Sequence[str]) -> str:
    """The one GGUF file to take of a repository, if there is no doubt."""
    whole = [file for file in files if file.endswith(".gguf") and "-of-0" not in file]
    preferred = [file for file in whole if PREFERRED in file.lower()]
    for few in (whole, preferred):
        if len(few) == 1:
            return few[0]
    if whole:
        raise BadArgument(
            f"{repo} has {len(whole)} GGUF files",
            hint=f"name one: hf:{repo}/{whole[0]}; there are also {', '.join(whole[1:9])}",
        )
    if any(file.endswith(".safetensors") for file in files):
        raise Refused(
            f"{repo} holds safetensors, which are read from a later step on",
            hint="look for the same model as GGUF; its repository is often named …-GGUF",
        )
    if any(file.endswith(PICKLES) for file in files):
        raise Refused(
            f"{repo} holds pickles, which can run any code when they are read, so they never are",
            hint="look for the same model as GGUF",
        )
    raise Refused(f"{repo} has no GGUF file that stands alone")
