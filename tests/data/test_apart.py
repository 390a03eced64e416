"""Files that crash a library, that it never ends to read, or that take all memory."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from kplab.data import apart
from kplab.errors import DataError

READERS = """
import ctypes, os, time
import numpy as np
def pid(path): return {"pid": np.array(os.getpid()), "text": np.array(path.name), "x": np.zeros(3, [("a", "i4")])}
def crash(path): ctypes.string_at(0)
def hang(path): time.sleep(60)
def eat(path): return {"x": np.ones(3 << 30)}
def fail(path): raise IndexError("row 7")
def objects(path): return {"x": np.array([{}])}
def chatter(path):
    os.write(1, b"a library prints this")
    return {}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "apart_readers.py").write_text(READERS)
    monkeypatch.syspath_prepend(tmp_path)
    apart._WORKER.stop()
    path = tmp_path / "f\udcff.bin"  # a name that is not UTF-8
    os.close(os.open(path, os.O_CREAT))
    yield path
    apart._WORKER.stop()


def test_arrays_come_from_one_other_process(file: Path) -> None:
    first, second = (apart.read_apart("apart_readers:pid", file) for _ in range(2))
    assert first["pid"] == second["pid"] != os.getpid()
    assert first["x"].dtype.names == ("a",)
    assert apart.read_apart("apart_readers:chatter", file) == {}


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("crash", r"f.*\.bin: the library that reads it crashed \(exit status -11\)"),
        ("fail", r"f.*\.bin: it cannot be read \(IndexError: row 7\)"),
        ("eat", r"f.*\.bin: it cannot be read \(.*MemoryError"),
        ("objects", r"f.*\.bin: it cannot be read \(ValueError: Object arrays"),
        ("hang", r"f.*\.bin: not read within 1 s: the file is damaged"),
    ],
)
def test_what_goes_wrong_there_is_a_message_here(
    file: Path, monkeypatch: pytest.MonkeyPatch, function: str, words: str
) -> None:
    with monkeypatch.context() as patch:
        if function == "hang":
            apart.read_apart("apart_readers:pid", file)  # starting a process may take a second
            patch.setattr(apart, "SECONDS", 1.0)
        with pytest.raises(DataError, match=words):
            apart.read_apart(f"apart_readers:{function}", file)
    assert apart.read_apart("apart_readers:pid", file)["pid"] > 0, "the next file is read"


def test_an_idle_process_ends_and_another_takes_its_place(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = apart.read_apart("apart_readers:pid", file)["pid"]
    process = apart._WORKER.process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()  # as after IDLE_SECONDS
    process.wait(20)
    assert process.returncode == 0
    assert apart.read_apart("apart_readers:pid", file)["pid"] != first


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.slp: cannot be read \(No such file"):
        apart.read_apart("apart_readers:pid", tmp_path / "none.slp")


def test_a_table_in_another_file_is_refused(tmp_path: Path) -> None:
    """An external link, an external storage, and a soft link."""
    from tests.data.test_sleap import slp, user

    path = slp(tmp_path / "l.slp", [(0, 0, [user((1, 2), (3, 4))])])
    with h5py.File(tmp_path / "other.h5", "w") as other, h5py.File(path) as h5:
        other["points"] = h5["points"][:]
    for link in (h5py.ExternalLink("other.h5", "points"), h5py.SoftLink("/pred_points")):
        with h5py.File(path, "a") as h5:
            del h5["points"]
            h5["points"] = link
        begun = time.perf_counter()
        with pytest.raises(DataError, match=r"l\.slp: it cannot be read .*'points' is a link"):
            apart.read_apart("kplab.data.formats._slp_tables:tables", path)
        assert time.perf_counter() - begun < apart.SECONDS
    with h5py.File(path, "a") as h5:
        del h5["points"]
        (tmp_path / "secret").write_bytes(bytes(800))
        h5.create_dataset("points", (10,), np.float64, external=[(str(tmp_path / "secret"), 0, 80)])
    with pytest.raises(DataError, match="'points' lie in another file"):
        apart.read_apart("kplab.data.formats._slp_tables:tables", path)
