"""The datasets of bench/measure_linter.py: those that limits are chosen on, and the others that they are measured on."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from kplab.config import conf_dir, workspace
from kplab.data.formats import coco, deepposekit, dlc, dlib, lightning_pose, lsp, plain_csv, sleap, yolo
from kplab.structures.labels import Labels
from kplab.structures.skeleton import Skeleton

DATA = Path(os.environ.get("KPLAB_DATA", "data"))
FRAMES = workspace() / "data" / "frames"


def skeleton(name: str) -> Skeleton:
    """A skeleton of conf/skeleton."""
    return Skeleton.from_config(yaml.safe_load((conf_dir() / "skeleton" / f"{name}.yaml").read_text()))


def people() -> dict[str, Labels]:
    """coco_mini."""
    folder, coco17 = DATA / "coco_mini", skeleton("coco17")
    return {
        part: coco.read(folder / f"annotations/person_keypoints_{part}2017.json", folder / f"{part}2017", coco17)
        for part in ("train", "val")
    }


def faces() -> dict[str, Labels]:
    """face68_youtube."""
    folder = DATA / "face68_youtube"
    return {
        part: plain_csv.read(
            folder / f"{part}_frames_keypoints.csv", folder / part, skeleton("face68"), skip_missing=True
        )
        for part in ("training", "test")
    }


def flies() -> dict[str, Labels]:
    """sleap_videos: every fifth frame."""
    folder = DATA / "sleap_videos"
    return {"all": sleap.read(folder / "clip.slp", skeleton("fly13"), FRAMES, folder / "clip.mp4", [0, 1500, 5])}


MEASURED: dict[str, Callable[[], dict[str, Labels]]] = {
    "coco_mini": people,
    "lspet_1000": lambda: {"all": lsp.read(DATA / "lspet_1000", skeleton("lsp14"))},
    "openfield_mouse": lambda: {"all": dlc.read(DATA / "dlc_openfield_mouse", skeleton("mouse4"))},
    "face68_youtube": faces,
    "tiger_pose": lambda: {"all": yolo.read(DATA / "tiger_pose_val", skeleton("tiger12"))},
    "sleap_flies": flies,
}

CALIBRATION: dict[str, Callable[[], dict[str, Labels]]] = {
    "lp_mirror_mouse": lambda: {
        "all": lightning_pose.read(DATA / "lp_mirror_mouse" / "CollectedData.csv", skeleton("mouse17"))
    },
    "dlib_faces": lambda: {
        part: dlib.read(
            DATA / "dlib_faces" / f"{part}_with_face_landmarks.xml", DATA / "dlib_faces", skeleton("face68"), "point"
        )
        for part in ("training", "testing")
    },
    "dpk_fly": lambda: {
        "all": deepposekit.read(DATA / "dpk_fly" / "example_annotation_set.h5", fly32(), FRAMES / "dpk_fly")
    },
    **{
        f"synthetic_{subject}": lambda subject=subject: synthetic(subject)  # type: ignore[misc]
        for subject in ("person", "hand", "quadruped", "arm", "face")
    },
}


class Remembered:
    """Images of a dataset in memory, so that rounds of faults in the labels don't decode them again."""

    def __init__(self, labels: Labels) -> None:
        self.images = [labels.read(i) for i in range(len(labels))]
        self.names = [str(name) for name in labels.names]

    def __len__(self) -> int:
        return len(self.images)

    def read(self, i: int) -> np.ndarray:
        """(H, W, 3) pixels of image i."""
        return self.images[i]

    def name(self, i: int) -> str:
        """Name of image i."""
        return self.names[i]


def remembered(splits: dict[str, Labels]) -> dict[str, Labels]:
    """The splits with their images in memory."""
    return {name: replace(labels, source=Remembered(labels)) for name, labels in splits.items()}


def fly32() -> Skeleton:
    """The skeleton of dpk_fly, as its table states it."""
    rows = list(csv.DictReader((DATA / "dpk_fly" / "skeleton.csv").open()))
    names = [row["name"] for row in rows]
    content = {
        "name": "fly32",
        "keypoints": names,
        "edges": [[row["parent"], row["name"]] for row in rows if row["parent"] in names],
        "flip_pairs": [
            [row["name"], row["swap"]] for row in rows if row["swap"] in names and row["name"] < row["swap"]
        ],
        "sigmas": "uniform",
    }
    return Skeleton.from_config(content)


def synthetic(subject: str) -> dict[str, Labels]:
    """200 rendered images of a subject."""
    from kplab.synthetic.generate import generate

    folder = generate(FRAMES / f"linter_{subject}", subject, 200, (160, 160), workers=1)
    names = {"person": "coco17", "hand": "hand21", "quadruped": "ap10k17", "arm": "arm6", "face": "face68"}
    return {"all": coco.read(folder / "annotations.json", folder, skeleton(names[subject]))}
