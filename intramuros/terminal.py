"""What a person at a terminal sees: sentences and a progress bar on stderr, a table on stdout."""

import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

import msgspec
from tqdm import tqdm

from intramuros.errors import IntramurosError
from intramuros.run import Session, Tally

WIDEST_CELL = 48
MEASURED_ROWS = 200
"""Rows looked at to lay out a table's columns."""


def say(sentence: str) -> None:
    """Talk goes to stderr, so that results alone are on stdout."""
    tqdm.write(sentence, file=sys.stderr)


def complain(error: IntramurosError) -> None:
    """Print an error as a sentence, and its hint after a blank line."""
    say(f"error: {error.sentence}" + (f"\n\nhint: {error.hint}" if error.hint else ""))


class Progress:
    """A bar with rows/s, tokens/s and time left; silent where stderr is not a terminal."""

    def __init__(self, session: Session, total: int | None = None) -> None:
        self.session = session
        self.started = time.monotonic()
        self.bar: Any = tqdm(
            total=total, unit=" rows", disable=not sys.stderr.isatty(), leave=False
        )
        session.on_progress = self.update

    def update(self, tally: Tally) -> None:
        tokens = tally.usage.prompt_tokens + tally.usage.completion_tokens
        if self.bar.update(tally.rows - self.bar.n):
            seconds = max(time.monotonic() - self.started, 1e-6)
            self.bar.set_postfix_str(f"{tokens / seconds:,.0f} tokens/s", refresh=False)

    def close(self) -> None:
        """Take the bar away and say in one line what was done."""
        self.bar.close()
        self.session.on_progress = None
        if not self.session.tally.rows:
            return
        say(closing_line(self.session, time.monotonic() - self.started))
        for listed in self.session.failures[:3]:
            failure = listed.failure
            say(f"  row {listed.row} of {listed.task}: {failure.sentence}")
        if self.session.tally.failed > 3:
            say(f"  … {self.session.tally.failed} failed in all; ai_failures() lists them in SQL")


def closing_line(session: Session, seconds: float) -> str:
    """Rows, speed and where the answers came from."""
    tally = session.tally
    usage = tally.usage
    return (
        f"{tally.rows:,} answers in {seconds:.1f} s ({tally.rows / max(seconds, 1e-6):,.1f}/s); "
        f"asked: {tally.asked:,}, from ledger: {tally.from_ledger:,}, failed: {tally.failed:,}; "
        f"tokens read: {usage.prompt_tokens:,}, written: {usage.completion_tokens:,}"
    )


def text_of(value: Any) -> str:
    """A value as text: JSON for what is not a scalar."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list | bool):
        return msgspec.json.encode(value, enc_hook=str).decode()
    return str(value)


def print_table(names: Sequence[str], rows: Iterable[Sequence[Any]], out: TextIO) -> None:
    """Print aligned columns; cells wider than 48 columns are cut, and the last line says so."""
    source = iter(rows)
    first = [row for row, _ in zip(source, range(MEASURED_ROWS), strict=False)]
    numeric = [all(isinstance(row[i], int | float) for row in first) for i in range(len(names))]
    widths = [
        min(WIDEST_CELL, max([_width(name), *(_width(_cell(row[i])) for row in first)]))
        for i, name in enumerate(names)
    ]
    print(
        "  ".join(_fitted(n, w, r) for n, w, r in zip(names, widths, numeric, strict=True)),
        file=out,
    )
    print("  ".join("─" * width for width in widths), file=out)
    cut = False
    for row in _chained(first, source):
        cells = [_cell(value) for value in row]
        cut = cut or any(_width(cell) > width for cell, width in zip(cells, widths, strict=True))
        fitted = (_fitted(c, w, r) for c, w, r in zip(cells, widths, numeric, strict=True))
        print("  ".join(fitted).rstrip(), file=out)
    if cut:
        say("cells that end in … are cut; --format csv or json gives them whole")


def _chained(first: list[Any], rest: Iterator[Any]) -> Iterator[Any]:
    yield from first
    yield from rest


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else text_of(value)
    return " ".join(text.split())


def _width(text: str) -> int:
    """Columns that a terminal gives a text: wide characters take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _fitted(text: str, width: int, right: bool) -> str:
    if _width(text) > width:
        kept, used = "", 0
        for character in text:
            used += _width(character)
            if used > width - 1:
                break
            kept += character
        text = kept + "…"
    space = " " * (width - _width(text))
    return space + text if right else text + space
