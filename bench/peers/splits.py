"""The images of a comparison of peers: a training and a test split, written once as files that every system reads."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import yaml

from kplab.config import conf_dir
from kplab.data.formats import coco
from kplab.data.sources.files import FileSource
from kplab.data.split import make_split
from kplab.errors import DataError
from kplab.structures.labels import Labels
from kplab.structures.skeleton import Skeleton

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from linter_data import CALIBRATION, MEASURED

#: Datasets without a config: name to the splits that its publisher made, or to all of its images.
READERS: dict[str, Callable[[], dict[str, Labels]]] = {
    "lp_mirror_mouse": CALIBRATION["lp_mirror_mouse"],
    "dpk_fly": CALIBRATION["dpk_fly"],
    "tiger_pose_val": MEASURED["tiger_pose"],
    "face68_youtube": MEASURED["face68_youtube"],
}
FRACTIONS = {"train": 0.8, "test": 0.2}
SEED = 0


@dataclass(frozen=True)
class Split:
    """Two splits of a dataset, whose images are PNG files named by the id of the image.

    Args:
        name: of the dataset.
        train: images and labels that are trained on.
        test: images and labels that are scored.
        made_by: how they were split.
        folder: where the images are, in ``train/`` and ``test/``.
    """

    name: str
    train: Labels
    test: Labels
    made_by: str
    folder: Path

    @property
    def skeleton(self) -> Skeleton:
        """Names of the keypoints."""
        return self.train.skeleton

    @property
    def subjects(self) -> int:
        """The largest number of subjects in an image of the training split."""
        return int(np.diff(self.train.start).max(initial=1))


def read_split(name: str, folder: Path) -> Split:
    """The training and test split of a dataset, with their images written to a folder.

    Args:
        name: a key of ``READERS``, or a config of conf/dataset.
        folder: for the images; those that are there are not written again.

    Raises:
        DataError: there is no such dataset, or it has no test split.
    """
    parts, made_by = parts_of(splits_of(name), name)
    train, test = (as_files(parts[part], folder / part) for part in ("train", "test"))
    return Split(name, train, test, made_by, folder)


def splits_of(name: str) -> dict[str, Labels]:
    """The splits of a dataset as its reader or its config makes them."""
    if name in READERS:
        try:
            return READERS[name]()
        except FileNotFoundError as error:
            raise DataError(f"{error.filename}: is missing. Set KPLAB_DATA to the folder that holds {name}.") from None
    known = sorted(path.stem for path in (conf_dir() / "dataset").glob("*.yaml"))
    if name not in known:
        raise DataError(f"there is no dataset '{name}'. Use one of: {', '.join([*READERS, *known])}.")
    from kplab.tasks import compose
    from kplab.tasks.wiring.datasets import read_splits

    return read_splits(compose("data", [f"dataset={name}"]).dataset)


def parts_of(splits: dict[str, Labels], name: str) -> tuple[dict[str, Labels], str]:
    """Splits ``train`` and ``test``, and how they were made.

    A dataset that has no test split is split by group, as far as it has several groups of several images; else its images
    are drawn one by one.
    """
    renamed = {{"training": "train", "testing": "test"}.get(part, part): labels for part, labels in splits.items()}
    if {"train", "test"} <= set(renamed):
        return {part: renamed[part] for part in ("train", "test")}, "the dataset's own"
    if len(renamed) > 1:
        raise DataError(f"dataset '{name}' has the splits {', '.join(renamed)}, but no train and test.")
    (labels,) = renamed.values()
    groups = len(set(labels.group))
    by = "group" if 1 < groups < len(labels) else "image"
    made = make_split(labels, FRACTIONS, by=by, seed=SEED)
    row = {str(image): i for i, image in enumerate(labels.names)}
    parts = {part: labels.select(sorted(row[image] for image in images)) for part, images in made.items()}
    return parts, f"80 : 20 by {by}, seed {SEED}"


def as_files(labels: Labels, folder: Path) -> Labels:
    """The same labels on PNG files ``<image id>.png`` of one folder, so that all systems decode the same pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{image_id:06d}.png" for image_id in labels.image_id.tolist()]
    unknown = {path.name for path in folder.iterdir()} - set(names)
    if unknown:
        raise DataError(f"{folder}: has images of another split, such as {min(unknown)}. Delete the folder.")
    for i, name in enumerate(names):
        if not (folder / name).is_file() and not cv2.imwrite(str(folder / name), labels.read(i)[..., ::-1]):
            raise DataError(f"{folder / name}: can't be written. Is the disk full?")
    return replace(labels, source=FileSource(folder, names), group=np.array(names, dtype=object), extras=None)


def write_config(split: Split, conf: Path) -> None:
    """Write both splits as COCO and a dataset config of them, which ``kplab train dataset=…`` reads.

    Args:
        conf: the folder of configs of the workspace.
    """
    sources = {}
    for part, labels in (("train", split.train), ("test", split.test)):
        annotations = coco.write(labels, split.folder / f"{part}.json")
        where = {"annotations": str(annotations), "images": str(split.folder / part)}
        sources[part] = {"_target_": "kplab.data.formats.coco.read", **where}
    content = {
        "name": split.name,
        "skeleton": split.skeleton.as_config(),
        "sources": sources,
        "split": None,
    }
    (conf / "dataset" / f"{split.name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
