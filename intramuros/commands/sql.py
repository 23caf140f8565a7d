"""`intramuros sql`: a statement over files, its result on stdout or in a file."""

import argparse
import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import msgspec

from intramuros import terminal
from intramuros.commands.opening import add_settings, open_ai, read_text
from intramuros.errors import BadArgument


def add(commands: Any) -> None:
    sql = commands.add_parser(
        "sql", help="run a statement over csv, json and parquet files, with every task as ai_<task>"
    )
    sql.add_argument("query", nargs="?", help="the statement; read from --file if left out")
    sql.add_argument("--file", type=Path, help="a file that holds the statement")
    sql.add_argument("--output", type=Path, help="write to this .parquet, .csv or .json file")
    sql.add_argument(
        "--format",
        choices=["table", "csv", "json"],
        help="on stdout; json gives a line for each row",
    )
    add_settings(sql)
    sql.set_defaults(command=run_sql)


def run_sql(chosen: argparse.Namespace) -> int:
    from intramuros.tables import duckdb
    from intramuros.tables.counting import count_rows

    query = _query(chosen)
    with open_ai(chosen) as ai:
        total = count_rows(query) if sys.stderr.isatty() else None
        progress = terminal.Progress(ai.session, total)
        try:
            if chosen.output:
                rows = duckdb.write(query, chosen.output, ai.session)
                terminal.say(f"{rows:,} rows written to {chosen.output}")
                return 0
            with duckdb.sql(query, ai.session) as reader:
                batches = iter(reader)
                form = chosen.format or ("table" if sys.stdout.isatty() else "csv")
                _print(reader.schema.names, batches, form, sys.stdout)
            return 0
        finally:
            progress.close()


def _query(chosen: argparse.Namespace) -> str:
    if (chosen.query is None) == (chosen.file is None):
        raise BadArgument("give a statement or --file, one of the two")
    if chosen.file is None:
        return str(chosen.query)
    return read_text(chosen.file)


def _print(names: list[str], batches: Iterable[Any], form: str, out: TextIO) -> None:
    rows = (row for batch in batches for row in rows_of(batch))
    if form == "table":
        terminal.print_table(names, rows, out)
    elif form == "csv":
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([terminal.text_of(value) for value in row] for row in rows)
    else:
        for row in rows:
            record = dict(zip(names, row, strict=True))  # of two equal names, the last
            out.write(msgspec.json.encode(record, enc_hook=str).decode() + "\n")


def rows_of(batch: Any) -> Iterator[tuple[Any, ...]]:
    """The rows of a batch by position: two columns may have one name."""
    if not batch.num_columns:
        return iter(())
    return zip(*(column.to_pylist() for column in batch.columns), strict=True)
