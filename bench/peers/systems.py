"""The systems that are compared: their environments, what they are trained on, and how their predictions are read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

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
class Terms:
    """What each training is given.

    Args:
        seconds: of training.
        seed: of its random numbers.
    """

    seconds: float
    seed: int = 0


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


#: Trains on a split in a folder, and predicts the test images.
Train = Callable[[Split, Path, Terms, Tools], Trained]


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

    def rows(self, split: Split) -> dict[str, Train]:
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

    def train(self, split: Split, work: Path, terms: Terms, tools: Tools) -> Trained:
        """Export the training split, train, and read the predictions of the test images."""
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        self.export(split, work)
        python, script = tools.environments / self.name / "bin" / "python", HERE / f"train_{self.name}.py"
        command = [str(python), str(script), str(work), str(split.folder / "test"), str(terms.seconds), str(terms.seed)]
        variables = {name: value.format(work=work) for name, value in self.variables.items()}
        run(
            command,
            work / "log.txt",
            work,
            timeout=longest(terms.seconds),
            PYTHONPATH="",
            MPLBACKEND="Agg",
            **variables,
        )
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


def planned(split: Split) -> dict[str, list[str]]:
    """``kplab train dataset=… budget=…`` as it is, and with the network that a plan has where no published weights are installed."""
    return {"kplab": ["budget={seconds}s"], "kplab, random weights": ["budget={seconds}s", "backbone=resnet10_half"]}


def by_hand(split: Split) -> dict[str, list[str]]:
    """Experiments that were made by hand, for other data, for as long.

    Those of whole images are for one subject, and are mirrored where the skeleton pairs sides.
    """
    if split.subjects > 1:
        chosen = {name: [f"experiment={name}"] for name in ("topdown_synthetic", "centernet_synthetic")}
    else:
        recipe = ["experiment=heatmap_mouse"]
        tuned = [*recipe, "augment.rotate=20", "backbone=efficientnet_lite0", "backbone.pretrained=true"]
        if split.skeleton.flip == tuple(range(len(split.skeleton))):  # nothing is exchanged
            tuned += ["augment.flip=0", "flip_test=false"]
        chosen = {
            "heatmap_mouse": recipe,
            "heatmap_mouse, tuned": tuned,
            "heatmap_mouse, tuned, whole images": [*tuned, "window=null"],
        }
    # the schedule that ends at any time
    timed = ["optimizer=adamw_trapezoid", "duration={seconds}"]
    return {f"by hand: {name}": [*overrides, *timed] for name, overrides in chosen.items()}


@dataclass(frozen=True)
class Kplab:
    """This package, in a workspace of its own.

    Args:
        chosen: rows of the table to the overrides of ``kplab train``, in which ``{seconds}`` stands for the time.
    """

    chosen: Callable[[Split], dict[str, list[str]]]

    def prepare(self, tools: Tools) -> None:
        """Nothing: this process runs in its environment."""

    def rows(self, split: Split) -> dict[str, Train]:
        """Name of a row of the table to the function that makes it."""
        return {row: partial(self.train, overrides) for row, overrides in self.chosen(split).items()}

    @staticmethod
    def train(overrides: list[str], split: Split, work: Path, terms: Terms, tools: Tools) -> Trained:
        """Train, and read the predictions of the test split."""
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(conf_dir(), work / "conf")
        write_config(split, work / "conf")
        command = [sys.executable, "-m", "kplab.cli", "train", f"dataset={split.name}", "logger=csv"]
        command += [f"seed={terms.seed}", *(override.format(seconds=f"{terms.seconds:g}") for override in overrides)]
        run(command, work / "log.txt", work, timeout=longest(terms.seconds), KPLAB_WORKSPACE=str(work))
        (folder,) = [path.parent for path in (work / "runs").glob("*/run.json")]
        record = json.loads((folder / "run.json").read_text())
        return Trained(
            Predictions.read(folder / "predictions" / f"{split.name}-test.json", split.skeleton),
            model=model_of(yaml.safe_load((folder / "config.yaml").read_text())),
            weights="ImageNet" if record.get("backbone_weights") else "random",
            train_seconds=record["fit_seconds"],
            epochs=record["epochs"],
            versions={
                "kplab": ((record["code"] or {}).get("commit") or "unknown")[:9],
                "torch": record["packages"]["torch"],
            },
        )


def model_of(config: dict[str, Any]) -> str:
    """Head and backbone of a run's config, and whether they are a cascade."""
    files = {path.stem: yaml.safe_load(path.read_text()) for path in (conf_dir() / "backbone").glob("*.yaml")}
    # the file whose keys the run has; of several the one that states most, as others have its network in full size
    alike = {
        name: len(keys) for name, keys in files.items()
        if all(config["backbone"].get(key) == value for key, value in keys.items() if key not in ("defaults", "pretrained"))
    }  # fmt: skip
    head = config["head"]["_target_"].split(".")[-2]
    return f"{head}, {max(alike, key=alike.__getitem__)}" + (", cascade" if config.get("detector") else "")


SYSTEMS: dict[str, Kplab | Peer] = {
    "kplab": Kplab(planned),
    "by_hand": Kplab(by_hand),
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
