"""Files that are complete or not there."""

from __future__ import annotations

import glob
import io
import os
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from kplab.errors import DataError

#: Suffix of a file that is being written.
PART = ".part"
#: Seconds after which such a file is one that a killed process has left.
STALE = 3600

_READING_ONLY = ContextVar("reading_only", default=False)


@contextmanager
def reading_only() -> Iterator[None]:
    """Within the block, opening a dataset neither generates data nor writes frames or splits; see ``check_may_write``."""
    token = _READING_ONLY.set(True)
    try:
        yield
    finally:
        _READING_ONLY.reset(token)


def check_may_write(path: Path) -> None:
    """Refuse to write a part of a dataset inside a block of ``reading_only``.

    Raises:
        DataError: names the path.
    """
    if _READING_ONLY.get():
        raise DataError(
            f"{path}: is missing, and is not made here. Open the dataset once with: kplab data dataset=NAME."
        )


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Within the block Ctrl-C waits; KeyboardInterrupt is raised when the block has ended.

    For libraries that raise another error, or leave their state broken, if they are interrupted.
    """
    earlier = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(earlier):
        yield
        return
    pending: list[Any] = []
    signal.signal(signal.SIGINT, lambda *received: pending.append(received))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)
        if pending:
            earlier(*pending[0])


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write to; it replaces ``path`` when the block ends.

    The content is written beside ``path`` and synchronised with the disk before it is renamed, so that ``path`` holds the
    earlier content or the new one whatever happens in between, and if several processes write it at once. A block that fails
    leaves nothing behind; what a killed process has left is removed by a later one.

    Raises:
        OSError: the file can't be written.
    """
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PART}")
    try:
        with part.open("xb") as stream:  # a new file: a link of that name is not followed
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    for left in path.parent.glob(f"{glob.escape(path.name)}.*{PART}"):
        with suppress(FileNotFoundError):
            if time.time() - left.lstat().st_mtime > STALE:
                left.unlink()
    # the rename itself is durable once the folder is
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def replacing_text(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """As ``replacing``, with a text file in UTF-8; ``newline`` as of ``open``."""
    with replacing(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline=newline)
        yield text
        text.detach()  # flushes, and leaves the stream open
