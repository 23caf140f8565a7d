"""A session that repeats texts, and short ways to ask it in SQL."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from intramuros.engines.scripted import Scripted, first_of_all
from intramuros.run import Session
from intramuros.tables import duckdb

Ask = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def echo(engine: Scripted) -> Scripted:
    """An engine that repeats a text, takes the first option, and leaves fields empty."""
    engine.script = first_of_all
    return engine


@pytest.fixture
def ask(echo: Scripted, session: Session) -> Ask:
    """Runs a statement on a connection of ours and gives its rows."""

    def rows(query: str) -> list[tuple[Any, ...]]:
        with duckdb.sql(query, session) as reader:
            columns = [column.to_pylist() for column in reader.read_all().columns]
        return list(zip(*columns, strict=True))

    return rows


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a file of letters."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "letters.csv").write_text("text,n\nhello,1\nworld,2\n", encoding="utf-8")
    return tmp_path
