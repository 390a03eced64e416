"""NMS against the same rule, written as loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kplab.ops.nms import box_nms
from kplab.ops.oks import oks, oks_nms, rescored, soft_oks_nms

SIGMAS = np.array([0.03, 0.1, 0.2])


def crowd(seed: int, count: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poses around few places, some keypoints missing; distinct scores; areas."""
    random = np.random.default_rng(seed)
    shape = random.uniform(0, 50, (5, 3, 2))
    xy = shape[random.integers(0, 5, count)] + random.normal(0, 3, (count, 3, 2))
    xy[random.uniform(size=(count, 3)) < 0.15] = np.nan
    return xy, random.permutation(count) / count, random.uniform(200, 2000, count)


@given(st.integers(0, 1000), st.sampled_from([0.3, 0.6, 0.9]))
def test_oks_nms_keeps_the_highest_scoring_of_similar_poses(seed: int, threshold: float) -> None:
    xy, score, area = crowd(seed)

    def alike(i: int, j: int) -> float:
        both = np.isfinite(xy[i]).all(-1) & np.isfinite(xy[j]).all(-1)
        if not both.any():
            return 0.0
        mean = np.full(1, (area[i] + area[j]) / 2)
        return float(oks(xy[i][None], xy[j][None], both[None], mean, SIGMAS)[0, 0])

    wanted: list[int] = []
    for i in np.argsort(-score):
        if all(alike(i, j) <= threshold for j in wanted):
            wanted.append(int(i))
    assert oks_nms(xy, score, area, SIGMAS, threshold).tolist() == wanted
    assert oks_nms(xy, score, area, SIGMAS, threshold, max_poses=3).tolist() == wanted[:3]


@pytest.mark.parametrize("seed", range(5))
def test_box_nms_keeps_the_highest_scoring_of_overlapping_boxes(seed: int) -> None:
    random = np.random.default_rng(seed)
    start = random.uniform(0, 40, (60, 2))
    boxes = np.concatenate([start, start + random.uniform(10, 30, (60, 2))], axis=1)
    score = random.permutation(60) / 60
    wanted: list[int] = []
    for i in np.argsort(-score):
        overlaps = []
        for j in wanted:
            sides = np.minimum(boxes[i, 2:], boxes[j, 2:]) - np.maximum(boxes[i, :2], boxes[j, :2])
            common = sides.clip(0).prod()
            overlaps.append(
                common / (np.prod(boxes[i, 2:] - boxes[i, :2]) + np.prod(boxes[j, 2:] - boxes[j, :2]) - common)
            )
        if all(o <= 0.5 for o in overlaps):
            wanted.append(int(i))
    assert box_nms(torch.tensor(boxes), torch.tensor(score), 0.5).tolist() == wanted
    assert 1 < len(wanted) < 60


def test_oks_nms_keeps_two_subjects_with_the_same_box() -> None:
    """Two subjects that face each other: the same box, keypoints swapped."""
    xy = np.array([[[0.0, 0], [10, 0], [10, 30]], [[10.0, 30], [0, 30], [0, 0]], [[0.1, 0], [10, 0], [10, 30]]])
    boxes = torch.tensor([[0.0, 0, 10, 30]], dtype=torch.float64).expand(3, 4)
    score = np.array([0.9, 0.8, 0.7])
    assert box_nms(boxes, torch.tensor(score), 0.7).tolist() == [0]
    assert oks_nms(xy, score, np.full(3, 300.0), SIGMAS, 0.9).tolist() == [0, 1]


def test_of_equal_poses_the_first_is_kept_and_empty_input_gives_empty_output() -> None:
    xy = np.zeros((3, 3, 2))
    assert oks_nms(xy, np.ones(3), np.ones(3), SIGMAS, 0.5).tolist() == [0]
    assert oks_nms(np.full((2, 3, 2), np.nan), np.ones(2), np.ones(2), SIGMAS, 0.5).tolist() == [0, 1]
    assert oks_nms(xy[:0], np.ones(0), np.ones(0), SIGMAS, 0.5).shape == (0,)


@given(st.integers(0, 1000), st.sampled_from([0.3, 0.9]))
def test_soft_nms_reduces_scores_step_by_step(seed: int, threshold: float) -> None:
    """The rule as a loop: the highest score is selected, and the scores of similar poses are reduced."""
    xy, score, area = crowd(seed, 15)
    value, left, wanted = score.copy(), list(range(15)), []
    while left:
        best = max(left, key=lambda i: (value[i], -i))
        left.remove(best)
        wanted.append(best)
        for i in left:
            both = np.isfinite(xy[i]).all(-1) & np.isfinite(xy[best]).all(-1)
            mean = np.full(1, (area[i] + area[best]) / 2)
            alike = float(oks(xy[i][None], xy[best][None], both[None], mean, SIGMAS)[0, 0]) if both.any() else 0.0
            value[i] *= np.exp(-(alike**2) / threshold)
    order, soft = soft_oks_nms(xy, score, area, SIGMAS, threshold)
    assert order.tolist() == wanted
    np.testing.assert_allclose(soft, value[wanted])
    assert soft_oks_nms(xy, score, area, SIGMAS, threshold, max_poses=4)[0].tolist() == wanted[:4]
    shuffled = np.random.default_rng(seed).permutation(15)
    again, _ = soft_oks_nms(xy[shuffled], score[shuffled], area[shuffled], SIGMAS, threshold)
    assert shuffled[again].tolist() == wanted


def test_nms_at_a_threshold_of_1_keeps_every_pose() -> None:
    xy, score, area = crowd(3)
    assert len(oks_nms(xy, score, area, SIGMAS, 1.0)) == len(xy)


def test_rescoring_multiplies_by_the_mean_score_of_the_keypoints_above_the_threshold() -> None:
    keypoints = np.array([[0.9, 0.3, 0.1], [0.1, 0.2, 0.0]])
    np.testing.assert_allclose(rescored(np.array([0.5, 1.0]), keypoints, 0.2), [0.5 * 0.6, 0])
