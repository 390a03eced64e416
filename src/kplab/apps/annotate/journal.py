"""The journal of a project: every edit is on the disk before it counts, and label files are replaced whole.

The journal is a hidden folder beside the labels, ``.<name>.journal``, while a process has the project open. It holds
``edits.jsonl``, one accepted edit a line, and copies of the label files as they were before the first save. Only one process
at a time can have it open. After a kill, the next process puts these copies back, reads them, and applies all edits again,
so that the result does not depend on when the kill happened.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kplab.errors import DataError
from kplab.runs.files import replacing

EDITS = "edits.jsonl"


class Journal:
    """The journal of one target, opened for this process.

    Args:
        target: the file or folder of the labels.

    Attributes:
        recovered: edits of a process that was killed, to be applied to the labels that are read now.

    Raises:
        DataError: another process has the target open, or the label files were changed since a process was killed.
    """

    def __init__(self, target: Path) -> None:
        self.target = target.absolute()
        self.root = self.target.parent
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder, for {target.name}. Make it, or name another file: out=FILE.")
        self.folder = self.root / f".{target.name}.journal"
        self.folder.mkdir(exist_ok=True)
        self.stream = (self.folder / EDITS).open("a+b")
        try:
            fcntl.flock(self.stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self.stream.fileno()).st_nlink == 0:  # its owner has removed it just now
                raise BlockingIOError
        except BlockingIOError:
            owner = self._pid()
            self.stream.close()
            raise DataError(
                f"{target}: is open in another process{owner}. Use a second browser window on its address, or end it first."
            ) from None
        (self.folder / "pid").write_text(str(os.getpid()))
        self.lock = threading.Lock()
        self.digests: dict[str, str | None] = {}
        self.kept: set[str] = set()
        try:
            lines = self._lines()
            self.recovered: list[Any] = [line["edit"] for line in lines if "edit" in line]
            self._restore(lines)
        except BaseException:
            self.stream.close()
            raise

    def _pid(self) -> str:
        try:
            return f" (pid {int((self.folder / 'pid').read_text())})"
        except (OSError, ValueError):
            return ""

    def _lines(self) -> list[dict[str, Any]]:
        """The complete lines; the last one may be cut off by a kill, and its edit was not accepted then."""
        self.stream.seek(0)
        data = self.stream.read()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            self.stream.truncate(len(whole))
        try:
            lines = [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise DataError(
                f"{self.folder / EDITS}: is damaged ({error}). Move the folder {self.folder} elsewhere to open the labels "
                "without the edits in it."
            ) from None
        return lines

    def _restore(self, lines: list[dict[str, Any]]) -> None:
        """Put the label files back that a killed process has replaced."""
        first: dict[str, str | None] = {}
        known: dict[str, set[str | None]] = {}
        for line in lines:
            for name, digest in {**line.get("opened", {}), **line.get("saving", {})}.items():
                known.setdefault(name, set()).add(digest)
            for name, digest in line.get("kept", {}).items():
                first[name] = digest
                self.kept.add(name)
                known.setdefault(name, set()).add(digest)
        for name, digests in known.items():
            if digest_of(self.root / name) not in digests:
                raise DataError(
                    f"{self.root / name}: was changed by another program, and {len(self.recovered)} edits of a process that "
                    f"was killed are not in it. Put the earlier file back, or move {self.folder} elsewhere to leave them out."
                )
        for name, digest in first.items():
            if digest is None:
                (self.root / name).unlink(missing_ok=True)
            elif digest_of(self.root / name) != digest:
                with replacing(self.root / name) as stream:
                    stream.write(self._copy(name).read_bytes())

    def _copy(self, name: str) -> Path:
        return self.folder / (hashlib.sha256(name.encode()).hexdigest()[:16] + ".kept")

    def opened(self, files: Mapping[str, Path]) -> None:
        """State the label files that were read; they must not change until they are saved.

        Args:
            files: name relative to the folder of the target, to path.
        """
        self.digests = {name: digest_of(path) for name, path in files.items()}
        self._append({"opened": self.digests})

    def add(self, edit: Any) -> None:
        """Write one edit; when this returns it is on the disk."""
        self._append({"edit": edit})

    def _append(self, line: dict[str, Any]) -> None:
        with self.lock:
            self.stream.seek(0, os.SEEK_END)
            end = self.stream.tell()
            try:
                self.stream.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
                self.stream.flush()
                os.fsync(self.stream.fileno())
            except BaseException:
                # a full disk: nothing of the line may stay, as others will follow
                os.ftruncate(self.stream.fileno(), end)
                raise

    def replace(self, staged: Mapping[str, Path]) -> None:
        """Replace label files, each of them whole; those that are equal already stay.

        Args:
            staged: name relative to the folder of the target, to the file with its new content.

        Raises:
            DataError: a file was changed by another program since it was read or saved.
        """
        for name, source in staged.items():
            path, content = self.root / name, source.read_bytes()
            now, new = digest_of(path), hashlib.sha256(content).hexdigest()
            if now == new:
                continue
            if self.digests.get(name, now) != now:
                raise DataError(
                    f"{path}: was changed by another program and is not overwritten. The edits are kept in {self.folder}: "
                    "put the earlier file back."
                )
            if name not in self.kept:
                if now is not None:
                    with replacing(self._copy(name)) as stream:
                        stream.write(path.read_bytes())
                self._append({"kept": {name: now}})
                self.kept.add(name)
            self._append({"saving": {name: new}})
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as stream:
                stream.write(content)
            self.digests[name] = new

    def close(self, finished: bool) -> None:
        """Let other processes open the target.

        Args:
            finished: all edits are in the label files; the journal is removed.
        """
        if finished:
            shutil.rmtree(self.folder)
        self.stream.close()


def digest_of(path: Path) -> str | None:
    """SHA-256 of a file; None where there is none."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return None
