"""How asks and answers stand in the tables of the ledger: statements, and values to and from rows.

Does not open, lock or commit anything.
"""

import functools
import sqlite3
from array import array
from collections.abc import Sequence
from typing import Any

import msgspec

from intramuros.keys import Keyed
from intramuros.types import Answer, Choice, Choose, Embed, Fill, Origin, Say, Usage

NOTHING = Usage()

INCOMING = (
    "key, frame, document, question, value, probabilities, numbered, prompt_tokens, "
    "completion_tokens, cached_tokens, card, engine, finish, principal, source, sensitivity"
)

# One thread stops for the other whenever a statement starts or ends, so there are few of them, each
# with many rows.
COMMIT = (
    """INSERT OR IGNORE INTO asks (key, frame, document, question)
        SELECT key, frames.number, document, question
        FROM incoming CROSS JOIN frames ON frames.digest = incoming.frame""",
    """INSERT OR IGNORE INTO answers
        SELECT number, value, probabilities, numbered, prompt_tokens, completion_tokens,
        cached_tokens, card, engine, finish, :time
        FROM incoming CROSS JOIN asks USING (key) WHERE finish IS NOT NULL""",
    """INSERT OR IGNORE INTO origins SELECT number, principal, source, sensitivity, :time
        FROM incoming CROSS JOIN asks USING (key)""",
    "DELETE FROM incoming",
)

FIND = """
    WITH RECURSIVE wanted (place, key) AS (
        SELECT 0, substr(:keys, 1, 32)
        UNION ALL SELECT place + 1, substr(:keys, 33 + 32 * place, 32)
        FROM wanted WHERE place + 1 < :count)
    SELECT place, origins.ask, value, probabilities, numbered, card, engine, finish
    FROM wanted CROSS JOIN asks ON asks.key = wanted.key
    JOIN answers ON answers.ask = asks.number
    LEFT JOIN origins ON origins.ask = asks.number AND principal = :principal
        AND source = :source AND sensitivity = :sensitivity"""

_probabilities = msgspec.json.Decoder(dict[str, float])
_record = msgspec.json.Decoder(dict[str, Any])


class Counts(msgspec.Struct, frozen=True):
    """How much a ledger holds, or lost; `size` in bytes."""

    asks: int
    answers: int
    origins: int
    feedback: int
    size: int = 0


SIZES = (1, 16, 128, 1024)
"""Rows of the statements that are kept ready: to prepare one takes longer than to run it."""


@functools.lru_cache
def _insertion(table: str, columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"INSERT OR IGNORE INTO {table} VALUES {', '.join([row] * rows)}"


def insert(connection: sqlite3.Connection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows in a few large steps, the last padded with NULL rows, which must be ignored."""
    columns = len(rows[0])
    for start in range(0, len(rows), SIZES[-1]):
        part = rows[start : start + SIZES[-1]]
        size = next(size for size in SIZES if size >= len(part))
        values = [value for row in part for value in row]
        values += [None] * (columns * (size - len(part)))
        connection.execute(_insertion(table, columns, size), values)


@functools.lru_cache
def where(origin: Origin) -> tuple[str, str, str]:
    """An origin as columns; what is not Unicode in a file's name becomes a question mark."""
    principal, source = (
        name.encode(errors="replace").decode() for name in (origin.principal, origin.source)
    )
    return principal, source, origin.sensitivity


def answer(ask: Keyed, row: tuple[Any, ...]) -> Answer:
    """The answer that `find` found for an ask."""
    _, _, value, probabilities, numbered, card, engine, finish = row
    kind = type(ask)  # isinstance is slow for these values
    if kind is Choose:
        value = Choice(value, _probabilities.decode(probabilities), numbered == 1)
    elif kind is Fill:
        value = _record.decode(value)
    elif kind is Embed:
        value = array(chr(value[0]), value[1:]).tolist()
    return Answer(value, NOTHING, card, engine, finish, True)


def columns(ask: Keyed, answer: Answer) -> tuple[str | bytes, str | None, int]:
    """Columns `value`, `probabilities` and `numbered`; UnicodeEncodeError if it is not Unicode."""
    match ask, answer.value:
        case Choose(), Choice() as value:
            return value.label, msgspec.json.encode(value.probabilities).decode(), value.numbered
        case Say(), str() as value:
            value.encode()
            return value, None, 0
        case Fill(), dict() as value:
            return msgspec.json.encode(value).decode(), None, 0
        case Embed(), list() as value:
            numbers: Any = value
            short = array("f", numbers)  # holds what an engine computed in single precision
            exact = short if short.tolist() == numbers else array("d", numbers)
            return exact.typecode.encode() + exact.tobytes(), None, 0
    raise TypeError(f"{answer.engine!r} answered {type(ask).__name__} with {type(answer.value)}")


def erase(connection: sqlite3.Connection, conditions: dict[str, Any]) -> Counts:
    """Remove origins that meet all conditions, and the asks that are left without any."""
    where, values = " AND ".join(conditions), list(conditions.values())

    def remove(what: str, values: Sequence[Any] = ()) -> int:
        return connection.execute(f"DELETE FROM {what}", values).rowcount

    connection.execute("CREATE TEMP TABLE gone (ask INTEGER PRIMARY KEY)")
    connection.execute(f"INSERT OR IGNORE INTO gone SELECT ask FROM origins WHERE {where}", values)
    origins = remove(f"origins WHERE {where}", values)
    remove("gone WHERE ask IN (SELECT ask FROM origins)")
    feedback = remove("feedback WHERE ask IN gone")
    if "source = ?" not in conditions and "principal = ?" in conditions:
        feedback += remove(f"feedback WHERE {where}", values)
    answers = remove("answers WHERE ask IN gone")
    asks = remove("asks WHERE number IN gone")
    remove("frames WHERE number NOT IN (SELECT frame FROM asks)")
    connection.execute("DROP TABLE gone")
    return Counts(asks, answers, origins, feedback)
