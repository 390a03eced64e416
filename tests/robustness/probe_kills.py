"""Kill trainings of every family by SIGKILL at random moments, resume them, and compare them with one never killed.

    python -m tests.robustness.probe_kills [FAMILY…] [kills=5] [seed=0]

Prints a line for each family and exits with status 1 if any differs. A run that is killed before its first checkpoint can't
be resumed and counts as "too early"; such a kill is repeated at another moment.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.append(str(TESTS))
# the same bits in every process
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from kplab.runs.run import Run  # noqa: E402
from robustness.families import COMMON, FAMILIES  # noqa: E402
from robustness.test_resume import outcome, unequal  # noqa: E402
from tasks.conftest import YAML, dots  # noqa: E402

EPOCHS = 12


def overrides(folder: Path) -> list[str]:
    """The training of tests/tasks/conftest.py in a folder."""
    data = dots(folder / "dots")
    (folder / "conf" / "dataset").mkdir(parents=True)
    (folder / "conf" / "dataset" / "dots.yaml").write_text(YAML.format(data=data))
    return [
        f"hydra.searchpath=[file://{folder}/conf]", "dataset=dots", "backbone=resnet10_half", "neck.channels=32",
        "neck.levels=[4]", "size=[64,64]", "regions=image", "batch_size=4", "workers=1", "logger=csv", "trainer=cpu",
        f"trainer.max_epochs={EPOCHS}", f"runs_dir={folder}/runs", "name=tiny", "optimizer.lr=3e-3",
    ]  # fmt: skip


def start(args: list[str]) -> subprocess.Popen[bytes]:
    """Start ``kplab train``, as the leader of a group, so that a kill ends its loaders too."""
    return subprocess.Popen(
        [sys.executable, "-m", "kplab.cli", "train", *args], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip


def run_to_end(args: list[str], runs: Path) -> Run:
    """Train, and return the new run."""
    before = set(runs.glob("*_*"))
    process = start(args)
    _, error = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(args)}\n{error.decode()[-3000:]}")
    (folder,) = set(runs.glob("*_*")) - before
    return Run.open(folder)


def run_to_kill(args: list[str], runs: Path, seconds: float) -> Run | None:
    """Train, and kill after a time from the start of the run's folder; None if it was finished before."""
    before = set(runs.glob("*_*"))
    process = start(args)
    while process.poll() is None and not set(runs.glob("*_*")) - before:
        time.sleep(0.01)
    time.sleep(seconds)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    new = set(runs.glob("*_*")) - before
    run = Run.open(new.pop()) if new else None
    return None if run is None or run.status == "finished" else run


def probe(family: str, kills: int, rng: random.Random) -> bool:
    """Whether a training of a family that is killed and resumed again and again equals one that is not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = folder / "runs"
        args = [*overrides(folder), *FAMILIES[family], *COMMON]
        whole = run_to_end(args, runs)
        wanted, seconds = outcome(whole), float(whole.record["seconds"])
        done, early, different = 0, 0, []
        while done < kills:
            killed = run_to_kill(args, runs, rng.uniform(0, seconds))
            if killed is None or not (killed.folder / "checkpoints" / "last.ckpt").is_file():
                early += 1
                if killed is not None:
                    shutil.rmtree(killed.folder)  # may hold a part of its first checkpoint, which no resuming removes
                continue
            different += unequal(wanted, outcome(run_to_end([*args, f"resume={killed.folder}"], runs)))
            left = [p.name for f in runs.iterdir() for p in (f / "checkpoints").glob("*.part")]
            different += [f"left {name}" for name in left]
            done += 1
        verdict = f"DIFFERENT: {', '.join(sorted(set(different))[:5])}" if different else "identical"
        print(f"{family:10}  {done} kills within {seconds:.0f} s, {early} too early or too late: {verdict}", flush=True)
        return not different


def main(args: list[str]) -> int:
    """Probe the families that are named, else all."""
    options = dict(a.split("=") for a in args if "=" in a)
    families = [a for a in args if "=" not in a] or list(FAMILIES)
    rng = random.Random(int(options.get("seed", 0)))
    return 0 if all([probe(family, int(options.get("kills", 5)), rng) for family in families]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
