"""Task-aligned assignment against the same rules, written as loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import complete_box_iou

from kplab.ops.assignment import Assignment, task_aligned

SIDE, STRIDE = 12, 8


def anchors() -> torch.Tensor:
    y, x = np.mgrid[:SIDE, :SIDE]
    return torch.tensor((np.stack([x, y], -1).reshape(-1, 2) + 0.5) * STRIDE, dtype=torch.float64)


def case(seed: int, views: int = 2, instances: int = 5) -> tuple[torch.Tensor, ...]:
    """Crowded boxes, some no larger than a cell, one row of padding; predictions around the truth."""
    random = np.random.default_rng(seed)
    start = random.uniform(0, 70, (views, instances, 2))
    true = np.concatenate([start, start + random.choice([5, 20, 45, 60], (views, instances, 2))], axis=-1)
    exists = np.ones((views, instances), dtype=bool)
    exists[0, -1] = False
    centre = anchors().numpy()
    follows = random.integers(0, instances, (views, len(centre)))
    boxes = np.take_along_axis(true, follows[..., None], axis=1) + random.normal(0, 4, (views, len(centre), 4))
    boxes = np.concatenate([np.minimum(boxes[..., :2], boxes[..., 2:] - 1), boxes[..., 2:]], axis=-1)
    score = random.uniform(0, 1, (views, len(centre)))
    return tuple(torch.tensor(a) for a in (score, boxes, true, exists))


def by_loops(
    score: np.ndarray, boxes: np.ndarray, centre: np.ndarray, true: np.ndarray, top_k: int, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """One view without padding."""
    overlap = complete_box_iou(torch.tensor(true), torch.tensor(boxes)).numpy().clip(0)
    claims: dict[int, list[int]] = {}
    for m, (x0, y0, x1, y1) in enumerate(true):
        grow_x, grow_y = max(0, least - (x1 - x0)) / 2, max(0, least - (y1 - y0)) / 2
        inside = [
            a for a, (x, y) in enumerate(centre)
            if x0 - grow_x < x < x1 + grow_x and y0 - grow_y < y < y1 + grow_y
        ]  # fmt: skip
        best = sorted(inside, key=lambda a, m=m: -(score[a] ** 0.5) * overlap[m, a] ** 6)[:top_k]
        for a in best:
            claims.setdefault(a, []).append(m)
    instance, wanted = np.full(len(score), -1), np.zeros(len(score))
    for a, who in claims.items():
        instance[a] = max(who, key=lambda m, a=a: overlap[m, a])
    for m in range(len(true)):
        mine = np.flatnonzero(instance == m)
        if len(mine):
            t = score[mine] ** 0.5 * overlap[m, mine] ** 6
            wanted[mine] = t / (t.max() + 1e-9) * overlap[m, mine].max()
    return instance, wanted


@pytest.mark.parametrize("seed", range(12))
def test_it_follows_the_rules(seed: int) -> None:
    score, boxes, true, exists = case(seed)
    got = task_aligned(score, boxes, anchors(), true, exists, top_k=6, least_side=16)
    positives = 0
    for b in range(len(score)):
        real = true[b][exists[b]].numpy()
        args = (score[b].numpy(), boxes[b].numpy(), anchors().numpy(), real)
        instance, wanted = by_loops(*args, 6, 16)
        # positives whose overlap is 0 tie, and loops and topk may break ties differently
        sure = wanted > 1e-12
        positives += int(sure.sum())
        np.testing.assert_array_equal(got.instance[b].numpy()[sure], instance[sure])
        # the two add 1e-7 to areas at different places, and the sixth power makes it six times as much
        np.testing.assert_allclose(got.score[b].numpy(), wanted, atol=1e-5)
    assert positives > 10


def checked(result: Assignment, exists: torch.Tensor, top_k: int) -> None:
    for b in range(len(result.instance)):
        for m in range(exists.shape[1]):
            mine = result.instance[b] == m
            assert exists[b, m] or not mine.any(), "padding was assigned"
            assert result.score[b][mine].sum() <= top_k
    assert (result.score[result.instance < 0] == 0).all()


@pytest.mark.parametrize("seed", range(6))
def test_invariants_of_every_assignment(seed: int) -> None:
    score, boxes, true, exists = case(seed)
    result = task_aligned(score, boxes, anchors(), true, exists, top_k=4, least_side=16)
    checked(result, exists, 4)
    for b, m in exists.nonzero().tolist():
        mine = result.instance[b] == m
        if mine.any():
            best = complete_box_iou(true[b, m][None], boxes[b][mine]).max().clamp_min(0)
            # 1e-9 in the denominator, next to the sixth power of the overlap
            assert float(result.score[b][mine].max()) == pytest.approx(float(best), abs=1e-3)


def test_the_first_of_equal_instances_gets_all_anchors() -> None:
    score, boxes, true, exists = case(3)
    true[:, 1] = true[:, 0]
    result = task_aligned(score, boxes, anchors(), true, exists, least_side=16)
    assert (result.instance == 0).any()
    assert not (result.instance == 1).any()


def test_a_box_between_cells_and_a_box_without_overlap_get_an_anchor() -> None:
    """Predictions far from all boxes: no overlap and a target score of 0, but an anchor is assigned to the box."""
    true = torch.tensor([[[10.0, 10, 11, 11], [40, 40, 70, 70]]], dtype=torch.float64)
    exists = torch.ones(1, 2, dtype=torch.bool)
    score = torch.full((1, SIDE**2), 0.5, dtype=torch.float64)
    boxes = torch.tensor([500.0, 500, 501, 501], dtype=torch.float64).expand(1, SIDE**2, 4)
    result = task_aligned(score, boxes, anchors(), true, exists, least_side=16)
    assert set(result.instance.unique().tolist()) == {-1, 0, 1}
    assert (result.instance == 1).sum() == 10
    assert (result.score == 0).all()
    without = task_aligned(score, boxes, anchors(), true, exists, least_side=0)
    assert not (without.instance == 0).any()


def test_an_anchor_on_the_border_is_outside() -> None:
    """Anchors are at 4, 12, 20: the box from 4 to 20 has one of them strictly inside."""
    true = torch.tensor([[[4.0, 4, 20, 20]]], dtype=torch.float64)
    score, boxes = torch.ones(1, SIDE**2, dtype=torch.float64), true.expand(1, SIDE**2, 4)
    result = task_aligned(score, boxes, anchors(), true, torch.ones(1, 1, dtype=torch.bool))
    assert (result.instance[0] == 0).nonzero().flatten().tolist() == [SIDE + 1]


def test_no_instances() -> None:
    score, boxes, true, exists = case(0)
    for empty in (task_aligned(score, boxes, anchors(), true[:, :0], exists[:, :0]),
                   task_aligned(score, boxes, anchors(), true, torch.zeros_like(exists))):  # fmt: skip
        assert (empty.instance == -1).all()
        assert (empty.score == 0).all()
