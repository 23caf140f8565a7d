"""A prompt sent to a named model, with all of its parameters."""

import json
from typing import Any

import msgspec

from intramuros.errors import AskFailed, BadArgument
from intramuros.task import Flow, conversation, task
from intramuros.types import Fill, Say

PARAMETERS: dict[str, type | tuple[type, ...]] = {
    "max_tokens": int,
    "temperature": (int, float),
    "top_p": (int, float),
    "stop": (str, list),
    "seed": int,
}
ANY_OBJECT = '{"type":"object"}'
SQL_KINDS = {
    "string": "TEXT VARCHAR CHAR DATE TIMESTAMP TIMESTAMPTZ TIMESTAMPNTZ",
    "integer": "TINYINT SMALLINT INT BIGINT",
    "number": "FLOAT DOUBLE DECIMAL",
    "boolean": "BOOLEAN",
}


@task(row="request")
def query(
    endpoint: str,
    request: str,
    returnType: str | None = None,
    failOnError: bool = True,
    modelParameters: dict[str, Any] | None = None,
    responseFormat: str | None = None,
) -> Flow[str | dict[str, Any]]:
    """Send a request to a model of the catalogue, which `endpoint` names.

    `modelParameters` are max_tokens, temperature, top_p, stop and seed. `responseFormat` is `text`,
    `{"type":"json_object"}`, a JSON schema, or a DDL such as `STRUCT<answer: STRUCT<n: INT>>`; all
    but `text` give JSON text. `failOnError => false` gives `{"response", "errorMessage"}`.
    """
    if returnType is not None:
        raise BadArgument(
            "returnType is not available yet",
            hint="responseFormat holds the answer to a schema; cast its fields in SQL",
        )
    ask = request_of(endpoint, request, modelParameters or {}, responseFormat)
    try:
        reply = yield ask
    except AskFailed as error:
        if failOnError:
            raise
        return {"response": None, "errorMessage": error.failure.sentence}
    text = reply if isinstance(reply, str) else msgspec.json.encode(reply).decode()
    return text if failOnError else {"response": text, "errorMessage": None}


def request_of(
    endpoint: str, request: str, parameters: dict[str, Any], response_format: str | None
) -> Say | Fill:
    """The ask of one request; max_tokens given by the user cuts the text, as services do."""
    check_parameters(parameters)
    prompt = conversation(request)
    limit = parameters.get("max_tokens")
    schema = schema_of(response_format)
    if schema is not None:
        if sampled := set(parameters) - {"max_tokens"}:
            raise BadArgument(f"{', '.join(sorted(sampled))} cannot be set beside a responseFormat")
        return Fill(prompt, schema, max_tokens=limit or 1024, model=endpoint)
    stop = parameters.get("stop", ())
    return Say(
        prompt,
        max_tokens=limit or 1024,
        temperature=float(parameters.get("temperature", 0.0)),
        top_p=float(parameters.get("top_p", 1.0)),
        seed=parameters.get("seed"),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        truncate=limit is not None,
        model=endpoint,
    )


def check_parameters(parameters: dict[str, Any]) -> None:
    """Refuse unknown parameters and values out of range, in the platform's error class."""
    error_class = "AI_FUNCTION_INVALID_MODEL_PARAMETERS"
    for name, value in parameters.items():
        if name not in PARAMETERS:
            raise BadArgument(
                f"[{error_class}.UNSUPPORTED_MODEL_PARAMETER] there is no parameter {name!r}",
                hint=f"known are {', '.join(PARAMETERS)}",
            )
        if isinstance(value, bool) or not isinstance(value, PARAMETERS[name]):
            raise BadArgument(
                f"[{error_class}.INVALID_PARAMETER_DATA_TYPE] {name} cannot be {value!r}"
            )
    ranges = {"max_tokens": (1, 1_000_000), "temperature": (0, 2), "top_p": (0, 1)}
    for name, (low, high) in ranges.items():
        if not low <= parameters.get(name, low) <= high:
            raise BadArgument(
                f"[{error_class}.INVALID_NUMERIC_PARAMETER] {name} is {parameters[name]}, "
                f"not between {low} and {high}"
            )


def schema_of(response_format: str | None) -> str | None:
    """The JSON schema that a responseFormat asks for; None is plain text."""
    wanted = (response_format or "text").strip()
    if wanted.lower() == "text":
        return None
    if not wanted.startswith("{"):
        return msgspec.json.encode(_schema_of_ddl(wanted)).decode()
    try:
        asked = json.loads(wanted)
    except json.JSONDecodeError as error:
        raise BadArgument(
            f"[AI_FUNCTION_UNSUPPORTED_RESPONSE_FORMAT.JSON_STRING] not JSON: {error}"
        ) from error
    if asked.get("type") == "text":
        return None
    if asked.get("type") == "json_object":
        return ANY_OBJECT
    schema = asked.get("json_schema", asked)
    schema = schema.get("schema", schema) if isinstance(schema, dict) else schema
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise BadArgument(
            "[AI_FUNCTION_UNSUPPORTED_RESPONSE_FORMAT.JSON_STRING] "
            "the schema's top level is not an object"
        )
    return msgspec.json.encode(schema).decode()


def _schema_of_ddl(ddl: str) -> dict[str, Any]:
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    error_class = "[AI_FUNCTION_UNSUPPORTED_RESPONSE_FORMAT.DDL_STRING]"
    try:
        kind = exp.DataType.build(ddl, dialect="databricks")
    except (SqlglotError, ValueError) as error:
        raise BadArgument(f"{error_class} {ddl!r} is not a type") from error
    if kind.this.name != "STRUCT" or len(kind.expressions) != 1:
        raise BadArgument(
            f"{error_class} {ddl!r} is not a STRUCT of exactly one field",
            hint="write STRUCT<answer: STRUCT<label: STRING>>",
        )
    return _schema_of_type(kind)


def _schema_of_type(kind: Any) -> dict[str, Any]:
    name = kind.this.name
    if name == "STRUCT":
        properties = {
            field.this.name: _schema_of_type(field.args["kind"]) for field in kind.expressions
        }
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
    if name in ("ARRAY", "LIST"):
        return {"type": "array", "items": _schema_of_type(kind.expressions[0])}
    for json_kind, sql_kinds in SQL_KINDS.items():
        if name in sql_kinds.split():
            return {"type": json_kind}
    raise BadArgument(
        f"[AI_FUNCTION_UNSUPPORTED_RESPONSE_FORMAT.DDL_STRING] no JSON form of {name}"
    )
