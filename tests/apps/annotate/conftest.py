"""A small project: six images of noise with coloured squares at known places, a skeleton of five keypoints, a COCO file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from omegaconf import DictConfig

from kplab.apps.annotate.journal import Journal
from kplab.apps.annotate.project import Project
from kplab.apps.annotate.target import Target
from kplab.data.formats import coco
from kplab.structures.skeleton import Skeleton
from kplab.tasks import compose

SIZE = (160, 120)
SKELETON = {
    "name": "bug",
    "keypoints": ["head", "left_wing", "right_wing", "body", "tail"],
    "edges": [["head", "body"], ["left_wing", "body"], ["right_wing", "body"], ["body", "tail"]],
    "flip_pairs": "by_name",
    "sigmas": "uniform",
}
#: Centres of the squares of every image, continuous pixels.
SPOTS = [(40.5, 30.5), (80.5, 30.5), (120.5, 60.5), (80.5, 90.5), (30.5, 100.5)]


@dataclass
class Files:
    """A folder of images and a COCO file of them."""

    images: Path
    labels: Path

    @property
    def skeleton(self) -> dict:
        """As in a file of conf/skeleton."""
        return SKELETON

    def read(self) -> dict:
        """The document as it is on the disk."""
        return json.loads(self.labels.read_text())

    def make_images(self, folder: Path, count: int) -> None:
        """More images of the same kind."""
        make_images(folder, count)

    def config(self, *overrides: str) -> DictConfig:
        """The config of ``kplab annotate`` with a dataset ``bugs`` of these files, and their skeleton ``bug``."""
        conf = self.labels.parent / "conf"
        reader = f"_target_: kplab.data.formats.coco.read, annotations: {self.labels}, images: {self.images}"
        dataset = (
            f"defaults: [/skeleton@skeleton: bug, _self_]\nname: bugs\nsources: {{all: {{{reader}}}}}\nsplit: null\n"
        )
        for kind, name, text in (("skeleton", "bug", json.dumps(SKELETON)), ("dataset", "bugs", dataset)):
            (conf / kind).mkdir(parents=True, exist_ok=True)
            (conf / kind / f"{name}.yaml").write_text(text)
        return compose("annotate", [f"hydra.searchpath=[file://{conf}]", *overrides])


def make_images(folder: Path, count: int = 6) -> None:
    """Noise with a bright square of 3 x 3 pixels around each spot."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(count):
        picture = rng.integers(30, 90, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
        for x, y in SPOTS:
            picture[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2] = (255, 255, 255)
        cv2.imwrite(str(folder / f"frame{i}.png"), picture)


def annotation(id_: int, image: int, xy: list[tuple[float, float]], **more: object) -> dict:
    """An annotation of all keypoints, visible; pixel indices, as COCO has them."""
    points = [v for x, y in xy for v in (x - 0.5, y - 0.5, 2)]
    return {
        "id": id_, "image_id": image, "category_id": 1, "iscrowd": 0, "num_keypoints": 5, "keypoints": points,
        "area": 3000.0, "bbox": [20.0, 20.0, 110.0, 90.0], **more,
    }  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Six images; the first has one subject with a field that kplab does not know, the second a crowd, the others none."""
    make_images(tmp_path / "images")
    images = [
        {"id": 10 + i, "file_name": f"frame{i}.png", "width": SIZE[0], "height": SIZE[1], "camera": "A"}
        for i in range(6)
    ]
    crowd = {"id": 8, "image_id": 11, "category_id": 1, "iscrowd": 1, "area": 400.0, "bbox": [1.0, 1.0, 20.0, 20.0]}
    document = {
        "info": {"by": "hand"},
        "images": images,
        "annotations": [annotation(7, 10, SPOTS, mood="calm"), {**crowd, "keypoints": [0] * 15, "num_keypoints": 0}],
        "categories": [{"id": 1, "name": "bug", "keypoints": SKELETON["keypoints"], "skeleton": []}],
    }
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(document))
    return Files(tmp_path / "images", path)


@pytest.fixture
def skeleton() -> Skeleton:
    """Five keypoints, two of them a pair."""
    return Skeleton.from_config(SKELETON)


@pytest.fixture
def opened(files: Files, skeleton: Skeleton) -> Callable[[], Project]:
    """Opens the COCO file as a project, as ``kplab annotate`` does."""

    def open_() -> Project:
        journal = Journal(files.labels)
        return Project(
            coco.read(files.labels, files.images, skeleton, keep_extras=True), Target.coco(files.labels), journal
        )

    return open_
