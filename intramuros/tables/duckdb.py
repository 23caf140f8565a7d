"""DuckDB: statements over files with every task as `ai_<task>`, answers as Arrow or into a file.

    with duckdb.sql("select ai_gen(text) from 'letters.csv'", session) as reader:
        for batch in reader: ...
    duckdb.write("select * from 'letters.csv'", "letters.parquet", session)

Connections that we open are confined: they read and write local files, and neither reach other
machines nor load extensions nor see Python's variables. Does not confine a connection of yours.
"""

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow

from intramuros.errors import BadArgument, BadQuery, NotFound
from intramuros.run import Session
from intramuros.tables import refusals
from intramuros.tables.functions import Functions, literal, register, registered
from intramuros.tables.interrupt import interruptible

__all__ = ["Functions", "open_connection", "register", "sql", "write"]

BATCH = 2048
"""Rows of a batch that `sql` gives, so that a slow statement shows its first rows early."""

FORMATS = {
    ".parquet": "format parquet, compression zstd",
    ".csv": "format csv, header",
    ".json": "format json, array true",
    ".jsonl": "format json",
    ".ndjson": "format json",
}

GIVE_ROWS = (duckdb.StatementType.SELECT, duckdb.StatementType.MULTI)

CONFINED: dict[str, Any] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
    "python_enable_replacements": False,
}

CHANGEABLE = ("threads", "memory_limit", "max_memory", "temp_directory", "TimeZone")
"""Settings that a statement may still change on a confined connection."""

NOWHERE = "127.0.0.1:1"
"""INSTALL ... FROM community downloads even without external access; so it meets a dead proxy."""


def open_connection(database: str | Path = ":memory:") -> duckdb.DuckDBPyConnection:
    """A connection that reaches this machine's files and nothing else."""
    connection = duckdb.connect(str(database), config=CONFINED)
    names = ", ".join(map(literal, CHANGEABLE))
    for statement in (
        "set streaming_buffer_size = '1KB'",  # first rows come before 100,000 are asked
        "set allow_extension_repositories = 'forbidden'",
        f"set custom_extension_repository = {literal(os.devnull)}",
        f"set http_proxy = {literal(NOWHERE)}",
        f"set allowed_directories = [{literal(Path.cwd().anchor)}]",
        "set enable_external_access = false",
        f"set allowed_configs = [{names}]",
        "set enable_progress_bar = false",
        "set lock_configuration = true",
    ):
        connection.execute(statement)
    return connection


@contextmanager
def sql(
    query: str, session: Session, connection: duckdb.DuckDBPyConnection | None = None
) -> Iterator[Any]:
    """Run statements; gives the rows of the last as a `pyarrow.RecordBatchReader` that streams."""
    with _statement(session, connection) as functions:
        connected = functions.connected()
        with _explained(functions):
            relation = connected.sql(_last(query, functions))
            if relation is None:
                raise BadQuery("the statement is empty")
            source = relation.to_arrow_reader(BATCH)
        exhausted = False

        def batches() -> Generator[Any]:
            nonlocal exhausted
            with _explained(functions):
                yield from source
            exhausted = True
            session.check_failures()

        streamed = batches()
        try:
            yield pyarrow.RecordBatchReader.from_batches(source.schema, streamed)
        finally:
            if not exhausted:
                session.cancel()
                connected.interrupt()
            streamed.close()


def write(
    query: str,
    path: str | Path,
    session: Session,
    connection: duckdb.DuckDBPyConnection | None = None,
) -> int:
    """Write the rows of the last statement to a file, which takes its name when it is whole.

    Gives the number of rows. After an error nothing is left; what was asked is in the ledger.
    """
    path = Path(path)
    options = _format(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with _statement(session, connection) as functions:
        try:
            with _explained(functions):
                last = _last(query, functions)
                if duckdb.extract_statements(last)[0].type not in GIVE_ROWS:
                    raise BadQuery("only a statement that selects rows can be written to a file")
                copy = f"copy (\n{last}\n) to {literal(str(part))} ({options}, use_tmp_file false)"
                copied = functions.connected().execute(copy).fetchone()
            session.check_failures()
            part.replace(path)
            if copied is None:  # of PIVOT, which is several statements, DuckDB gives no count
                count = f"select count(*) from {literal(str(path))}"
                copied = functions.connected().execute(count).fetchone()
        finally:
            part.unlink(missing_ok=True)
    return int(copied[0]) if copied else 0


def _format(path: Path) -> str:
    if (options := FORMATS.get(path.suffix.lower())) is None:
        raise BadArgument(
            f"{path.name!r} does not say what to write", hint=f"end it in {', '.join(FORMATS)}"
        )
    if not path.parent.is_dir():
        raise NotFound(f"there is no folder {str(path.parent)!r}", hint="make it first")
    if path.is_dir():
        raise BadArgument(f"{str(path)!r} is a folder", hint="name a file in it")
    return options


@contextmanager
def _statement(
    session: Session, connection: duckdb.DuckDBPyConnection | None
) -> Iterator[Functions]:
    """One run: the connection (ours if none is given) with its functions, and Ctrl-C heard."""
    connected = connection or open_connection()
    try:
        functions = registered.get(connected)
        if functions is None or functions.session is not session:
            functions = register(connected, session)
        functions.confined = connection is None
        functions.begins_itself = False
        functions.begin()
        with interruptible(session, connected):
            yield functions
    finally:
        if connection is None:
            if (functions := registered.get(connected)) is not None:
                functions.close()
            connected.close()
        elif functions is not None:
            functions.begins_itself = True


@contextmanager
def _explained(functions: Functions) -> Iterator[None]:
    """Turn what DuckDB raises into the error that a function raised, or into one of ours."""
    try:
        yield
    except (duckdb.Error, OSError, RuntimeError, pyarrow.ArrowException) as error:
        if functions.raised is not None:
            raise functions.raised from None
        raise refusals.explained(str(error), functions.connected()) from None


def _last(query: str, functions: Functions) -> str:
    """Run all statements but the last, and give that one without its semicolon."""
    statements = duckdb.extract_statements(query)
    for statement in statements:
        if functions.confined and _installs(statement):
            raise BadQuery("extensions are neither installed nor loaded here")
    if not statements:
        raise BadQuery("the statement is empty")
    for statement in statements[:-1]:
        functions.connected().execute(statement.query)
    return _bare(statements[-1].query)


def _installs(statement: Any) -> bool:
    """Whether it is INSTALL, LOAD or UPDATE EXTENSIONS; Python knows no name for the last."""
    try:
        return bool(statement.type == duckdb.StatementType.LOAD)
    except ValueError:
        return True


def _bare(statement: str) -> str:
    """A statement without what follows it: semicolons and comments."""
    tokens = duckdb.tokenize(statement)
    text = statement.encode()
    end = len(text)
    for place, kind in reversed(tokens):
        if kind != duckdb.token_type.comment and text[place : place + 1] != b";":
            break
        end = place
    return text[:end].decode()
