"""Types of answers: every task has one, and arguments decide it as the specification says."""

import json
from typing import Any

import pytest

from intramuros.errors import BadArgument
from intramuros.tables import shapes
from intramuros.task import Flow, task, tasks

RECORD = {"a": "VARCHAR", "b": "VARCHAR"}


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("analyze_sentiment", {}, "VARCHAR"),
        ("summarize", {}, "VARCHAR"),
        ("classify", {"labels": ["a", "b"]}, "VARCHAR"),
        ("classify", {"labels": {"a": "x", "b": "y"}}, "VARCHAR"),
        ("classify", {"labels": '["a","b"]'}, "JSON"),
        ("classify", {"labels": '["a","b"]', "options": {"version": "2.1"}}, "JSON"),
        ("classify", {"labels": '["a","b"]', "options": {"version": "1.0"}}, "VARCHAR"),
        ("classify", {"labels": ["a", "b"], "options": {"multilabel": "true"}}, ["VARCHAR"]),
        ("classify", {"labels": ["a", "b"], "options": {"multilabel": True}}, ["VARCHAR"]),
        ("extract", {"labels": ["a", "b"]}, RECORD),
        ("extract", {"labels": '["a","b"]'}, "JSON"),
        ("extract", {"labels": '["a","b"]', "options": {"version": "1.0"}}, RECORD),
        ("query", {"failOnError": True}, "VARCHAR"),
        ("query", {"failOnError": False}, {"response": "VARCHAR", "errorMessage": "VARCHAR"}),
    ],
)
def test_structure(name: str, arguments: dict[str, Any], expected: Any) -> None:
    assert json.loads(shapes.structure(tasks()[name], arguments, False)) == expected
    detailed = json.loads(shapes.structure(tasks()[name], arguments, True))
    assert detailed == {"value": expected, **shapes.DETAIL}


def test_kinds_of_a_task_of_ones_own() -> None:
    @task
    def count(text: str) -> Flow[int | None]:
        """Count."""
        yield []
        return 1

    @task
    def either(text: str) -> Flow[int | str]:
        """One or the other."""
        yield []
        return 1

    assert shapes.structure(count, {}, False) == '"BIGINT"'
    assert shapes.structure(either, {}, False) == '"JSON"'


def test_cases_name_tasks_and_arguments_that_exist() -> None:
    for name, cases in shapes.CASES.items():
        known = {parameter.name for parameter in tasks()[name].parameters}
        for case in cases:
            assert {path.partition(".")[0] for path in case.arguments} <= known


@pytest.mark.parametrize("kind", ["INTEGER", "VARCHAR[]", "STRUCT(a VARCHAR)", "BLOB", "DATE"])
def test_a_column_that_is_not_text(kind: str) -> None:
    with pytest.raises(BadArgument, match="reads text") as raised:
        shapes.check_types(tasks()["gen"], {"prompt": f"{kind}[]"})
    assert kind in raised.value.sentence
    assert raised.value.hint


@pytest.mark.parametrize("kind", ["VARCHAR", "JSON", "VARIANT", '"NULL"', "ENUM('a', 'b')"])
def test_columns_that_are_text(kind: str) -> None:
    shapes.check_types(tasks()["gen"], {"prompt": f"{kind}[]"})
