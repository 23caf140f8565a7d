"""Every task as a function in SQL: arguments, types, and each answer beside its own row."""

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import duckdb as driver
import pytest

from intramuros.engines.scripted import Scripted
from intramuros.errors import BadArgument, NotFound
from intramuros.run import Session
from intramuros.tables import duckdb
from intramuros.task import tasks
from intramuros.types import Ask as Question
from intramuros.types import Choose, Say
from tests.tables.conftest import Ask

TYPES = [
    ("ai_analyze_sentiment(t)", "VARCHAR", "positive"),
    ("ai_classify(t, ['a', 'b'])", "VARCHAR", "a"),
    ("ai_classify(t, {'a': 'first', 'b': 'second'})", "VARCHAR", "a"),
    (
        'ai_classify(t, \'["a","b"]\')',
        "JSON",
        '{"response":["a"],"error_message":null}',
    ),
    ("ai_classify(t, ['a', 'b'], map {'multilabel': 'true'})", "VARCHAR[]", ["a", "b"]),
    ("ai_extract(t, ['who', 'what'])", "STRUCT(who VARCHAR, what VARCHAR)", None),
    ("ai_extract(t, '[\"n\"]')", "JSON", None),
    ("ai_summarize(t, 20)", "VARCHAR", "x"),
    ("ai_summarize(t, max_words => 0)", "VARCHAR", "x"),
    ("ai_translate(t, 'fr')", "VARCHAR", "x"),
    ("ai_translate(to_lang => 'fr', content => t)", "VARCHAR", "x"),
    ("ai_gen(t)", "VARCHAR", "x"),
    ("ai_query('', t)", "VARCHAR", "x"),
    ("ai_query('', t, modelParameters => {'max_tokens': 5})", "VARCHAR", "x"),
    (
        "ai_query('', t, failonerror => false)",
        "STRUCT(response VARCHAR, errorMessage VARCHAR)",
        {"response": "x", "errorMessage": None},
    ),
]


@pytest.fixture
def connection(echo: Scripted, session: Session) -> Iterator[driver.DuckDBPyConnection]:
    """A connection of the user's own, with the session's functions."""
    connected = driver.connect()
    functions = duckdb.register(connected, session)
    yield connected
    functions.close()
    connected.close()


@pytest.mark.parametrize(("call", "kind", "value"), TYPES, ids=[call for call, _, _ in TYPES])
def test_types_and_values(ask: Ask, call: str, kind: str, value: Any) -> None:
    rows = ask(f"select {call}, typeof({call}) from (values ('x'), (NULL)) v(t)")
    assert [row[1].replace('"', "") for row in rows] == [kind, kind]
    assert rows[1][0] is None
    if value is not None:
        assert rows[0][0] == value


@pytest.mark.parametrize("call", [call for call, _, _ in TYPES])
def test_detail(ask: Ask, call: str) -> None:
    detailed = f"{call[:-1]}, detail => true)"
    query = f"select {detailed}.value = {call}, {detailed} from (values ('x'), (NULL)) v(t)"
    (same, detail), (nothing, null) = ask(query)
    assert same
    assert list(detail) == ["value", "probability", "failure", "card", "from_ledger"]
    assert (detail["card"], detail["failure"]) == ("scripted", None)
    assert (nothing, null) == (None, None)


def test_every_task_is_a_function(connection: driver.DuckDBPyConnection) -> None:
    known = connection.execute("select function_name from duckdb_functions()").fetchall()
    assert {f"ai_{name}" for name in tasks()} <= {name for (name,) in known}


def test_probability_is_that_of_the_label(ask: Ask) -> None:
    query = (
        "select d.value, d.probability from (select ai_analyze_sentiment('x', detail => true) d)"
    )
    assert ask(query) == [("positive", 1.0)]


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ("ai_gen(5)", "INTEGER"),
        ("ai_gen(n)", "BIGINT"),
        ("ai_gen(['x'])", r"VARCHAR\[\]"),
        ("ai_gen({'a': 'x'})", "STRUCT"),
        ("ai_gen('x'::blob)", "BLOB"),
        ("ai_gen(date '2026-01-01')", "DATE"),
    ],
)
def test_a_column_that_is_not_text_is_named(ask: Ask, echo: Scripted, call: str, kind: str) -> None:
    with pytest.raises(BadArgument, match=kind) as raised:
        ask(f"select {call} from (values (1::bigint)) v(n)")
    assert raised.value.hint
    assert echo.asked == []


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("'{\"a\": 1}'::json", '{"a": 1}'),
        ("'x'::variant", "x"),
        ("'x'::enum('x', 'y')", "x"),
        ("''", None),
        ("'😀 שלום'", "😀 שלום"),
        ("repeat('word ', 200000)", "word " * 200_000),
        ("NULL", None),
    ],
)
def test_texts_of_all_kinds(ask: Ask, text: str, answer: str | None) -> None:
    assert ask(f"select ai_gen(t) from (select {text} t) v") == [(answer,)]


def test_a_nul_byte_is_a_failure_of_its_rows_alone(ask: Ask, session: Session) -> None:
    query = "select ai_gen(t) from (values ('a' || chr(0)), ('b'), ('a' || chr(0))) v(t)"
    assert ask(query) == [(None,), ("b",), (None,)]
    assert (session.tally.rows, session.tally.failed) == (3, 2)


def test_failures_are_listed(connection: driver.DuckDBPyConnection) -> None:
    connection.sql("select ai_gen(t) from (values ('b'), ('a' || chr(0))) v(t)").fetchall()
    listed = connection.sql("select * from ai_failures()")
    assert listed.columns == ["row", "function", "kind", "sentence", "hint", "content"]
    ((row, function, kind, sentence, hint, content),) = listed.fetchall()
    assert (row, function, kind, content) == (1, "ai_gen", "nul_byte", "a\0")
    assert "NUL byte" in sentence
    assert hint
    assert connection.sql("select count(*) from ai_failures() where kind = 'x'").fetchall() == [
        (0,)
    ]
    connection.sql("select ai_gen(t) from (values ('b')) v(t)").fetchall()
    assert connection.sql("from ai_failures()").fetchall() == []


def test_failures_are_numbered_through_the_statement(ask: Ask, session: Session) -> None:
    ask("select ai_gen(if(i = 5000, chr(0), 't' || i)) from range(10000) r(i)")
    assert [listed.row for listed in session.failures] == [5000]


def test_equal_calls_are_asked_once(ask: Ask, echo: Scripted) -> None:
    rows = ask("select ai_gen('t' || (i % 10)), ai_gen('t' || (i % 10)) from range(2000) r(i)")
    assert rows == [(f"t{i % 10}",) * 2 for i in range(2000)]
    assert sum(map(len, echo.asked)) == 10
    echo.asked.clear()
    assert ask("select ai_gen('constant')") == [("constant",)]
    assert sum(map(len, echo.asked)) == 1


def test_each_answer_stands_beside_its_own_row(ask: Ask, echo: Scripted) -> None:
    shuffled = list(range(5000)) * 2
    random.Random(3).shuffle(shuffled)
    values = ", ".join(f"('text {i}', {i})" for i in shuffled)
    table = f"create table letters as select * from (values {values}) v(text, n);"
    rows = ask(f"{table} select n, ai_gen(text) from letters")
    assert rows == [(i, f"text {i}") for i in shuffled]
    rows = ask(
        f"{table} select n, ai_gen(text) a from letters where n % 7 = 3 and ai_gen(text) < 'text 3'"
    )
    assert sorted(rows) == sorted(
        (i, f"text {i}") for i in shuffled if i % 7 == 3 and f"text {i}" < "text 3"
    )
    rows = ask(f"{table} select n, ai_gen(text) a from letters order by n desc limit 3")
    assert rows == [(4999, "text 4999"), (4999, "text 4999"), (4998, "text 4998")]


def test_joins_groups_and_subqueries(ask: Ask, echo: Scripted) -> None:
    echo.script = lambda ask: "even" if int(document(ask)) % 2 == 0 else "odd"
    numbers = "(select i::varchar t from range(1000) r(i)) v"
    assert ask(f"select ai_gen(t) g, count(*) from {numbers} group by all order by g") == [
        ("even", 500),
        ("odd", 500),
    ]
    assert ask(f"with g as (select t, ai_gen(t) g from {numbers}) select count(*) from g "
               "join g h on g.t = h.t and g.g = h.g") == [(1000,)]  # fmt: skip
    assert ask(f"select (select ai_gen(max(t)) from {numbers})") == [("odd",)]
    assert ask(f"select count(*) from {numbers} where ai_gen(t) = 'odd' and t::int < 10") == [(5,)]
    nested = f"select ai_gen(ai_gen(t || '0') [:0] || t) from {numbers} where t = '7'"
    assert ask(nested) == [("odd",)]


def document(ask: Question) -> str:
    assert isinstance(ask, Say | Choose)
    return ask.prompt.document or ask.prompt.question


def test_a_limit_asks_only_for_its_rows(ask: Ask, echo: Scripted) -> None:
    assert len(ask("select ai_gen('t' || i) from range(100000) r(i) limit 5")) == 5
    assert sum(map(len, echo.asked)) == 5


def test_large_tables_are_read_by_several_threads_at_once(ask: Ask) -> None:
    table = "create table t as select 't' || i a, 'u' || i b from range(150000) r(i);"
    query = "select count(*) from t where ai_gen(a)[2:] = ai_summarize(b)[2:]"
    assert ask(f"{table} {query}") == [(150_000,)]


@pytest.mark.parametrize("name", ["text", "content", "labels", "detail", "model", "prompt", "t"])
def test_columns_may_have_the_names_of_parameters(ask: Ask, name: str) -> None:
    query = f"select ai_classify({name}, ['x', 'y']), ai_gen({name}) from (values ('x')) v({name})"
    assert ask(query) == [("x", "x")]


def test_an_empty_table(ask: Ask, echo: Scripted) -> None:
    assert ask("select ai_gen(t) from (select 'x' t where false)") == []
    assert echo.asked == []


def test_arguments_from_a_column(ask: Ask, echo: Scripted) -> None:
    echo.script = lambda ask: ask.prompt.instruction if isinstance(ask, Say) else ""
    rows = ask(
        "select ai_translate(t, l) from (values ('a', 'fr'), ('a', 'de'), ('a', NULL)) v(t, l)"
    )
    assert "French" in rows[0][0]
    assert "German" in rows[1][0]
    assert rows[2] == (None,)


def test_arguments_that_decide_the_type_must_be_constants(ask: Ask) -> None:
    with pytest.raises(BadArgument, match="cannot come from a column"):
        ask("select ai_classify(t, [t, 'b']) from (values ('a')) v(t)")


@pytest.mark.parametrize(
    "call",
    [
        "ai_classify(t, ['a'])",
        "ai_classify(t, ['a', 'a'])",
        "ai_classify(t, [])",
        "ai_classify(t, range(501)::varchar[])",
        "ai_classify(t, 'not json')",
        "ai_classify(t, NULL)",
        "ai_classify(t)",
        "ai_classify(t, ['a', 'b'], lables => 3)",
        'ai_extract(t, \'{"a": {"type": "unknown"}}\')',
        "ai_translate(t, '')",
        "ai_translate(t, NULL)",
        "ai_summarize(t, -1)",
        "ai_summarize(t, 'many')",
        "ai_query('', t, modelParameters => {'heat': 3})",
    ],
)
def test_wrong_arguments(ask: Ask, echo: Scripted, call: str) -> None:
    with pytest.raises(BadArgument) as raised:
        ask(f"select {call} from (values ('x')) v(t)")
    assert "Traceback" not in str(raised.value)
    assert echo.asked == []


def test_models_are_named_in_the_call(ask: Ask, session: Session) -> None:
    with pytest.raises(NotFound, match="nosuch"):
        ask("select ai_gen('x', model => 'nosuch')")
    session.engines["second"] = Scripted(lambda ask: "from the second")
    assert ask("select ai_gen(t), ai_gen(t, model => 'second') from (values ('x')) v(t)") == [
        ("x", "from the second")
    ]


def test_errors_on_a_connection_of_ones_own_tell_sentence_and_hint(
    connection: driver.DuckDBPyConnection,
) -> None:
    with pytest.raises(driver.Error, match=r"1 labels were given .*hint: give 2 to 500"):
        connection.sql("select ai_classify(t, ['a']) from (values ('x')) v(t)").fetchall()
    assert connection.sql("select ai_gen(t) from (values ('x')) v(t)").fetchall() == [("x",)]


def test_cursors_have_functions_of_their_own(
    connection: driver.DuckDBPyConnection, session: Session
) -> None:
    cursor = connection.cursor()
    duckdb.register(cursor, session)
    duckdb.register(connection, session)  # once more
    for each in (connection, cursor):
        assert each.sql("select ai_gen('x')").fetchall() == [("x",)]
    cursor.close()


def test_nothing_is_written_into_the_database(tmp_path: Any, session: Session) -> None:
    path = tmp_path / "own.duckdb"
    connection = driver.connect(path)
    connection.execute("create table letters as select 'positive' t")
    functions = duckdb.register(connection, session)
    assert connection.sql("select ai_gen(t) from letters").fetchall() == [("positive",)]
    functions.close()
    with pytest.raises(driver.Error, match="ai_gen"):
        connection.sql("select ai_gen(t) from letters")
    connection.close()
    with driver.connect(path, read_only=True) as connection:
        known = connection.execute("select function_name from duckdb_functions()").fetchall()
        assert not [name for (name,) in known if "ai_" in name]
        functions = duckdb.register(connection, session)
        assert connection.sql("select ai_gen(t) from letters").fetchall() == [("positive",)]
        functions.close()


def test_two_threads_share_a_session(echo: Scripted, session: Session) -> None:
    answers: dict[int, list[Any]] = {}

    def one(number: int) -> None:
        connection = driver.connect()
        functions = duckdb.register(connection, session)
        query = f"select i, ai_gen('{number} ' || i) from range(5000) r(i)"
        answers[number] = connection.sql(query).fetchall()
        functions.close()
        connection.close()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, rows in answers.items():
        assert rows == [(i, f"{number} {i}") for i in range(5000)]
    assert len(answers) == 3


def test_python_ends_without_notices_though_nothing_was_closed() -> None:
    program = """
import duckdb
from intramuros.engines.scripted import Scripted, first_of_all
from intramuros.run import Session
from intramuros.tables.duckdb import register
connection = duckdb.connect()
register(connection, Session(Scripted(first_of_all)))
print(connection.sql("select ai_gen('x')").fetchall())
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout == "[('x',)]\n"
    assert ended.stderr == ""
