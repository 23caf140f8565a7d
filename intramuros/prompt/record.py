"""Check a JSON schema before it is asked for, and the record that came back against it.

A reference to another document is an error: nothing is ever fetched to check a record.
"""

import json
from collections.abc import Iterator
from typing import Any, cast

import jsonschema
import referencing

from intramuros.types import Failure

HINT = "name the fields under properties, each with a type, and list the required ones"


def schema_of(text: str) -> dict[str, Any] | Failure:
    """The schema of a `Fill`, which describes an object, or why it is not one."""
    try:
        schema = json.loads(text)
        jsonschema.Draft202012Validator.check_schema(schema)
    except (ValueError, RecursionError) as error:
        return Failure("schema", f"the schema is not JSON: {error}", HINT)
    except jsonschema.SchemaError as error:
        return Failure("schema", f"the schema is not a JSON schema: {error.message}", HINT)
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return Failure("schema", 'the schema does not say "type": "object" at its top', HINT)
    if outside := next(_elsewhere(schema), None):
        return Failure("schema", f"the schema refers to {outside!r}, outside itself", HINT)
    return cast(dict[str, Any], schema)


def record_of(text: str, schema: dict[str, Any]) -> dict[str, Any] | Failure:
    """The record written as JSON in `text`, or how it breaks the schema."""
    validator = jsonschema.Draft202012Validator(schema, registry=referencing.Registry())
    try:
        record = json.loads(text)
        broken = next(validator.iter_errors(record), None)
    except (ValueError, RecursionError) as error:
        return Failure("invalid", f"the answer is not JSON: {error}")
    except referencing.exceptions.Unresolvable as error:
        return Failure("schema", f"the schema refers to what it does not hold: {error}", HINT)
    if broken is not None:
        where = broken.json_path
        return Failure("invalid", f"the answer breaks the schema at {where}: {broken.message}")
    return cast(dict[str, Any], record)


def _elsewhere(part: Any) -> Iterator[str]:
    """What a schema refers to that is not in it."""
    if isinstance(part, dict):
        reference = part.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            yield reference
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from _elsewhere(inner)
