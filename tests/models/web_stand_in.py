"""A small web server on loopback that can cut connections, fall silent, and ignore ranges."""

import contextlib
import http.server
import threading
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Reply:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class WebStandIn:
    """Serves what `reply` gives; subclasses say what that is.

    `cuts` are consumed by replies with a large body: the connection ends after that many bytes.
    While `held` is set, such a body stops half way until `release` is set.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.cuts: list[int] = []
        self.ranges = True
        self.held = threading.Event()
        self.half_way = threading.Event()
        self.release = threading.Event()
        self.broken_with = 0  # a status that every request gets
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def elsewhere(self) -> str:
        """The same server under another host's name, as storage is to the hub."""
        return f"http://localhost:{self.server.server_port}"

    def reply(self, request: Request) -> Reply:
        return Reply(404)

    def asked(self, part: str, method: str = "GET") -> list[Request]:
        """The requests whose path contains that."""
        return [one for one in self.requests if part in one.path and one.method == method]

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def _handler(stand_in: WebStandIn) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, headers)
            stand_in.requests.append(request)
            broken = stand_in.broken_with
            reply = Reply(broken) if broken else stand_in.reply(request)
            with contextlib.suppress(ConnectionError):
                self.answer(reply, headers.get("range", ""))

        do_HEAD = do_GET

        def answer(self, reply: Reply, asked_range: str) -> None:
            body, status = reply.body, reply.status
            headers = dict(reply.headers)
            if asked_range and stand_in.ranges and status == 200:
                start = int(asked_range.removeprefix("bytes=").rstrip("-"))
                headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                body, status = body[start:], 206
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            self.send(body, large="application/" not in headers.get("Content-Type", ""))

        def send(self, body: bytes, large: bool) -> None:
            if large and stand_in.held.is_set() and not stand_in.release.is_set():
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                stand_in.half_way.set()
                stand_in.release.wait(60)
                body = body[len(body) // 2 :]
            if large and body and stand_in.cuts:
                self.wfile.write(body[: stand_in.cuts.pop(0)])
                self.wfile.flush()
                self.close_connection = True
                return
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
