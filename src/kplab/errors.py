"""The errors that a user can correct, and the exit status of a verb.

An error that a user can correct is a ``KplabError``: its message states what was found, what was expected and what to do.
Every other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class KplabError(ValueError):
    """Base class of the errors that a user can correct."""


class ConfigError(KplabError):
    """A configuration contradicts itself, or names something that does not exist."""


class DataError(KplabError):
    """A dataset, an image, a label file or a results file is invalid."""


class ModelError(KplabError):
    """A model can't be built, loaded or applied as configured."""


class RunError(KplabError):
    """A run folder is missing, incomplete or ambiguous, or a training can't be resumed."""


class ScoreError(KplabError):
    """Scores are missing, damaged or not comparable."""


@dataclass
class Outcome:
    """The exit status of a verb, set when ``exit_code`` ends."""

    code: int = 0


def describe(error: BaseException) -> str:
    """The message of an exception, for the run record and the terminal."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f" ({error.filename})" if error.filename else ""
        return f"no space left on the disk{where}. Free some, or put runs elsewhere: runs_dir=DIR. The last complete checkpoint is kept."
    if isinstance(error, KeyboardInterrupt):
        return f"stopped by Ctrl-C. {error}".removesuffix(". ")
    message = str(error)
    if message.startswith("Caught ") and "Original Traceback" in message:
        # the message of an error in a loader process contains torch's whole traceback
        message = message.rpartition(f"{type(error).__name__}: ")[2].strip()
    return message if isinstance(error, KplabError) else f"{type(error).__name__}: {message}"


@contextmanager
def exit_code(verb: str) -> Iterator[Outcome]:
    """Turn exceptions into exit codes: 2 for a mistake of the user, 130 for Ctrl-C. Others keep their traceback."""
    outcome = Outcome()
    try:
        yield outcome
    except KeyboardInterrupt as error:
        print(f"\nkplab {verb}: {describe(error)}", file=sys.stderr)
        outcome.code = 130
    except Exception as error:
        full_disk = isinstance(error, OSError) and error.errno == errno.ENOSPC
        if os.environ.get("KPLAB_TRACEBACK") or not (isinstance(error, KplabError) or full_disk):
            raise
        print(f"kplab {verb}: {describe(error)}", file=sys.stderr)
        outcome.code = 2
