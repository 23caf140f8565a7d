"""The ledger: every answer once, in one SQLite file; and Remembered, the guard that asks it first.

What is answered is queued, and one thread commits all that is queued together, so a single slow
answer is on disk within milliseconds and fast ones share a transaction. Two processes may use one
file. Does not keep failures or searches, and does not reuse samples that were drawn without a seed.
"""

import atexit
import contextlib
import hashlib
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from intramuros import migrations, stored
from intramuros.engine import Admit, Engine, Guard, always
from intramuros.errors import BadArgument, Broken, NotFound
from intramuros.keys import Frame, Keyed, Keys
from intramuros.stored import NOTHING, Counts
from intramuros.types import Answer, Ask, Embed, Failure, Origin, Piece, Say, Search

GROUP = 2048
"""Most answers in one transaction."""

MOST_PENDING = 4 * GROUP
"""Answers queued before whoever brings more has to wait for the disk."""

MANY = 1000
"""Asks of a batch after which another is to be expected, which need not wait for the disk."""

LOOKUP = 500
"""Asks looked up with one query; `admit` is asked before each."""

NOT_UNICODE = Failure(
    "bad_text",
    "the text holds half a character (a lone surrogate), so it is not Unicode",
    hint="it was probably decoded from bytes in another encoding: decode it again",
)


BAD_ANSWER = Failure("bad_answer", "the answer holds half a character (a lone surrogate)")


class Ledger:
    """The store of one workspace. Any number of threads may use it."""

    def __init__(self, folder: Path, keep_text: bool = True) -> None:
        self.path = folder / "ledger.db"
        self.keep_text = keep_text
        self._writing, self._reading = migrations.connect(self.path)
        self._writing.execute(f"CREATE TEMP TABLE incoming ({stored.INCOMING})")
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._pending: deque[tuple[Frame | None, tuple[Any, ...]] | threading.Event] = deque()
        self._unsaved: dict[bytes, tuple[Any, ...]] = {}
        self._wake = threading.Event()
        self._writer: threading.Thread | None = None
        self._error: Broken | None = None

    def find(self, keys: Sequence[bytes], origin: Origin) -> list[tuple[Any, ...]]:
        """What is known of some keys: rows for `stored.answer`, each with its place in `keys`."""
        values = {"keys": b"".join(keys), "count": len(keys)}
        values |= zip(("principal", "source", "sensitivity"), stored.where(origin), strict=True)
        early: list[tuple[Any, ...]] = []
        if self._unsaved:  # looked at first: what is committed meanwhile is seen below
            for place, key in enumerate(keys):
                if (row := self._unsaved.get(key)) is not None:
                    early.append((place, None, *row[4:7], *row[10:13]))
        with self._explaining(), self._read_lock:
            return early + self._reading.execute(stored.FIND, values).fetchall()

    def record(self, key: bytes, frame: Frame, ask: Keyed, answer: Answer) -> None:
        """Queue an answer. Raises what stopped the writing of an earlier one."""
        document: str | None = None
        question: str | None = None
        if self.keep_text:
            document = ask.text if isinstance(ask, Embed) else ask.prompt.document
            question = "" if isinstance(ask, Embed) else ask.prompt.question
        usage = answer.usage
        row = (
            key,
            frame.digest,
            document,
            question,
            *stored.columns(ask, answer),
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.cached_tokens,
            answer.card,
            answer.engine,
            answer.finish,
            *stored.where(ask.origin),
        )
        self._unsaved[key] = row
        self._put(frame, row)

    def record_origin(self, key: bytes, origin: Origin) -> None:
        """Queue that an ask whose answer is known was asked from here too."""
        self._put(None, (key, *(None,) * 12, *stored.where(origin)))

    def flush(self) -> None:
        """Wait until all that was queued is committed; raises what prevented it."""
        if self._writer is not None:
            done = threading.Event()
            self._pending.append(done)
            self._wake.set()
            done.wait()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Commit what is queued and close the file."""
        try:
            self.flush()
        finally:
            writer, self._writer = self._writer, None
            if writer is not None:
                atexit.unregister(self.flush)
                self._wake.set()
                writer.join()
            with self._write_lock, self._read_lock:
                self._reading.close()
                self._writing.close()

    def put_feedback(
        self, key: bytes, kind: Literal["thumbs", "edit", "label"], value: str, principal: str = ""
    ) -> bool:
        """Keep what a person thinks of an answer. False: without the ask's text it cannot train."""
        self.flush()
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT number, question IS NOT NULL FROM asks WHERE key = ?", (key,)
            ).fetchone()
            if row is None:
                raise NotFound(f"the ledger has no answer to an ask {key.hex()!r}")
            connection.execute(
                "INSERT INTO feedback (ask, kind, value, principal, time) VALUES (?, ?, ?, ?, ?)",
                (row[0], kind, value, principal, time.time()),
            )
        return bool(row[1])

    def counts(self) -> Counts:
        """How much the ledger holds."""
        self.flush()
        with self._explaining(), self._read_lock:
            asks, answers, origins, feedback = (
                self._reading.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in ("asks", "answers", "origins", "feedback")
            )
        files = [self.path, self.path.with_name("ledger.db-wal")]
        size = sum(file.stat().st_size for file in files if file.exists())
        return Counts(asks, answers, origins, feedback, size)

    def erase(
        self,
        principal: str | None = None,
        source: str | None = None,
        older_than: float | None = None,
    ) -> Counts:
        """Remove what came from there (all that is given must hold), and say how much it was.

        An ask that another origin holds too stays. `older_than` is a Unix time. The file is
        written anew, and copies made before migrations are deleted, so that no text is left.
        """
        given = {"principal = ?": principal, "source = ?": source, "time < ?": older_than}
        conditions = {text: value for text, value in given.items() if value is not None}
        if not conditions:
            raise BadArgument(
                "erase needs to know what", hint="give a principal, a source or an age"
            )
        self.flush()
        with self._transaction() as connection:
            counts = stored.erase(connection, conditions)
        with self._explaining(), self._write_lock, self._read_lock:
            clean = migrations.rewrite(self.path)
        if not clean:
            raise Broken(
                "the rows are erased, but another process still reads the ledger's journal",
                hint="end it and erase again",
            )
        return counts

    def _put(self, frame: Frame | None, row: tuple[Any, ...]) -> None:
        if self._error is not None:
            raise self._error
        self._pending.append((frame, row))
        if not self._wake.is_set():
            if self._writer is None:
                self._start()
            self._wake.set()
        if len(self._pending) > MOST_PENDING:
            self.flush()

    def _start(self) -> None:
        with self._write_lock:
            if self._writer is None:
                self._writer = threading.Thread(target=self._write, name="ledger", daemon=True)
                self._writer.start()
                atexit.register(self.flush)

    def _write(self) -> None:
        """Commit what is queued, until `close` takes the thread away."""
        while self._writer is not None:
            self._wake.wait()
            self._wake.clear()  # before looking: whoever queues afterwards sets it again
            while self._pending:
                taken = [self._pending.popleft() for _ in range(min(len(self._pending), GROUP))]
                queued = [entry for entry in taken if not isinstance(entry, threading.Event)]
                try:
                    if queued and self._error is None:
                        self._commit(queued)
                except Broken as error:
                    self._error = error
                except Exception as error:  # whoever waits for a flush must hear of it
                    self._error = Broken(f"an answer cannot be recorded: {error}")
                for entry in taken:
                    if isinstance(entry, threading.Event):
                        entry.set()

    def _commit(self, queued: list[tuple[Frame | None, tuple[Any, ...]]]) -> None:
        frames = {frame.digest: frame for frame, _ in queued if frame is not None}
        with self._transaction() as connection:
            if frames:
                rows = [self._kept(frame) for frame in frames.values()]
                stored.insert(connection, "frames (digest, verb, identity, content)", rows)
            stored.insert(connection, "incoming", [row for _, row in queued])
            now = {"time": time.time()}
            for statement in stored.COMMIT:
                connection.execute(statement, now)
        for _, row in queued:
            self._unsaved.pop(row[0], None)

    def _kept(self, frame: Frame) -> tuple[bytes, str, str, str]:
        content = frame.content if self.keep_text else frame.content_without_text
        return frame.digest, frame.verb, frame.identity, content

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._explaining(), self._write_lock:
            self._writing.execute("BEGIN IMMEDIATE")
            try:
                yield self._writing
                self._writing.execute("COMMIT")
            except BaseException:
                if self._writing.in_transaction:  # a full disk has ended it already
                    self._writing.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise migrations.explained(error, self.path) from error


class _Unknown(msgspec.Struct):
    """An ask to forward, and the rows that wait for its answer. Without a frame: not recorded."""

    key: bytes
    frame: Frame | None
    rows: list[int]


class Remembered(Guard):
    """The engine, behind a ledger."""

    def __init__(self, engine: Engine, ledger: Ledger) -> None:
        super().__init__(engine)
        self.ledger = ledger
        self._keys = Keys(engine.identity)

    def generate(self, asks: Sequence[Ask], admit: Admit = always) -> Iterator[Piece]:
        unknown: dict[bytes, _Unknown] = {}
        try:
            for start in range(0, len(asks), LOOKUP):
                if not admit():
                    return
                yield from self._known(asks, start, unknown)
            if unknown:
                yield from self._asked(asks, list(unknown.values()), admit)
        finally:
            if len(asks) < MANY:
                self.ledger.flush()

    def close(self) -> None:
        try:
            self.ledger.flush()
        finally:
            super().close()

    def _known(
        self, asks: Sequence[Ask], start: int, unknown: dict[bytes, _Unknown]
    ) -> Iterator[Piece]:
        """Answer from the ledger what it has of a chunk, and add the rest to `unknown`."""
        wanted: dict[Origin, list[tuple[int, Keyed, bytes, Frame]]] = {}
        for row in range(start, min(start + LOOKUP, len(asks))):
            ask: Any = asks[row]
            if type(ask) is Search:  # isinstance is slow for these values
                _wait(unknown, _own(b""), None, row)
                continue
            try:
                key, frame = self._keys.key(ask)
            except UnicodeEncodeError:
                yield Piece(row, "", NOT_UNICODE)
                continue
            if type(ask) is Say and ask.temperature > 0 and ask.seed is None:
                _wait(unknown, _own(key), frame, row)
            elif (same := wanted.get(ask.origin)) is not None:
                same.append((row, ask, key, frame))
            else:
                wanted[ask.origin] = [(row, ask, key, frame)]
        for origin, entries in wanted.items():
            found: list[Any] = [None] * len(entries)
            for line in self.ledger.find([entry[2] for entry in entries], origin):
                found[line[0]] = line
            for (row, ask, key, frame), line in zip(entries, found, strict=True):
                if line is None:
                    _wait(unknown, key, frame, row)
                    continue
                if line[1] is None:
                    self.ledger.record_origin(key, origin)
                yield Piece(row, "", stored.answer(ask, line))

    def _asked(
        self, asks: Sequence[Ask], unknown: Sequence[_Unknown], admit: Admit
    ) -> Iterator[Piece]:
        """Ask the engine, and record each answer before it is passed on."""
        pieces = self.engine.generate([asks[entry.rows[0]] for entry in unknown], admit)
        try:
            for piece in pieces:
                entry, answer = unknown[piece.row], piece.answer
                first, *others = entry.rows
                if isinstance(answer, Answer) and entry.frame is not None:
                    answer = self._recorded(asks, entry, answer)
                yield Piece(first, piece.text, answer)
                if others and answer is not None:
                    if isinstance(answer, Answer):  # its tokens are counted once
                        answer = msgspec.structs.replace(answer, usage=NOTHING)
                    for row in others:
                        yield Piece(row, "", answer)
        finally:
            if hasattr(pieces, "close"):
                pieces.close()

    def _recorded(self, asks: Sequence[Ask], entry: _Unknown, answer: Answer) -> Answer | Failure:
        asked: Any = [asks[row] for row in entry.rows]
        assert entry.frame is not None
        try:
            self.ledger.record(entry.key, entry.frame, asked[0], answer)
        except UnicodeEncodeError:
            return BAD_ANSWER
        for ask in asked[1:]:
            if ask.origin != asked[0].origin:
                self.ledger.record_origin(entry.key, ask.origin)
        return answer


def _wait(unknown: dict[bytes, _Unknown], key: bytes, frame: Frame | None, row: int) -> None:
    entry = unknown.get(key)
    if entry is None:
        unknown[key] = _Unknown(key, frame, [row])
    else:
        entry.rows.append(row)


def _own(key: bytes) -> bytes:
    """A key that no other ask has."""
    return hashlib.sha256(key + os.urandom(16)).digest()
