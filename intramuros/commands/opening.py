"""What commands that ask a model share: flags, opening the workspace, Ctrl-C, reading a file."""

import argparse
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from intramuros import terminal
from intramuros.errors import BadArgument, NotFound
from intramuros.python import AI
from intramuros.python import open as open_workspace
from intramuros.run import Session


def add_settings(command: argparse.ArgumentParser) -> None:
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


@contextmanager
def open_ai(chosen: argparse.Namespace) -> Iterator[AI]:
    """The workspace as the flags say; until it is closed, Ctrl-C is gentle."""
    flags = {"engine": chosen.engine, "max_error_ratio": chosen.max_error_ratio}
    with open_workspace(chosen.model or "", talk=terminal.say, **flags) as ai:
        ai.session.on_error = chosen.on_error
        with stopping_gently(ai.session):
            yield ai


@contextmanager
def stopping_gently(session: Session) -> Iterator[None]:
    """Make the first Ctrl-C finish and keep what is in flight, and the second stop at once."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        session.cancel()
        terminal.say("finishing what is in flight; Ctrl-C again stops at once")

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {str(path)!r}") from error
    except UnicodeDecodeError as error:
        raise BadArgument(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise BadArgument(f"{path} cannot be read: {error.strerror}") from error
