"""The layers of docs/architecture.md hold, and breaking one is noticed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def lint(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the package in a folder (import-linter looks there first)."""
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def copy(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layers")
    shutil.copytree(root / "src" / "kplab", folder / "kplab", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", folder)
    return folder


def test_the_layers_hold(copy: Path) -> None:
    result = lint(copy)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("room", "imports"),
    [
        ("data", "kplab.models.heads.base"),
        ("models", "kplab.metrics"),
        ("metrics", "kplab.models"),
        ("viz", "kplab.data"),
        ("structures", "kplab.data"),
        ("structures", "kplab.viz"),
        ("ops", "kplab.structures.poses"),
        ("runs", "kplab.structures.poses"),
        ("models", "kplab.tasks"),
        ("tasks", "kplab.apps"),
        ("synthetic", "kplab.data"),
    ],
)
def test_a_forbidden_import_is_noticed(copy: Path, room: str, imports: str) -> None:
    intruder = copy / "kplab" / room / "intruder.py"
    # inside a function, because a late import breaks the layers as much as an early one
    intruder.write_text(f"def late() -> None:\n    import {imports}\n")
    try:
        result = lint(copy)
    finally:
        intruder.unlink()
    assert result.returncode == 1
    assert f"kplab.{room}.intruder -> {imports}" in result.stdout


def test_a_room_that_the_architecture_does_not_name_is_noticed(copy: Path) -> None:
    room = copy / "kplab" / "helpers.py"
    room.write_text("")
    try:
        result = lint(copy)
    finally:
        room.unlink()
    assert result.returncode == 1
    assert "helpers" in result.stdout
