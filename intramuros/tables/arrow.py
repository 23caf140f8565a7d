"""Columns of texts in, columns of answers out, in the same kind: list, pandas, Polars or Arrow.

Does not import pandas or Polars: whoever gives a column of theirs has imported them.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow

from intramuros.errors import BadArgument

Rebuild = Callable[[list[Any]], Any]


def texts(column: Any) -> tuple[list[str | None], Rebuild]:
    """The texts of a column, and the function that puts answers into a column of its kind.

    One text gives one answer. pandas keeps the index and the name, Polars the name. Missing
    values become None; a column of anything but texts is refused.
    """
    library = type(column).__module__.partition(".")[0]
    if isinstance(column, str):
        return [column], lambda answers: answers[0]
    if library == "pandas":
        return _pandas(column)
    if library == "polars":
        return _polars(column)
    if isinstance(column, pyarrow.Array | pyarrow.ChunkedArray):
        return _arrow(column)
    if isinstance(column, Iterable) and not isinstance(column, bytes | dict | pyarrow.Table):
        return checked(list(getattr(column, "tolist", lambda: column)()), "list"), list
    raise not_a_column(column)


def checked(values: list[Any], kind: str) -> list[str | None]:
    """The values themselves; raises BadArgument at the first that is neither text nor None."""
    for place, value in enumerate(values):
        if value is not None and not isinstance(value, str):
            raise BadArgument(
                f"element {place} of the {kind} is {type(value).__name__}, not text: {value!r:.60}",
                hint="turn it into texts first, for example [str(value) for value in column]",
            )
    return values


def not_a_column(given: Any) -> BadArgument:
    name = type(given).__name__
    hint = "give a text, a list, or a column of pandas, Polars or Arrow"
    if name in ("DataFrame", "LazyFrame", "Table", "RecordBatch"):
        hint = "give one of its columns, for example table['text']"
    return BadArgument(f"{name} is not a column of texts", hint=hint)


def _pandas(column: Any) -> tuple[list[str | None], Rebuild]:
    if type(column).__name__ not in ("Series", "Index"):
        raise not_a_column(column)
    if column.dtype.kind in "biufcmM":
        raise _not_text(str(column.dtype), "column.astype(str)")
    values = column.astype(object).where(column.notna(), None).tolist()
    index = getattr(column, "index", None)

    def rebuild(answers: list[Any]) -> Any:
        series = column.to_series() if index is None else column
        return series._constructor(
            answers, index=series.index, name=series.name, dtype=_pandas_type(answers)
        )

    return checked(values, "Series"), rebuild


def _pandas_type(answers: list[Any]) -> Any:
    """Objects, where pandas would turn lists, records, or true beside None into something else."""
    if all(answer is None for answer in answers):
        return "str"
    return None if all(isinstance(answer, str | None) for answer in answers) else object


def _polars(column: Any) -> tuple[list[str | None], Rebuild]:
    if type(column).__name__ != "Series":
        raise not_a_column(column)
    if str(column.dtype) not in ("String", "Null") and not str(column.dtype).startswith(
        ("Categorical", "Enum", "Object")
    ):
        raise _not_text(str(column.dtype), "column.cast(polars.String)")

    def rebuild(answers: list[Any]) -> Any:
        kind = str if all(answer is None for answer in answers) else None
        return type(column)(column.name, _alike(answers), dtype=kind)

    return checked(column.to_list(), "Series"), rebuild


def _arrow(column: Any) -> tuple[list[str | None], Rebuild]:
    kind = column.type.value_type if pyarrow.types.is_dictionary(column.type) else column.type
    if not (
        pyarrow.types.is_string(kind)
        or pyarrow.types.is_large_string(kind)
        or pyarrow.types.is_string_view(kind)
        or pyarrow.types.is_null(kind)
    ):
        raise _not_text(str(column.type), "column.cast('string')")
    chunked = isinstance(column, pyarrow.ChunkedArray)

    def rebuild(answers: list[Any]) -> Any:
        if all(answer is None for answer in answers):
            made = pyarrow.nulls(len(answers), pyarrow.string())
        else:
            made = pyarrow.array(_alike(answers))
        return pyarrow.chunked_array([made]) if chunked else made

    return column.to_pylist(), rebuild


def _alike(answers: list[Any]) -> list[Any]:
    """The answers, or their JSON text where they are records or lists that share no type."""
    if not any(isinstance(answer, dict | list) for answer in answers):
        return answers
    try:
        pyarrow.array(answers)
    except pyarrow.ArrowException:
        return [
            None if answer is None else json.dumps(answer, ensure_ascii=False) for answer in answers
        ]
    return answers


def _not_text(kind: str, cast: str) -> BadArgument:
    return BadArgument(f"the column holds {kind}, not text", hint=f"cast it first: {cast}")
