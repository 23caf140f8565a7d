"""The command line: data to stdout, talk to stderr; exit code 2 for a mistake, 1 for a failure.

Does not hold any behaviour of its own: each command calls the function that Python users call.
"""

import argparse
import os
import sys

from intramuros import terminal
from intramuros.commands import models, run, sql
from intramuros.errors import Cancelled, IntramurosError
from intramuros.task import tasks


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
    for command in (sql, run, models):
        command.add(commands)
    listing = commands.add_parser("tasks", help="list the tasks and their arguments")
    listing.set_defaults(command=list_tasks)
    return top


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
