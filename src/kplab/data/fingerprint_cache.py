"""Fingerprints of image files that were read before, in a SQLite file that several processes may use at once.

A fingerprint is known by the path of its file, as long as size and time of change are the same. The file holds nothing that is
not in the images: a damaged one is made again, and where it can't be read or written the images are read.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

#: Where it is, in the workspace.
FILE = "data/cache/fingerprints.sqlite"
#: Changes with what a fingerprint is.
TABLE = "fingerprint_1"
#: Seconds to wait for another process that writes.
WAIT = 30
#: A file that was changed so many nanoseconds ago may change once more at the same time stamp, and is not kept.
RECENT = 2_000_000_000

T = TypeVar("T")
#: Size in bytes and time of change in nanoseconds of a file.
Stamp = tuple[int, int]
#: Hash and thumbnail, see ``data.fingerprints``.
Print = tuple[int, np.ndarray]


def stamp(path: Path) -> Stamp | None:
    """The stamp of a file; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


class FingerprintCache:
    """The fingerprints of files.

    Args:
        path: of the SQLite file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of_workspace(cls, folder: Path) -> FingerprintCache:
        """The cache of a workspace."""
        return cls(folder / FILE)

    def known(self, stamps: Mapping[Path, Stamp]) -> dict[Path, Print]:
        """Fingerprints of those files that have not changed since theirs was added."""

        def select(connection: sqlite3.Connection) -> dict[Path, Print]:
            sql = f"SELECT hash, thumbnail FROM {TABLE} WHERE path = ? AND size = ? AND mtime = ?"
            found = {}
            for path, of_file in stamps.items():
                row = connection.execute(sql, (_key(path), *of_file)).fetchone()
                if row is not None:
                    found[path] = int.from_bytes(row[0], "big"), np.frombuffer(row[1], dtype=np.int8)
            return found

        return (self._do(select) if self.path.is_file() else None) or {}

    def add(self, found: Iterable[tuple[Path, Stamp, Print]]) -> None:
        """Keep fingerprints; ``Stamp`` is that of the file before it was read."""
        now = time.time_ns()
        rows = [
            (_key(path), *of_file, value.to_bytes(8, "big"), thumbnail.tobytes())
            for path, of_file, (value, thumbnail) in found
            if now - of_file[1] > RECENT
        ]
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._do(
            lambda connection: connection.executemany(f"INSERT OR REPLACE INTO {TABLE} VALUES (?, ?, ?, ?, ?)", rows)
        )

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """The result of a transaction; None where the file can't be used."""
        for _ in range(2):
            try:
                with contextlib.closing(sqlite3.connect(self.path, timeout=WAIT)) as connection, connection:
                    connection.execute(
                        f"CREATE TABLE IF NOT EXISTS {TABLE} (path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, hash BLOB, "
                        "thumbnail BLOB) WITHOUT ROWID"
                    )
                    return work(connection)
            except sqlite3.OperationalError:  # no permission, no space, or another process writes for too long
                return None
            except sqlite3.DatabaseError:  # damaged
                with contextlib.suppress(OSError):
                    self.path.unlink()
        return None


def _key(path: Path) -> bytes:
    return os.fsencode(path.absolute())
