"""The command line: data to stdout, talk to stderr; exit code 2 for a user's mistake, 1 for a failure.

The flags of `run TASK` are made from the tasks' signatures. Does not hold any behaviour of its own:
each command calls the function that Python users call.
"""

import argparse
import csv
import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import msgspec

from intramuros import models_commands, terminal
from intramuros.errors import BadArgument, Cancelled, IntramurosError, NotFound
from intramuros.python import AI
from intramuros.python import open as open_workspace
from intramuros.run import Session
from intramuros.task import Parameter, Task, tasks
from intramuros.types import Result, plain


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        chosen = parser().parse_args(arguments)
        code: int = chosen.command(chosen)
        sys.stdout.flush()
        return code
    except IntramurosError as error:
        terminal.complain(error)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        terminal.say("stopped at once; what the ledger had is kept")
        return Cancelled.exit_code


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="intramuros", description="Large language models inside your own walls."
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_sql(commands)
    _add_run(commands)
    models_commands.add(commands)
    listing = commands.add_parser("tasks", help="list the tasks and their arguments")
    listing.set_defaults(command=list_tasks)
    return top


def _add_sql(commands: Any) -> None:
    sql = commands.add_parser(
        "sql", help="run a statement over csv, json and parquet files, with every task as ai_<task>"
    )
    sql.add_argument("query", nargs="?", help="the statement; read from --file if left out")
    sql.add_argument("--file", type=Path, help="a file that holds the statement")
    sql.add_argument("--output", type=Path, help="write to this .parquet, .csv or .json file")
    sql.add_argument(
        "--format",
        choices=["table", "csv", "json"],
        help="on stdout; json gives a line for each row",
    )
    _add_settings(sql)
    sql.set_defaults(command=run_sql)


def _add_run(commands: Any) -> None:
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
        _add_settings(one)
        one.set_defaults(command=run_task, task=task)


def _add_parameter(command: argparse.ArgumentParser, parameter: Parameter) -> None:
    flag = "--" + parameter.name.replace("_", "-")
    command.add_argument(
        flag,
        dest=f"argument_{parameter.name}",
        metavar=parameter.kind.split(" | ")[0].upper(),
        required=parameter.required,
        help=parameter.kind + ("" if parameter.required else f", default {parameter.default}"),
    )


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", help="the card that answers (intramuros models list)")
    command.add_argument("--engine", help="openvino, llamacpp or scripted (a dry run)")
    command.add_argument(
        "--on-error",
        choices=["null", "raise"],
        default="null",
        help="a row that fails is NULL, or ends the run",
    )
    command.add_argument(
        "--max-error-ratio", type=float, help="share of failed rows that ends the run"
    )


def _open(chosen: argparse.Namespace) -> AI:
    flags = {"engine": chosen.engine, "max_error_ratio": chosen.max_error_ratio}
    ai = open_workspace(chosen.model or "", talk=terminal.say, **flags)
    ai.session.on_error = chosen.on_error
    stop_gently(ai.session)
    return ai


def stop_gently(session: Session) -> None:
    """Make the first Ctrl-C finish and keep what is in flight, and the second stop at once."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        session.cancel()
        terminal.say("finishing what is in flight; Ctrl-C again stops at once")

    signal.signal(signal.SIGINT, interrupt)


def run_sql(chosen: argparse.Namespace) -> int:
    from intramuros.tables import duckdb

    query = _query(chosen)
    with _open(chosen) as ai:
        progress = terminal.Progress(ai.session)
        try:
            if chosen.output:
                rows = duckdb.write(query, chosen.output, ai.session)
                terminal.say(f"{rows:,} rows written to {chosen.output}")
                return 0
            with duckdb.sql(query, ai.session) as reader:
                batches = iter(reader)
                form = chosen.format or ("table" if sys.stdout.isatty() else "csv")
                _print(reader.schema.names, batches, form, sys.stdout)
            return 0
        finally:
            progress.close()


def _query(chosen: argparse.Namespace) -> str:
    if (chosen.query is None) == (chosen.file is None):
        raise BadArgument("give a statement or --file, one of the two")
    if chosen.file is None:
        return str(chosen.query)
    return read_text(chosen.file)


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {str(path)!r}") from error
    except UnicodeDecodeError as error:
        raise BadArgument(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise BadArgument(f"{path} cannot be read: {error.strerror}") from error


def _print(names: list[str], batches: Iterable[Any], form: str, out: TextIO) -> None:
    rows = (list(row.values()) for batch in batches for row in batch.to_pylist())
    if form == "table":
        terminal.print_table(names, rows, out)
    elif form == "csv":
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([terminal.text_of(value) for value in row] for row in rows)
    else:
        for row in rows:
            record = dict(zip(names, row, strict=True))
            out.write(msgspec.json.encode(record, enc_hook=str).decode() + "\n")


def run_task(chosen: argparse.Namespace) -> int:
    task: Task = chosen.task
    constants = {
        parameter.name: parse_argument(parameter, value)
        for parameter in task.parameters
        if (value := getattr(chosen, f"argument_{parameter.name}", None)) is not None
    }
    with _open(chosen) as ai:
        progress = terminal.Progress(ai.session)
        try:
            rows = ({task.row: text, **constants} for text in _texts(chosen, task))
            for result in in_order(ai.session.run(task, rows)):
                print(_line(result, chosen.detail, chosen.whole), flush=True)
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


def list_tasks(chosen: argparse.Namespace) -> int:
    for task in tasks().values():
        arguments = ", ".join(
            parameter.name if parameter.required else f"[{parameter.name}]"
            for parameter in task.parameters
        )
        print(f"ai_{task.name}({arguments})\n    {task.about}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
