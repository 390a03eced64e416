"""What every head promises, whatever its family. Nothing here knows how a head lays out its targets or outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch.utils import _pytree as pytree

from contract.cases import OTHER, SIZE, Case
from kplab.errors import ModelError
from kplab.models.heads.base import Head
from kplab.ops import affine
from kplab.structures.poses import Poses
from strategies import poses

K = 17
few = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def tensors(tree: Any) -> list[torch.Tensor]:
    """All tensors of some outputs or losses."""
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def matched(predicted: Poses, true: Poses) -> tuple[np.ndarray, Poses]:
    """Largest keypoint error of each true instance, pixels, with the predictions assigned to them one to one."""
    assert len(predicted) >= len(true), f"{len(true)} instances, but only {len(predicted)} decoded"
    distance = np.linalg.norm(predicted.xy[:, None] - true.xy[None], axis=-1)
    # what was not found is NaN, and as wrong as can be
    cost = np.where(true.labelled, np.nan_to_num(distance, nan=1e6), 0).max(-1)
    rows, columns = linear_sum_assignment(cost)
    order = np.argsort(columns)
    return cost[rows[order], columns[order]], predicted[rows[order]]


def mirrored(p: Poses, head: Head, size: tuple[int, int]) -> Poses:
    """The poses of the mirrored view."""
    return p.transform(affine.mirror(size[0])).permute_keypoints(head.skeleton.flip_array)


@few
@given(data=st.data())
def test_what_is_encoded_is_decoded(sized: Case, data: st.DataObject) -> None:
    # a head that holds whole poses only is asked for whole ones half of the time
    whole = data.draw(st.booleans())
    drawn = [data.draw(poses(K, sized.size, max_instances=sized.most, all_labelled=whole)) for _ in range(2)]
    views = [sized.representable(view) for view in drawn]
    if whole:
        assert all(len(view) > 0 or len(all_) == 0 for view, all_ in zip(views, drawn, strict=True))
    decoded = sized.head.decode(sized.head.ideal(sized.head.encode(views, sized.size)))
    assert len(decoded) == 2
    for found, true in zip(decoded, views, strict=True):
        error, pairs = matched(found, true)
        assert (error <= sized.head.round_trip_error(true)).all(), f"off by {error.max():.3f} px"
        assert (pairs.keypoint_score[true.labelled] > 0.5).all()
        assert ((found.score >= 0) & (found.score <= 1)).all()
        assert (found.keypoint_score <= 1).all()
        assert (np.isfinite(found.xy).all(-1) | (found.keypoint_score == 0)).all()
        sure = (found.keypoint_score > 0.5).any(1)
        assert sure.sum() == len(true), f"{sure.sum()} sure instances for {len(true)}"


@few
@given(data=st.data())
def test_training_step_has_finite_losses_and_gradients(sized: Case, data: st.DataObject) -> None:
    views = [
        data.draw(poses(K, sized.size, max_instances=sized.most)),
        data.draw(poses(K, sized.size, 1, sized.most)),
    ]
    targets = sized.head.encode(views, sized.size)
    maps = sized.maps(2)
    sized.head.zero_grad()
    losses = sized.head.loss(sized.head(maps, targets), targets)
    total = torch.stack(list(losses.values())).sum()
    assert torch.isfinite(total)
    total.backward()
    gradients = [m.grad for m in maps if m.grad is not None]
    assert all(torch.isfinite(g).all() for g in gradients)
    assert any((g != 0).any() for g in gradients), "something is labelled, so the maps must be asked to change"


def test_perfect_outputs_cost_less_than_any_others(sized: Case) -> None:
    true = poses_at_random(3, sized.most, sized.size)
    targets = sized.head.encode(true, sized.size)
    ideal = sized.head.ideal(targets)
    random = torch.Generator().manual_seed(1)

    def cost(outputs: Any) -> float:
        return float(torch.stack(list(sized.head.loss(outputs, targets).values())).sum().detach())

    best = cost(ideal)
    for spread in (0.01, 0.3):
        other = pytree.tree_map(
            lambda t, s=spread: t + s * torch.randn(t.shape, generator=random) if t.is_floating_point() else t, ideal
        )
        assert cost(other) > best
    assert cost(sized.head(sized.maps(3), targets)) > best


@pytest.mark.parametrize("nothing", ["no instance", "no keypoint labelled", "ignored"])
def test_views_with_nothing_to_learn(case: Case, nothing: str) -> None:
    whole = poses_at_random(2, 1)
    views = {
        "no instance": [Poses.empty(K)] * 2,
        "no keypoint labelled": [Poses.make(np.full_like(p.xy, np.nan), box=p.box, area=p.area) for p in whole],
        "ignored": [Poses.make(p.xy, box=p.box, area=p.area, ignore=np.array([True])) for p in whole],
    }[nothing]
    targets = case.head.encode(views, SIZE)
    maps = case.maps(2)
    case.head.zero_grad()
    losses = case.head.loss(case.head(maps, targets), targets)
    total = torch.stack(list(losses.values())).sum()
    assert torch.isfinite(total)
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in case.head.parameters() if p.grad is not None)
    if case.head.max_poses == 1:
        # the region is given, so that nothing is to be said of where there is a subject
        assert float(total.detach()) == 0
        assert all((m.grad == 0).all() for m in maps if m.grad is not None)
    if nothing == "no instance":
        for found in case.head.decode(case.head.ideal(targets)):
            assert (found.score < 0.1).all()


@few
@given(data=st.data())
def test_what_is_said_of_an_unlabelled_keypoint_costs_nothing(case: Case, data: st.DataObject) -> None:
    one = data.draw(poses(K, SIZE, 1, 1, all_labelled=True))
    hidden = data.draw(st.integers(0, K - 1))
    x0, y0, x1, y1 = one.box[0]
    elsewhere = one.xy.copy()
    elsewhere[0, hidden] = [x0 + data.draw(st.floats(0, 1)) * (x1 - x0), y0 + data.draw(st.floats(0, 1)) * (y1 - y0)]
    visible = one.visible.copy()
    visible[0, hidden] = 0
    partly = Poses.make(one.xy, visible, box=one.box, area=one.area)
    moved = Poses.make(elsewhere, box=one.box, area=one.area)
    targets = case.head.encode([partly], SIZE)

    def cost(said: Poses) -> torch.Tensor:
        outputs = case.head.ideal(case.head.encode([said], SIZE))
        return torch.stack(list(case.head.loss(outputs, targets).values())).sum()

    assert cost(moved) == cost(one)


@few
@given(data=st.data())
def test_mirrored_views_mirror_back(sized: Case, data: st.DataObject) -> None:
    if not sized.head.flips:
        with pytest.raises(ModelError, match="no flip test"):
            sized.head.unflip(None)
        return
    views = [sized.representable(data.draw(poses(K, sized.size, 1, sized.most, all_labelled=True)))]
    ideal = sized.head.ideal(sized.head.encode(views, sized.size))
    back = sized.head.unflip(
        sized.head.ideal(sized.head.encode([mirrored(views[0], sized.head, sized.size)], sized.size))
    )
    for a, b in zip(tensors(sized.head.unflip(sized.head.unflip(ideal))), tensors(ideal), strict=True):
        assert torch.equal(a, b)
    plain, flipped = sized.head.decode(ideal)[0], sized.head.decode(back)[0]
    error, pairs = matched(flipped, views[0])
    reference = matched(plain, views[0])[1]
    assert (error <= sized.head.round_trip_error(views[0])).all(), f"off by {error.max():.3f} px"
    # the flip test averages both, so they must agree far better than the representation is exact
    assert np.abs(pairs.xy - reference.xy).max() < 1e-3


def test_heads_of_one_size_refuse_others(case: Case) -> None:
    """Views and maps of another size end in a message that names both sizes, and never in wrong coordinates."""
    if not case.head.fixed_size:
        return
    with pytest.raises(ModelError, match="128x192 pixels, but got 160x96"):
        case.head.encode(poses_at_random(1, 1, OTHER), OTHER)
    with pytest.raises(ModelError, match="views of 128x192 pixels"):
        case.head(Case(case.name, case.head, OTHER).maps(1))


def test_stated_errors_of_the_round_trip_are_small(case: Case) -> None:
    """A head states its own tolerance, but none that would hide a fault: a fiftieth of the subject's longer side, and a pixel."""
    for view in poses_at_random(3, case.most):
        longer = (view.box[:, 2:] - view.box[:, :2]).max(1)
        assert (case.head.round_trip_error(view) <= longer / 50 + 1).all()


def test_targets_lie_where_the_head_lies(case: Case) -> None:
    targets = case.head.encode(poses_at_random(1, 1), SIZE)
    assert all(t.device == case.head.device for t in tensors(targets))


def test_views_of_a_batch_do_not_mix(case: Case) -> None:
    views = poses_at_random(2, case.most)
    ahead = case.head.decode(case.head.ideal(case.head.encode(views, SIZE)))
    back = case.head.decode(case.head.ideal(case.head.encode(views[::-1], SIZE)))[::-1]
    for a, b in zip(ahead, back, strict=True):
        np.testing.assert_allclose(a.xy, b.xy, atol=1e-4)


def poses_at_random(views: int, instances: int, size: tuple[int, int] = SIZE) -> list[Poses]:
    """Fully labelled poses, each instance in a quarter of its own."""
    random = np.random.default_rng(7)
    half = np.array(size) / 2
    out = []
    for _ in range(views):
        start = np.array([[i % 2, i // 2] * half + half * 0.1 for i in range(instances)])
        xy = start[:, None] + random.uniform(0, 1, (instances, K, 2)) * half * 0.8
        box = np.concatenate([start, start + half * 0.8], axis=1)
        out.append(Poses.make(xy, box=box, area=np.full(instances, np.prod(half * 0.8))))
    return out
