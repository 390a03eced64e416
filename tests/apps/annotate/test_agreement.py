"""Two annotators: sigmas that were put in come out, and what only one of them labelled is counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kplab.apps.annotate.agreement import agreement, report
from kplab.apps.annotate.instances import Instance, with_instances
from kplab.apps.annotate.opening import open_project
from kplab.apps.annotate.project import Change
from kplab.data.formats import coco
from kplab.errors import ConfigError, DataError
from kplab.metrics.sigmas import estimate_sigmas
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses

SIGMA = np.array([0.01, 0.02, 0.04, 0.08, 0.16])


class Nameless:
    """A source without pixels."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def name(self, i: int) -> str:
        return f"{i}.png"

    def read(self, i: int) -> np.ndarray:
        raise AssertionError("pixels are not needed")


def labels_of(skeleton, xy: np.ndarray, area: np.ndarray, visible: np.ndarray | None = None) -> Labels:
    """One instance in each image."""
    n = len(xy)
    poses = Poses.make(xy, visible, area=area, box=np.tile([0.0, 0, 100, 100], (n, 1)))
    size = np.tile([4000, 4000], (n, 1))
    return make_labels(
        skeleton, Nameless(n), np.arange(1, n + 1), size, None, poses, np.arange(n), np.arange(1, n + 1),
        box_source="annotation", area_source="annotation",
    )  # fmt: skip


def test_sigmas_are_those_of_one_annotator(skeleton) -> None:
    """Both err by a normal distribution of known width; the formula gives it back, for subjects of all sizes."""
    rng = np.random.default_rng(0)
    n = 4000
    area = rng.uniform(30, 300, n) ** 2
    true = rng.uniform(1000, 3000, (n, 5, 2))
    spread = SIGMA[None, :, None] * np.sqrt(area / 2)[:, None, None]  # along each of two axes
    first, second = (labels_of(skeleton, true + rng.normal(0, 1, true.shape) * spread, area) for _ in range(2))
    found = agreement(first, second)
    # the standard error of a standard deviation of 2 n values is 1 / sqrt(4 n) = 0.8 %
    assert found.table["sigma"].to_numpy() == pytest.approx(SIGMA, rel=0.03)
    assert (found.instances, found.only_first, found.only_second) == (n, 0, 0)
    repeated = np.stack([labels.poses.xy for labels in (first, second)])
    assert found.table["sigma"].to_numpy() == pytest.approx(estimate_sigmas(repeated, area).sigmas)


def test_distances_and_what_one_annotator_left_out(skeleton) -> None:
    xy = np.random.default_rng(1).uniform(100, 300, (3, 5, 2))
    other = xy + np.array([3.0, 4.0])
    seen, hidden = np.full((3, 5), 2), np.full((3, 5), 2)
    seen[0, 0], hidden[1, 1], hidden[2, 2] = 0, 0, 1
    found = agreement(
        labels_of(skeleton, xy, np.full(3, 10000.0), seen), labels_of(skeleton, other, np.full(3, 10000.0), hidden)
    )
    table = found.table.set_index("keypoint")
    assert table["n"].tolist() == [2, 2, 3, 3, 3]
    assert table["mean_px"].to_numpy() == pytest.approx(5)
    assert table["sigma"].to_numpy() == pytest.approx(np.sqrt(25 / 10000 / 2))
    assert table["only_second"].tolist() == [1, 0, 0, 0, 0]
    assert table["only_first"].tolist() == [0, 1, 0, 0, 0]
    assert table["visibility"].to_numpy() == pytest.approx([1, 1, 2 / 3, 1, 1])


def test_another_subject_is_not_a_disagreement(skeleton) -> None:
    """The annotators labelled different subjects of the second image: no distance is measured there."""
    xy = np.random.default_rng(1).uniform(100, 300, (2, 5, 2))
    other = xy + np.array([[[1.0, 0.0]], [[900.0, 0.0]]])
    found = agreement(labels_of(skeleton, xy, np.full(2, 10000.0)), labels_of(skeleton, other, np.full(2, 10000.0)))
    assert (found.images, found.instances, found.only_first, found.only_second) == (2, 1, 1, 1)
    assert found.table["mean_px"].to_numpy() == pytest.approx(1)


def test_a_second_annotator_starts_without_the_labels(files, tmp_path: Path, skeleton) -> None:
    with pytest.raises(ConfigError, match=r"no such file\. Label some images first: annotator=bob"):
        report(files.config("dataset=bugs", "agreement=bob"))
    before = files.labels.read_bytes()
    project = open_project(files.config("dataset=bugs", "annotator=bob"))
    assert project.counts.sum() == 0
    project.edit(2, [Change("w.1", None, Instance((10.0, 20.0, 2.0) + (0.0,) * 12))])
    project.save()
    with pytest.raises(DataError, match="no image that both annotators labelled"):
        report(files.config("dataset=bugs", "agreement=bob"))
    first = coco.read(files.labels, files.images, skeleton)
    numbers = [v for (x, y) in first.poses.xy[0].tolist() for v in (x + 3, y + 4, 2.0)]
    project.edit(0, [Change("w.2", None, Instance(tuple(numbers)))])
    project.close()
    assert files.labels.read_bytes() == before
    text = report(files.config("dataset=bugs", "agreement=bob"))
    assert "1 images, 1 instances of both" in text
    written = json.loads((tmp_path / "labels.bob.agreement.json").read_text())
    assert [row["mean_px"] for row in written["keypoints"]] == [5.0] * 5
    assert written["keypoints"][0]["sigma"] == pytest.approx(np.sqrt(25 / 3000 / 2), abs=1e-6)


def test_empty_images_are_kept_by_both(files, skeleton) -> None:
    """An image in which neither labelled anything takes no part."""
    labels = coco.read(files.labels, files.images, skeleton)
    assert agreement(labels, with_instances(labels, {})).images == 1
