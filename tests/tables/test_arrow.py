"""Columns in and out: the same kind back, in the same order, with None where nothing was."""

from typing import Any

import pandas
import polars
import pyarrow
import pytest

from intramuros.errors import BadArgument
from intramuros.tables import arrow


def shout(column: Any) -> Any:
    texts, rebuild = arrow.texts(column)
    return rebuild([None if text is None else text.upper() for text in texts])


def test_one_text_gives_one_answer() -> None:
    assert shout("a") == "A"


@pytest.mark.parametrize("column", [["a", None], ("a", None), iter(["a", None])])
def test_a_list(column: Any) -> None:
    assert shout(column) == ["A", None]


def test_pandas_keeps_index_and_name() -> None:
    answer = shout(pandas.Series(["a", None, "c"], index=[5, 3, 1], name="text"))
    assert isinstance(answer, pandas.Series)
    assert answer.index.tolist() == [5, 3, 1]
    assert answer.name == "text"
    assert answer[5] == "A"
    assert pandas.isna(answer[3])


def test_missing_values_of_pandas_are_none() -> None:
    texts, _ = arrow.texts(pandas.Series(["a", float("nan"), pandas.NA, None], dtype=object))
    assert texts == ["a", None, None, None]


def test_polars() -> None:
    answer = shout(polars.Series("text", ["a", None]))
    assert isinstance(answer, polars.Series)
    assert (answer.name, answer.to_list()) == ("text", ["A", None])


@pytest.mark.parametrize(
    "column",
    [pyarrow.array(["a", None]), pyarrow.array(["a", None]).dictionary_encode()],
    ids=["plain", "dictionary"],
)
def test_arrow(column: Any) -> None:
    answer = shout(column)
    assert isinstance(answer, pyarrow.Array)
    assert answer.to_pylist() == ["A", None]


def test_chunks_of_arrow() -> None:
    answer = shout(pyarrow.chunked_array([["a"], ["b", None]]))
    assert isinstance(answer, pyarrow.ChunkedArray)
    assert answer.to_pylist() == ["A", "B", None]


@pytest.mark.parametrize(
    "column",
    [
        pandas.Series(["a", "b"], dtype="category"),
        polars.Series(["a", "b"], dtype=polars.Categorical),
    ],
    ids=["pandas", "polars"],
)
def test_categories_are_texts(column: Any) -> None:
    assert list(shout(column)) == ["A", "B"]


@pytest.mark.parametrize(
    "column", [pandas.Series([], dtype=str), polars.Series([], dtype=polars.String), []]
)
def test_an_empty_column(column: Any) -> None:
    assert len(shout(column)) == 0


@pytest.mark.parametrize(
    ("column", "named"),
    [
        (pandas.Series([1]), "int64"),
        (polars.Series([1]), "Int64"),
        (pyarrow.array([1]), "int64"),
        ([1.5], "float"),
        (pandas.Series(["a", 1], dtype=object), "element 1 of the Series is int"),
        (pandas.DataFrame({"x": ["a"]}), "DataFrame"),
        (polars.DataFrame({"x": ["a"]}), "DataFrame"),
        (pyarrow.table({"x": ["a"]}), "Table"),
        ({"x": "a"}, "dict"),
        (b"a", "bytes"),
        (5, "int"),
        (None, "NoneType"),
    ],
)
def test_what_is_not_text_is_named(column: Any, named: str) -> None:
    with pytest.raises(BadArgument, match=named) as raised:
        arrow.texts(column)
    assert raised.value.hint


@pytest.mark.parametrize(
    "answers", [[True, None], [["x"], []], [{"a": "1"}, {"a": None}], [None, None]]
)
def test_answers_of_every_kind_fit_every_column(answers: list[Any]) -> None:
    assert arrow.texts(polars.Series(["a", "b"]))[1](answers).to_list() == answers
    assert arrow.texts(pyarrow.array(["a", "b"]))[1](answers).to_pylist() == answers
    series = arrow.texts(pandas.Series(["a", "b"], index=[7, 8]))[1](answers)
    assert series.index.tolist() == [7, 8]
    assert [None if answer is None or answer != answer else answer for answer in series] == answers


def test_records_without_a_common_type_become_json() -> None:
    answers = [{"a": "1"}, {"a": {"b": 1}}]
    column = arrow.texts(pyarrow.array(["a", "b"]))[1](answers)
    assert column.to_pylist() == ['{"a": "1"}', '{"a": {"b": 1}}']
