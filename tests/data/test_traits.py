"""Traits of a dataset against poses whose sizes, angles and sides are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kplab.data.sources.arrays import ArraySource
from kplab.data.traits import (
    Traits,
    align,
    angular_spread,
    covered,
    distinct,
    mirrored,
    nearest,
    overlap,
    stillness,
    traits,
)
from kplab.errors import DataError
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

#: An L: no rotation makes its mirror image of it.
SHAPE = np.array([[0.0, 0.0], [0.0, -60.0], [30.0, 0.0], [0.0, -30.0]])


def labelled(xy: np.ndarray, image: list[int], images: int, size: tuple[int, int]) -> Labels:
    """Labels of grey images, without sides; boxes of 50 pixels."""
    k = xy.shape[1]
    skeleton = Skeleton("l", tuple("abcdefg"[:k]), (), tuple(range(k)), (0.05,) * k, "made up")
    box = np.tile([[60.0, 60.0, 110.0, 110.0]], (len(xy), 1))
    poses = Poses.make(xy, np.where(np.isfinite(xy[..., 0]), 2, 0), box=box, area=np.full(len(xy), 100.0))
    source = ArraySource([np.full((size[1], size[0], 3), 90, dtype=np.uint8)] * images)
    how = {"box_source": "made up", "area_source": "made up"}
    ids, sizes = np.arange(1, images + 1), np.tile([size], (images, 1))
    return make_labels(skeleton, source, ids, sizes, None, poses, np.array(image), np.arange(1, len(xy) + 1), **how)


def turned(angles: np.ndarray, shape: np.ndarray = SHAPE) -> np.ndarray:
    """(N, K, 2) the shape, rotated about (100, 100) by each angle, radians."""
    c, s = np.cos(angles), np.sin(angles)
    return shape @ np.stack([np.stack([c, s], 1), np.stack([-s, c], 1)], 1) + 100.0


def test_angles_are_found() -> None:
    """Up to a common one, which the mean shape has; a missing keypoint changes nothing."""
    angles = np.deg2rad(np.random.default_rng(0).uniform(-40, 40, 30))
    xy = turned(angles)
    xy[::3, 1] = np.nan
    found, shapes = align(xy)
    assert np.ptp(found - angles) < 1e-6
    complete = np.isfinite(xy[:, 1, 0])
    np.testing.assert_allclose(shapes[complete], shapes[complete][:1].repeat(complete.sum(), 0), atol=1e-9)
    assert angular_spread(np.deg2rad(np.linspace(-180, 179, 360))) == 180.0
    assert angular_spread(np.deg2rad(np.linspace(-20, 20, 401))) == pytest.approx(18, abs=0.2)


def test_mirrored_poses_are_told_from_others() -> None:
    """An L never looks like its mirror image; if half of the subjects are mirrored, all look like others."""
    rng = np.random.default_rng(1)
    xy = turned(rng.uniform(-3, 3, 60)) + rng.normal(0, 0.5, (60, 4, 2))
    same = np.arange(4)
    assert mirrored(align(xy)[1], same) > 5
    xy[::2, :, 0] = 200 - xy[::2, :, 0]
    assert mirrored(align(xy)[1], same) < 1.3
    assert np.isnan(mirrored(align(xy[:7])[1], same))
    # with left and right, the mirror image of a symmetric subject is itself
    symmetric = np.array([[-20.0, 0.0], [20.0, 0.0], [0.0, -60.0]])
    xy = turned(rng.uniform(-3, 3, 60), symmetric) + rng.normal(0, 0.5, (60, 3, 2))
    assert mirrored(align(xy)[1], np.array([1, 0, 2])) < 1.3
    assert mirrored(align(xy)[1], np.array([0, 1, 2])) > 5


def test_repeated_poses_count_once() -> None:
    xy = np.repeat(turned(np.deg2rad([0.0, 90.0, 180.0])), 20, 0)
    assert distinct(xy + np.random.default_rng(2).normal(0, 0.5, xy.shape), np.full(60, 60.0)) == 3


def test_distances_between_keypoints() -> None:
    assert nearest(turned(np.zeros(3))) == pytest.approx(30)
    assert np.isnan(nearest(np.array([[[1.0, 1.0], [np.nan, np.nan]]])))


def test_boxes_that_hulls_cover() -> None:
    """Of 10 boxes the one that shows most beside the keypoints counts; what has no box does not."""
    hull = np.tile([8.0, 8.0, 32.0, 32.0], (11, 1))
    tight = hull.copy()
    assert covered(tight, hull) == 1
    loose = tight.copy()
    loose[:2] = [-16.0, 8.0, 56.0, 32.0]  # three times as wide
    assert covered(loose, hull) == pytest.approx(1 / 3)
    flat = np.tile([8.0, 18.0, 32.0, 22.0], (11, 1))  # of an arm that is stretched
    assert covered(tight, flat) == 1
    assert covered(tight, np.tile([18.0, 18.0, 30.0, 22.0], (11, 1))) == 0.5
    assert covered(np.full((11, 4), np.nan), hull) == 1
    assert covered(np.tile([10.0, 10.0, 30.0, 30.0], (11, 1)), hull) == 1  # a hull that is larger than the box


def test_overlap_is_that_of_the_closest_subjects_of_an_image() -> None:
    """Of pairs of which 2 % overlap by more than the others, and of which 1 % do."""
    one = np.array([0.0, 0.0, 20.0, 10.0])
    shifted = {iou: one + np.array([x, 0, x, 0]) for iou, x in ((1 / 3, 10.0), (0.6, 5.0), (0.0, 500.0))}
    pairs = [shifted[1 / 3]] * 98 + [shifted[0.6]] * 2
    hull = np.stack([box for other in pairs for box in (one, other)])
    image = np.repeat(np.arange(100), 2)
    assert overlap(hull, image) == pytest.approx(0.6)
    assert overlap(np.r_[hull[:196], np.tile(hull[:2], (120, 1))], np.repeat(np.arange(218), 2)) == pytest.approx(1 / 3)
    assert overlap(np.stack([one, shifted[0.0], shifted[0.6]]), np.zeros(3, int)) == pytest.approx(0.6)
    assert overlap(hull, np.arange(200)) == 0  # each in an image of its own
    assert overlap(np.stack([one, shifted[0.0]]), np.zeros(2, int)) == 0
    assert overlap(np.zeros((0, 4)), np.zeros(0, int)) == 0


def test_stillness_of_images() -> None:
    rng = np.random.default_rng(3)
    image = rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)
    assert stillness([image, image, image]) == pytest.approx(1)
    assert abs(stillness([rng.integers(0, 255, (64, 64, 3)).astype(np.uint8) for _ in range(9)])) < 0.2
    assert stillness([image]) == 0


def test_a_dataset() -> None:
    """Three images with two subjects, one with none: sizes are those of the keypoints, and ignored subjects don't count."""
    labels = labelled(turned(np.zeros(6)), image=[0, 0, 1, 1, 2, 2], images=4, size=(240, 160))
    found = traits(labels)
    assert (found.images, found.subjects, found.most, found.usual) == (4, 6, 2, 2.0)
    assert (found.width, found.height, found.one_size) == (240.0, 160.0, True)
    assert (found.side, found.share, found.aspect) == (60.0, 0.25, 0.5)
    assert found.distinct == 1
    assert not found.colour
    ignored = replace(labels, poses=replace(labels.poses, ignore=np.array([False] + [True] * 5)))
    assert traits(ignored).subjects == 1
    assert set(found.record()) == set(Traits.__dataclass_fields__)


@pytest.mark.parametrize("count", [1, 2])
def test_few_keypoints(count: int) -> None:
    """With one keypoint the box tells the size; what can't be known is NaN."""
    labels = labelled(turned(np.zeros(2))[:, :count], image=[0, 1], images=2, size=(240, 160))
    found = traits(labels)
    assert found.keypoints == count
    assert found.side > 1
    assert np.isnan(found.mirrored)


def test_no_subject_is_an_error() -> None:
    labels: Labels = labelled(np.full((1, 3, 2), np.nan), image=[0], images=1, size=(64, 64))
    with pytest.raises(DataError, match="no labelled subject"):
        traits(labels)
