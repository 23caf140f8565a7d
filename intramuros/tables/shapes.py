"""Which SQL type a task's answer has, decided from its arguments when a statement is bound.

A structure is what DuckDB's `json_transform` takes: a type's name, a list of one structure, or an
object of field names and structures. Does not judge arguments; the tasks do.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from intramuros.errors import BadArgument
from intramuros.task import Task

Structure = str | list[Any] | dict[str, Any]

TYPES: dict[str, Structure] = {
    "str": "VARCHAR",
    "Choice": "VARCHAR",
    "bool": "BOOLEAN",
    "int": "BIGINT",
    "float": "DOUBLE",
    "list[str]": ["VARCHAR"],
    "Choices": ["VARCHAR"],
    "list[float]": ["FLOAT"],
}
"""The SQL type of each kind that a flow may return; any other kind is JSON."""

FIELDS = "FIELDS"
"""Stands for a STRUCT with one text for each name in `labels`."""

TEXT = "any text"


class Case(NamedTuple):
    """The answer has this structure if every named argument has the value; `a.b` looks into `a`."""

    arguments: dict[str, Any]
    structure: Structure


CASES: dict[str, tuple[Case, ...]] = {
    "classify": (
        Case({"labels": TEXT, "options.version": "1.0", "options.multilabel": "true"}, ["VARCHAR"]),
        Case({"labels": TEXT, "options.version": "1.0"}, "VARCHAR"),
        Case({"labels": TEXT}, "JSON"),
        Case({"options.multilabel": "true"}, ["VARCHAR"]),
        Case({}, "VARCHAR"),
    ),
    "extract": (
        Case({"labels": TEXT, "options.version": "1.0"}, FIELDS),
        Case({"labels": TEXT}, "JSON"),
        Case({}, FIELDS),
    ),
    "query": (
        Case({"failOnError": False}, {"response": "VARCHAR", "errorMessage": "VARCHAR"}),
        Case({}, "VARCHAR"),
    ),
}
"""Tasks whose type depends on their arguments: the first case that fits counts."""

DETAIL: dict[str, Structure] = {
    "probability": "DOUBLE",
    "failure": "VARCHAR",
    "card": "VARCHAR",
    "from_ledger": "BOOLEAN",
}

READABLE = ("VARCHAR", "JSON", "VARIANT", '"NULL"')


def deciding(task: Task) -> list[str]:
    """The arguments that decide the type, which must therefore be constants."""
    names = {name.partition(".")[0] for case in CASES.get(task.name, ()) for name in case.arguments}
    if any(case.structure == FIELDS for case in CASES.get(task.name, ())):
        names.add("labels")
    return [parameter.name for parameter in task.parameters if parameter.name in names]


def structure(task: Task, arguments: Mapping[str, Any], detail: bool) -> str:
    """The structure of a call's answer as JSON text; `arguments` are the deciding ones."""
    cases = CASES.get(task.name) or (Case({}, _of_kinds(task.returns)),)
    value = next((case.structure for case in cases if _fits(case, arguments)), "JSON")
    if value == FIELDS:
        value = dict.fromkeys(_names(arguments.get("labels")), "VARCHAR") or "JSON"
    return json.dumps({"value": value, **DETAIL} if detail else value)


def check_types(task: Task, types: Mapping[str, str]) -> None:
    """Refuse a column that is not text, and NULL for an argument that a task cannot do without.

    `types` are those of lists of the arguments, such as `VARCHAR[]` for a text.
    """
    for name, kind in types.items():
        kind = kind.removesuffix("[]")
        if name == task.row:
            if kind not in READABLE and not kind.startswith("ENUM("):
                raise BadArgument(
                    f"ai_{task.name} reads text, and its {name} is {kind}",
                    hint=f"cast it: ai_{task.name}(column::VARCHAR, …)"
                    if kind != "BLOB"
                    else "decode it first: decode(column)",
                )
        elif kind == '"NULL"':
            raise BadArgument(f"ai_{task.name}: {name} is NULL")


def _of_kinds(returns: str) -> Structure:
    kinds = [TYPES.get(kind, "JSON") for kind in returns.split(" | ") if kind != "None"]
    return kinds[0] if all(kind == kinds[0] for kind in kinds) else "JSON"


def _fits(case: Case, arguments: Mapping[str, Any]) -> bool:
    for path, wanted in case.arguments.items():
        name, _, inner = path.partition(".")
        given = arguments.get(name)
        if inner:
            given = given.get(inner) if isinstance(given, dict) else None
        if wanted is TEXT:
            if not isinstance(given, str):
                return False
        elif given != wanted and str(given).lower() != wanted:
            return False
    return True


def _names(labels: Any) -> list[str]:
    """The names in `labels`, which may be a list, an object or JSON text of either."""
    if isinstance(labels, str):
        try:
            labels = json.loads(labels)
        except json.JSONDecodeError:
            return []
    return [str(name) for name in labels] if isinstance(labels, list | dict) else []
