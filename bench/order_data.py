"""The datasets of bench/measure_order.py: what can be labelled, the test images, and how a model is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from linter_data import DATA, FRAMES, skeleton

from kplab.data.formats import dlc, plain_csv, sleap
from kplab.data.sources.files import FileSource
from kplab.ops import affine
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses


@dataclass(frozen=True)
class Setting:
    """What is simulated on a dataset.

    Args:
        read: returns the images that can be labelled, and the test images.
        skeleton: its name.
        group: from the name of a test image to the group that a resample draws as a whole.
        counts: numbers of labelled images, after each of which a model is trained.
        recipe: overrides of ``kplab train``.
        evaluation: of the dataset's config.
        metrics: that are reported, with their digits.
        views: that a training of a network sees, whatever the number of labels.
    """

    read: Callable[[], tuple[Labels, Labels]]
    skeleton: str
    group: Callable[[str], str]
    counts: tuple[int, ...]
    recipe: list[str]
    evaluation: dict[str, Any]
    metrics: dict[str, int]
    views: int | None = None


def faces() -> tuple[Labels, Labels]:
    """face68_youtube: 240 frames to label, and 80 of other persons."""
    folder, points = DATA / "face68_youtube", skeleton("face68")
    pool, test = (
        plain_csv.read(folder / f"{part}_frames_keypoints.csv", folder / part, points, skip_missing=True)
        for part in ("training", "test")
    )
    return pool, test


def mice() -> tuple[Labels, Labels]:
    """dlc_openfield_mouse: 80 and 36 frames of one video, drawn one by one."""
    every = dlc.read(DATA / "dlc_openfield_mouse", skeleton("mouse4"))
    order = np.random.default_rng(0).permutation(len(every))
    return every.select(np.sort(order[36:])), every.select(np.sort(order[:36]))


def flies(step: int) -> tuple[Labels, Labels]:
    """sleap_videos: crops of single flies, 160 x 160 pixels, of every ``step``-th frame; the test has every third block of 2 s."""
    every = sleap.read(
        DATA / "sleap_videos/clip.slp", skeleton("fly13"), FRAMES, DATA / "sleap_videos/clip.mp4", [0, 1500, step]
    )
    crops = crops_of(every, FRAMES / "fly_crops", 160)
    part = np.array([int(block(name)) % 3 for name in crops.names])
    return crops.select(np.flatnonzero(part > 0)), crops.select(np.flatnonzero(part == 0))


def block(name: str) -> str:
    """The block of two seconds that a crop of a fly is from."""
    return str(int(name.split("_")[0]) // 50)


def crops_of(labels: Labels, folder: Path, side: int) -> Labels:
    """An image for each subject, written to a folder: the square around the middle of its keypoints."""
    folder.mkdir(parents=True, exist_ok=True)
    names, found = [], []
    for i in range(len(labels)):
        image = labels.read(i)
        for k, xy in enumerate(labels.poses_of(i).xy):
            corner = np.round((np.nanmin(xy, axis=0) + np.nanmax(xy, axis=0) - side) / 2)
            names.append(f"{Path(labels.names[i]).stem}_{k}.png")
            crop = affine.warp(image, affine.translation(*-corner), (side, side))
            cv2.imwrite(str(folder / names[-1]), crop[..., ::-1])
            found.append(xy - corner)
    n = np.arange(len(names))
    poses = Poses.make(
        np.stack(found), box=np.tile([0.0, 0, side, side], (len(n), 1)), area=np.full(len(n), 0.53 * side**2)
    )
    return make_labels(
        labels.skeleton, FileSource(folder, names), n + 1, np.full((len(n), 2), side), None, poses, n, n + 1,
        box_source="image", area_source="image",
    )  # fmt: skip


EXEMPLAR = "experiment=sift_exemplar_mouse"
DATASETS = {
    "openfield_mouse": Setting(
        read=mice,
        skeleton="mouse4",
        group=lambda name: name,
        counts=(5, 10, 20, 40),
        recipe=[EXEMPLAR, "size=[480,360]"],
        evaluation={"pck_normalizer": "pixels", "pck_thresholds": [10]},
        metrics={"mean_px": 2, "median_px": 2, "pck@10": 3},
    ),
    "face68_youtube": Setting(
        read=faces,
        skeleton="face68",
        group=lambda name: name.rsplit("_", 1)[0],
        counts=(20, 40, 80),
        recipe=[EXEMPLAR, "size=[192,192]", "model.search_radius=0"],
        evaluation={"pck_thresholds": [0.1]},
        metrics={"mean_px": 2, "median_px": 2, "pck@0.1": 3},
    ),
    "sleap_flies": Setting(
        read=lambda: flies(10),
        skeleton="fly13",
        group=block,
        counts=(10, 20, 40),
        recipe=[EXEMPLAR, "size=[320,320]"],
        evaluation={"pck_normalizer": "pixels", "pck_thresholds": [10]},
        metrics={"mean_px": 2, "median_px": 2, "pck@10": 3},
    ),
    "sleap_flies_network": Setting(
        read=lambda: flies(5),
        skeleton="fly13",
        group=block,
        counts=(15, 30, 60),
        views=3000,
        recipe=[
            "backbone=resnet10_half",
            "neck=fpn",
            "neck.levels=[4]",
            "neck.channels=64",
            "head=heatmap",
            "size=[96,96]",
            "augment=light",
            "batch_size=8",
            "ema=0.99",
            "optimizer.lr=3e-3",
            "logger=csv",
        ],
        evaluation={"pck_normalizer": "pixels", "pck_thresholds": [10]},
        metrics={"mean_px": 2, "median_px": 2, "pck@10": 3},
    ),
}
