"""Schemas are checked before they are asked for, records when they come back."""

import json
import socket
from typing import Any

import pytest

from intramuros.prompt.record import record_of, schema_of
from intramuros.types import Failure

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": ["integer", "null"]}},
    "required": ["name", "age"],
}


def kind(found: object) -> str:
    assert isinstance(found, Failure), found
    return found.kind


def test_a_schema_of_an_object_is_read() -> None:
    assert schema_of(json.dumps(SCHEMA)) == SCHEMA


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        "true",
        '{"type": "array"}',
        '{"type": "nonsense"}',
        '{"type": "object", "properties": {"a": {"$ref": "http://example.org/a"}}}',
    ],
)
def test_what_is_no_schema_is_a_failure(text: str) -> None:
    assert kind(schema_of(text)) == "schema"


def test_a_record_is_given_or_refused() -> None:
    assert record_of('{"name": "Ann", "age": null}', SCHEMA) == {"name": "Ann", "age": None}
    assert kind(record_of('{"name": "Ann"}', SCHEMA)) == "invalid"
    assert kind(record_of('{"name": "Ann", "age": 3', SCHEMA)) == "invalid"
    assert kind(record_of("[" * 100_000, SCHEMA)) == "invalid"


def test_nothing_is_fetched_to_check_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", pytest.fail)
    schema = {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/a.json"}}}
    assert kind(record_of('{"a": 1}', schema)) == "schema"
