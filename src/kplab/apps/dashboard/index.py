"""The index of all runs: a SQLite file that is rebuilt from the run folders whenever they change.

A row is a run and one of its score files; a run without scores has one row. Everything that a row can be sorted, filtered
or grouped by is in one table, ``value(key, row)``, clustered by key: status, metrics, and every key of the run's config.
The index holds nothing that is not in the run folders. It can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from kplab.errors import KplabError, RunError, printable
from kplab.runs import notes
from kplab.runs.provenance import sha256
from kplab.runs.run import Run
from kplab.runs.table import leaks_of, scores
from kplab.tasks.wiring.identity import IRRELEVANT

VERSION = 2
#: Folder of the index and of results that were computed from runs, inside the folder of all runs.
FOLDER = ".dashboard"
#: Keys of a row that are no metrics, in the order in which they are offered as columns.
OWN = (
    "run", "status", "experiment", "set", "dataset", "family", "training", "seed", "started", "seconds", "epochs",
    "parameters", "images_per_s", "leaks", "tags", "note", "error",
)  # fmt: skip
#: Keys in which runs of one training may differ, and the start of those below them.
_EXEMPT = (*IRRELEVANT, "seed")
_BELOW = tuple(f"{key}." for key in _EXEMPT)
#: Characters of a config that are read.
LARGEST = 2_000_000
#: Numbers beyond it are texts.
LIMIT = 1e300
#: Longest text of a config that can be filtered by.
LONGEST = 200
#: A line that starts an entry of a mapping, and what forbids to take its entries apart: anchors, aliases, other styles.
_ENTRY = re.compile(r"^[A-Za-z_]\w*:(?=[ \n])", re.MULTILINE)
_NESTED = re.compile(r"(?:[-?:][ \t]+){20}")
_NO_BLOCKS = re.compile(r"^[^A-Za-z_ \n-]|[&*]|^---|\t", re.MULTILINE)
SCHEMA = """
CREATE TABLE run (name TEXT PRIMARY KEY, stamp TEXT, running INTEGER);
CREATE TABLE row (id INTEGER PRIMARY KEY, run TEXT, shown TEXT);
CREATE INDEX row_run ON row (run);
CREATE TABLE key (id INTEGER PRIMARY KEY, name TEXT UNIQUE, kind TEXT);
CREATE TABLE value (key INTEGER, row INTEGER, number REAL, text TEXT, PRIMARY KEY (key, row)) WITHOUT ROWID;
"""


def cache_folder(runs_dir: Path) -> Path:
    """The folder of the index: inside ``runs_dir``, or in the user's cache where that can't be written."""
    own = runs_dir / FOLDER
    try:
        own.mkdir(exist_ok=True)
        tempfile.TemporaryFile(dir=own).close()
        return own
    except OSError:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        other = base / "kplab" / sha256(str(runs_dir.resolve()))[:16]
        other.mkdir(parents=True, exist_ok=True)
        return other


class Index:
    """The index of a folder of runs; may be used from any thread.

    Args:
        runs_dir: the folder of all runs.
        path: of the SQLite file; one of another version is replaced.
    """

    def __init__(self, runs_dir: Path, path: Path) -> None:
        self.runs_dir, self.path = Path(runs_dir), Path(path)
        self.lock = threading.RLock()
        self.keys: dict[str, int] = {}
        self.connection = self._open()

    def _open(self) -> sqlite3.Connection:
        for attempt in (1, 2):
            connection = sqlite3.connect(self.path, check_same_thread=False, timeout=30)
            try:
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version == 0:
                    connection.executescript(SCHEMA + f"PRAGMA user_version = {VERSION};")
                elif version != VERSION:
                    raise sqlite3.DatabaseError("another version")
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                self.keys = dict(connection.execute("SELECT name, id FROM key"))
                return connection
            except sqlite3.DatabaseError:
                connection.close()
                if attempt == 2:
                    raise
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            self.connection.close()

    def update(self) -> list[str]:
        """Take over all changes of the folder.

        Returns:
            names of the runs that are new, changed or gone.
        """
        with self.lock:
            known = {
                name: (stamp, running)
                for name, stamp, running in self.connection.execute("SELECT name, stamp, running FROM run")
            }
            found = dict(stamps(self.runs_dir))
            gone = [name for name in known if name not in found]
            # a run is running only as long as its process is
            changed = [name for name, stamp in found.items() if known.get(name) != (stamp, 0)]
            really = [*gone, *(name for name in changed if known.get(name, ("", 0))[0] != found[name])]
            with self.connection:
                for name in (*gone, *changed):
                    self._remove(name)
                for name in changed:
                    before = known.get(name)
                    status = self._add(name, found[name])
                    if before == (found[name], 1) and status != "running":
                        really.append(name)
            return really

    def _remove(self, name: str) -> None:
        run = self.connection
        ids = [row for (row,) in run.execute("SELECT id FROM row WHERE run = ?", (name,))]
        for row in ids:
            run.executemany("DELETE FROM value WHERE key = ? AND row = ?", [(k, row) for k in self.keys.values()])
        run.execute("DELETE FROM row WHERE run = ?", (name,))
        run.execute("DELETE FROM run WHERE name = ?", (name,))

    def _add(self, name: str, stamp: str) -> str:
        """Index one run; returns its status."""
        rows, config = read_rows(self.runs_dir / name)
        values: list[tuple[int, int, float | None, str | None]] = []
        for shown in rows:
            cursor = self.connection.execute("INSERT INTO row (run, shown) VALUES (?, ?)", (name, json.dumps(shown)))
            row = int(cursor.lastrowid or 0)
            for key, value in {**config, **shown}.items():
                is_number = isinstance(value, int | float) and not isinstance(value, bool) and -LIMIT < value < LIMIT
                number = float(value) if is_number else None
                text = None if is_number else printable(str(value)[:LONGEST])
                kind = "own" if key in OWN else "config" if key in config else "metric"
                values.append((self._key(key, kind), row, number, text))
        self.connection.executemany("INSERT OR REPLACE INTO value VALUES (?, ?, ?, ?)", values)
        status = str(rows[0]["status"])
        self.connection.execute("INSERT INTO run VALUES (?, ?, ?)", (name, stamp, int(status == "running")))
        return status

    def _key(self, name: str, kind: str) -> int:
        if name not in self.keys:
            cursor = self.connection.execute("INSERT INTO key (name, kind) VALUES (?, ?)", (name, kind))
            self.keys[name] = int(cursor.lastrowid or 0)
        return self.keys[name]

    def select(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """Rows of a query."""
        with self.lock:
            return self.connection.execute(sql, values).fetchall()


def stamps(runs_dir: Path) -> Iterator[tuple[str, str]]:
    """Name of each run's folder, and what changes with its record, its notes and its scores."""
    try:
        entries = [e for e in os.scandir(runs_dir) if "_" in e.name and not e.name.startswith(".")]
    except OSError:
        return
    for entry in entries:
        if entry.is_dir():
            yield (
                entry.name,
                "-".join(
                    _changed(f"{entry.path}/{name}") for name in ("run.json", "notes.json", "scores", "predictions")
                ),
            )


def _changed(path: str) -> str:
    try:
        found = os.stat(path)
        return f"{found.st_mtime_ns:x}.{found.st_size:x}"
    except OSError:
        return ""


def read_rows(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of a run, one per score file, as key to value; and the leaves of its config.

    A folder that can't be read is one row of status "unreadable" with the reason as its error.
    """
    try:
        run = Run.open(folder)
    except RunError as error:
        return [{"run": folder.name, "status": "unreadable", "error": str(error), "set": ""}], {}
    config, fault = read_config(folder)
    found, faults, outdated = scores(folder, check=False)
    record = run.record
    head = config.get("head._target_") or config.get("model._target_") or ""
    values = {
        "run": run.name,
        "status": run.status,
        "experiment": record.get("experiment"),
        "dataset": config.get("dataset.name"),
        "family": str(head).split(".")[-2] if str(head).count(".") else None,
        "training": training_of(record.get("experiment"), config),
        "error": next(iter(text for text in (run.error, run.cut, *faults, *outdated, fault) if text), None),
        "leaks": leaked(leaks_of(record)),
        **{key: record.get(key) for key in ("seed", "started", "seconds", "epochs", "parameters", "images_per_s")},
    }
    with contextlib.suppress(KplabError):
        written = notes.read(folder)
        values |= {"tags": " ".join(written["tags"]) or None, "note": written["note"] or None}
    values = {k: v for k, v in values.items() if isinstance(v, str | int | float)}
    names = sorted(found, key=lambda name: (name.endswith("-annotated"), name)) or [""]
    rows = []
    for name in names:
        metrics = {k: v for k, v in found.get(name, {}).items() if v is not None and k not in OWN}
        rows.append({**metrics, **values, "set": name})
    return rows, {k: v for k, v in config.items() if k not in rows[0]}


def leaked(leaks: list[dict[str, Any]] | None) -> int | None:
    """Number of images of a split that another one has too, as the same, near-identical or a neighbour in a video."""
    if leaks is None:
        return None
    return sum(leak[kind] or 0 for leak in leaks for kind in ("same", "near", "neighbours"))


def read_config(folder: Path) -> tuple[dict[str, Any], str | None]:
    """The leaves of a run's config, as dotted key to value, without resolving anything; and why it can't be read."""
    try:
        with (folder / "config.yaml").open() as stream:
            text = stream.read(LARGEST)
        return {key: value for block in blocks(text) for key, value in parsed(block)}, None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        return {}, f"config.yaml can't be read ({str(error).splitlines()[0]})"


def blocks(text: str) -> list[str]:
    r"""The top-level entries of a YAML mapping in block style, each with its lines; else the whole text.

    The configs of many runs differ in few entries, and the others are parsed once.

    >>> blocks("a: 1\nb:\n- 2\n- 3\n")
    ['a: 1\n', 'b:\n- 2\n- 3\n']
    """
    if _NO_BLOCKS.search(text):
        return [text]
    starts = [found.start() for found in _ENTRY.finditer(text)]
    return [text[i:j] for i, j in zip(starts, [*starts[1:], len(text)], strict=True)] if starts[:1] == [0] else [text]


@lru_cache(maxsize=2000)
def parsed(block: str) -> tuple[tuple[str, Any], ...]:
    """The leaves of a mapping in YAML.

    Raises:
        ValueError: it has aliases, of which few lines can make any amount of data.
    """
    # the loader in C has no limit of its own for nested collections, and overflows the stack
    shallow = len(block) < 100_000 and block.count("[") + block.count("{") < 200 and not _NESTED.search(block)
    loader: Any = yaml.CSafeLoader if shallow else yaml.SafeLoader
    if "*" in block and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(block, Loader=loader)):
        raise ValueError("it has aliases, which no config of kplab has")
    content = yaml.load(block, Loader=loader)
    return tuple(leaves("", content)) if isinstance(content, dict) else ()


def leaves(prefix: str, node: Any) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested dicts; lists are values, as JSON. Nulls are left out."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(f"{prefix}.{key}" if prefix else str(key), value)
    elif isinstance(node, bool):
        yield prefix, str(node).lower()
    elif isinstance(node, int | float | str):
        yield prefix, node
    elif node is not None:
        yield prefix, json.dumps(node, default=str)


def training_of(experiment: Any, config: dict[str, Any]) -> str | None:
    """A name that is equal for runs whose configs differ in their seed at most, as far as the result depends on them."""
    if not config:
        return None
    kept = {k: v for k, v in config.items() if k not in _EXEMPT and not k.startswith(_BELOW)}
    return f"{experiment}-{sha256(json.dumps(kept, sort_keys=True))[:6]}"


class Watcher:
    """Updates an index at most as often as the time of an update allows: a tenth of the time is spent with it."""

    def __init__(self, index: Index, least: float = 1.0) -> None:
        self.index, self.least = index, least
        self.version, self.next = 0, 0.0
        self.lock = threading.Lock()

    def check(self, force: bool = False) -> int:
        """Update if it is time to; returns a number that grows with each change."""
        with self.lock:
            begun = time.monotonic()
            if force or begun >= self.next:
                if self.index.update():
                    self.version += 1
                spent = time.monotonic() - begun
                self.next = time.monotonic() + max(self.least, 9 * spent)
            return self.version
