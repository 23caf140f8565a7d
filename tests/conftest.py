"""Shared by all tests: the network is shut except loopback, and the workspace is a new folder.

With INTRAMUROS_ALLOWED_SKIPS naming a file of reasons, a skip for another reason fails the run.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from intramuros import settings
from intramuros.engines.scripted import Scripted
from intramuros.run import Session

LOOPBACK = ("127.", "::1", "localhost")


@pytest.fixture(autouse=True)
def shut_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that leaves this machine; native code here opens none."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if isinstance(address, tuple) and not str(host).startswith(LOOPBACK):
            raise AssertionError(f"a test tried to reach {address!r}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def own_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the ledger at a new folder, and settings away from the machine's own."""
    for setting in settings.SETTINGS:
        monkeypatch.delenv(f"INTRAMUROS_{setting.name.upper()}", raising=False)
    folder = tmp_path / "workspace"
    monkeypatch.setenv("INTRAMUROS_WORKSPACE", str(folder))
    return folder


@pytest.fixture
def engine() -> Scripted:
    """An engine that finds everything positive; tests replace its `script`."""
    return Scripted(lambda ask: "positive")


@pytest.fixture
def session(engine: Scripted) -> Iterator[Session]:
    session = Session(engine)
    yield session
    session.close()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a skip is a failure unless its reason is on the list."""
    listed = os.environ.get("INTRAMUROS_ALLOWED_SKIPS")
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if not listed or reporter is None:
        return
    allowed = set(Path(listed).read_text(encoding="utf-8").splitlines())
    for report in reporter.stats.get("skipped", []):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason not in allowed:
            reporter.write_line(f"not an allowed skip: {report.nodeid}: {reason}", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
