"""DuckDB's complaints as our errors: a sentence, a hint, and the right class.

What is recognised is made plain; any other message is passed on as DuckDB wrote it, with its
position. Does not look into files, except for the names beside one that is missing.
"""

import re
from collections.abc import Callable
from pathlib import Path

import duckdb

from intramuros.errors import (
    BadArgument,
    BadQuery,
    Broken,
    Cancelled,
    IntramurosError,
    NoSpace,
    NotFound,
    ReadOnly,
)
from intramuros.task import tasks

READ = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
REMOTE = re.compile(r"^(?!file:)[a-z][a-z0-9+.-]+://", re.IGNORECASE)
Explain = Callable[[re.Match[str], duckdb.DuckDBPyConnection], IntramurosError]


def explained(message: str, connection: duckdb.DuckDBPyConnection) -> IntramurosError:
    """The error of ours that says what a message of DuckDB's means."""
    for pattern, explain in KNOWN:
        if found := pattern.search(message):
            return explain(found, connection)
    return BadQuery(message.strip())


def missing_file(name: str) -> IntramurosError:
    """Say that a file is not there and name its nearest neighbours, or why it cannot be read."""
    if REMOTE.match(name):
        return remote(name)
    path = Path(name.removeprefix("file://"))
    if path.exists():
        return BadQuery(
            f"{name!r} is not of a kind that is read by its name",
            hint=f"known are {', '.join(READ)}; of another text file say read_csv('{name}')",
        )
    if any(sign in path.name for sign in "*?["):
        return NotFound(f"no file matches {name!r}")
    try:
        beside = [each.name for each in path.parent.iterdir() if each.suffix in READ]
    except OSError:
        return NotFound(f"there is no folder {str(path.parent)!r}")
    return NotFound.among("file", name, (str(path.parent / each) for each in beside))


def missing_table(name: str, connection: duckdb.DuckDBPyConnection) -> IntramurosError:
    """Tell a missing table from a missing file by its name."""
    if "/" in name or "\\" in name or re.search(r"\.\w{1,8}$", name):
        return missing_file(name)
    known = connection.cursor().execute("select table_name from information_schema.tables")
    return NotFound.among("table", name, (row[0] for row in known.fetchall()))


def missing_function(name: str, connection: duckdb.DuckDBPyConnection) -> IntramurosError:
    known = connection.cursor().execute("select distinct function_name from duckdb_functions()")
    names = [row[0] for row in known.fetchall() if not row[0].startswith("_")]
    if name.startswith("ai_"):
        names = [f"ai_{task}" for task in tasks()]
    return NotFound.among("function", name, names)


def remote(name: str) -> IntramurosError:
    return BadQuery(
        f"{name!r} is on another machine, which statements here do not reach",
        hint="download it, and name the local file",
    )


def extension(name: str) -> IntramurosError:
    return BadQuery(
        f"this needs DuckDB's extension {name!r}, and extensions are not loaded here",
        hint="csv, json and parquet are read without one",
    )


def not_written(name: str, reason: str) -> IntramurosError:
    if "no space" in reason.lower():
        return NoSpace(
            f"the disk is full: {name!r} was not written", hint="make room, run it again"
        )
    return ReadOnly(f"{name!r} cannot be opened: {reason}", hint="choose another folder")


KNOWN: tuple[tuple[re.Pattern[str], Explain], ...] = (
    (
        re.compile(r"No files found that match the pattern \"(.*?)\""),
        lambda found, _: missing_file(found[1]),
    ),
    (re.compile(r"Cannot access file \"([^\"]*)\""), lambda found, _: remote(found[1])),
    (
        re.compile(r"File ([a-z0-9+.-]+://\S+) requires the extension"),
        lambda found, _: remote(found[1]),
    ),
    (
        re.compile(r"Table with name \"?(.+?)\"? does not exist!"),
        lambda found, connection: missing_table(found[1], connection),
    ),
    (
        re.compile(r"Function with name \"?(\w+)\"? does not exist!"),
        lambda found, connection: missing_function(found[1], connection),
    ),
    (re.compile(r"exists in the (\w+) extension"), lambda found, _: extension(found[1])),
    (re.compile(r"loading the (\w+) extension"), lambda found, _: extension(found[1])),
    (
        re.compile(r"Loading external extensions is disabled"),
        lambda found, _: BadQuery("extensions are neither installed nor loaded here"),
    ),
    (
        re.compile(r"\"structure\" argument in function \"json_transform\" must be a constant"),
        lambda found, _: BadArgument(
            "the labels, options and detail of an AI function decide the type of its answer, "
            "so they cannot come from a column",
            hint="write them out in the statement",
        ),
    ),
    (
        re.compile(r"Macro (ai_\w+)\(\) does not support the supplied(?s:.*?)\t(ai_.*)"),
        lambda found, _: BadArgument(
            f"{found[1]} does not take these arguments", hint=f"it is {found[2]}"
        ),
    ),
    (
        re.compile(r"Cannot open file \"(.*?)\": (.*)"),
        lambda found, _: not_written(found[1], found[2]),
    ),
    (
        re.compile(r"(?i)no space left on device"),
        lambda found, _: NoSpace("the disk is full", hint="make room, and run it again"),
    ),
    (
        re.compile(r"^(?:INTERRUPT Error|Query interrupted)"),
        lambda found, _: Cancelled("stopped", hint="run the same again: it goes on from there"),
    ),
    (
        re.compile(r"^Out of Memory Error: (.*)"),
        lambda found, _: Broken(
            f"DuckDB needs more memory than it has: {found[1]}",
            hint="raise it with: set memory_limit = '4GB'",
        ),
    ),
)
