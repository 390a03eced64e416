"""The errors that a user can correct, and the exit status of a verb.

An error that a user can correct is a ``KplabError``: its message states what was found, what was expected and what to do.
Every other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeGuard


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


#: Reasons for which the system refuses to read or write a place: rights, a read-only or failing disk, a file in place of a
#: folder, a folder in place of a file, links in a circle, a name that is too long.
REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT, errno.EIO),
    *(errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
)

#: Unicode categories of characters that are not shown: controls, formats such as a change of direction, surrogates, and
#: separators of lines.
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


@dataclass
class Outcome:
    """The exit status of a verb, set when ``exit_code`` ends."""

    code: int = 0


def printable(text: str) -> str:
    r"""Text with its control characters written as escapes, so that names from files can't control a terminal.

    Line ends and tabs stay; bytes that are no text, as in names of files, are written as escapes too.

    >>> printable("a\x1b[31m\tb"), printable("große Maus")
    ('a\\x1b[31m\tb', 'große Maus')
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode() if c not in "\n\t" and unicodedata.category(c) in HIDDEN else c
        for c in text
    )


def is_refused(error: BaseException) -> TypeGuard[OSError]:
    """Whether the system refuses to read or write a place, which the user can correct. A missing file is a bug."""
    return isinstance(error, OSError) and error.filename is not None and error.errno in REFUSED


def describe(error: BaseException) -> str:
    """The message of an exception, for the run record and the terminal."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f" ({error.filename})" if error.filename else ""
        return f"no space left on the disk{where}. Free some, or put runs elsewhere: runs_dir=DIR. The last complete checkpoint is kept."
    if is_refused(error):
        return f"{error.filename}: {error.strerror}. Allow reading and writing it, or name another place."
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C"
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
        print(f"\nkplab {verb}: {printable(describe(error))}", file=sys.stderr)
        outcome.code = 130
    except Exception as error:
        full_disk = isinstance(error, OSError) and error.errno == errno.ENOSPC
        if os.environ.get("KPLAB_TRACEBACK") or not (isinstance(error, KplabError) or full_disk or is_refused(error)):
            raise
        print(f"kplab {verb}: {printable(describe(error))}", file=sys.stderr)
        outcome.code = 2
