"""Statements over files: confined connections, streaming, whole files or none, plain refusals."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb as driver
import pyarrow.parquet
import pytest

from intramuros.engines.scripted import Scripted
from intramuros.errors import (
    BadArgument,
    BadQuery,
    Cancelled,
    IntramurosError,
    NotFound,
    ReadOnly,
    RowFailed,
    TooManyFailures,
)
from intramuros.run import Session
from intramuros.settings import Settings
from intramuros.tables import duckdb
from intramuros.task import Task
from intramuros.types import Ask as Question
from intramuros.types import Failure, Result, Say
from tests.tables.conftest import Ask

SLOW = "select ai_gen('t' || i) from range(100000) r(i)"


class Instant(Session):
    """Answers each row at once, so that what is measured is this layer alone."""

    def run(
        self, task: Task | str, rows: Iterable[Mapping[str, Any]], model: str = ""
    ) -> Iterator[Result]:
        for number, _ in enumerate(rows):
            yield Result(number, "positive", None, 0.9)


class Slow:
    """Takes its time over an ask, and does something at the hundredth."""

    def __init__(self, then: Callable[[], object]) -> None:
        self.asked = 0
        self.then = then

    def __call__(self, ask: Question) -> str:
        self.asked += 1
        time.sleep(0.001)
        if self.asked == 100:
            self.then()
        return "slow"


def unlucky(ask: Question) -> str | Failure:
    """Fails at every text that ends in 7."""
    assert isinstance(ask, Say)
    failed = ask.prompt.question.endswith("7")
    return Failure("unlucky", "seven is unlucky", "try eight") if failed else "fine"


@pytest.mark.parametrize(
    "name", ["letters.csv", "letters.parquet", "letters.json", "letters.jsonl"]
)
def test_files_are_written_and_read_by_name(
    ask: Ask, session: Session, folder: Path, name: str
) -> None:
    if name != "letters.csv":
        assert duckdb.write("from 'letters.csv'", folder / name, session) == 2
    assert ask(f"select ai_gen(text), n from '{name}'") == [("hello", 1), ("world", 2)]
    assert ask(f"select text from '{folder / name}'") == [("hello",), ("world",)]


def test_json_is_a_document_and_jsonl_lines(session: Session, folder: Path) -> None:
    query = "select ai_gen(text, detail => true) d, [n] l from 'letters.csv'; -- with a remark"
    assert duckdb.write(query, "out.json", session) == 2
    document = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    assert document[1]["l"] == [2]
    assert document[0]["d"]["card"] == "scripted"
    duckdb.write("from 'letters.csv'", "out.jsonl", session)
    lines = (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["n"] for line in lines] == [1, 2]


@pytest.mark.parametrize(
    "query",
    [
        "create table t as select 1 x; insert into t values (2); from t",
        "with t as (select 1 x union all select 2) select x from t -- remark ; with semicolon",
        "pivot (select i x, 'a' k from range(1, 3) r(i)) on k using count(*) group by x;",
        "values (1), (2)",
        "select unnest([1, 2]) x /* ; */ ; ; -- é",
    ],
)
def test_statements_of_all_kinds_are_written(session: Session, folder: Path, query: str) -> None:
    assert duckdb.write(query, "out.parquet", session) == 2
    written = pyarrow.parquet.read_table("out.parquet")
    assert sorted(written.column(0).to_pylist()) == [1, 2]


def test_a_path_with_a_quote(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "l'été.csv"
    assert duckdb.write("select 1 x", path, session) == 1
    assert path.read_text(encoding="utf-8") == "x\n1\n"


def test_a_failed_write_leaves_nothing_and_keeps_the_file_that_was(
    session: Session, folder: Path
) -> None:
    (folder / "out.csv").write_text("before", encoding="utf-8")
    with pytest.raises(NotFound):
        duckdb.write(
            "select ai_gen(text, model => 'nosuch') from 'letters.csv'", "out.csv", session
        )
    assert (folder / "out.csv").read_text(encoding="utf-8") == "before"
    assert sorted(os.listdir(folder)) == ["letters.csv", "out.csv"]


@pytest.mark.parametrize(
    ("query", "path", "error"),
    [
        ("select 1", "out.xlsx", BadArgument),
        ("select 1", "out", BadArgument),
        ("select 1", "nofolder/out.csv", NotFound),
        ("create table t as select 1", "out.csv", BadQuery),
        ("", "out.csv", BadQuery),
        ("select 1", "/proc/out.csv", ReadOnly),
    ],
)
def test_what_cannot_be_written(
    session: Session, folder: Path, query: str, path: str, error: type[IntramurosError]
) -> None:
    with pytest.raises(error):
        duckdb.write(query, path, session)
    assert os.listdir(folder) == ["letters.csv"]


@pytest.mark.parametrize(
    ("query", "error", "sentence", "hint"),
    [
        ("from 'leters.csv'", NotFound, "no file named 'leters.csv'", "letters.csv"),
        ("from 'nofolder/x.csv'", NotFound, "no folder 'nofolder'", ""),
        ("from '*.parquet'", NotFound, "no file matches", ""),
        ("from 'letters.txt'", NotFound, "no file named 'letters.txt'", "letters.csv"),
        ("create table letters as select 1; from leters", NotFound, "no table", "letters"),
        ("select ai_clasify('x', ['a', 'b'])", NotFound, "no function", "ai_classify"),
        ("select lenght('x')", NotFound, "no function", "length"),
        ("select nothing from 'letters.csv'", BadQuery, "nothing", ""),
        ("selec 1", BadQuery, "LINE 1: selec 1\n        \\^", ""),
        ("select 'open", BadQuery, "unterminated", ""),
        ("select ai_gen()", BadArgument, "ai_gen does not take", "ai_gen\\(prompt"),
        ("", BadQuery, "empty", ""),
        ("-- nothing", BadQuery, "empty", ""),
        ("from 'https://example.org/x.csv'", BadQuery, "another machine", "download"),
        ("from read_parquet('s3://bucket/x')", BadQuery, "another machine", "download"),
        ("from 'hf://datasets/x/y.csv'", BadQuery, "another machine", "download"),
        ("attach 'https://example.org/x.db' as x", BadQuery, "another machine", "download"),
        ("copy (select 1) to 's3://bucket/x.csv'", BadQuery, "another machine", "download"),
        ("install httpfs", BadQuery, "extensions", ""),
        ("install spatial from community", BadQuery, "extensions", ""),
        ("load '/tmp/own.duckdb_extension'", BadQuery, "extensions", ""),
        ("update extensions", BadQuery, "extensions", ""),
        ("select 1; install httpfs; select 2", BadQuery, "extensions", ""),
        ("set enable_external_access = true", BadQuery, "locked", ""),
        ("set allowed_configs = ['enable_external_access']", BadQuery, "locked", ""),
    ],
)
def test_refusals(
    ask: Ask, folder: Path, query: str, error: type[IntramurosError], sentence: str, hint: str
) -> None:
    with pytest.raises(error, match=sentence) as raised:
        ask(query)
    assert raised.type is error
    assert raised.value.exit_code == 2
    assert "Traceback" not in str(raised.value)
    if hint:
        assert hint.replace("\\", "") in raised.value.hint


def test_variables_of_python_are_not_tables(ask: Ask) -> None:
    secrets = pyarrow.table({"x": [1]})
    with pytest.raises(NotFound):
        ask("from secrets")
    assert secrets.num_rows == 1


def test_a_confined_connection_by_itself_reaches_no_network() -> None:
    connection = duckdb.open_connection()
    for statement in ("install spatial from community", "install httpfs", "load httpfs"):
        with pytest.raises(driver.Error):
            connection.execute(statement)
    for name in ("http_proxy", "allowed_directories", "enable_external_access"):
        with pytest.raises(driver.Error, match="locked"):
            connection.execute(f"reset {name}")
    connection.execute("set threads = 1; set memory_limit = '1GB'; set timezone = 'UTC'")
    connection.close()


def test_a_connection_of_ones_own_keeps_its_tables_and_functions(
    echo: Scripted, session: Session
) -> None:
    connection = driver.connect()
    connection.execute("create table letters as select 'x' t")
    with duckdb.sql("select ai_gen(t) a from letters", session, connection) as reader:
        assert reader.read_all().to_pylist() == [{"a": "x"}]
    assert connection.sql("select ai_gen(t) from letters").fetchall() == [("x",)]
    connection.close()


def test_rows_stream(session: Session, engine: Scripted) -> None:
    with duckdb.sql(SLOW, session) as reader:
        first = next(iter(reader))
        assert first.num_rows <= duckdb.BATCH
        assert session.tally.rows < 50_000


def test_leaving_early_stops_asking(session: Session, engine: Scripted) -> None:
    with duckdb.sql(SLOW, session) as reader:
        next(iter(reader))
    rows = session.tally.rows
    assert rows < 50_000
    time.sleep(0.05)
    assert session.tally.rows == rows


def test_cancelled_is_raised_as_such(session: Session, engine: Scripted) -> None:
    engine.script = Slow(session.cancel)
    with pytest.raises(Cancelled, match="rows were finished"), duckdb.sql(SLOW, session) as reader:
        reader.read_all()
    assert 0 < session.tally.rows < 50_000
    engine.script = lambda ask: "again"
    with duckdb.sql("select ai_gen('x') a", session) as reader:
        assert reader.read_all().to_pylist() == [{"a": "again"}]


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_stops_a_statement_and_is_set_back(
    session: Session, engine: Scripted, tmp_path: Path
) -> None:
    engine.script = Slow(press)
    previous = signal.getsignal(signal.SIGINT)
    with pytest.raises(Cancelled, match="rows were finished"):
        duckdb.write(SLOW, tmp_path / "out.csv", session)
    assert signal.getsignal(signal.SIGINT) is previous
    assert os.listdir(tmp_path) == []
    engine.script = lambda ask: "again"
    assert duckdb.write("select ai_gen('x') a", tmp_path / "out.csv", session) == 1


@pytest.mark.parametrize("seconds", [0, 0.3], ids=["before it starts", "while it runs"])
def test_ctrl_c_stops_a_statement_that_asks_nothing(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    last = duckdb._last

    def pressing(query: str, functions: duckdb.Functions) -> str:
        if seconds:
            threading.Timer(seconds, press).start()
        else:
            press()
        return last(query, functions)

    monkeypatch.setattr(duckdb, "_last", pressing)
    with pytest.raises(Cancelled):
        ask("select count(*) from range(100000) a(i), range(100000) b(j) where md5(i || j) = 'x'")


def test_a_handler_of_ones_own_is_called(session: Session, engine: Scripted) -> None:
    engine.script = Slow(press)
    heard: list[int] = []

    def handler(number: int, frame: object) -> None:
        heard.append(number)
        session.cancel()

    previous = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(Cancelled), duckdb.sql(SLOW, session) as reader:
            reader.read_all()
        assert heard == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, previous)


@pytest.mark.parametrize("how", ["sql", "write"])
def test_a_failed_row_is_null_or_raises(
    session: Session, engine: Scripted, tmp_path: Path, how: str
) -> None:
    engine.script = unlucky
    query = "select ai_gen('t' || i) a from range(10) r(i)"

    def go() -> None:
        if how == "sql":
            with duckdb.sql(query, session) as reader:
                assert [row["a"] for row in reader.read_all().to_pylist()].count(None) == 1
        else:
            duckdb.write(query, tmp_path / "out.csv", session)

    go()
    assert [listed.row for listed in session.failures] == [7]
    session.on_error = "raise"
    with pytest.raises(RowFailed, match="seven is unlucky"):
        go()


def test_too_many_failures_end_the_statement(engine: Scripted) -> None:
    engine.script = unlucky
    session = Session(engine, Settings({"max_error_ratio": 0.01}))
    with (
        pytest.raises(TooManyFailures),
        duckdb.sql("select ai_gen('t' || i) from range(5000) r(i)", session) as reader,
    ):
        reader.read_all()
    session = Session(engine, Settings({"max_error_ratio": 0.2}))
    with duckdb.sql("select ai_gen('t' || i) from range(5000) r(i)", session) as reader:
        assert reader.read_all().num_rows == 5000


def test_the_failure_is_in_the_detail(session: Session, engine: Scripted) -> None:
    engine.script = unlucky
    with duckdb.sql("select ai_gen('t7', detail => true) d", session) as reader:
        detail = reader.read_all().to_pylist()[0]["d"]
    assert (detail["value"], detail["failure"]) == (None, "seven is unlucky")


def peak_of(run: Callable[[], object]) -> int:
    """Megabytes that the process grew by at most while `run` ran, sampled."""
    ended = threading.Event()
    peak = first = resident()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.02):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    run()
    ended.set()
    watcher.join()
    return peak - first


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_memory_does_not_grow_with_the_table(engine: Scripted, tmp_path: Path) -> None:
    session = Instant(engine)
    query = (
        "select ai_analyze_sentiment('a sentence with the number ' || i) a from range(400000) r(i)"
    )
    path = tmp_path / "out.parquet"
    assert peak_of(lambda: duckdb.write(query, path, session)) < 400
    assert pyarrow.parquet.read_metadata(path).num_rows == 400_000
