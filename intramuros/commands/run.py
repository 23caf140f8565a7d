"""`intramuros run TASK`: one task over lines or JSON lines, its flags made from its signature."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from intramuros import terminal
from intramuros.commands.opening import add_settings, open_ai, read_text
from intramuros.errors import BadArgument
from intramuros.task import Parameter, Task, tasks
from intramuros.types import Result, plain


def add(commands: Any) -> None:
    run = commands.add_parser("run", help="run one task over lines or JSON lines")
    names = run.add_subparsers(required=True, metavar="TASK")
    for task in tasks().values():
        one = names.add_parser(task.name, help=task.about, description=task.flow.__doc__)
        one.add_argument("input", nargs="?", type=Path, help="a file of lines; default: stdin")
        for parameter in task.parameters:
            if parameter.name != task.row:
                _add_parameter(one, parameter)
        one.add_argument("--whole", action="store_true", help="the input is one text, not lines")
        one.add_argument(
            "--field",
            help=f"the input is JSON lines, and this field the text (default: {task.row})",
        )
        one.add_argument(
            "--detail", action="store_true", help="JSON lines with value, probability and failure"
        )
        add_settings(one)
        one.set_defaults(command=run_task, task=task)


def _add_parameter(command: argparse.ArgumentParser, parameter: Parameter) -> None:
    # --to-lang, and --to_lang as the argument is written everywhere else
    flags = dict.fromkeys(
        "--" + name for name in (parameter.name.replace("_", "-"), parameter.name)
    )
    command.add_argument(
        *flags,
        dest=f"argument_{parameter.name}",
        metavar=parameter.kind.split(" | ")[0].upper(),
        required=parameter.required,
        help=parameter.kind + ("" if parameter.required else f", default {parameter.default}"),
    )


def run_task(chosen: argparse.Namespace) -> int:
    task: Task = chosen.task
    constants = {
        parameter.name: parse_argument(parameter, value)
        for parameter in task.parameters
        if (value := getattr(chosen, f"argument_{parameter.name}", None)) is not None
    }
    with open_ai(chosen) as ai:
        progress = terminal.Progress(ai.session)
        try:
            rows = ({task.row: text, **constants} for text in _texts(chosen, task))
            for result in in_order(ai.session.run(task, rows)):
                print(_line(result, chosen.detail, chosen.whole), flush=True)
            ai.session.check_failures()
        finally:
            progress.close()
    return 1 if ai.session.tally.failed and ai.session.tally.failed == ai.session.tally.rows else 0


def parse_argument(parameter: Parameter, text: str) -> Any:
    """A flag's text as the kind its parameter takes: lists are separated by commas, or JSON."""
    kinds = parameter.kind.split(" | ")
    if text[:1] in "[{" and "str" in kinds:
        return text
    try:
        if "list[str]" in kinds:
            return [part.strip() for part in text.split(",")]
        if any(kind.startswith("dict") for kind in kinds):
            return json.loads(text)
        if "int" in kinds:
            return int(text)
        if "float" in kinds:
            return float(text)
        if "bool" in kinds:
            return {"true": True, "false": False}[text.lower()]
    except (ValueError, KeyError) as error:
        raise BadArgument(f"--{parameter.name} takes {parameter.kind}, not {text!r}") from error
    return text


def _texts(chosen: argparse.Namespace, task: Task) -> Iterator[str | None]:
    """The texts of the input, one a line, or the named field of JSON lines."""
    source = read_text(chosen.input).splitlines(keepends=True) if chosen.input else sys.stdin
    if chosen.whole:
        yield "".join(source)
        return
    field, as_json = chosen.field or task.row, chosen.field is not None
    for number, line in enumerate(source, 1):
        line = line.rstrip("\r\n")
        if (
            number == 1
            and not as_json
            and chosen.input
            and chosen.input.suffix in (".jsonl", ".ndjson")
        ):
            as_json = True
        if not as_json:
            yield line
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadArgument(f"line {number} is not JSON: {error}") from error
        if not isinstance(record, dict) or field not in record:
            raise BadArgument(
                f"line {number} has no field {field!r}", hint="name the text's field with --field"
            )
        yield record[field]


def in_order(results: Iterable[Result]) -> Iterator[Result]:
    """Results in the order of their rows, each as soon as those before it are there."""
    held: dict[int, Result] = {}
    following = 0
    for result in results:
        held[result.row] = result
        while following in held:
            yield held.pop(following)
            following += 1


def _line(result: Result, detail: bool, whole: bool) -> str:
    """One line for a result: its value, in which line breaks are written as \\n; or all of it."""
    value = plain(result.value)
    if not detail:
        text = terminal.text_of(value)
        return (
            text
            if whole
            else text.replace("\\", "\\\\").replace("\n", "\\n")
            if "\n" in text
            else text
        )
    record = {
        "row": result.row,
        "value": value,
        "probability": result.probability,
        "failure": result.failure.sentence if result.failure else None,
        "card": result.card,
        "from_ledger": result.from_ledger,
        "usage": {
            "prompt_tokens": result.usage.prompt_tokens,
            "completion_tokens": result.usage.completion_tokens,
        },
    }
    return msgspec.json.encode(record).decode()
