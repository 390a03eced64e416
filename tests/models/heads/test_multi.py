"""Boxes of instances with and without labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kplab.errors import ModelError
from kplab.models.heads.multi import boxes_of, padded
from kplab.ops import affine
from kplab.structures.poses import Poses

NAN = np.nan
#: labelled with a box, labelled without, box only, neither, labelled with a box of no area
POSES = Poses.make(
    np.array(
        [
            [[10.0, 20.0], [50.0, 40.0]],
            [[10.0, 20.0], [NAN, NAN]],
            [[NAN, NAN], [NAN, NAN]],
            [[NAN, NAN], [NAN, NAN]],
            [[10.0, 20.0], [50.0, 20.0]],
        ]
    ),
    box=np.array([[0, 0, 60, 60], [NAN] * 4, [1, 2, 3, 4], [NAN] * 4, [10, 20, 50, 20]]),
)


def test_annotated_boxes_and_hulls_where_there_are_none() -> None:
    wanted = [[0, 0, 60, 60], [6, 16, 14, 24], [1, 2, 3, 4], [NAN] * 4, [2, 12, 58, 28]]
    np.testing.assert_allclose(boxes_of(POSES, "annotated", 0.2), wanted)


def test_hulls_of_keypoints_wherever_one_is_labelled() -> None:
    wanted = [[2, 12, 58, 48], [6, 16, 14, 24], [1, 2, 3, 4], [NAN] * 4, [2, 12, 58, 28]]
    np.testing.assert_allclose(boxes_of(POSES, "keypoints", 0.2), wanted)


def test_ignored_instances_keep_their_own_box() -> None:
    crowd = Poses.make(POSES.xy, box=POSES.box, ignore=np.ones(len(POSES), dtype=bool))
    np.testing.assert_allclose(boxes_of(crowd, "keypoints", 0.2), boxes_of(POSES, "annotated", 0.2))


def test_hulls_stay_tight_when_the_view_is_turned_and_turned_boxes_do_not() -> None:
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    xy = 50 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)[None]
    upright = Poses.make(xy, box=Poses.make(xy).extent())
    turned = upright.transform(affine.rotation(45))
    hull = boxes_of(turned, "keypoints", 0.0)[0]
    np.testing.assert_allclose(hull, turned.extent()[0] + [-4, -4, 4, 4])
    loose = boxes_of(turned, "annotated", 0.0)[0]
    # a circle of diameter 100 in a square: turned, the square's hull has twice its area
    assert np.prod(loose[2:] - loose[:2]) == pytest.approx(20000)
    assert np.prod(hull[2:] - hull[:2]) == pytest.approx(108**2)


def test_no_instances_and_wrong_words() -> None:
    assert boxes_of(Poses.empty(3)).shape == (0, 4)
    with pytest.raises(ModelError, match="annotated or keypoints, but got 'hull'"):
        boxes_of(POSES, "hull")


def test_rows_are_padded_to_the_longest_and_one_at_least() -> None:
    rows = [np.ones((2, 3)), np.zeros((0, 3)), 2 * np.ones((1, 3))]
    assert padded(rows, torch.device("cpu")).sum(-1).tolist() == [[3, 3], [0, 0], [6, 0]]
    flags = padded([np.zeros(0, dtype=bool)] * 2, torch.device("cpu"))
    assert flags.dtype == torch.bool
    assert flags.tolist() == [[False], [False]]
