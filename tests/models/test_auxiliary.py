"""Auxiliary heatmaps: their targets and loss cell by cell, peaks that keypoints snap to, and what they leave as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from kplab.errors import ConfigError, KplabError, ModelError
from kplab.models.auxiliary import AuxiliaryHeatmaps
from kplab.models.heads.base import HeadInputs
from kplab.models.pose_model import PoseModel, leaves, predicting
from kplab.ops.heatmap import gaussian_map
from kplab.structures.poses import Poses
from kplab.structures.sample import Batch
from kplab.structures.skeleton import Skeleton
from kplab.tasks import compose
from kplab.tasks.wiring.models import build_model

THREE = Skeleton("three", ("nose", "left", "right"), (), (0, 2, 1), (0.05,) * 3, "made up")
SIZE, STRIDE = (64, 96), 4
NETWORK = [
    "dataset=synthetic_person", "backbone=resnet10_half", "neck.channels=16", "regions=image", f"size={list(SIZE)}",
]  # fmt: skip
ON = "model.auxiliary={weight:2.0,sigma:1.0}"
#: Random networks have low peaks, and all of them count here.
SNAPS = "model.auxiliary={sigma:1.0,snap:9,snap_score:0.0}"
QUERY = [
    "neck.levels=[8]", "head.width=32", "head.heads=2", "head.encoder_layers=1", "head.decoder_layers=1", "head.feedforward=32",
]  # fmt: skip
FAMILIES = {"yolo": ["neck.levels=[8,16,32]"], "rle": [], "query": QUERY}


def auxiliary(one_pose: bool = False, **options: Any) -> AuxiliaryHeatmaps:
    return AuxiliaryHeatmaps(HeadInputs([8], [STRIDE], SIZE, THREE), one_pose, **options)


def network(*more: str) -> PoseModel:
    torch.manual_seed(0)
    model = build_model(compose("train", [*NETWORK, *more]), pretrained=False).eval()
    assert isinstance(model, PoseModel)
    return model


def batch(poses: list[Poses] | None = None, views: int = 2) -> Batch:
    images = torch.randint(0, 256, (views, 3, SIZE[1], SIZE[0]), generator=torch.Generator().manual_seed(0))
    empty = [Poses.empty(17)] * views
    eye = np.tile(np.eye(3), (views, 1, 1))
    return Batch(images.byte(), poses or empty, eye, np.arange(views), np.zeros((views, 4)), np.ones(views))


def person(seed: int) -> Poses:
    xy = np.random.default_rng(seed).uniform(8, 56, (1, 17, 2))
    return Poses.make(xy, box=[[4, 4, 60, 60]], area=[2000.0])


def crowd() -> list[Poses]:
    """Two views: two subjects with an unlabelled keypoint, one without a box and one outside; a crowd and nothing else."""
    xy = np.array(
        [
            [[10.3, 20.1], [40.2, 33.0], [np.nan, np.nan]],
            [[22.0, 24.5], [np.nan, np.nan], [30.7, 81.0]],
            [[-5.0, 50.0], [300.0, 10.0], [12.0, 60.0]],
            [[50.0, 50.0], [51.0, 70.0], [60.0, 80.0]],
        ]
    )
    nothing = [np.nan] * 4
    box = np.array([[5, 10, 45, 40], [15, 20, 35, 90], nothing, [40, 40, 64, 96]])
    ignore = np.array([False, False, False, True])
    every = Poses.make(xy, box=box, ignore=ignore)
    return [every, every[[3]]]


def by_hand(maps: np.ndarray, poses: list[Poses], sigma: float, weight: float, one_pose: bool) -> float:
    """The loss, cell by cell."""
    total, count = 0.0, 0
    views, keypoints, height, width = maps.shape
    for i in range(views):
        for k in range(keypoints):
            true = [p.xy[k] / STRIDE for p in _each(poses[i]) if p.visible[k] and not p.ignore]
            reach = 3 * sigma
            count += sum(-reach <= x <= width + reach and -reach <= y <= height + reach for x, y in true)
            hidden = [p.box / STRIDE for p in _each(poses[i]) if p.ignore or not p.visible[k]]
            for row in range(height):
                for column in range(width):
                    squared = [(column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 for x, y in true]
                    target = max((np.exp(-d / (2 * sigma**2)) for d in squared), default=0.0)
                    error = maps[i, k, row, column] - target
                    masked = any(
                        np.floor(x0 - reach) <= column <= np.floor(x1 + reach)
                        and np.floor(y0 - reach) <= row <= np.floor(y1 + reach)
                        for x0, y0, x1, y1 in hidden
                    )
                    if one_pose:
                        masked = not true
                    if masked and (error > 0 or min(squared, default=np.inf) > reach**2):
                        continue
                    total += error**2
    return weight * total / (np.pi * sigma**2 * max(count, 1))


def _each(poses: Poses) -> list[Any]:
    from types import SimpleNamespace

    return [
        SimpleNamespace(xy=poses.xy[n], visible=poses.visible[n], ignore=poses.ignore[n], box=poses.box[n])
        for n in range(len(poses))
    ]


@pytest.mark.parametrize("one_pose", [False, True])
@pytest.mark.parametrize("sigma", [1.0, 2.3])
def test_the_loss_is_the_formula_cell_by_cell(one_pose: bool, sigma: float) -> None:
    poses = [crowd()[0][[1, 3]], Poses.empty(3)] if one_pose else crowd()
    made = auxiliary(one_pose, sigma=sigma, weight=0.7)
    maps = torch.randn(2, 3, 24, 16, generator=torch.Generator().manual_seed(1)) * 0.5
    got = made.loss(maps, made.encode(poses, SIZE))
    assert float(got) == pytest.approx(by_hand(maps.double().numpy(), poses, sigma, 0.7, one_pose), rel=1e-5)


def test_true_heatmaps_cost_nothing_and_zeros_cost_the_weight() -> None:
    made = auxiliary(weight=0.7, sigma=1.5)
    poses = Poses.make(np.array([[[20.0, 30.0], [41.0, 50.0], [33.0, 61.0]]]))
    targets = made.encode([poses], SIZE)
    wanted, masked = made.target(targets, (16, 24))
    assert not masked.any()
    assert float(made.loss(wanted, targets)) == 0
    # the energy of a Gaussian is pi sigma**2, of sampled cells to 1e-3
    assert float(made.loss(torch.zeros_like(wanted), targets)) == pytest.approx(0.7, rel=1e-3)


def test_of_crowds_and_unlabelled_keypoints_nothing_is_learnt() -> None:
    made = auxiliary(sigma=1.0)
    unlabelled = Poses.make(np.full((1, 3, 2), np.nan), box=[[8.0, 8.0, 40.0, 60.0]])
    ignored = Poses.make(np.ones((1, 3, 2)) * 20, box=[[8.0, 8.0, 40.0, 60.0]], ignore=np.array([True]))
    for poses in (unlabelled, ignored):
        maps = torch.randn(1, 3, 24, 16).requires_grad_()
        made.loss(maps, made.encode([poses], SIZE)).backward()
        assert maps.grad is not None
        # cells 2 to 10 and 2 to 15 are the box; 3 cells around them are within reach of its keypoints
        assert (maps.grad[..., 0:19, 0:14] == 0).all()
        assert (maps.grad[..., 19:, :] != 0).all()


def test_targets_move_with_their_gradient() -> None:
    """A cascade that is trained through its boxes moves the targets: the gradient is that of finite differences."""
    made = auxiliary(True, sigma=1.5)
    targets = made.encode([Poses.make(np.array([[[20.3, 30.1], [41.0, 50.7], [33.3, 61.9]]]))], SIZE)
    targets = {n: t.double() if t.is_floating_point() else t for n, t in targets.items()}
    maps = torch.rand(1, 3, 24, 16, dtype=torch.float64)
    zero = torch.zeros(1, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda by: made.loss(maps, made.shift_targets(targets, by)), zero)


def test_keypoints_snap_to_the_exact_peaks() -> None:
    """Peaks of 0.8 height at known places; two of one keypoint. Guesses near one move to it, others stay."""
    made = auxiliary(snap=6.0, snap_score=0.3, sigma=1.5)
    true = torch.tensor([[[20.3, 30.9], [45.2, 60.1], [30.0, 45.0]], [[44.0, 77.7], [15.5, 15.2], [30.0, 45.0]]])
    maps = gaussian_map(true / STRIDE, 1.5, (16, 24)).amax(0)
    maps = maps * torch.tensor([0.8, 0.8, 0.2])[:, None, None]
    off = np.array([[[3.0, -4.0], [-5.0, 3.0], [1.0, 1.0]], [[5.0, 3.0], [7.0, 0.0], [0.0, 0.0]]])
    guess = true.double().numpy() + off
    guess[1, 2] = np.nan
    found = Poses.make(guess, score=np.array([0.9, 0.4]), box=np.array([[0, 0, 60, 90.0]] * 2))
    empty, moved = made.snapped([Poses.empty(3), found], torch.stack([maps, maps]))
    assert len(empty) == 0
    reached = np.array([[True, True, False], [True, False, False]])  # of the others a peak is 0.2 high, or 7 px away
    assert np.abs(moved.xy - true.double().numpy())[reached].max() < 0.05
    assert np.array_equal(moved.xy[~reached], guess[~reached], equal_nan=True)
    assert np.array_equal(moved.score, found.score)
    assert np.array_equal(moved.box, found.box)


def test_without_them_nothing_changes() -> None:
    """Null is no key of the config: the same weights, random numbers, losses and predictions, to the bit."""
    off = network("head=yolo")
    drawn = torch.get_rng_state()
    config = compose("train", [*NETWORK, "head=yolo"])
    del config.model.auxiliary  # the config of an older run
    torch.manual_seed(0)
    older = build_model(config, pretrained=False).eval()
    assert torch.equal(drawn, torch.get_rng_state())
    on = network("head=yolo", ON)
    assert list(off.state_dict()) == list(older.state_dict())
    assert set(on.state_dict()) - set(off.state_dict()) == {
        f"auxiliary.net.{part}.{kind}" for part in ("hidden.0", "last") for kind in ("weight", "bias")
    }
    assert all(torch.equal(value, on.state_dict()[name]) for name, value in off.state_dict().items())
    given = batch([person(0), person(1)])
    with predicting(off):
        targets = off.head.encode(given.poses, given.size)
        wanted = off.head.loss(off(given.images, targets), targets)
        got, more = off.losses(given), on.losses(given)
    assert list(got) == list(wanted)
    assert all(torch.equal(got[name], value) for name, value in wanted.items())
    assert float(more.pop("auxiliary_heatmap")) > 0
    assert all(torch.equal(more[name], value) for name, value in wanted.items())
    # without snap they are not computed in prediction
    assert len(leaves(on.outputs(given.images))) == len(leaves(off(given.images)))
    for a, b in zip(off.predict(given), on.predict(given), strict=True):
        assert np.array_equal(a.xy, b.xy)


@pytest.mark.parametrize("family", ["rle", "yolo"])
def test_flip_test_averages_the_heatmaps(family: str) -> None:
    """Predicting the mirrored view gives the mirrored prediction, to 1e-3 px, when keypoints snap as well."""
    model = network(f"head={family}", *FAMILIES[family], SNAPS)
    flip = list(model.skeleton.flip)
    views = batch()
    mirrored = batch()
    mirrored.images = views.images.flip(-1)
    snapped = 0
    for a, b in zip(model.predict(views, flip_test=True), model.predict(mirrored, flip_test=True), strict=True):
        back = b.xy[:, flip] * [-1, 1] + [SIZE[0], 0]
        assert len(a) == len(b)
        order = [int(np.abs(back - xy).sum((1, 2)).argmin()) for xy in a.xy]
        assert np.abs(a.xy - back[order]).max() < 1e-3
    assert model.auxiliary is not None
    with predicting(model):
        regressed = model.head.decode(model.outputs(views.images, True)[0])
    for a, b in zip(model.predict(views, flip_test=True), regressed, strict=True):
        snapped += int((np.abs(a.xy - b.xy) > 0.1).sum())
    assert snapped > 0, "nothing snapped, so that the agreement proves nothing"


def test_a_cascade_has_them_for_its_pose_model() -> None:
    model: Any = build_model(
        compose("train", [*NETWORK, "model=cascade", "head=rle", "detector.size=[64,96]", "model.crop=[64,64]", ON]),
        pretrained=False,
    ).eval()
    assert model.detector.auxiliary is None
    assert model.subject.auxiliary.one_pose
    losses = model.losses(batch([person(0), Poses.empty(17)]))
    assert float(losses["auxiliary_heatmap"].detach()) > 0
    nothing = model.losses(batch())["auxiliary_heatmap"]
    nothing.backward()
    assert float(nothing.detach()) == 0


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("true", ConfigError, "model.auxiliary is True. Use null, or a group of keys"),
        ("{width:3}", ConfigError, "model.auxiliary: .*'width'.*weight, sigma, level, snap, snap_score"),
        ("{weight:wide}", ConfigError, "model.auxiliary.weight is 'wide'"),
        ("{weight:0}", ModelError, "needs weight and sigma > 0.*got 0"),
        ("{level:9}", ModelError, "reads map 9.*Change model.auxiliary.level"),
    ],
)
def test_wrong_options_are_refused(value: str, error: type[KplabError], message: str) -> None:
    with pytest.raises(error, match=message):
        network("head=yolo", f"model.auxiliary={value}")


def test_a_config_cannot_name_another_class() -> None:
    assert type(network("head=rle", "model.auxiliary={_target_:os.system}").auxiliary) is AuxiliaryHeatmaps


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_their_loss_falls_in_training(family: str) -> None:
    """Two views are learnt beside each head: the loss falls below half of that of empty heatmaps."""
    model = network(f"head={family}", *FAMILIES[family], ON).train()
    given = batch([person(0), person(1)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    values = []
    for _ in range(25):
        losses = model.losses(given)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        values.append(float(losses["auxiliary_heatmap"].detach()))
    assert values[0] == pytest.approx(2.0, rel=0.1)
    assert values[-1] < 1.0
