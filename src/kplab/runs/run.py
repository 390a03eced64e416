"""A run: the folder of one training, with ``run.json``, the record of how it was made and how it ended."""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from kplab.errors import RunError
from kplab.runs import provenance, records


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
        folder = Path(root) / f"{now:%Y-%m-%d_%H%M%S}_{safe}_{secrets.token_hex(2)}"
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise RunError(f"{folder}: can't be made ({error.strerror}). Name another folder: runs_dir=DIR.") from None
        (folder / "config.yaml").write_text(config_yaml)
        code, patch = provenance.code(workspace)
        if patch:
            (folder / "git.patch").write_text(patch)
        run = cls(
            folder,
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
        run.save()
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
    def find(cls, name: str, root: Path) -> Run:
        """Find a run by path, by folder name, by a unique part of its name, or as ``latest``.

        Raises:
            RunError: no run matches, or several do.
        """
        if os.sep in name or (Path(name).is_dir() and (Path(name) / "config.yaml").is_file()):
            return cls.open(Path(name))
        folders = sorted((p for p in Path(root).glob("*_*") if p.is_dir()), reverse=True)
        if not folders:
            raise RunError(f"{root}: has no runs yet. Make one with `kplab train` or `make demo`.")
        if name == "latest":
            return cls.open(folders[0])
        exact = [p for p in folders if p.name == name]
        fits = exact or [p for p in folders if name in p.name]
        if not fits:
            raise RunError(f"no run in {root} is called '{name}'. `kplab runs` lists those there are.")
        if len(fits) > 1:
            raise RunError(
                f"'{name}' matches {len(fits)} runs: {', '.join(p.name for p in fits[:4])}. Give more of the name."
            )
        return cls.open(fits[0])

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def status(self) -> str:
        """running, finished or failed; a run whose process has ended while its record has status running is failed."""
        status = str(self.record.get("status", "failed"))
        if status == "running" and not alive(self.record.get("process", {})):
            return "failed"
        return status

    @property
    def error(self) -> str | None:
        """Why the run failed; None if it did not."""
        if self.status == "failed" and self.record.get("status") == "running":
            return "the process ended without closing the record (killed, or out of memory)"
        return self.record.get("error")

    def save(self) -> None:
        """Write run.json atomically."""
        path = self.folder / "run.json"
        scratch = path.with_suffix(".tmp")
        scratch.write_text(json.dumps(self.record, indent=1))
        scratch.replace(path)

    def update(self, **entries: Any) -> None:
        """Add entries to the record and save it."""
        self.record.update(entries)
        self.save()

    def close(self, status: str, error: str | None = None) -> None:
        """Record the final status, finished or failed, and the duration."""
        started = datetime.fromisoformat(self.record["started"])
        ended = datetime.now().astimezone()
        more = {"error": error} if error else {}
        self.update(
            status=status,
            ended=ended.isoformat(timespec="seconds"),
            seconds=round((ended - started).total_seconds(), 1),
            **more,
        )


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
