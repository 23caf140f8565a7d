"""The tasks of a session as functions `ai_<task>` on a DuckDB connection, and `ai_failures()`.

A task is one Arrow function over texts and arguments (both VARCHAR, the second JSON) and a macro
that gives it the arguments of its signature, by name or position, and the type that `shapes`
decides. All of it is temporary: nothing is written into a database file, and a cursor of the same
connection has to be given its own. DuckDB calls a function from several threads at once, so one
lock lets a session's chunks through in turn. Does not open connections and runs no statements.
"""

import atexit
import contextlib
import itertools
import json
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import duckdb
import msgspec
import pyarrow

from intramuros.errors import IntramurosError, RowFailed
from intramuros.run import Listed, Session
from intramuros.tables import shapes
from intramuros.task import Parameter, Task
from intramuros.types import Result, plain

EXCERPT = 80
"""Characters of a failed row's text that `ai_failures()` shows."""

MOST_CALLS = 10_000
"""Distinct arguments remembered in their parsed form."""

FAILURE_FIELDS = {
    "row": "BIGINT",
    "function": "VARCHAR",
    "kind": "VARCHAR",
    "sentence": "VARCHAR",
    "hint": "VARCHAR",
    "content": "VARCHAR",
}

serials = itertools.count(1)
encode = msgspec.json.Encoder().encode
locks: "weakref.WeakKeyDictionary[Session, threading.Lock]" = weakref.WeakKeyDictionary()
registered: "weakref.WeakKeyDictionary[duckdb.DuckDBPyConnection, Functions]"
registered = weakref.WeakKeyDictionary()


class Call(NamedTuple):
    """The arguments of a call, read once for each distinct JSON text."""

    arguments: dict[str, Any]
    model: str
    detail: bool
    null: bool  # an argument without a default is NULL, and so is the answer


class Asked(NamedTuple):
    """A text that is asked once for all rows of a chunk that hold it."""

    text: str
    call: Call
    number: int


class Functions:
    """What `register` put on a connection; `close` takes it off again."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, session: Session) -> None:
        self.connection = weakref.ref(connection)
        self.session = session
        self.raised: BaseException | None = None
        self.failures: list[dict[str, Any]] = []
        self.begins_itself = True  # a run with each statement that is bound
        self.confined = False
        self._bound = False
        self._rows: dict[str, int] = {}
        self._single: dict[tuple[str, str | None, str], list[bytes | None]] = {}
        self._calls: dict[tuple[str, str], Call] = {}
        self._lock = locks.setdefault(session, threading.Lock())
        self._functions: list[str] = []
        self._macros: list[str] = []
        self._serial = next(serials)
        shape = self._function("shape", self.shape, ["VARCHAR"])
        for task in session.tasks.values():
            self._add(task, shape)
        self._add_failures()
        atexit.register(self.close)

    def close(self) -> None:
        """Take it all off; nanobind reports leaks on stderr if Python ends without it."""
        atexit.unregister(self.close)
        if (connection := self.connection()) is None:
            return
        for macro in self._macros:
            with contextlib.suppress(duckdb.Error):
                connection.execute(f"drop {macro}")
        for name in self._functions:
            with contextlib.suppress(duckdb.Error):
                connection.remove_function(name)
        self._macros, self._functions = [], []
        registered.pop(connection, None)

    def connected(self) -> duckdb.DuckDBPyConnection:
        connection = self.connection()
        assert connection is not None, "the connection is gone"
        return connection

    def begin(self) -> None:
        """Start a run: what the last one left is forgotten."""
        self._bound = False
        self.raised = None
        self.failures = []
        self._rows = {}
        self._single = {}
        self.session.begin()

    def shape(self, described: str) -> str:
        """The structure of a call's answer; DuckDB asks for it when it binds a statement."""
        self._bound = True
        try:
            call = json.loads(described)
            task = self.session.task(call["task"])
            shapes.check_types(task, call["types"])
            return shapes.structure(task, call["arguments"], bool(call["detail"]))
        except BaseException as error:
            raise self._told(error) from None

    def answer(self, task: Task, content: Any, arguments: Any) -> Any:
        """The answers for a chunk of rows, as JSON texts in the order of the rows."""
        with self._lock:
            if self._bound and self.begins_itself:
                self.begin()
            try:
                answers = self._answers(task, content.to_pylist(), arguments)
                return pyarrow.array(answers, pyarrow.string())
            except BaseException as error:
                raise self._told(error) from None

    def _answers(self, task: Task, texts: list[str | None], arguments: Any) -> list[bytes | None]:
        if len(texts) == 1:  # a call of constants, which DuckDB evaluates when planning as well
            key = (task.name, texts[0], arguments[0].as_py())
            if key not in self._single:
                self._single = {key: self._asked(task, texts, arguments)}
            return self._single[key]
        return self._asked(task, texts, arguments)

    def _asked(self, task: Task, texts: list[str | None], arguments: Any) -> list[bytes | None]:
        given = arguments.unique().to_pylist()
        calls = {text: self._call(task, text) for text in given}
        repeated = itertools.repeat(given[0]) if len(given) == 1 else arguments.to_pylist()
        numbers: dict[tuple[str, str], int] = {}
        places = [
            -1 if text is None or calls[of].null else numbers.setdefault((text, of), len(numbers))
            for text, of in zip(texts, repeated, strict=False)
        ]
        first = self._rows.get(task.name, 0)
        self._rows[task.name] = first + len(places)
        self.session.tally.rows += len(places) - len(numbers)
        models: dict[str, list[Asked]] = {}
        for (text, of), number in numbers.items():
            models.setdefault(calls[of].model, []).append(Asked(text, calls[of], number))
        answers: list[bytes | None] = [None] * len(numbers)
        for model, asked in models.items():
            before = len(self.session.failures)
            try:
                rows = ({**one.call.arguments, task.row: one.text} for one in asked)
                for result in self.session.run(task, rows, model):
                    one = asked[result.row]
                    answers[one.number] = encoded(result, one.call.detail)
                    if result.failure is not None:
                        self.session.tally.failed += places.count(one.number) - 1
            except RowFailed as error:
                row = first + places.index(asked[error.row].number)
                raise RowFailed(error.task, row, error.failure) from None
            finally:
                self._list_failures(before, asked, places, first)
        return [None if place < 0 else answers[place] for place in places]

    def _call(self, task: Task, text: str) -> Call:
        if (call := self._calls.get((task.name, text))) is None:
            given = {name: value for name, value in json.loads(text).items() if value is not None}
            shapes.check_types(task, given.pop("types"))
            detail, model = given.pop("detail", False), given.pop("model", "")
            null = any(
                parameter.required and parameter.name not in given
                for parameter in task.parameters
                if parameter.name != task.row
            )
            if len(self._calls) > MOST_CALLS:
                self._calls.clear()
            call = self._calls[task.name, text] = Call(given, model, bool(detail), null)
        return call

    def _list_failures(
        self, before: int, asked: list[Asked], places: list[int], first: int
    ) -> None:
        """Number a chunk's failures by their rows in the statement, and keep how they begin."""
        failures = self.session.failures
        for index in range(before, len(failures)):
            task, number, failure = (
                failures[index].task,
                failures[index].row,
                failures[index].failure,
            )
            row = first + places.index(asked[number].number)
            failures[index] = Listed(task, row, failure)
            values = (f"ai_{task}", failure.kind, failure.sentence, failure.hint)
            listed = (row, *values, asked[number].text[:EXCERPT])
            self.failures.append(dict(zip(FAILURE_FIELDS, listed, strict=True)))

    def _told(self, error: BaseException) -> BaseException:
        """Keep an error for whoever runs the statement; gives the one that DuckDB will quote."""
        self.raised = self.raised or error
        if isinstance(error, IntramurosError) and error.hint:
            return IntramurosError(f"{error.sentence} (hint: {error.hint})")
        return error

    def _add(self, task: Task, shape: str) -> None:
        """Create the function and the macro of a task."""
        name = self._function(
            task.name,
            lambda content, arguments: self.answer(task, content, arguments),
            ["VARCHAR", "VARCHAR"],
            type="arrow",
        )
        others = [each.name for each in task.parameters if each.name != task.row]
        required = [each.name for each in task.parameters if each.required]
        # In brackets: of a column that holds only NULL, DuckDB does not fold `typeof`.
        types = struct({each: f"typeof([{quoted(each)}])" for each in required})
        # Types are looked at twice: DuckDB evaluates a call of constants before it binds the rest.
        arguments = struct(
            {**{each: quoted(each) for each in (*others, "detail", "model")}, "types": types}
        )
        described = struct(
            {
                "task": literal(task.name),
                # In brackets: DuckDB refuses a macro whose structure is not constant yet, unless
                # it meets something whose type is open until the macro is used.
                "detail": "[detail][1]",
                "types": types,
                "arguments": struct({each: quoted(each) for each in shapes.deciding(task)}),
            }
        )
        parameters = [parameter_of(each) for each in task.parameters]
        self._macro(
            f"ai_{task.name}",
            [*parameters, "detail := false", "model := NULL"],
            f"json_transform({name}({quoted(task.row)}::VARCHAR, to_json({arguments})::VARCHAR), "
            f"{shape}(to_json({described})::VARCHAR))",
        )

    def _add_failures(self) -> None:
        name = self._function(
            "failures",
            lambda ignored: json.dumps(self.failures),
            ["VARCHAR"],
            side_effects=True,
        )
        fields = json.dumps([FAILURE_FIELDS])
        rows = f"unnest(from_json({name}(''), {literal(fields)}), recursive := true)"
        self._macro("ai_failures", [], f"table select {rows}")

    def _function(
        self, name: str, function: Callable[..., object], takes: list[str], **options: object
    ) -> str:
        full_name = f"_ai_{name}_{self._serial}"
        create: Any = self.connected().create_function
        create(full_name, function, takes, "VARCHAR", null_handling="special", **options)
        self._functions.append(full_name)
        return full_name

    def _macro(self, name: str, parameters: list[str], body: str) -> None:
        kind = "macro table" if body.startswith("table ") else "macro"
        signature = f"{name}({', '.join(parameters)})"
        self.connected().execute(f"create or replace temp macro {signature} as {body}")
        self._macros.append(f"{kind} {name}")


def register(connection: duckdb.DuckDBPyConnection, session: Session) -> Functions:
    """Give a connection every task of a session as `ai_<task>`, and `ai_failures()`."""
    if (earlier := registered.get(connection)) is not None:
        earlier.close()
    functions = registered[connection] = Functions(connection, session)
    return functions


def encoded(result: Result, detail: bool) -> bytes | None:
    """A result as the JSON text that DuckDB casts to the type it was promised."""
    if detail:
        return encode(
            {
                "value": plain(result.value),
                "probability": result.probability,
                "failure": result.failure.sentence if result.failure else None,
                "card": result.card or None,
                "from_ledger": result.from_ledger,
            }
        )
    return None if result.value is None else encode(plain(result.value))


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def struct(fields: Mapping[str, str]) -> str:
    """A STRUCT of SQL expressions; an empty one is not allowed in SQL, so it is NULL."""
    inner = ", ".join(f"{literal(name)}: {value}" for name, value in fields.items())
    return f"{{{inner}}}" if inner else "NULL"


def parameter_of(parameter: Parameter) -> str:
    """A macro's parameter, with its default if it has one."""
    if parameter.required:
        return quoted(parameter.name)
    value = parameter.default
    default = "NULL" if value is None else str(value)
    if isinstance(value, str):
        default = literal(value)
    elif isinstance(value, list | tuple | dict):
        default = f"{literal(json.dumps(value))}::JSON"
    return f"{quoted(parameter.name)} := {default}"
