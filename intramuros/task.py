"""The contract of a task: a generator that yields asks, receives replies, and does no I/O.

    @task
    def shout(text: str) -> Flow[str]:
        '''Say the text again, louder.'''
        return (yield from say(document(text, "Repeat the document in capital letters.")))

A flow asks with five verbs: `say`, `choose`, `fill`, `embed` and `search`. Each gives its answer
back: text, a Choice, a dict, a vector, passages. `together` sends several asks at once, and gives
the list of their replies. An ask that fails raises AskFailed where it was asked: let it pass and
the row becomes a Failure, or catch it. `run` bounds the steps, so a flow that asks forever fails.

The function's signature is the only place where arguments are written down: SQL, HTTP, the command
line and the reference page are made from it. Its first parameter is the row's text (or the one
that `row=` names); a NULL there gives NULL and asks nothing.
"""

import inspect
import types
import typing
from collections.abc import Callable, Generator, Sequence
from functools import cache
from typing import Any, cast

import msgspec

from intramuros import registry
from intramuros.errors import BadArgument
from intramuros.types import (
    Ask,
    Choice,
    Choices,
    Choose,
    Embed,
    Fill,
    Layout,
    Message,
    Passage,
    Prompt,
    Say,
    Search,
)

T = typing.TypeVar("T")
Flow = Generator[Ask | list[Ask], Any, T]

DEFAULT_SAY_TOKENS = 1024


def document(
    text: str, instruction: str = "", question: str = "", layout: Layout = "instruction_first"
) -> Prompt:
    """A prompt about a text from outside, which is fenced."""
    return Prompt(instruction=instruction, document=text, question=question, layout=layout)


def conversation(question: str, instruction: str = "", history: Sequence[Message] = ()) -> Prompt:
    """A prompt that is itself the question: no document, nothing fenced."""
    return Prompt(instruction=instruction, question=question, history=tuple(history))


def say(
    prompt: Prompt,
    max_tokens: int = DEFAULT_SAY_TOKENS,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | None = None,
    stop: Sequence[str] = (),
    truncate: bool = False,
) -> Flow[str]:
    """Ask for text."""
    ask = Say(
        prompt,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        stop=tuple(stop),
        truncate=truncate,
    )
    return cast(str, (yield ask))


def choose(
    prompt: Prompt, options: Sequence[str], descriptions: Sequence[str] = ()
) -> Flow[Choice]:
    """Ask for one of a closed set of options."""
    return cast(Choice, (yield Choose(prompt, tuple(options), tuple(descriptions))))


def choose_many(
    prompt: Prompt, options: Sequence[str], descriptions: Sequence[str] = ()
) -> Flow[Choices]:
    """Ask for every option that applies: one yes or no for each, asked together."""
    described = descriptions or ("",) * len(options)
    asks: list[Ask] = []
    for option, about in zip(options, described, strict=True):
        meaning = f" ({about})" if about else ""
        question = f"{prompt.question}\nDoes this apply: {option}{meaning}?".strip()
        asks.append(Choose(msgspec.structs.replace(prompt, question=question), ("yes", "no")))
    replies = cast(list[Choice], (yield asks))
    probabilities = {
        option: reply.probabilities["yes"] for option, reply in zip(options, replies, strict=True)
    }
    labels = tuple(option for option, chance in probabilities.items() if chance >= 0.5)
    return Choices(labels, probabilities)


def fill(
    prompt: Prompt, schema: dict[str, Any], max_tokens: int = DEFAULT_SAY_TOKENS
) -> Flow[dict[str, Any]]:
    """Ask for a record that satisfies a JSON schema."""
    text = msgspec.json.encode(schema).decode()
    return cast(dict[str, Any], (yield Fill(prompt, text, max_tokens)))


def embed(text: str, kind: typing.Literal["query", "passage"] = "passage") -> Flow[list[float]]:
    """Ask for the vector of a text."""
    return cast(list[float], (yield Embed(text, kind)))


def search(query: str, library: str, k: int = 5) -> Flow[list[Passage]]:
    """Ask for the passages of a library nearest to a query."""
    return cast(list[Passage], (yield Search(query, library, k)))


def together(asks: Sequence[Ask]) -> Flow[list[Any]]:
    """Send several asks at once; replies come in the same order."""
    return cast(list[Any], (yield list(asks))) if asks else []


class Parameter(msgspec.Struct, frozen=True):
    """One argument of a task, as every surface shows it."""

    name: str
    kind: str  # str, int, float, bool, list[str], dict, or several joined by " | "
    default: Any
    required: bool


class Task(msgspec.Struct, frozen=True):
    """A flow with its name, its arguments and the kinds of value it gives."""

    name: str
    flow: Callable[..., Flow[Any]]
    about: str  # first line of the docstring
    parameters: tuple[Parameter, ...]
    returns: str
    row: str  # the parameter that takes the row's text

    def bind(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Check names and kinds of arguments and fill in defaults; raises BadArgument."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in arguments:
            if name not in known:
                raise BadArgument(
                    f"{self.name} has no argument {name!r}",
                    hint=f"it takes {', '.join(known)}",
                )
        bound = {}
        for parameter in self.parameters:
            value = arguments.get(parameter.name, parameter.default)
            if parameter.name not in arguments and parameter.required:
                raise BadArgument(f"{self.name} needs the argument {parameter.name!r}")
            if parameter.name != self.row and not _fits(value, parameter.kind):
                raise BadArgument(
                    f"{self.name}: {parameter.name} takes {parameter.kind}, not {value!r}"
                )
            bound[parameter.name] = value
        return bound


ALLOWED = {"str", "int", "float", "bool", "list[str]", "dict[str, str]", "dict[str, Any]", "None"}


@typing.overload
def task(flow: Callable[..., Flow[Any]]) -> Task: ...


@typing.overload
def task(*, row: str) -> Callable[[Callable[..., Flow[Any]]], Task]: ...


def task(flow: Callable[..., Flow[Any]] | None = None, *, row: str = "") -> Any:
    """Make a generator function a Task; its name and signature are the task's."""
    return _task(flow, row) if flow else lambda function: _task(function, row)


def _task(flow: Callable[..., Flow[Any]], row: str) -> Task:
    signature = inspect.signature(flow, eval_str=True)
    parameters = []
    for parameter in signature.parameters.values():
        kinds = _kinds(parameter.annotation)
        if unknown := set(kinds) - ALLOWED:
            raise TypeError(f"{flow.__name__}: {parameter.name} cannot be {', '.join(unknown)}")
        required = parameter.default is inspect.Parameter.empty
        default = None if required else parameter.default
        parameters.append(Parameter(parameter.name, " | ".join(kinds), default, required))
    result = typing.get_args(signature.return_annotation)[2]
    about = (inspect.getdoc(flow) or "").partition("\n")[0]
    return Task(
        name=flow.__name__,
        flow=flow,
        about=about,
        parameters=tuple(parameters),
        returns=" | ".join(_kinds(result)),
        row=row or parameters[0].name,
    )


@cache
def tasks() -> dict[str, Task]:
    """All tasks by name: in each module of `tasks/`, the Task that bears the module's name."""
    return {
        name: cast(Task, getattr(registry.module("tasks", name), name))
        for name in registry.names("tasks")
    }


def _kinds(annotation: Any) -> list[str]:
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return [kind for part in typing.get_args(annotation) for kind in _kinds(part)]
    if annotation is None or annotation is type(None):
        return ["None"]
    if typing.get_origin(annotation) is not None:
        return [str(annotation).replace("typing.", "")]
    return [annotation.__name__]


def _fits(value: Any, kinds: str) -> bool:
    """Whether a value is of one of the kinds; a bool is not an int."""
    for kind in kinds.split(" | "):
        match kind, value:
            case ("None", None) | ("str", str()) | ("bool", bool()) | ("float", float()):
                return True
            case (("int" | "float"), int()) if not isinstance(value, bool):
                return True
            case ("list[str]", list() | tuple()) if all(isinstance(v, str) for v in value):
                return True
            case (("dict[str, str]" | "dict[str, Any]"), dict()):
                return True
    return False
