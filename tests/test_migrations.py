"""The ledger's file: every earlier version opens, and what is not ours is refused untouched."""

import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from intramuros import migrations
from intramuros.engines.scripted import Scripted
from intramuros.errors import LedgerDamaged, LedgerTooNew, NoSpace, ReadOnly
from intramuros.ledger import Ledger, Remembered
from intramuros.types import Answer, Ask, Choice, Choose, Embed, Fill, Origin, Prompt, Say

FROZEN = sorted((Path(__file__).parent / "ledgers").glob("version*.sql"))
"""What each version wrote, word for word. Never change one: add the next beside it."""

PROMPT = Prompt("Judge.", document="Une belle journée", question="How is it?")
HELD: dict[Ask, object] = {
    Say(PROMPT): "Fine.",
    Choose(PROMPT, ("good", "bad")): Choice("good", {"good": 0.75, "bad": 0.25}),
    Fill(PROMPT, '{"type":"object"}'): {"name": "Dupont", "amount": 1250.5},
    Embed("Une belle journée"): [0.5, -0.25, 0.1],
}
"""What the frozen ledgers hold, asked of the identity `scripted` by `anna` about `a.csv`."""

ORIGIN = Origin("anna", "a.csv")


def thaw(frozen: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "ledger.db"
    connection = sqlite3.connect(path)
    connection.executescript(frozen.read_text(encoding="utf-8"))
    connection.close()
    return path


def refused(path: Path, kind: type[Exception]) -> str:
    """Open a ledger that must be refused, and left exactly as it was."""
    before = path.read_bytes()
    with pytest.raises(kind) as caught:
        Ledger(path.parent)
    assert path.read_bytes() == before
    assert caught.value.hint  # type: ignore[attr-defined]
    return str(caught.value)


def test_there_is_a_frozen_ledger_of_every_version() -> None:
    names = [f"version{number}.sql" for number in range(1, len(migrations.MIGRATIONS) + 1)]
    assert [path.name for path in FROZEN] == names


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda path: path.stem)
def test_a_ledger_of_every_version_opens_and_answers(frozen: Path, tmp_path: Path) -> None:
    thaw(frozen, tmp_path)
    ledger, engine = Ledger(tmp_path), Scripted(lambda ask: "asked again")
    pieces = list(Remembered(engine, ledger).generate(list(HELD)))
    answers = [piece.answer for piece in pieces]
    assert engine.asked == []
    assert all(isinstance(answer, Answer) and answer.from_ledger for answer in answers)
    assert [answer.value for answer in answers if isinstance(answer, Answer)] == [*HELD.values()]
    assert ledger.counts().feedback == 1
    ledger.close()


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda path: path.stem)
def test_a_migrated_ledger_has_the_tables_of_a_new_one(frozen: Path, tmp_path: Path) -> None:
    def tables(path: Path) -> list[tuple[object, ...]]:
        connection = sqlite3.connect(path)
        rows = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2")
        found: list[tuple[object, ...]] = [
            (kind, name, " ".join(str(sql).split())) for kind, name, sql in rows
        ]
        connection.close()
        return found

    Ledger(tmp_path / "new").close()
    old = thaw(frozen, tmp_path / "old")
    Ledger(tmp_path / "old").close()
    assert tables(old) == tables(tmp_path / "new" / "ledger.db")


def test_a_migration_copies_the_file_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = thaw(FROZEN[-1], tmp_path)
    version = len(FROZEN)

    def m999_adds_a_table(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE added (name TEXT)")

    monkeypatch.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, m999_adds_a_table])
    ledger = Ledger(tmp_path)
    assert ledger.counts().asks == len(HELD)
    ledger.close()
    copy = tmp_path / f"ledger.db.version{version}"
    for file, expected in ((path, version + 1), (copy, version)):
        connection = sqlite3.connect(file)
        assert connection.execute("PRAGMA user_version").fetchone() == (expected,)
        assert connection.execute("SELECT count(*) FROM asks").fetchone() == (len(HELD),)
        connection.close()
    monkeypatch.undo()
    assert "version" in refused(path, LedgerTooNew)


def test_a_failing_migration_leaves_the_old_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thaw(FROZEN[-1], tmp_path)

    def m999_fails(connection: sqlite3.Connection) -> None:
        connection.execute("DROP TABLE answers")
        raise RuntimeError("half way")

    monkeypatch.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, m999_fails])
    with pytest.raises(RuntimeError):
        Ledger(tmp_path)
    monkeypatch.undo()
    ledger = Ledger(tmp_path)
    assert ledger.counts().answers == len(HELD)
    ledger.close()


def test_a_file_that_is_not_sqlite_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"Dear diary, " * 1000)
    assert "not a SQLite file" in refused(path, LedgerDamaged)


def test_a_truncated_ledger_is_refused(tmp_path: Path) -> None:
    path = thaw(FROZEN[-1], tmp_path)
    whole = path.read_bytes()
    for size in (1, 50, 99, 100, 4096, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        refused(path, LedgerDamaged)


def test_a_ledger_with_wrong_bytes_is_refused(tmp_path: Path) -> None:
    path = thaw(FROZEN[-1], tmp_path)
    whole = bytearray(path.read_bytes())
    whole[8192:12288] = b"\x5a" * 4096
    path.write_bytes(whole)
    assert "damaged" in refused(path, LedgerDamaged)


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE books (title TEXT)")
    connection.close()
    assert "not a ledger" in refused(path, LedgerDamaged)


def test_an_emptied_ledger_whose_journal_remains_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.touch()
    (tmp_path / "ledger.db-wal").write_bytes(b"frames")
    refused(path, LedgerDamaged)
    assert (tmp_path / "ledger.db-wal").read_bytes() == b"frames"


def test_a_creation_that_was_killed_is_taken_up(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    ledger = Ledger(tmp_path)
    assert ledger.counts().asks == 0
    ledger.close()


TRY_AS_NOBODY = """
import os, sys
from pathlib import Path
from intramuros.errors import ReadOnly
from intramuros.ledger import Ledger
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
for folder in sys.argv[1:]:
    try:
        Ledger(Path(folder))
    except ReadOnly as error:
        print(error.sentence, "|", error.hint)
"""


def test_a_folder_that_cannot_be_written_is_refused() -> None:
    """By a user without rights, since root may write everywhere; so not below pytest's folder."""
    folder = Path("/tmp") / f"intramuros-read-only-{os.getpid()}"
    try:
        thaw(FROZEN[-1], folder / "held")
        (folder / "empty").mkdir()
        for path in (folder / "held" / "ledger.db", folder / "held", folder / "empty", folder):
            path.chmod(0o444 if path.is_file() else 0o555)
        done = subprocess.run(
            [sys.executable, "-c", TRY_AS_NOBODY]
            + [str(folder / name) for name in ("held", "empty", "none")],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert done.stderr == ""
        assert done.stdout.count("INTRAMUROS_WORKSPACE") == 3
        assert done.stdout.count("cannot be") == 3
    finally:
        for path in (folder, folder / "held", folder / "empty"):
            path.chmod(0o755)
        shutil.rmtree(folder)


def test_a_folder_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(ReadOnly):
        Ledger(Path("/dev/null/workspace"))


def test_no_room_for_a_copy_is_said(tmp_path: Path) -> None:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorname = "SQLITE_FULL"
    assert isinstance(migrations.explained(error, tmp_path), NoSpace)


def _create(folder: str) -> None:
    ledger = Ledger(Path(folder))
    list(Remembered(Scripted(lambda ask: "yes"), ledger).generate([Say(PROMPT)]))
    ledger.close()


def test_several_processes_create_one_ledger_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_create, args=(str(tmp_path),)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    ledger = Ledger(tmp_path)
    assert ledger.counts().answers == 1
    ledger.close()
