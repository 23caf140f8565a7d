"""Fields found in a text."""

import json
from typing import Any

from intramuros.errors import BadArgument
from intramuros.task import Flow, document, fill, task

MOST_FIELDS = 256
MOST_LEVELS = 12
LONGEST_NAME = 150
MOST_ENUM_VALUES = 500
SCALARS = ("string", "integer", "number", "boolean")
OPTIONS = ("version", "instructions")


@task
def extract(
    content: str, labels: list[str] | str, options: dict[str, str] | None = None
) -> Flow[dict[str, Any] | None]:
    """Take the named fields out of a text; a field that the text does not give is null.

    A list of names gives a record of texts. JSON text, `'["a","b"]'` or a schema such as
    `'{"total": {"type": "number", "description": "with tax"}}'`, gives `{"response": {...},
    "error_message": null}`; types are string, integer, number, boolean, enum (`labels`), object
    (`properties`) and array (`items`).
    """
    chosen = _read_options(options)
    second_generation = isinstance(labels, str) and chosen.get("version") != "1.0"
    schema = json_schema(read_fields(labels))
    instruction = (
        "You copy facts out of a text, in its own words and spelling, without changing, "
        "translating or completing them. A fact that the text does not state is null."
    )
    if extra := chosen.get("instructions", ""):
        instruction = f"{instruction} {extra}"
    record = yield from fill(document(content, instruction), schema)
    return {"response": record, "error_message": None} if second_generation else record


def read_fields(labels: list[str] | str) -> dict[str, Any]:
    """Fields by name, each `{"type": …}`, from a list of names or from JSON text."""
    fields: Any = labels
    if isinstance(labels, str):
        try:
            fields = json.loads(labels)
        except json.JSONDecodeError as error:
            raise BadArgument(
                f"the schema is not JSON: {error}",
                hint="""write an array ['a', 'b'], or JSON text '{"a": {"type": "string"}}'""",
            ) from error
    if isinstance(fields, list | tuple) and all(isinstance(name, str) for name in fields):
        if len(set(fields)) < len(fields):
            raise BadArgument("a field is named twice")
        fields = {name: {"type": "string"} for name in fields}
    if not isinstance(fields, dict) or not fields:
        raise BadArgument("the schema is neither a list of names nor an object of fields")
    return fields


def json_schema(fields: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of a record with these fields; every field may be null but must be there."""
    return _object(fields, 1, counted=[0])


def _object(fields: dict[str, Any], level: int, counted: list[int]) -> dict[str, Any]:
    if level > MOST_LEVELS:
        raise BadArgument(f"the schema has more than {MOST_LEVELS} levels")
    properties = {}
    for name, field in fields.items():
        counted[0] += 1
        if counted[0] > MOST_FIELDS:
            raise BadArgument(f"the schema has more than {MOST_FIELDS} fields")
        if not 0 < len(name) <= LONGEST_NAME:
            raise BadArgument(
                f"the field name {name[:40]!r} does not have 1 to {LONGEST_NAME} characters"
            )
        properties[name] = _nullable(_field(name, field, level, counted))
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _field(name: str, field: Any, level: int, counted: list[int]) -> dict[str, Any]:
    if isinstance(field, str):
        field = {"type": field}
    if not isinstance(field, dict):
        raise BadArgument(f"field {name!r} takes a type, not {field!r}")
    kind = field.get("type", "string")
    about = {"description": field["description"]} if "description" in field else {}
    if kind in SCALARS:
        return {"type": kind, **about}
    if kind == "enum":
        values = field.get("labels")
        if not isinstance(values, list) or not 0 < len(values) <= MOST_ENUM_VALUES:
            raise BadArgument(f"enum {name!r} takes 1 to {MOST_ENUM_VALUES} labels")
        return {"enum": [str(value) for value in values], **about}
    if kind == "object":
        inner = field.get("properties")
        if not isinstance(inner, dict) or not inner:
            raise BadArgument(f"object {name!r} has no properties")
        return {**_object(inner, level + 1, counted), **about}
    if kind == "array":
        item = _field(name, field.get("items", {"type": "string"}), level + 1, counted)
        return {"type": "array", "items": item, **about}
    raise BadArgument(
        f"field {name!r} has the unknown type {kind!r}",
        hint=f"known are {', '.join(SCALARS)}, enum, object, array",
    )


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("type") in SCALARS:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def _read_options(options: dict[str, str] | None) -> dict[str, str]:
    chosen = {name: str(value) for name, value in (options or {}).items()}
    for name in chosen:
        if name not in OPTIONS:
            raise BadArgument(
                f"there is no option {name!r}", hint=f"known are {', '.join(OPTIONS)}"
            )
    return chosen
