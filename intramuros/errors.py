"""Every exception of Intramuros: a sentence, a hint, and whether trying again may help.

IntramurosError
  + UserError                what the user wrote is wrong (exit code 2)
  |   + BadArgument          an argument, option or setting is not of its form
  |   + NotFound             no such task, model, file or column; names the nearest
  |   + BadQuery             DuckDB refused the statement
  + Broken                   something outside failed (exit code 1)
  |   + CannotDo             the engine or card lacks a capability that was asked for
  |   + DownloadFailed       a source did not answer, or not whole
  |   + CorruptWeights       bytes differ from their digest, or a file is not what it says
  |   + Refused              weights of a kind that never runs (pickles, remote code)
  |   + NoSpace              the disk is full or nearly so
  |   + ReadOnly             a folder cannot be written
  |   + LedgerDamaged        the ledger is not a whole SQLite file
  |   + LedgerTooNew         a later version wrote the ledger
  |   + RowFailed            a row failed and the run was told to raise
  |   + TooManyFailures      more rows failed than `max_error_ratio` allows
  + Cancelled                the user stopped the run; what was finished is kept (exit code 130)
  + AskFailed                one ask failed; raised inside the flow that asked
"""

import difflib
from collections.abc import Iterable

from intramuros.types import Failure


class IntramurosError(Exception):
    """Base of all; `str()` gives the sentence, `hint` says what to do."""

    exit_code = 1
    retryable = False

    def __init__(self, sentence: str, hint: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.hint = hint


class UserError(IntramurosError):
    exit_code = 2


class BadArgument(UserError):
    pass


class BadQuery(UserError):
    pass


class NotFound(UserError):
    @classmethod
    def among(cls, what: str, name: str, known: Iterable[str]) -> "NotFound":
        """Say that `name` is unknown and suggest the nearest of the known names."""
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        listed = near or names[:12]
        hint = f"{'did you mean' if near else 'known are'}: {', '.join(listed)}" if listed else ""
        return cls(f"there is no {what} named {name!r}", hint)


class Broken(IntramurosError):
    pass


class CannotDo(Broken):
    pass


class DownloadFailed(Broken):
    retryable = True


class CorruptWeights(Broken):
    pass


class Refused(Broken):
    pass


class NoSpace(Broken):
    pass


class ReadOnly(Broken):
    pass


class LedgerDamaged(Broken):
    pass


class LedgerTooNew(Broken):
    pass


class RowFailed(Broken):
    def __init__(self, task: str, row: int, failure: Failure) -> None:
        super().__init__(f"row {row} of {task} failed: {failure.sentence}", failure.hint)
        self.task = task
        self.row = row
        self.failure = failure


class TooManyFailures(Broken):
    pass


class Cancelled(IntramurosError):
    exit_code = 130


class AskFailed(IntramurosError):
    """One ask of a flow failed. A flow may catch it (to read a long text by parts, say)."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.sentence, failure.hint)
        self.failure = failure
