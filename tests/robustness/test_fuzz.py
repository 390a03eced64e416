"""No mutated file ends in a traceback, a crash, or invalid labels (``make probe`` tries many more; docs/robustness.md)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.data.test_formats import FORMATS
from tests.robustness import fuzz


def run(root: Path, *arguments: str) -> str:
    """Probe in another process, which may crash."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.robustness.fuzz", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, errors="replace")
    report = f"{done.stdout}\n{done.stderr[-2000:]}"
    assert done.returncode == 0, report
    return done.stdout


@pytest.mark.slow
def test_every_target_is_refused_or_valid(root: Path) -> None:
    """The first 1,000 files of each, of most formats the first 60; ``make probe`` tries more."""
    assert set(FORMATS) < set(fuzz.TARGETS)
    few = [
        name for name in fuzz.TARGETS if name.partition("_written")[0] in set(FORMATS) - {"coco", "dlc", "lsp", "sleap"}
    ]
    many = [name for name in fuzz.TARGETS if name not in few]
    assert len(re.findall(r"500 files in .* 0 findings", run(root, "--count", "500", *many))) == len(many)
    assert len(re.findall(r"60 files in .* 0 findings", run(root, "--count", "60", *few))) == len(few)


def test_a_finding_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The probe can fail: a reader with a bug, and one that accepts what is invalid."""
    target = fuzz.TARGETS["manifest"]

    def broken(folder: Path) -> fuzz.Target:
        made = target(folder)
        made.read = lambda: {}["x"]
        return made

    def credulous(folder: Path) -> fuzz.Target:
        made = target(folder)
        made.read = dict
        return made

    for wrong, words in ((broken, "KeyError"), (credulous, "AssertionError")):
        monkeypatch.setitem(fuzz.TARGETS, "manifest", wrong)
        assert fuzz.main(["manifest", "--count", "2"]) == 1
        assert words in capsys.readouterr().out


def test_attempts_can_be_repeated(tmp_path: Path) -> None:
    """Attempt i depends on (seed, i) alone."""
    target = fuzz.TARGETS["results"](tmp_path)
    seen = []
    target.read = lambda: seen.append([p.read_bytes() for p in target.files])
    target.valid = lambda _: None
    for number in (3, 4, 3):
        fuzz.attempt(target, 0, number)
    assert seen[0] == seen[2] != seen[1]
