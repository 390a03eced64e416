"""The systems that are compared: their environments, what they are trained on, and how their predictions are read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import results
import yaml
from splits import Split, write_config

from kplab.config import conf_dir
from kplab.data.formats import dlc, sleap, yolo
from kplab.errors import KplabError
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions

HERE = Path(__file__).resolve().parent
TORCH = ("torch==2.15.0", "torchvision==0.29.2")
#: Seconds after which an installation is given up.
INSTALLATION = 1800


class PeerError(KplabError):
    """A system could not be installed, trained or read."""


@dataclass(frozen=True)
class Tools:
    """What environments are made with.

    Args:
        uv: the command uv.
        environments: the folder of all environments.
        torch: further arguments of its ``pip install``, such as ``--torch-backend=cpu``.
    """

    uv: str
    environments: Path
    torch: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trained:
    """What a system has made of a training split.

    Args:
        predictions: of the test images.
        model: what was trained.
        weights: what it started from.
        train_seconds: from the first step to the end of the training.
        epochs: that were begun.
        versions: package to version.
    """

    predictions: Predictions
    model: str
    weights: str
    train_seconds: float
    epochs: int
    versions: dict[str, str]


#: Trains on a split in a folder for a budget, which is also given in seconds, and predicts the test images.
Train = Callable[[Split, Path, str, float, Tools], Trained]


def run(command: list[str], log: Path, cwd: Path, timeout: float, **variables: str) -> None:
    """Run a command with its output in a file.

    Raises:
        PeerError: it failed, or took longer than ``timeout`` seconds; names the last line of its output.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        try:
            status = subprocess.run(
                command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, timeout=timeout,
                env=os.environ | variables, check=False,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            raise PeerError(f"not finished after {timeout:.0f} s (log: {log})") from None
        except OSError as error:
            raise PeerError(f"{command[0]}: {error}") from error
    if status:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise PeerError(f"{lines[-1] if lines else f'exit status {status}'} (log: {log})")


def longest(seconds: float) -> float:
    """Seconds after which a command is given up, which trains for so many and also prepares and predicts."""
    return 3 * seconds + 900


@dataclass(frozen=True)
class Peer:
    """A system that runs in an environment of its own.

    Args:
        name: of the system; ``train_<name>.py`` is executed in its environment.
        requirements: packages of the environment, pinned.
        export: writes the training split into a folder, in a format that the system reads.
        read: reads what ``train_<name>.py`` has written; its path relative to the folder, and the function.
        variables: of the environment of the process; ``{work}`` is the folder.
    """

    name: str
    requirements: tuple[str, ...]
    export: Callable[[Split, Path], None]
    read: tuple[str, Callable[[Path, Labels], dict[int, Poses]]]
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> dict[str, Train]:
        """Name of a row of the table to the function that makes it."""
        return {self.name: self.train}

    def prepare(self, tools: Tools) -> None:
        """Make the system's environment where it is missing or has other requirements.

        Raises:
            PeerError: the installation failed.
        """
        folder = tools.environments / self.name
        python, ready, log = folder / "bin" / "python", folder / ".ready", tools.environments / f"{self.name}.log"
        packages = [*self.requirements, *TORCH, *tools.torch]
        if ready.is_file() and ready.read_text() == "\n".join(packages):
            return
        print(f"{self.name}: installing {' '.join(self.requirements)} into {folder}", flush=True)
        for command in (
            ["venv", "--clear", "--python", sys.executable, str(folder)],
            ["pip", "install", "--python", str(python), *packages],
        ):
            # environments share the files of PyTorch, which are some gigabytes
            run([tools.uv, *command], log, HERE, INSTALLATION, UV_LINK_MODE="hardlink")
        ready.write_text("\n".join(packages))

    def train(self, split: Split, work: Path, budget: str, seconds: float, tools: Tools) -> Trained:
        """Export the training split, train for some seconds, and read the predictions of the test images."""
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        self.export(split, work)
        python, script = tools.environments / self.name / "bin" / "python", HERE / f"train_{self.name}.py"
        command = [str(python), str(script), str(work), str(split.folder / "test"), str(seconds)]
        variables = {name: value.format(work=work) for name, value in self.variables.items()}
        run(command, work / "log.txt", work, timeout=longest(seconds), PYTHONPATH="", MPLBACKEND="Agg", **variables)
        made = json.loads((work / "made.json").read_text())
        place, read = self.read
        poses = read(work / place, split.test)
        files = {int(i): str(name) for i, name in zip(split.test.image_id, split.test.names, strict=True)}
        found = Predictions(split.skeleton, poses, {"system": self.name}, files)
        found.write(work / "results.json")
        return Trained(Predictions.read(work / "results.json", split.skeleton), **made)


def for_ultralytics(split: Split, work: Path) -> None:
    """A folder of YOLO-pose labels with its images.

    Ultralytics needs images for validation: it gets a tenth of the training images, of which all are trained on.
    """
    yolo.write(split.train, work, copy=True)
    (work / "val.txt").write_text("".join(f"{work / 'images' / name}\n" for name in split.train.names[::10]))
    content = yaml.safe_load((work / "data.yaml").read_text())
    (work / "data.yaml").write_text(yaml.safe_dump(content | {"path": str(work), "val": "val.txt"}, sort_keys=False))


def for_sleap_nn(split: Split, work: Path) -> None:
    """A ``.slp`` on the images."""
    sleap.write(split.train, work / "train.slp")


def for_dlc(split: Split, work: Path) -> None:
    """The labelled frames of a project."""
    dlc.write(split.train, work, copy=True)
    content = {
        "keypoints": list(split.skeleton.keypoints),
        "edges": split.skeleton.as_config()["edges"],
        "subjects": split.subjects,
    }
    (work / "project.json").write_text(json.dumps(content))


class Kplab:
    """``kplab train dataset=… budget=…``, once as it is and once from random weights."""

    def prepare(self, tools: Tools) -> None:
        """Nothing: this process runs in its environment."""

    @property
    def rows(self) -> dict[str, Train]:
        """Name of a row of the table to the function that makes it."""
        return {"kplab": self.train, "kplab, random weights": self.train_random}

    def train_random(self, split: Split, work: Path, budget: str, seconds: float, tools: Tools) -> Trained:
        """Train the network that a plan chooses where no published weights are installed."""
        return self.train(split, work, budget, seconds, tools, ("backbone=resnet10_half",))

    def train(
        self, split: Split, work: Path, budget: str, seconds: float, tools: Tools, chosen: tuple[str, ...] = ()
    ) -> Trained:
        """Train in a workspace of its own, and read the predictions of its test split."""
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(conf_dir(), work / "conf")
        write_config(split, work / "conf")
        command = [sys.executable, "-m", "kplab.cli", "train", f"dataset={split.name}", f"budget={budget}", *chosen]
        command += ["logger=csv"]
        run(command, work / "log.txt", work, timeout=longest(seconds), KPLAB_WORKSPACE=str(work))
        (folder,) = [path.parent for path in (work / "runs").glob("*/run.json")]
        record = json.loads((folder / "run.json").read_text())
        found = Predictions.read(folder / "predictions" / f"{split.name}-test.json", split.skeleton)
        started_from = record.get("backbone_weights") or {}
        return Trained(
            found,
            model=planned_model(work / "conf" / "experiment" / f"planned_{split.name}.yaml"),
            weights="ImageNet" if started_from else "random",
            train_seconds=record["fit_seconds"],
            epochs=record["epochs"],
            versions={
                "kplab": ((record["code"] or {}).get("commit") or "unknown")[:9],
                "torch": record["packages"]["torch"],
            },
        )


def planned_model(experiment: Path) -> str:
    """Head and backbone of a planned experiment, and whether they are a cascade."""
    groups: dict[str, str] = {}
    for entry in yaml.safe_load(experiment.read_text())["defaults"]:
        if isinstance(entry, dict):
            groups |= {key.removeprefix("override /"): str(value) for key, value in entry.items()}
    return f"{groups['head']}, {groups['backbone']}" + (", cascade" if groups["model"] == "cascade" else "")


SYSTEMS: dict[str, Kplab | Peer] = {
    "kplab": Kplab(),
    "ultralytics": Peer(
        "ultralytics",
        ("ultralytics-opencv-headless==8.4.190",),
        for_ultralytics,
        ("predictions", results.from_ultralytics),
        {"YOLO_CONFIG_DIR": "{work}", "YOLO_OFFLINE": "true"},
    ),
    "sleap_nn": Peer(
        "sleap_nn",
        ("sleap-nn==0.3.5", "sleap-io==0.9.5"),
        for_sleap_nn,
        ("predictions.slp", results.from_sleap_nn),
    ),
    "dlc": Peer("dlc", ("deeplabcut==3.0.2",), for_dlc, ("predictions", results.from_dlc)),
}
