"""Reproduce a run of every family by ``kplab reproduce``, and runs that came about in other ways.

    python -m tests.robustness.probe_reproduce [CASE…] [threads=1]

A case trains the smallest model of a family with augmentation, averaged weights and two loader processes, and reproduces it in
another process; further cases are a gradient-free model, a model on detected boxes, a run that was resumed, one that was cut
by time, and one that was moved with its data. Prints a line for each case, and exits with status 1 unless all are identical.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.append(str(TESTS))
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from kplab.runs.run import Run  # noqa: E402
from robustness.families import COMMON, FAMILIES  # noqa: E402
from robustness.probe_kills import overrides as tiny  # noqa: E402
from robustness.probe_kills import run_to_kill  # noqa: E402

EXEMPLAR = ["model=exemplar", "flip_test=false", "model.max_poses=1"]


def overrides(folder: Path, epochs: int = 3) -> list[str]:
    """The training of probe_kills.py with two loader processes."""
    return [*(o for o in tiny(folder) if not o.startswith(("workers", "trainer.max_epochs"))), "workers=2",
            f"trainer.max_epochs={epochs}"]  # fmt: skip


def kplab(*args: str) -> tuple[int, str]:
    """Run the command; its status and what it prints."""
    done = subprocess.run([sys.executable, "-m", "kplab.cli", *args], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def train(args: list[str], folder: Path) -> Run:
    """Train, and return the new run."""
    before = set((folder / "runs").glob("*_*"))
    status, text = kplab("train", *args)
    if status:
        raise SystemExit(f"{' '.join(args)}\n{text[-3000:]}")
    (new,) = set((folder / "runs").glob("*_*")) - before
    return Run.open(new)


def exemplar(folder: Path) -> tuple[Run, list[str]]:
    """A model that is fitted in one pass."""
    network = ("backbone=", "neck.", "augment=", "ema=")
    return train([o for o in overrides(folder) if not o.startswith(network)] + EXEMPLAR, folder), []


def detected(folder: Path) -> tuple[Run, list[str]]:
    """A model on the boxes that another run predicts."""
    first = [*overrides(folder), *FAMILIES["yolo"], *COMMON, "test_on=[val,test]"]
    finder = train(first, folder)
    own = [o for o in overrides(folder / "again") if not o.startswith(("hydra", "runs_dir"))]
    more = [first[0], f"runs_dir={folder}/runs", "regions=detected", f"detector_run={finder.name}"]
    return train([*own, *more, *COMMON], folder), []


def resumed(folder: Path) -> tuple[Run, list[str]]:
    """A run that was killed and resumed."""
    args = [*overrides(folder, epochs=40), *COMMON]
    while True:
        killed = run_to_kill(args, folder / "runs", 4)
        if killed is not None and (killed.folder / "checkpoints" / "last.ckpt").is_file():
            return train([*args, f"resume={killed.folder}"], folder), []


def cut(folder: Path) -> tuple[Run, list[str]]:
    """A run that ``trainer.max_time`` ended."""
    return train([*overrides(folder, epochs=1000), *COMMON, "trainer.max_time=00:00:00:04"], folder), []


def moved(folder: Path) -> tuple[Run, list[str]]:
    """A run whose folder and data were moved."""
    run = train([*overrides(folder), *COMMON], folder)
    (folder / "dots").rename(folder / "data")
    (folder / "runs").rename(folder / "elsewhere")
    where = {
        "sources.all.annotations": "annotations.json",
        "sources.all.images": "images",
        "split.manifest": "split.json",
    }
    at = [f"dataset.{key}={folder}/data/{name}" for key, name in where.items()]
    return Run.open(folder / "elsewhere" / run.name), [f"overrides={json.dumps(at)}"]


def family(name: str) -> Callable[[Path], tuple[Run, list[str]]]:
    """A run of a family."""
    return lambda folder: (train([*overrides(folder), *FAMILIES[name], *COMMON], folder), [])


CASES: dict[str, Callable[[Path], tuple[Run, list[str]]]] = {
    **{name: family(name) for name in FAMILIES},
    "exemplar": exemplar,
    "detected": detected,
    "resumed": resumed,
    "cut": cut,
    "moved": moved,
}


def probe(name: str) -> bool:
    """Whether a run is reproduced to the bit."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        run, more = CASES[name](Path(folder))
        trained, begun = time.perf_counter() - begun, time.perf_counter()
        status, text = kplab("reproduce", f"run={run.folder}", *more)
        seconds = time.perf_counter() - begun
        results = list(run.folder.parent.glob("*/reproduction.json"))
        found = json.loads(results[0].read_text()) if len(results) == 1 else {"verdict": text[-2000:], "parts": []}
        parts = ", ".join(part["what"] for part in found["parts"] if part["state"] == "identical")
        first = f": {found['first_difference']}" if found.get("first_difference") else ""
        print(
            f"{name:10}  status {status}, {found['verdict']}{first} ({parts}); {run.record['epochs']} epochs, "
            f"{trained:.0f} s and {seconds:.0f} s",
            flush=True,
        )
        return (status, found["verdict"]) == (0, "identical")


def main(args: list[str]) -> int:
    """Probe the cases that are named, else all."""
    options = dict(a.split("=") for a in args if "=" in a)
    os.environ["OMP_NUM_THREADS"] = options.get("threads", "1")
    names = [a for a in args if "=" not in a] or list(CASES)
    return 0 if all([probe(name) for name in names]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
