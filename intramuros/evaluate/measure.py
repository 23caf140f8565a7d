"""Measure how fast each engine serves a card here, and fix in the workspace which verb it serves.

A few seconds an engine: reading (tokens/s of a prompt), choosing (rows/s of short texts together),
writing (tokens/s alone and sixteen together). Does not judge quality: the weights are the same.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from intramuros.engine import Engine
from intramuros.errors import IntramurosError
from intramuros.types import Answer, Ask, Choose, Failure, Prompt, Say, Verb

TOGETHER = 16
WRITTEN = 24
CHOSEN = 48
SUBJECTS = ("The lamp", "The table", "My order", "The courier", "Your answer", "The sofa")
RESTS = ("came late", "is perfect", "was fine", "broke twice", "smells of glue", "saved the day")


class Measured(msgspec.Struct, frozen=True):
    """Speeds of one engine with one card; `failure` where it could not serve it."""

    engine: str
    load_seconds: float = 0.0
    read: float = 0.0  # prompt tokens a second, one long prompt
    choose: float = 0.0  # rows a second, 48 short texts together
    say_alone: float = 0.0  # written tokens a second
    say_together: float = 0.0  # written tokens a second, sixteen texts together
    failure: str = ""


def measure(engine: str, load: Callable[[], Engine]) -> Measured:
    """Load a card with one engine and time it; an engine that cannot serve it says why."""
    try:
        started = time.perf_counter()
        loaded = load()
        try:
            _seconds(loaded, _writing(1, 2))
            load_seconds = time.perf_counter() - started
            read_tokens, read_seconds = _seconds(loaded, [_long()])
            _seconds(loaded, _choosing(2))
            _, choose_seconds = _seconds(loaded, _choosing(CHOSEN))
            alone = _seconds(loaded, _writing(1, WRITTEN))
            together = _seconds(loaded, _writing(TOGETHER, WRITTEN))
        finally:
            loaded.close()
    except IntramurosError as error:
        return Measured(engine, failure=error.sentence)
    return Measured(
        engine,
        load_seconds=load_seconds,
        read=read_tokens / read_seconds,
        choose=CHOSEN / choose_seconds,
        say_alone=alone[0] / alone[1],
        say_together=together[0] / together[1],
    )


def fastest(measured: Sequence[Measured]) -> dict[Verb, str]:
    """The engine for each verb: by rows chosen a second, and by tokens written together."""
    able = [one for one in measured if not one.failure]
    if not able:
        return {}
    chooser = max(able, key=lambda one: one.choose).engine
    writer = max(able, key=lambda one: one.say_together).engine
    return {"choose": chooser, "say": writer, "fill": writer}


def fix(folder: Path, engines: dict[Verb, str]) -> None:
    """Write the engine of each verb into the workspace's settings.toml; other lines stay."""
    path = folder / "settings.toml"
    names = {f"engine_{verb}": engine for verb, engine in engines.items()}
    kept = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in kept if line.partition("=")[0].strip() not in names]
    folder.mkdir(parents=True, exist_ok=True)
    lines = [*kept, *(f'{name} = "{engine}"' for name, engine in names.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _seconds(engine: Engine, asks: Sequence[Ask]) -> tuple[int, float]:
    """Tokens written (or read, where one token is written) and seconds of a batch."""
    started = time.perf_counter()
    tokens = 0
    for piece in engine.generate(asks):
        if isinstance(piece.answer, Failure):
            raise IntramurosError(piece.answer.sentence, piece.answer.hint)
        if isinstance(piece.answer, Answer):
            usage = piece.answer.usage
            one = usage.completion_tokens <= 1
            tokens += usage.prompt_tokens if one else usage.completion_tokens
    return tokens, max(time.perf_counter() - started, 1e-9)


def _choosing(count: int) -> list[Ask]:
    texts = [f"{s} {r}, number {n}." for n in range(2) for s in SUBJECTS for r in RESTS]
    prompt = Prompt("You judge the sentiment of a text.", question="How does the author feel?")
    return [
        Choose(msgspec.structs.replace(prompt, document=text), ("positive", "negative"))
        for text in texts[:count]
    ]


def _writing(count: int, tokens: int) -> list[Ask]:
    return [
        Say(
            Prompt("Write a long story about the subject.", f"A house with {n + 2} doors"),
            max_tokens=tokens,
            truncate=True,
        )
        for n in range(count)
    ]


def _long() -> Ask:
    text = " ".join(f"{subject} {rest}." for subject in SUBJECTS for rest in RESTS)
    return Say(Prompt("Sum up.", f"{text} {text}"), max_tokens=1, truncate=True)
