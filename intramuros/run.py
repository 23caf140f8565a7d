"""Session, and the loop that steps the flows of many rows together.

Rows are taken in bounded windows; the asks of all their flows go to the engine as one batch, equal
asks once; each reply goes back to the flows that wait for it, and a row is yielded when its flow
ends. Does not keep results, does not order them, and knows nothing of tables.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import msgspec

from intramuros.engine import Engine, require
from intramuros.errors import (
    AskFailed,
    BadArgument,
    Broken,
    Cancelled,
    NotFound,
    RowFailed,
    TooManyFailures,
)
from intramuros.settings import Settings
from intramuros.task import Flow, Task, tasks
from intramuros.types import (
    Answer,
    Ask,
    Choice,
    Embed,
    Failure,
    Origin,
    Result,
    Search,
    Usage,
)

FEW_ROWS = 100
"""A run is not stopped for its share of failures before so many rows are done."""

FAILURES_LISTED = 10_000
"""Failures kept for listing; beyond that they are only counted."""


class Tally(msgspec.Struct):
    """What a run has done so far; progress bars and closing lines read it."""

    rows: int = 0
    failed: int = 0
    asked: int = 0  # distinct asks that an engine answered
    from_ledger: int = 0  # distinct asks that the ledger answered
    usage: Usage = Usage()


class Listed(msgspec.Struct, frozen=True):
    """A failure with the place where it happened."""

    task: str
    row: int
    failure: Failure


class Session:
    """The only holder of state: engines, settings, and the tally of the run in hand.

    `engine` answers asks that name no model; `load` gives the engine of a model that one names.
    A run is what stands between two calls of `begin`: one statement, one file, one chat turn.
    """

    def __init__(
        self,
        engine: Engine | None = None,
        settings: Settings | None = None,
        load: Callable[[str], Engine] | None = None,
        origin: Origin | None = None,
    ) -> None:
        self.settings = settings or Settings({})
        self.origin = origin or Origin()
        self.load = load
        self.engines: dict[str, Engine] = {"": engine} if engine else {}
        self.on_error = "null"
        self.on_text: Callable[[int, str], None] | None = None
        self.on_progress: Callable[[Tally], None] | None = None
        self._loading = threading.Lock()
        self._stop = threading.Event()
        self.begin()

    def begin(self) -> None:
        """Forget the last run: its tally, its failures, its cancellation."""
        self._stop.clear()
        self.tally = Tally()
        self.failures: list[Listed] = []

    def cancel(self) -> None:
        """Let the engine finish what is in flight and start nothing more; `run` then raises."""
        self._stop.set()

    def admit(self) -> bool:
        return not self._stop.is_set()

    @property
    def tasks(self) -> dict[str, Task]:
        return tasks()

    def task(self, name: str) -> Task:
        if name not in self.tasks:
            raise NotFound.among("task", name, self.tasks)
        return self.tasks[name]

    def engine(self, model: str = "") -> Engine:
        """The engine of a model, loaded once; the empty name is the default model's."""
        with self._loading:
            if model not in self.engines:
                if self.load is None:
                    raise NotFound.among("model", model, filter(None, self.engines))
                self.engines[model] = self.load(model)
            return self.engines[model]

    def run(
        self, task: Task | str, rows: Iterable[Mapping[str, Any]], model: str = ""
    ) -> Iterator[Result]:
        """Yield a Result for every row, as it finishes; `rows` are mappings of arguments.

        Raises BadArgument before anything is asked if the first row's arguments are wrong,
        Cancelled after `cancel`, RowFailed or TooManyFailures as the session is told.
        """
        task = self.task(task) if isinstance(task, str) else task
        waiting: list[_Row] = []
        source = enumerate(self._started(task, rows))
        while True:
            for number, started in islice(source, self.settings.window - len(waiting)):
                if isinstance(started, Result):
                    yield self._finished(task, started, number)
                    continue
                row = _Row(number, started, self.settings.max_steps)
                if (ended := self._first_step(row)) is None:
                    waiting.append(row)
                else:
                    yield self._finished(task, ended, number)
            if not waiting:
                break
            yield from self._round(task, waiting, model)
            waiting = [row for row in waiting if not row.ended]
            if waiting and self._stop.is_set():
                raise self._cancelled()

    def values(
        self, task: Task | str, rows: Iterable[Mapping[str, Any]], model: str = ""
    ) -> list[Any]:
        """The values of all rows in their order; failed rows are None, and listed."""
        results = sorted(self.run(task, rows, model), key=lambda result: result.row)
        self.check_failures()
        return [result.value for result in results]

    def check_failures(self, at_end: bool = True) -> None:
        """Raise TooManyFailures if the run so far has more than `max_error_ratio` allows.

        `run` looks while rows come in; whoever knows that the last has come looks once more.
        """
        ratio = self.settings.max_error_ratio
        rows, failed = self.tally.rows, self.tally.failed
        if failed > ratio * rows and (at_end or rows >= FEW_ROWS):
            last = self.failures[-1].failure if self.failures else None
            raise TooManyFailures(
                f"{failed} of {rows} rows failed, more than max_error_ratio {ratio} allows"
                + (f"; the last: {last.sentence}" if last else ""),
                hint="what was finished is kept; raise --max-error-ratio to go on in spite of them",
            )

    def close(self) -> None:
        for engine in self.engines.values():
            engine.close()
        self.engines.clear()

    def _started(
        self, task: Task, rows: Iterable[Mapping[str, Any]]
    ) -> Iterator[Flow[Any] | Result]:
        """A flow for each row, or its result where nothing is to be asked."""
        constant: dict[str, Any] | None = None
        bound: dict[str, Any] = {}
        for number, arguments in enumerate(rows):
            others = {name: arguments[name] for name in arguments if name != task.row}
            if others != constant:
                bound = task.bind(dict(arguments))
                constant = others
            text = arguments.get(task.row)
            if text is None:
                yield Result(number)
            elif failure := unreadable(text):
                yield Result(number, failure=failure)
            else:
                bound[task.row] = text
                yield task.flow(**bound)

    def _first_step(self, row: "_Row") -> Result | None:
        """Start a flow. A wrong argument is the caller's mistake in the first row of a run, where
        all rows share it, and that row's failure later, where it came from a column."""
        try:
            return row.step(None)
        except BadArgument as error:
            if not self.tally.rows and not row.number:
                raise
            return Result(row.number, failure=Failure("argument", error.sentence, error.hint))

    def _round(self, task: Task, rows: list["_Row"], model: str) -> Iterator[Result]:
        """Ask everything that rows wait for once, and step each row whose replies are complete."""
        batches: dict[str, dict[Ask, list[tuple[_Row, int]]]] = {}
        for row in rows:
            for slot, ask in enumerate(row.asks):
                if row.replies[slot] is None:
                    named = ask.model or model
                    stamped = msgspec.structs.replace(ask, origin=self.origin, model=named)
                    waiters = batches.setdefault(named, {}).setdefault(stamped, [])
                    waiters.append((row, slot))
        for named, batch in batches.items():
            yield from self._batch(task, self.engine(named), batch)

    def _batch(
        self, task: Task, engine: Engine, batch: dict[Ask, list[tuple["_Row", int]]]
    ) -> Iterator[Result]:
        """Send one engine its asks, shortest first, and each answer to the rows that wait."""
        answered = False
        asks = sorted(batch, key=_length)
        require(engine, asks)
        waiting = [batch[ask] for ask in asks]
        for piece in engine.generate(asks, self.admit):
            waiters = waiting[piece.row]
            if piece.text and self.on_text:
                for row, _ in waiters:
                    self.on_text(row.number, piece.text)
            if piece.answer is None:
                continue
            answered = True
            self._count(piece.answer)
            for row, slot in waiters:
                row.replies[slot] = piece.answer
                row.missing -= 1
                if row.missing == 0 and (ended := row.step(row.take())) is not None:
                    yield self._finished(task, ended, row.number)
        if not answered and self.admit():
            raise Broken(f"engine {engine.name!r} answered none of {len(asks)} asks")

    def _count(self, answer: Answer | Failure) -> None:
        if isinstance(answer, Failure):
            self.tally.asked += 1
        elif answer.from_ledger:
            self.tally.from_ledger += 1
        else:
            self.tally.asked += 1
            self.tally.usage += answer.usage

    def _finished(self, task: Task, result: Result, number: int) -> Result:
        self.tally.rows += 1
        if result.failure is not None:
            self.tally.failed += 1
            if len(self.failures) < FAILURES_LISTED:
                self.failures.append(Listed(task.name, number, result.failure))
            if self.on_error == "raise":
                raise RowFailed(task.name, number, result.failure)
            self.check_failures(at_end=False)
        if self.on_progress:
            self.on_progress(self.tally)
        return result

    def _cancelled(self) -> Cancelled:
        tally = self.tally
        return Cancelled(
            f"stopped: {tally.rows} rows were finished, "
            f"and {tally.asked + tally.from_ledger} answers are kept in the ledger",
            hint="run the same again: it goes on from there",
        )


class _Row:
    """One row's flow, what it waits for, and what it has used."""

    __slots__ = (
        "asks", "card", "ended", "flow", "from_ledger", "listed", "missing", "number",
        "replies", "steps_left", "usage",
    )  # fmt: skip

    def __init__(self, number: int, flow: Flow[Any], max_steps: int) -> None:
        self.number = number
        self.flow = flow
        self.steps_left = max_steps
        self.asks: list[Ask] = []
        self.replies: list[Answer | Failure | None] = []
        self.missing = 0
        self.listed = False
        self.ended = False
        self.usage = Usage()
        self.card = ""
        self.from_ledger = True

    def step(self, reply: Any) -> Result | None:
        """Send a reply (or throw a Failure) into the flow; a Result if that ended it."""
        while True:
            try:
                if isinstance(reply, Failure):
                    asked = self.flow.throw(AskFailed(reply))
                else:
                    asked = self.flow.send(reply)
            except StopIteration as stop:
                return self._end(stop.value)
            except AskFailed as error:
                return self._end(None, error.failure)
            if self.steps_left == 0:
                self.flow.close()
                return self._end(
                    None,
                    Failure(
                        "endless", "the task asked too many times", "raise the setting max_steps"
                    ),
                )
            self.steps_left -= 1
            self.listed = isinstance(asked, list)
            self.asks = asked if isinstance(asked, list) else [asked]
            if self.asks:
                break
            reply = []
        self.missing = len(self.asks)
        self.replies = [None] * self.missing
        return None

    def take(self) -> Any:
        """The complete replies as the flow expects them, or the first Failure among them."""
        values = []
        for answer in self.replies:
            if answer is None or isinstance(answer, Failure):
                return answer
            values.append(answer.value)
            if not answer.from_ledger:
                self.usage = self.usage + answer.usage
                self.from_ledger = False
            self.card = answer.card
        return values if self.listed else values[0]

    def _end(self, value: Any, failure: Failure | None = None) -> Result:
        self.ended = True
        probability = value.probabilities[value.label] if isinstance(value, Choice) else None
        from_ledger = self.from_ledger and bool(self.card)
        return Result(self.number, value, failure, probability, self.usage, self.card, from_ledger)


def unreadable(text: Any) -> Failure | None:
    """Why a row's value is not a text that a model can read, if it is not."""
    if not isinstance(text, str):
        return Failure("not_text", f"{type(text).__name__} is not text", "cast it to text first")
    if "\0" in text:
        return Failure(
            "nul_byte",
            f"the text holds a NUL byte at position {text.index(chr(0))}",
            "replace chr(0) before asking",
        )
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return Failure(
                "not_unicode",
                f"the text holds half a character at position {error.start}",
                "it was decoded wrongly; read the source again with its right encoding",
            )
    return None


def _length(ask: Ask) -> int:
    match ask:
        case Embed(text=text) | Search(query=text):
            return len(text)
        case _:
            return len(ask.prompt.document or "") + len(ask.prompt.question)
