"""The run record: a folder that says what was done, from what, and how it ended."""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from kplab.errors import RunError
from kplab.runs import provenance


class Run:
    """One folder under ``runs/``. ``record`` is what ``run.json`` holds."""

    def __init__(self, folder: Path, record: dict[str, Any]) -> None:
        self.folder, self.record = folder, record

    def __repr__(self) -> str:
        return f"Run({self.name}, {self.status})"

    @classmethod
    def create(cls, root: Path, experiment: str, config_yaml: str, workspace: Path, **more: Any) -> Run:
        """Make the folder and write the record, with status running.

        Args:
            root: the folder of all runs.
            experiment: goes into the folder's name.
            config_yaml: the composed configuration, as text.
            workspace: where the code's repository and the lock file are looked for.
            more: further entries of the record: seeds, hashes of dataset and split, parent run.
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
                "status": "running",
                "experiment": experiment,
                "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
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
        except json.JSONDecodeError as error:
            raise RunError(
                f"{path}: half written ({error}). The run can't be used: train it again, or restore the file."
            ) from None
        return cls(folder, record)

    @classmethod
    def find(cls, name: str, root: Path) -> Run:
        """A run by path, by folder name, by a unique part of its name, or ``latest``.

        Raises:
            RunError: none or several fit.
        """
        if os.sep in name or (Path(name).is_dir() and (Path(name) / "config.yaml").is_file()):
            return cls.open(Path(name))
        folders = sorted((p for p in Path(root).glob("*_*") if p.is_dir()), reverse=True)
        if not folders:
            raise RunError(f"{root}: holds no runs yet. Make one with `kplab train` or `make demo`.")
        if name == "latest":
            return cls.open(folders[0])
        exact = [p for p in folders if p.name == name]
        fits = exact or [p for p in folders if name in p.name]
        if not fits:
            raise RunError(f"no run in {root} is called '{name}'. `kplab runs` lists those there are.")
        if len(fits) > 1:
            raise RunError(
                f"'{name}' fits {len(fits)} runs: {', '.join(p.name for p in fits[:4])}. Give more of the name."
            )
        return cls.open(fits[0])

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def status(self) -> str:
        """running, finished or failed; a record that says running while its process is gone is failed."""
        status = str(self.record.get("status", "failed"))
        if status == "running" and not alive(self.record.get("process", {})):
            return "failed"
        return status

    @property
    def error(self) -> str | None:
        """Why it failed, if it did."""
        if self.status == "failed" and self.record.get("status") == "running":
            return "the process ended without closing the record (killed, or out of memory)"
        return self.record.get("error")

    def save(self) -> None:
        """Write run.json whole or not at all."""
        path = self.folder / "run.json"
        scratch = path.with_suffix(".tmp")
        scratch.write_text(json.dumps(self.record, indent=1))
        scratch.replace(path)

    def update(self, **entries: Any) -> None:
        """Add to the record."""
        self.record.update(entries)
        self.save()

    def close(self, status: str, error: str | None = None) -> None:
        """Write how it ended: finished or failed."""
        started = datetime.fromisoformat(self.record["started"])
        ended = datetime.now().astimezone()
        more = {"error": error} if error else {}
        self.update(
            status=status,
            ended=ended.isoformat(timespec="seconds"),
            seconds=round((ended - started).total_seconds(), 1),
            **more,
        )


def write_record(folder: Path, workspace: Path, **entries: Any) -> None:
    """Put ``record.json`` beside what a later verb made: command, code, packages, machine."""
    code, _ = provenance.code(workspace)
    record = {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "made": datetime.now().astimezone().isoformat(timespec="seconds"),
        "code": code,
        "packages": provenance.packages(),
        "hardware": provenance.hardware(),
        **entries,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(json.dumps(record, indent=1))


def process_identity() -> dict[str, Any]:
    """What tells this process from a later one with the same number."""
    return {"pid": os.getpid(), "host": platform.node(), "started": start_time(os.getpid()), "written": time.time()}


def start_time(pid: int) -> str | None:
    """When a process of this machine started, in the kernel's ticks; None where that can't be read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return None


def alive(process: dict[str, Any]) -> bool:
    """Whether the process that wrote a record still runs. A record of another machine is believed for a week."""
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
