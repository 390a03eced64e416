"""Files that are complete or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO

from kplab.errors import DataError

#: Suffix of a file that is being written.
PART = ".part"

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
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write to; it replaces ``path`` when the block ends.

    The content is written beside ``path`` and synchronised with the disk before it is renamed, so that ``path`` holds the
    earlier content or the new one whatever happens in between. A block that fails leaves nothing behind.

    Raises:
        OSError: the file can't be written.
    """
    part = path.with_name(path.name + PART)
    try:
        with part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    # the rename itself is durable once the folder is
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
