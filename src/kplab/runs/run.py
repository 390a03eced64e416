"""A run: the folder of one training, with ``run.json``, the record of how it was made and how it ended."""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import shutil
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from kplab.errors import RunError
from kplab.runs import provenance, records
from kplab.runs.files import replacing

#: Start of the name of a folder that is being made. It contains no underscore, so that no list of runs contains it.
NEW = ".new-"
#: Seconds after which such a folder is one that a killed process has left.
STALE = 3600
#: Number of runs that a message names.
LISTED = 4


class Run:
    """A folder under ``runs/``; ``record`` is the content of its ``run.json``."""

    def __init__(self, folder: Path, record: dict[str, Any]) -> None:
        self.folder, self.record = folder, record

    def __repr__(self) -> str:
        return f"Run({self.name}, {self.status})"

    @classmethod
    def create(cls, root: Path, experiment: str, config_yaml: str, workspace: Path, **more: Any) -> Run:
        """Create the folder of a run and write its record, with status running.

        Args:
            root: the folder of all runs.
            experiment: part of the folder's name.
            config_yaml: the composed configuration, as text.
            workspace: the folder of the code's repository and of the lock file.
            more: further entries of the record: seeds, hashes of dataset and split, parent run.

        Raises:
            RunError: the folder can't be made.
        """
        now = datetime.now().astimezone()
        safe = re.sub(r"[^A-Za-z0-9._-]+", "-", experiment)
        token = secrets.token_hex(2)
        folder = Path(root) / f"{now:%Y-%m-%d_%H%M%S}_{safe}_{token}"
        new = folder.with_name(f"{NEW}{token}")
        code, patch = provenance.code(workspace)
        run = cls(
            new,
            {
                "schema": records.SCHEMA,
                "status": "running",
                "experiment": experiment,
                "command": records.command(),
                "started": now.isoformat(timespec="seconds"),
                "process": process_identity(),
                "code": code,
                "lock_sha256": provenance.lock_hash(workspace),
                "packages": provenance.packages(),
                "hardware": provenance.hardware(),
                "config_sha256": provenance.sha256(config_yaml),
                **more,
            },
        )
        try:
            remove_stale(Path(root))
            new.mkdir(parents=True)
            (new / "config.yaml").write_text(config_yaml)
            if patch:
                (new / "git.patch").write_text(patch)
            run.save()
            run.folder = new.rename(folder)  # the folder has its record from the first moment
        except OSError as error:
            raise RunError(f"{folder}: can't be made ({error.strerror}). Name another folder: runs_dir=DIR.") from None
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Read a run's record.

        Raises:
            RunError: no such folder, or no readable run.json in it.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise RunError(f"{folder}: no such run. `kplab runs` lists those there are.")
        path = folder / "run.json"
        try:
            record = json.loads(path.read_text())
        except FileNotFoundError:
            raise RunError(f"{folder}: not a run: it has no run.json. Name a folder that `kplab train` made.") from None
        except (ValueError, RecursionError) as error:
            raise RunError(f"{path}: half written ({error}). Train the run again, or restore the file.") from None
        except OSError as error:
            raise RunError(
                f"{path}: can't be read ({error.strerror}). Allow reading it, or restore the file."
            ) from None
        if fault := records.run_fault(record):
            raise RunError(f"{path}: is no record of a run: {fault}. Train the run again, or restore the file.")
        return cls(folder, record)

    @classmethod
    def find(cls, name: str, root: Path, resumable: bool = False, announce: bool = True) -> Run:
        """Find a run by path, by folder name, by a unique part of its name, or as ``latest``: the newest finished one.

        Args:
            name: of the run.
            root: the folder of all runs.
            resumable: ``latest`` is the newest that has a checkpoint to resume from and is not running, finished or not.
            announce: print which run ``latest`` is, and which newer ones it is not.

        Raises:
            RunError: no run matches, or several do.
        """
        if os.sep in name or (Path(name).is_dir() and (Path(name) / "config.yaml").is_file()):
            return cls.open(Path(name))
        folders = sorted((p for p in Path(root).glob("*_*") if p.is_dir()), reverse=True)
        if not folders:
            raise RunError(f"{root}: has no runs yet. Make one with `kplab train` or `make demo`.")
        if name == "latest":
            return cls._latest(folders, resumable, announce)
        exact = [p for p in folders if p.name == name]
        fits = exact or [p for p in folders if name in p.name]
        if not fits:
            raise RunError(f"no run in {root} is called '{name}'. `kplab runs` lists those there are.")
        if len(fits) > 1:
            raise RunError(
                f"'{name}' matches {len(fits)} runs: {_some([p.name for p in fits])}. Give more of the name."
            )
        return cls.open(fits[0])

    @classmethod
    def _latest(cls, folders: list[Path], resumable: bool, announce: bool) -> Run:
        """The newest run that can be used, of folders from new to old; see ``find``."""
        passed = []
        for folder in folders:
            try:
                run = cls.open(folder)
            except RunError:
                passed.append(f"{folder.name} (unreadable)")
                continue
            started = run.status != "running" and (folder / "checkpoints" / "last.ckpt").is_file()
            if started if resumable else run.status == "finished":
                if announce:
                    others = f"; newer, but not used: {_some(passed)}" if passed else ""
                    print(f"latest: {run.name}{others}", file=sys.stderr)
                return run
            passed.append(f"{folder.name} ({run.status})")
        wanted = "has a checkpoint to resume from" if resumable else "is finished"
        raise RunError(f"{folders[0].parent}: no run {wanted}: {_some(passed)}. Name one of them instead of latest.")

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def status(self) -> str:
        """running, finished, stopped (by Ctrl-C) or failed; also failed if the process of a running one has ended."""
        status = str(self.record.get("status", "failed"))
        if status == "running" and not alive(self.record.get("process", {})):
            return "failed"
        return status

    @property
    def error(self) -> str | None:
        """Why the run failed; None if it did not."""
        if self.status == "failed" and self.record.get("status") == "running":
            return "the process ended without closing the record (killed, or out of memory)"
        return None if self.status == "stopped" else self.record.get("error")

    @property
    def cut(self) -> str | None:
        """What ended the training early without a failure: Ctrl-C, or ``trainer.max_time``; None for any other run."""
        # an older kplab recorded Ctrl-C as an error
        return self.record.get("cut") or (self.record.get("error") if self.status == "stopped" else None)

    def save(self) -> None:
        """Write run.json atomically."""
        path = self.folder / "run.json"
        with replacing(path) as stream:
            stream.write(json.dumps(self.record, indent=1).encode())

    def update(self, **entries: Any) -> None:
        """Add entries to the record and save it."""
        self.record.update(entries)
        self.save()

    def close(self, status: str, error: str | None = None, cut: str | None = None) -> None:
        """Record the final status, finished, stopped or failed, and the duration.

        Args:
            error: why it failed.
            cut: what ended it early without a failure.
        """
        started = datetime.fromisoformat(self.record["started"])
        ended = datetime.now().astimezone()
        more = {name: text for name, text in (("error", error), ("cut", cut)) if text}
        self.update(
            status=status,
            ended=ended.isoformat(timespec="seconds"),
            seconds=round((ended - started).total_seconds(), 1),
            **more,
        )


def remove_stale(root: Path) -> None:
    """Delete folders that a killed process was making."""
    for folder in root.glob(f"{NEW}*"):
        if time.time() - folder.stat().st_mtime > STALE:
            shutil.rmtree(folder, ignore_errors=True)


def process_identity() -> dict[str, Any]:
    """What identifies this process: a later one may have the same number, but not the same start."""
    return {"pid": os.getpid(), "host": platform.node(), "started": start_time(os.getpid()), "written": time.time()}


def start_time(pid: int) -> str | None:
    """Start time of a process of this machine in kernel ticks; None where it can't be read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return None


def alive(process: dict[str, Any]) -> bool:
    """Whether the process that wrote a record still runs; one of another machine is assumed to, for a week."""
    if process.get("host") != platform.node():
        return time.time() - float(process.get("written", 0)) < 7 * 86400
    pid = int(process.get("pid", -1))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    started = process.get("started")
    return started is None or start_time(pid) == started


def _some(names: list[str]) -> str:
    """The first names, and the number of the others."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{', '.join(names[:LISTED])}{more}"
