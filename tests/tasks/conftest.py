"""A tiny dataset in COCO's layout, the overrides of a training that takes seconds, and finished runs of it."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from omegaconf import DictConfig

from kplab.runs.run import Run
from kplab.tasks import compose
from kplab.tasks.training import duration
from kplab.tasks.training.train import train

NAMES = ("red", "left_green", "right_blue")
COLOURS = np.array([[230, 40, 40], [40, 220, 40], [60, 60, 235]])


def dots(folder: Path, images: int = 16, size: int = 64, seed: int = 0) -> Path:
    """Write images with one coloured dot per keypoint on noise: the easiest task that still has to be learnt."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    rows, columns = np.mgrid[:size, :size] + 0.5
    records, annotations = [], []
    for i in range(1, images + 1):
        xy = rng.uniform(12, size - 12, (3, 2))
        image = rng.uniform(40, 110, (size, size, 3))
        for (x, y), colour in zip(xy, COLOURS, strict=True):
            weight = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 3.0**2))[..., None]
            image = image * (1 - weight) + colour * weight
        name = f"{i:03d}.png"
        cv2.imwrite(str(folder / "images" / name), image[..., ::-1].round().astype(np.uint8))
        records.append({"id": i, "file_name": name, "width": size, "height": size})
        keypoints = np.concatenate([xy - 0.5, np.full((3, 1), 2.0)], axis=1).ravel()
        annotations.append(
            {
                "id": i, "image_id": i, "category_id": 1, "iscrowd": 0, "num_keypoints": 3, "area": 2000.0,
                "bbox": [2.0, 2.0, size - 4.0, size - 4.0], "keypoints": [float(v) for v in keypoints],
            }
        )  # fmt: skip
    category = {"id": 1, "name": "dots", "keypoints": list(NAMES), "skeleton": [[1, 2]]}
    document = {"images": records, "annotations": annotations, "categories": [category]}
    (folder / "annotations.json").write_text(json.dumps(document))
    return folder


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder, at the same path for every test of a process: a run that is copied into it finds its dataset."""
    folder = tmp_path_factory.getbasetemp() / "test"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


@pytest.fixture
def dotted(tmp_path: Path) -> Path:
    """Sixteen such images."""
    return dots(tmp_path / "dots")


YAML = """
name: dots
skeleton:
  name: dots
  keypoints: [red, left_green, right_blue]
  edges: [[red, left_green]]
  flip_pairs: []
  sigmas: [0.05, 0.05, 0.05]
  sigma_source: made up for tests
sources:
  all: {{_target_: kplab.data.formats.coco.read, annotations: {data}/annotations.json, images: {data}/images}}
split: {{manifest: {data}/split.json, fractions: {{train: 0.5, val: 0.25, test: 0.25}}, by: image}}
evaluation: {{pck_normalizer: pixels, pck_thresholds: [2, 5], auc_range: [0, 10]}}
"""


@pytest.fixture
def overrides(dotted: Path, tmp_path: Path) -> list[str]:
    """Overrides of a tiny training on these images; everything it reads and writes lies in the test's own folder."""
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "dots.yaml").write_text(YAML.format(data=dotted))
    return [
        f"hydra.searchpath=[file://{tmp_path}/conf]", "dataset=dots", "backbone=resnet10_half", "neck.channels=32",
        "neck.levels=[4]", "size=[64,64]", "regions=image", "batch_size=4", "workers=0", "augment=none", "logger=csv",
        "trainer=cpu", "trainer.max_epochs=2", f"runs_dir={tmp_path}/runs", "name=tiny", "optimizer.lr=3e-3",
    ]  # fmt: skip


@pytest.fixture
def config(overrides: list[str]) -> Callable[..., DictConfig]:
    """A function that composes the tiny training with more overrides; an exemplar has no network to configure."""

    def composed(*more: str) -> DictConfig:
        network = ("backbone=", "neck.") if "model=exemplar" in more else ()
        return compose("train", [o for o in overrides if not (network and o.startswith(network))] + list(more))

    return composed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that lets the epochs of trainings take given seconds, the last value again and again, and validations others."""
    begin, validated = duration.Duration.on_train_epoch_start, duration.Duration.on_validation_end

    def takes(seconds: list[float], validation: float = 0.0) -> None:
        now = 0.0
        epochs = itertools.chain(seconds, itertools.repeat(seconds[-1]))

        def epoch(self: duration.Duration, *given: Any) -> None:
            nonlocal now
            now += next(epochs)
            begin(self, *given)

        def validate(self: duration.Duration, *given: Any) -> None:
            nonlocal now
            now += validation
            validated(self, *given)

        monkeypatch.setattr(duration, "time", SimpleNamespace(perf_counter=lambda: now))
        monkeypatch.setattr(duration.Duration, "on_train_epoch_start", epoch)
        monkeypatch.setattr(duration.Duration, "on_validation_end", validate)

    return takes


@pytest.fixture(scope="session")
def stored() -> dict[tuple[str, ...], Path]:
    """Folders of the runs that were trained in this process for all tests, by their overrides."""
    return {}


@pytest.fixture
def finished(
    config: Callable[..., DictConfig], stored: dict[tuple[str, ...], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Run]:
    """A function from overrides to a finished run. A run is trained once; every test changes a copy of its own."""

    def run_of(*more: str) -> Run:
        composed = config(*more)
        runs = Path(composed.runs_dir)
        if more not in stored:
            made = train(composed)
            assert made is not None
            stored[more] = shutil.copytree(made.folder, tmp_path_factory.mktemp("finished") / made.folder.name)
        folder = runs / stored[more].name
        if not folder.exists():
            shutil.copytree(stored[more], folder)
        return Run.open(folder)

    return run_of
