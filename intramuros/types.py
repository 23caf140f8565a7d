"""The frozen values that everything else passes around; they know nothing and save nothing.

They hold no cycles, so the garbage collector is not told of them (`gc=False`): a run of many rows
is a quarter faster.
"""

from typing import Any, Literal

import msgspec

Layout = Literal["instruction_first", "document_first"]
Verb = Literal["say", "choose", "fill", "embed", "search"]
Sensitivity = Literal["public", "internal", "secret"]
Role = Literal["user", "assistant"]


class Message(msgspec.Struct, frozen=True, gc=False):
    """One earlier turn of a conversation; always text from outside."""

    role: Role
    content: str


class Origin(msgspec.Struct, frozen=True, gc=False):
    """Who asks, about what, and how sensitive it is. Never part of an ask's key."""

    principal: str = ""
    source: str = ""
    sensitivity: Sensitivity = "internal"


class Prompt(msgspec.Struct, frozen=True, gc=False):
    """The parts of what a model reads, kept apart until an engine lays them out.

    Only `instruction` is ours. Document, question, history and options come from outside and are
    encoded without control tokens, so none of them can open a turn.
    """

    instruction: str
    document: str | None = None
    question: str = ""
    history: tuple[Message, ...] = ()
    layout: Layout = "instruction_first"
    fence: bool = True


class Say(msgspec.Struct, frozen=True, gc=False, tag="say"):
    """Ask for text. `temperature` 0 is greedy; above 0 without a seed the answer is never reused.

    A text that reaches `max_tokens` fails, unless `truncate` says that a cut text is wanted.
    """

    prompt: Prompt
    max_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    truncate: bool = False
    model: str = ""
    origin: Origin = Origin()


class Choose(msgspec.Struct, frozen=True, gc=False, tag="choose"):
    """Ask for one of a closed set of 2 to 500 options, with the probability of each."""

    prompt: Prompt
    options: tuple[str, ...]
    descriptions: tuple[str, ...] = ()  # one for each option, or none at all
    model: str = ""
    origin: Origin = Origin()


class Fill(msgspec.Struct, frozen=True, gc=False, tag="fill"):
    """Ask for a record; `schema` is a JSON schema as JSON text, whose top level is an object."""

    prompt: Prompt
    schema: str
    max_tokens: int = 1024
    model: str = ""
    origin: Origin = Origin()


class Embed(msgspec.Struct, frozen=True, gc=False, tag="embed"):
    """Ask for the vector of a text."""

    text: str
    kind: Literal["query", "passage"] = "passage"
    model: str = ""
    origin: Origin = Origin()


class Search(msgspec.Struct, frozen=True, gc=False, tag="search"):
    """Ask for the `k` passages of a library nearest to a query; never remembered."""

    query: str
    library: str
    k: int = 5
    model: str = ""
    origin: Origin = Origin()


Ask = Say | Choose | Fill | Embed | Search


class Choice(msgspec.Struct, frozen=True, gc=False):
    """The likeliest option, and the probability of every one (they add up to 1)."""

    label: str
    probabilities: dict[str, float]
    numbered: bool = False  # the options were shown as numbers, because their texts fork too often


class Choices(msgspec.Struct, frozen=True, gc=False):
    """All options that apply: those whose own yes/no probability is at least one half."""

    labels: tuple[str, ...]
    probabilities: dict[str, float]


class Passage(msgspec.Struct, frozen=True, gc=False):
    """A piece of a document that remembers where it stood (`start`, `end`: character offsets)."""

    text: str
    source: str
    start: int
    end: int


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens read and written; `cached_tokens` of the prompt were not read again."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
        )


Value = str | Choice | dict[str, Any] | list[float] | list[Passage]


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What an engine gave for one ask. `fill` gives a dict, `choose` a Choice, `embed` floats."""

    value: Value
    usage: Usage = Usage()
    card: str = ""
    engine: str = ""
    finish: Literal["stop", "length"] = "stop"
    from_ledger: bool = False


class Failure(msgspec.Struct, frozen=True, gc=False):
    """Why a row or an ask has no value: a value itself, so that the other rows go on.

    `tokens` and `limit` are set when a text is longer than what can be read (`too_long`) or
    written (`unfinished`).
    """

    kind: str
    sentence: str
    hint: str = ""
    attempts: int = 1
    tokens: int | None = None
    limit: int | None = None


class Piece(msgspec.Struct, frozen=True, gc=False):
    """A part of the reply to ask number `row` of a batch: some text, or the end of it."""

    row: int
    text: str = ""
    answer: Answer | Failure | None = None


class Result(msgspec.Struct, frozen=True, gc=False):
    """What became of one row of `Session.run`: a value, or NULL by rule, or a failure."""

    row: int
    value: Any = None
    failure: Failure | None = None
    probability: float | None = None
    usage: Usage = Usage()
    card: str = ""
    from_ledger: bool = False


def plain(value: Any) -> Any:
    """A task's value as every surface shows it: a choice as its label, choices as their labels."""
    if isinstance(value, Choice):
        return value.label
    return list(value.labels) if isinstance(value, Choices) else value
