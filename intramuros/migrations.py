"""The ledger's tables, the steps from each earlier version to today's, and opening its file.

Asks are numbered within the file: an index of random keys is dear to keep, so there is one, and
the other tables go by number. Never writes to a file that it refuses.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from intramuros.errors import Broken, LedgerDamaged, LedgerTooNew, NoSpace, ReadOnly

APPLICATION_ID = 0x496E4D75  # "InMu"
MAGIC = b"SQLite format 3\0"
BUSY_SECONDS = 30.0
CHECK_SECONDS = 0.3
"""A large file is checked for this long when it is opened; later damage is seen when read."""

ELSEWHERE = "the folder must allow writing; INTRAMUROS_WORKSPACE names another"
MOVE = "move the file away to begin a new ledger: what it holds is then asked again"


def m001_initial(connection: sqlite3.Connection) -> None:
    """Frames, asks, origins, answers, feedback, calls."""
    for statement in VERSION_1:
        connection.execute(statement)


VERSION_1 = (
    """CREATE TABLE frames (
        number INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, verb TEXT NOT NULL,
        identity TEXT NOT NULL, content TEXT NOT NULL)""",
    """CREATE TABLE asks (
        number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, frame INTEGER NOT NULL,
        document TEXT, question TEXT)""",
    """CREATE TABLE answers (
        ask INTEGER PRIMARY KEY, value NOT NULL, probabilities TEXT, numbered INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL, card TEXT NOT NULL, engine TEXT NOT NULL,
        finish TEXT NOT NULL, time REAL NOT NULL)""",
    """CREATE TABLE origins (
        ask INTEGER NOT NULL, principal TEXT NOT NULL, source TEXT NOT NULL,
        sensitivity TEXT NOT NULL, time REAL NOT NULL,
        PRIMARY KEY (ask, principal, source, sensitivity)) WITHOUT ROWID""",
    """CREATE TABLE feedback (
        number INTEGER PRIMARY KEY, ask INTEGER NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('thumbs', 'edit', 'label')), value TEXT NOT NULL,
        principal TEXT NOT NULL, time REAL NOT NULL)""",
    "CREATE INDEX feedback_of_ask ON feedback (ask)",
    # The audit: one row of counts for each run and card inside the walls; outside them an intent
    # before each call and an outcome after it. Rows are only added, each chained to the one before.
    """CREATE TABLE calls (
        number INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('run', 'intent', 'outcome', 'refusal')),
        intent INTEGER, run TEXT, principal TEXT NOT NULL, source TEXT, sensitivity TEXT,
        card TEXT, engine TEXT, host TEXT, policy_line TEXT, bytes_sent INTEGER,
        asks INTEGER, answered INTEGER, from_ledger INTEGER, failed INTEGER,
        prompt_tokens INTEGER, completion_tokens INTEGER, cost_micros INTEGER, currency TEXT,
        outcome TEXT, digest BLOB, chain BLOB)""",
)

Migration = Callable[[sqlite3.Connection], None]
MIGRATIONS: list[Migration] = [m001_initial]


def connect(path: Path) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    """Open or create a ledger, in today's version: a connection to write and one to read."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReadOnly(
            f"the folder {str(path.parent)!r} of the ledger cannot be made: {error.strerror}",
            hint=ELSEWHERE,
        ) from error
    try:
        if path.exists():
            _inspect(path)
        return _open(path), _open(path)
    except PermissionError as error:
        raise ReadOnly(f"the ledger {str(path)!r} cannot be read", hint=ELSEWHERE) from error
    except sqlite3.Error as error:
        raise explained(error, path) from error


def explained(error: sqlite3.Error, path: Path) -> Broken:
    """What an error of SQLite means for whoever uses the ledger."""
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_FULL":
        return NoSpace(
            f"the disk is full: the ledger {str(path)!r} cannot grow",
            hint="free some space and run it again: what was answered before is kept",
        )
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return ReadOnly(
            f"the ledger {str(path)!r} cannot be written",
            hint=ELSEWHERE,
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Broken(
            f"another process has held the ledger {str(path)!r} for {BUSY_SECONDS:.0f} seconds",
            hint="wait until it is done, or name another folder with INTRAMUROS_WORKSPACE",
        )
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return LedgerDamaged(f"the ledger {str(path)!r} is damaged: {error}", hint=MOVE)
    return Broken(f"the ledger {str(path)!r} cannot be used: {error}")


def _inspect(path: Path) -> None:
    """Refuse a file that is not a whole ledger of this version or an earlier one; only reads."""
    with path.open("rb") as file:
        header = file.read(100)
    size = path.stat().st_size  # after the header: another process may make the file grow
    try:
        journalled = path.with_name(path.name + "-wal").stat().st_size > 0
    except FileNotFoundError:
        journalled = False
    if size == 0 and not journalled:
        return  # a process died before it wrote anything
    if not header.startswith(MAGIC[: len(header)]):
        raise LedgerDamaged(f"the ledger {str(path)!r} is not a SQLite file", hint=MOVE)
    page, pages = int.from_bytes(header[16:18], "big"), int.from_bytes(header[28:32], "big")
    whole = (65536 if page == 1 else page) * pages
    if len(header) < 100 or (size < whole and not journalled):
        raise LedgerDamaged(
            f"the ledger {str(path)!r} is damaged: {size} of {max(whole, 100)} bytes are left",
            hint=MOVE,
        )
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as connection:
        try:
            _check(connection, path)
        except sqlite3.OperationalError as error:
            # A process died while it made the file: opening it for writing rolls that back.
            if error.sqlite_errorname != "SQLITE_READONLY_ROLLBACK":
                raise


def _check(connection: sqlite3.Connection, path: Path) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and (application or version or tables):
        raise LedgerDamaged(f"{str(path)!r} is a database, but not a ledger", hint=MOVE)
    if version > len(MIGRATIONS):
        raise LedgerTooNew(
            f"the ledger {str(path)!r} is of version {version}; this Intramuros knows up to "
            f"{len(MIGRATIONS)}",
            hint="install a newer Intramuros, or name another folder with INTRAMUROS_WORKSPACE",
        )
    deadline = time.monotonic() + CHECK_SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname != "SQLITE_INTERRUPT":
            raise
        return
    if found != "ok":
        raise LedgerDamaged(f"the ledger {str(path)!r} is damaged: {found}", hint=MOVE)


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=16,  # a statement for 2,000 rows is large
    )
    try:
        _become_wal(connection)
        for pragma in (
            "synchronous = NORMAL",
            "cache_size = -65536",
            "temp_store = MEMORY",
            "wal_autocheckpoint = 16000",  # pages: more often halves the rate of writing
            "journal_size_limit = 67108864",
            "secure_delete = ON",
        ):
            connection.execute(f"PRAGMA {pragma}")
        _migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _become_wal(connection: sqlite3.Connection) -> None:
    """SQLite does not wait by itself when two processes set the journal's mode at once."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "BUSY" not in error.sqlite_errorname or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Take the missing steps in one transaction; an older file is copied first."""
    version = _version(connection)
    if version >= len(MIGRATIONS):
        return
    if version:
        back_up(connection, path, version)
    connection.execute("BEGIN IMMEDIATE")
    try:
        for migration in MIGRATIONS[_version(connection) :]:  # another process may have been first
            migration(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def rewrite(path: Path) -> bool:
    """Write the file anew and delete its copies, so that nothing erased is left anywhere.

    False: another process still reads the journal, which may hold erased text until it is done.
    """
    for copy in path.parent.glob(f"{path.name}.version*"):
        copy.unlink()
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    with contextlib.closing(connection):
        connection.execute("VACUUM")
        return not connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]


def back_up(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Copy the ledger beside itself; the copy takes its name when it is whole."""
    copy = path.with_name(f"{path.name}.version{version}")
    part = path.with_name(f"{copy.name}.{os.getpid()}.part")
    try:
        with contextlib.closing(sqlite3.connect(part)) as target:
            connection.backup(target)
        part.replace(copy)
    finally:
        part.unlink(missing_ok=True)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
