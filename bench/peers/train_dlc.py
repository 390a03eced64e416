"""Train the default model of DeepLabCut for a given time and predict a folder of images, in an environment that has DeepLabCut.

    python bench/peers/train_dlc.py WORK TEST_IMAGES SECONDS SEED

WORK is a project with ``labeled-data/train/CollectedData_kplab.*`` and ``project.json``: names of the keypoints, edges, and the number
of subjects in an image. The predictions are written to ``WORK/predictions/*.csv`` and what was done to ``WORK/made.json``. All
settings are the defaults of the PyTorch engine, but for random weights. DeepLabCut has no option for a time: its training is ended
by the clock.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import deeplabcut
from deeplabcut.core.config.project_config import ProjectConfig
from deeplabcut.pose_estimation_pytorch.models import PoseModel
from deeplabcut.pose_estimation_pytorch.runners.train import TrainingRunner


class TimeIsUp(Exception):
    """The time of the training is over."""


def end_by_clock(seconds: float, made: dict[str, Any]) -> None:
    """Let a training end after the step in which its time is over, with a snapshot; seconds and epochs are added to ``made``."""
    fit = TrainingRunner.fit

    def timed(self: TrainingRunner, *args: Any, **kwargs: Any) -> None:
        begun, step = time.perf_counter(), self.step

        def watched(batch: Any, mode: str = "train") -> Any:
            if mode == "train" and time.perf_counter() - begun > seconds:
                raise TimeIsUp
            return step(batch, mode)

        self.step = watched
        try:
            fit(self, *args, **kwargs)
        except TimeIsUp:
            self.snapshot_manager.update(self.current_epoch, self.state_dict(), last=True)
        made.update(train_seconds=round(time.perf_counter() - begun, 1), epochs=self.current_epoch)

    TrainingRunner.fit = timed


def random_weights() -> None:
    """Let models start from random weights: the published ones are on a hub."""
    build = PoseModel.build
    PoseModel.build = staticmethod(lambda cfg, weight_init=None, pretrained_backbone=False: build(cfg, weight_init))


def main(work: Path, images: Path, seconds: float, seed: int) -> None:
    """Train, predict, and write what was done."""
    content = json.loads((work / "project.json").read_text())
    several = content["subjects"] > 1
    points = {"bodyparts": "MULTI!", "multianimalbodyparts": content["keypoints"]} if several else {}
    individuals = [f"individual{i + 1}" for i in range(content["subjects"])]
    ProjectConfig(
        Task="peers",
        scorer="kplab",
        date="Jan1",
        multianimalproject=several,
        identity=False,
        project_path=work,
        video_sets={str(work / "videos" / "train.mp4"): {"crop": "0, 1, 0, 1"}},
        skeleton=content["edges"],
        iteration=0,
        **({"individuals": individuals} if several else {}),
        **(points or {"bodyparts": content["keypoints"]}),
    ).to_yaml(work / "config.yaml")
    config = str(work / "config.yaml")
    made: dict[str, Any] = {"weights": "random", "versions": {"deeplabcut": deeplabcut.__version__}}
    create = deeplabcut.create_multianimaltraining_dataset if several else deeplabcut.create_training_dataset
    create(config, userfeedback=False)
    random_weights()
    end_by_clock(seconds, made)
    deeplabcut.train_network(config, pytorch_cfg_updates={"train_settings.seed": seed})
    found = work / "predictions"
    deeplabcut.analyze_images(
        config, str(images), frame_type=".png", destfolder=str(found), snapshot_index=-1, save_as_csv=True
    )
    made["model"] = deeplabcut.auxiliaryfunctions.read_config(config)["default_net_type"]
    (work / "made.json").write_text(json.dumps(made, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), float(sys.argv[3]), int(sys.argv[4]))
