"""The whole network: what goes in, what comes out, and what predicting leaves as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from kplab.errors import ModelError
from kplab.models.backbone import Backbone
from kplab.models.heads.base import Head, HeadInputs
from kplab.models.heads.heatmap import HeatmapHead
from kplab.models.heads.simcc import SimCCHead
from kplab.models.necks import FPN
from kplab.models.pose_model import PoseModel
from kplab.ops.turning import turn
from kplab.structures.poses import Poses
from kplab.structures.sample import Batch
from kplab.structures.skeleton import Skeleton

SIZE = (64, 96)
MIRRORED = Skeleton("three", ("nose", "left", "right"), (), (0, 2, 1), (0.05,) * 3, "made up")


def model(head: type[Head] = HeatmapHead, channels_last: bool = True, name: str = "resnet10t") -> PoseModel:
    torch.manual_seed(0)
    backbone = Backbone(name, False, [1, 2, 3, 4])
    neck = FPN(backbone.channels, backbone.strides, 16)
    made = head(HeadInputs(neck.channels, neck.strides, SIZE, MIRRORED))
    return PoseModel(backbone, neck, made, SIZE, channels_last).eval()


def batch(images: torch.Tensor) -> Batch:
    n = len(images)
    return Batch(
        images, [Poses.empty(3)] * n, np.tile(np.eye(3), (n, 1, 1)), np.arange(n), np.zeros((n, 4)), np.ones(n)
    )


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, 96, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels_last", [True, False])
def test_images_are_normalised_as_torchvision_does(images: torch.Tensor, channels_last: bool) -> None:
    m = model(channels_last=channels_last)
    seen: list[torch.Tensor] = []
    m.backbone.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    m(images)
    wanted = tv.normalize(tv.to_dtype(images, torch.float32, scale=True), m.backbone.mean, m.backbone.std)
    assert torch.allclose(seen[0], wanted, atol=1e-6)
    assert seen[0].is_contiguous(memory_format=torch.channels_last) is channels_last


def test_layout_in_memory_changes_no_number(images: torch.Tensor) -> None:
    assert torch.allclose(model(channels_last=True)(images), model(channels_last=False)(images), atol=1e-5)


@pytest.mark.parametrize("head", [HeatmapHead, SimCCHead])
def test_flip_test_makes_the_model_symmetric(images: torch.Tensor, head: type[Head]) -> None:
    """Predicting the mirrored view gives the mirrored prediction, with left and right renamed, to 1e-3 px."""
    m = model(head)
    plain = m.predict(batch(images), flip_test=True)
    mirrored = m.predict(batch(images.flip(-1)), flip_test=True)
    without = m.predict(batch(images))
    moved = 0.0
    for a, b, c in zip(plain, mirrored, without, strict=True):
        back = b.xy[:, [0, 2, 1]] * [-1, 1] + [64, 0]
        assert np.abs(a.xy - back).max() < 1e-3
        assert a.keypoint_score == pytest.approx(b.keypoint_score[:, [0, 2, 1]], abs=1e-5)
        moved = max(moved, np.abs(a.xy - c.xy).max())
    assert moved > 0.1, "the flip test changed nothing, so that the agreement proves nothing"


SQUARE = (64, 64)


def turned_model(turns: Any, head: type[Head] = HeatmapHead) -> PoseModel:
    torch.manual_seed(0)
    backbone = Backbone("resnet10t", False, [1, 2, 3, 4])
    neck = FPN(backbone.channels, backbone.strides, 16)
    made = head(HeadInputs(neck.channels, neck.strides, SQUARE, MIRRORED))
    return PoseModel(backbone, neck, made, SQUARE, turns=turns).eval()


def test_all_quarter_turns_make_the_model_symmetric(images: torch.Tensor) -> None:
    """Predicting a view that is turned by 90 degrees gives the turned prediction, to 1e-3 px."""
    square, m = images[..., :64, :], turned_model((90.0, 180.0, 270.0))
    for a, b, c in zip(
        m.predict(batch(square)),
        m.predict(batch(square.rot90(-1, (-2, -1)))),
        turned_model(()).predict(batch(square)),
        strict=True,
    ):
        assert b.xy == pytest.approx(np.stack([64 - a.xy[..., 1], a.xy[..., 0]], -1), abs=1e-3)
        assert b.keypoint_score == pytest.approx(a.keypoint_score, abs=1e-5)
        assert np.abs(a.xy - c.xy).max() > 0.1, "the turns changed nothing, so that the agreement proves nothing"


def test_maps_of_turned_views_are_averaged_where_these_show_something(images: torch.Tensor) -> None:
    m = turned_model((45.0,))
    square = images[..., :64, :].float()
    plain, there = m(square), m(turn(square, 45.0))
    outputs, _ = m.outputs(square)
    assert torch.equal(outputs[..., 0, 0], plain[..., 0, 0])  # a corner, which the turned view does not show
    back = turn(there, -45.0)
    assert torch.allclose(outputs[..., 8, 8], (plain + back)[..., 8, 8] / 2, atol=1e-6)
    assert not torch.allclose(plain[..., 8, 8], back[..., 8, 8], atol=1e-4)


def test_turns_are_left_out_on_demand(images: torch.Tensor) -> None:
    m, plain = turned_model((90.0,)), turned_model(())
    square = images[..., :64, :]
    assert not torch.equal(m.outputs(square)[0], plain.outputs(square)[0])
    m.without_turns()
    assert torch.equal(m.outputs(square)[0], plain.outputs(square)[0])


def test_heads_without_heatmaps_are_not_turned() -> None:
    with pytest.raises(ModelError, match=r"model.turns is \[20.0\].*SimCCHead.*model.turns=\[\]"):
        turned_model((20.0,), SimCCHead)


@pytest.mark.parametrize("turns", [45, "45", [True], ["a"], [float("inf")], {"a": 1}])
def test_turns_are_a_list_of_degrees(turns: object) -> None:
    assert turned_model(None).turns == ()
    with pytest.raises(ModelError, match="but is a list of degrees"):
        turned_model(turns)


def test_flip_test_averages_both_outputs(images: torch.Tensor) -> None:
    m = model()
    seen: list[torch.Tensor] = []
    m.head.decode = lambda outputs: seen.append(outputs) or []  # type: ignore
    m.predict(batch(images), flip_test=True)
    with torch.inference_mode():
        wanted = (m(images) + m(images.flip(-1)).flip(-1)[:, [0, 2, 1]]) / 2
    assert torch.allclose(seen[0], wanted, atol=1e-6)


def test_predicting_leaves_the_model_as_it_was(images: torch.Tensor) -> None:
    m = model().train()
    before = {k: v.clone() for k, v in m.state_dict().items()}
    trained = m.predict(batch(images))
    assert m.training
    assert all(torch.equal(v, before[k]) for k, v in m.state_dict().items())
    m.eval()
    for a, b in zip(trained, m.predict(batch(images)), strict=True):
        assert np.array_equal(a.xy, b.xy)


@pytest.mark.parametrize("head", [HeatmapHead, SimCCHead])
def test_outputs_are_float32_in_mixed_precision(images: torch.Tensor, head: type[Head]) -> None:
    m = model(head)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = m(images)
        (poses, *_) = m.predict(batch(images), flip_test=True)
    tensors = list(outputs.values()) if isinstance(outputs, dict) else [outputs]
    assert all(t.dtype == torch.float32 for t in tensors)
    assert np.isfinite(poses.xy).all()


def test_sizes_that_do_not_fit_are_refused_with_the_nearest_that_does() -> None:
    backbone = Backbone("resnet10t", False, [1, 2, 3, 4])
    neck = FPN(backbone.channels, backbone.strides, 16)
    head = HeatmapHead(HeadInputs(neck.channels, neck.strides, (100, 96), MIRRORED))
    with pytest.raises(ModelError, match=r"size \[100, 96\].*'resnet10t'.*multiples of 32. Use size=\[96, 96\]"):
        PoseModel(backbone, neck, head, (100, 96))


def test_weights_can_be_saved_and_loaded(images: torch.Tensor) -> None:
    """Statistics and permutations are the config's, not the checkpoint's."""
    a, b = model(), model()
    with torch.no_grad():
        for p in b.parameters():
            p.add_(0.01)
    b.load_state_dict(a.state_dict())
    assert torch.equal(a(images), b(images))
    assert not [k for k in a.state_dict() if k in ("mean", "std", "head.flip")]
