"""How many rows a statement will ask about, found by running it with functions that ask nothing.

Exact where the rows do not depend on an answer; where they do (an answer in a filter), a lower
bound, because every answer is NULL here. Statements other than one SELECT are not counted.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import duckdb

from intramuros.errors import IntramurosError
from intramuros.run import Session
from intramuros.tables.duckdb import sql
from intramuros.task import Task
from intramuros.types import Result


class Counting(Session):
    """A session that answers NULL to every row."""

    def run(
        self, task: Task | str, rows: Iterable[Mapping[str, Any]], model: str = ""
    ) -> Iterator[Result]:
        for number, _ in enumerate(rows):
            self.tally.rows += 1
            yield Result(number)


def count_rows(query: str) -> int | None:
    """Rows that the statement's functions will be given, or None where that cannot be told."""
    session = Counting()
    try:
        statements = duckdb.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            return None
        with sql(query, session) as reader:
            for _ in reader:
                pass
    except (duckdb.Error, IntramurosError):  # the statement itself will say it better
        return None
    return session.tally.rows or None
