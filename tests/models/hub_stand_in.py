"""A hub on loopback with the routes that huggingface_hub uses: model info, HEAD resolve, storage.

`/api/models/{repo}/revision/{revision}` tells commit and files, `/{repo}/resolve/{commit}/{file}`
redirects to `/storage/…`, as the hub does to its content network. Does not know git.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from tests.models.web_stand_in import Reply, Request, WebStandIn


@dataclass
class Repository:
    """Files under one commit; `digests` are what the hub claims, if not the truth."""

    files: dict[str, bytes]
    commit: str = "a" * 40
    digests: dict[str, str] = field(default_factory=dict)
    small: tuple[str, ...] = ()  # files kept in git itself, of which the hub gives no SHA-256
    gate: int = 0  # 401 or 403: who asks is not let in


class HubStandIn(WebStandIn):
    def __init__(self) -> None:
        super().__init__()
        self.repositories: dict[str, Repository] = {}

    def reply(self, request: Request) -> Reply:
        path = unquote(urlsplit(request.path).path)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            return self.info(*found.groups())
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.resolve(*found.groups())
        if found := re.fullmatch(r"/storage/([^/]+/[^/]+)/(.+)", path):
            return Reply(body=self.repositories[found.group(1)].files[found.group(2)])
        return Reply(404)

    def refusal(self, repo: str, revision: str) -> Reply | None:
        repository = self.repositories.get(repo)
        if repository is None:
            return Reply(401, {"X-Error-Code": "RepoNotFound"})
        if repository.gate:
            return Reply(repository.gate, {"X-Error-Code": "GatedRepo"})
        if revision not in ("main", repository.commit):
            return Reply(404, {"X-Error-Code": "RevisionNotFound"})
        return None

    def info(self, repo: str, revision: str) -> Reply:
        if refused := self.refusal(repo, revision):
            return refused
        repository = self.repositories[repo]
        siblings = []
        for name, content in repository.files.items():
            sibling: dict[str, object] = {
                "rfilename": name,
                "size": len(content),
                "blobId": "b" * 40,
            }
            if name not in repository.small:
                sha256 = repository.digests.get(name, hashlib.sha256(content).hexdigest())
                sibling["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
            siblings.append(sibling)
        told = {"id": repo, "sha": repository.commit, "siblings": siblings}
        return Reply(headers={"Content-Type": "application/json"}, body=json.dumps(told).encode())

    def resolve(self, repo: str, revision: str, name: str) -> Reply:
        if refused := self.refusal(repo, revision):
            return refused
        repository = self.repositories[repo]
        content = repository.files.get(name)
        if content is None:
            return Reply(404, {"X-Error-Code": "EntryNotFound"})
        sha256 = repository.digests.get(name, hashlib.sha256(content).hexdigest())
        etag = "c" * 40 if name in repository.small else sha256
        return Reply(
            302,
            {
                "Location": f"{self.elsewhere}/storage/{repo}/{name}",
                "X-Repo-Commit": repository.commit,
                "X-Linked-Etag": f'"{etag}"',
                "X-Linked-Size": str(len(content)),
            },
        )
