"""The layers of docs/architecture.md hold, and every kind of forbidden import is reported."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

#: (room, module that it may not import)
FORBIDDEN = [
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
    ("applications", "kplab.viz"),
]


def lint(root: Path, source: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter with the contracts of ``root`` on the package in ``source``."""
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_layers_hold(root: Path) -> None:
    result = lint(root, root / "src")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def report(root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What import-linter reports of a copy of the package with one module for each forbidden import, and a new room."""
    folder = tmp_path_factory.mktemp("layers")
    shutil.copytree(root / "src" / "kplab", folder / "kplab", ignore=shutil.ignore_patterns("__pycache__"))
    for number, (room, imported) in enumerate(FORBIDDEN):
        # inside a function, because a late import breaks the layers as much as an early one
        module = folder / "kplab" / room / f"forbidden{number}.py"
        module.write_text(f"def late() -> None:\n    import {imported}\n")
    (folder / "kplab" / "helpers.py").touch()
    shutil.copy(root / "pyproject.toml", folder)
    result = lint(folder, folder)
    assert result.returncode == 1, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize(("number", "room", "imported"), [(i, *pair) for i, pair in enumerate(FORBIDDEN)])
def test_a_forbidden_import_is_reported(report: str, number: int, room: str, imported: str) -> None:
    assert f"kplab.{room}.forbidden{number} -> {imported}" in report


def test_a_room_without_a_layer_is_reported(report: str) -> None:
    assert "- helpers" in report.replace("kplab.helpers", "helpers")
