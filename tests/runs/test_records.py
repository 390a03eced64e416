"""A record names its artefact's bytes and inputs, and a reader notices when they have changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from kplab.errors import RunError
from kplab.runs.records import list_artefacts, read_record, record_path, write_record


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    """A table of two files that was made from a checkpoint and from labels."""
    (tmp_path / "last.ckpt").write_bytes(b"weights")
    table, beside = tmp_path / "table.md", tmp_path / "table.csv"
    table.write_text("| a |\n")
    beside.write_text("a\n")
    write_record(table, tmp_path, {"checkpoint": tmp_path / "last.ckpt", "truth": "ab" * 32}, [beside], split="test")
    return table


def test_a_record_has_hashes_of_the_artefact_and_of_its_inputs(artefact: Path) -> None:
    record = read_record(artefact)
    assert record == json.loads(artefact.with_name("table.record.json").read_text())
    assert record["schema"] == 1
    assert record["sha256"] == {
        name: hashlib.sha256(artefact.with_name(name).read_bytes()).hexdigest() for name in ("table.md", "table.csv")
    }
    checkpoint = {"file": "last.ckpt", "sha256": hashlib.sha256(b"weights").hexdigest()}
    assert record["made_from"] == {"checkpoint": checkpoint, "truth": {"sha256": "ab" * 32}}
    assert record["split"] == "test"
    assert {"command", "made", "code", "packages", "hardware"} <= set(record)


@pytest.mark.parametrize("name", ["table.md", "table.csv"])
def test_a_changed_or_missing_file_is_named_with_the_command_that_made_it(artefact: Path, name: str) -> None:
    file = artefact.with_name(name)
    file.write_text(file.read_text().replace("a", "b"))
    with pytest.raises(RunError, match=rf"{name}: has changed since it was written .*make it again: \S+"):
        read_record(artefact)
    file.unlink()
    with pytest.raises(RunError, match=rf"{name} is missing.*Make it again: \S+"):
        read_record(artefact)


def test_records_that_can_not_be_read(artefact: Path) -> None:
    path = record_path(artefact)
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "schema": 2}))
    with pytest.raises(RunError, match="has schema version 2, but this kplab reads version 1"):
        read_record(artefact)
    for text in ('{"schema": 1', "[]", "{}"):
        path.write_text(text)
        with pytest.raises(RunError, match="can't be read as a record"):
            read_record(artefact)
        with pytest.raises(RunError, match="can't be read as a record"):
            list_artefacts(artefact.parent)
    path.unlink()
    with pytest.raises(RunError, match=r"has no record \(table.record.json\)"):
        read_record(artefact)


def test_records_list_the_artefacts_of_a_folder(artefact: Path) -> None:
    (artefact.parent / "notes.json").write_text("{}")
    other = artefact.with_name("another.json")
    other.write_text("{}")
    write_record(other, artefact.parent, {})
    assert list_artefacts(artefact.parent) == [other, artefact]
    assert list_artefacts(artefact.parent / "nothing") == []
