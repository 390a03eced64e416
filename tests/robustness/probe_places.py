"""Fill the disk under each verb, and run several processes of a verb at once.

    python -m tests.robustness.probe_places [full|together] [tries=20] [processes=4] [seed=0]

``full``: each verb writes to a file system of a random size that it fills (a tmpfs, in a mount namespace of its own). It has to
end in one message; no file may be half-written; and with more space the same work ends as if the disk had never been full.
``together``: processes generate the same data, train the same config, and predict and score the same run at the same time.
Prints a line for each case, and exits with status 1 if any has a finding.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.append(str(TESTS))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from kplab.runs.run import Run  # noqa: E402
from robustness.probe_kills import overrides as tiny  # noqa: E402
from robustness.test_resume import outcome, unequal  # noqa: E402

MB = 1 << 20
#: Set in the process that may mount.
INSIDE = "KPLAB_PROBE_INSIDE"
#: Of which a message names one.
FULL = ("no space left", "are free")
SYNTHETIC = ["dataset=synthetic_person", "dataset.images=40"]


def start(args: list[str]) -> subprocess.Popen[str]:
    """Start the command."""
    return subprocess.Popen(
        [sys.executable, "-m", "kplab.cli", *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def short(folder: Path) -> list[str]:
    """A training of three epochs on the data in a folder."""
    return [
        *(o for o in tiny(folder) if not o.startswith("trainer.max_epochs")),
        "trainer.max_epochs=3",
        "head=heatmap",
    ]


def whole(folder: Path) -> list[str]:
    """What is half-written below a folder."""
    bad = [
        str(p.relative_to(folder)) for p in folder.rglob("*") if p.suffix == ".part" or p.name.startswith(".generating")
    ]
    for path in folder.rglob("*.json"):
        try:
            json.loads(path.read_text())
        except ValueError:
            bad.append(str(path.relative_to(folder)))
    return bad


def mount(place: Path, size: int, options: str = "") -> None:
    """Mount a tmpfs, or change its size."""
    command = ["mount", "-t", "tmpfs", "-o", f"{options}size={max(size, 4096)}", "tmpfs", str(place)]
    subprocess.run(command, check=True)


def fill(verb: str, tries: int, rng: random.Random) -> list[str]:
    """Findings of a verb whose disk is full."""
    found: list[str] = []
    full = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        args, place = short(folder), folder / "disk"
        place.mkdir()
        ready = folder / "ready"  # a finished run, for the verbs that need one
        text = start(["train", *args, f"runs_dir={ready}"]).communicate()[0]
        (run,) = ready.glob("*_*") if ready.is_dir() else [None]
        if run is None:
            raise SystemExit(text)
        wanted = outcome(Run.open(run))
        commands = {
            "train": ["train", *args, f"runs_dir={place}/runs"],
            "data": ["data", *SYNTHETIC, f"dataset.folder={place}/data", f"out={place}/sheets"],
            "predict": ["predict", f"run={place}/runs/{run.name}", "split=test"],
            "evaluate": ["evaluate", f"run={place}/runs/{run.name}", "split=test"],
        }
        for _ in range(tries):
            mount(place, 512 * MB)
            if verb in ("predict", "evaluate"):
                shutil.copytree(ready, place / "runs")
            used = sum(p.stat().st_blocks * 512 for p in place.rglob("*"))
            room = int(rng.uniform(0, {"train": 6, "data": 1}.get(verb, 0.02)) * MB)
            if verb == "train":  # it starts on a large disk, since it refuses a small one
                process = start(commands[verb])
                while process.poll() is None and not list(place.glob("runs/*_*/checkpoints")):
                    time.sleep(0.01)
                time.sleep(rng.uniform(0, 2))
                used = sum(p.stat().st_blocks * 512 for p in place.rglob("*") if p.exists())
                subprocess.run(
                    ["mount", "-o", f"remount,size={used + room}", str(place)], capture_output=True, check=False
                )
            else:
                mount(place, used + room, "remount,")
                process = start(commands[verb])
            text = process.communicate()[0]
            full += process.returncode != 0
            message = text.strip().splitlines()[-1] if text.strip() else ""
            if process.returncode and (process.returncode != 2 or not any(t in message.lower() for t in FULL)):
                found.append(f"status {process.returncode}: {message[:160]}")
            found += [f"half-written: {p}" for p in whole(place)]
            mount(place, 512 * MB, "remount,")
            again = [*commands[verb], *(["resume=latest"] if verb == "train" and resumable(place / "runs") else [])]
            if process.returncode or verb != "train":
                process = start(again)
                text = process.communicate()[0]
            if process.returncode:
                found.append(f"with space again: {text.strip().splitlines()[-1][:160]}")
            elif verb != "data":
                last = max((place / "runs").glob("*_*"), key=lambda p: p.name)
                found += [f"with space again, other {what}" for what in unequal(wanted, outcome(Run.open(last)))]
            subprocess.run(["umount", str(place)], check=True)
    print(f"full: {verb:9} {tries} sizes, {full} too small: {report(found)}", flush=True)
    return found


def resumable(runs: Path) -> bool:
    """Whether a run has a checkpoint to resume from."""
    return any(runs.glob("*_*/checkpoints/last.ckpt"))


def report(found: list[str]) -> str:
    """The different findings."""
    return "no finding" if not found else f"{len(found)} findings: " + "; ".join(sorted(set(found))[:4])


def together(processes: int) -> list[str]:
    """Findings of several processes at once."""
    every: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        args, runs = [*short(folder), f"runs_dir={folder}/runs"], folder / "runs"

        def at_once(what: str, args: list[str]) -> None:
            started = [start(args) for _ in range(processes)]
            found = []
            for process in started:
                text = process.communicate()[0]
                if process.returncode:
                    found.append(f"status {process.returncode}: {text.strip().splitlines()[-1][:200]}")
            found += [f"half-written: {p}" for p in whole(folder)]
            if runs.is_dir():
                outcomes = [outcome(Run.open(p)) for p in sorted(runs.glob("*_*"))]
                found += [f"another {w}" for o in outcomes[1:] for w in unequal(outcomes[0], o)]
            print(f"together: {what:9} {processes} processes: {report(found)}", flush=True)
            every.extend(found)

        at_once("data", ["data", *SYNTHETIC, f"dataset.folder={folder}/data", f"out={folder}/sheets"])
        at_once("train", ["train", *args])
        run = sorted(runs.glob("*_*"))[0]
        at_once("predict", ["predict", f"run={run}", "split=test"])
        at_once("evaluate", ["evaluate", f"run={run}", "split=test"])
    return every


def main(args: list[str]) -> int:
    """Probe what is named, else both."""
    options = dict(a.split("=") for a in args if "=" in a)
    named = [a for a in args if "=" not in a] or ["full", "together"]
    found = together(int(options.get("processes", 4))) if "together" in named else []
    if "full" in named and INSIDE not in os.environ:
        command = [
            "unshare",
            "-m",
            *(["-r"] if os.getuid() else []),
            sys.executable,
            "-m",
            "tests.robustness.probe_places",
        ]
        done = subprocess.run([*command, "full", *(a for a in args if "=" in a)], env={**os.environ, INSIDE: "1"})
        return done.returncode or bool(found)
    if "full" in named:
        rng = random.Random(int(options.get("seed", 0)))
        found += [
            f
            for verb in ("data", "train", "predict", "evaluate")
            for f in fill(verb, int(options.get("tries", 20)), rng)
        ]
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
