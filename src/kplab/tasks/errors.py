"""How a verb ends: mistakes of the user in one clear message, faults of kplab with a traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kplab.config import ConfigError
from kplab.runs.run import RunError
from kplab.structures.skeleton import SkeletonError


@dataclass
class Outcome:
    """The exit status of a verb."""

    code: int = 0


def is_users(error: BaseException) -> bool:
    """Whether a user can mend it: then the message says how, and a traceback would only hide it.

    Rooms above config define their own such errors; naming them here would import everything, so they are told by name.
    """
    names = {cls.__name__ for cls in type(error).__mro__}
    users = names & {"DataError", "CardMismatch", "ModelError", "ScoreError", "PredictionsError", "ClassicalError"}
    # a training whose loss is not finite says so by FloatingPointError
    return isinstance(error, ConfigError | RunError | SkeletonError | FloatingPointError) or bool(users)


def describe(error: BaseException) -> str:
    """One message for the record and for the terminal."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f" ({error.filename})" if error.filename else ""
        return f"no space left on the disk{where}. Free some, or put runs elsewhere: runs=DIR. The last whole checkpoint is kept."
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C"
    message = str(error)
    if message.startswith("Caught ") and "Original Traceback" in message:
        # of a loader's process: torch puts the whole traceback into the message
        message = message.rpartition(f"{type(error).__name__}: ")[2].strip()
    return message if is_users(error) else f"{type(error).__name__}: {message}"


@contextmanager
def exit_code(verb: str) -> Iterator[Outcome]:
    """Turn exceptions into exit codes: 2 for a mistake of the user, 130 for Ctrl-C; others pass with their traceback."""
    outcome = Outcome()
    try:
        yield outcome
    except KeyboardInterrupt as error:
        print(f"\nkplab {verb}: {describe(error)}", file=sys.stderr)
        outcome.code = 130
    except Exception as error:
        full_disk = isinstance(error, OSError) and error.errno == errno.ENOSPC
        if os.environ.get("KPLAB_TRACEBACK") or not (is_users(error) or full_disk):
            raise
        print(f"kplab {verb}: {describe(error)}", file=sys.stderr)
        outcome.code = 2
