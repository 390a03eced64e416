"""Weights of a whole model: all of them, or an error that says which don't fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import KeypointRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor

from kplab.errors import ModelError
from kplab.models.backbone import Backbone
from kplab.models.heads import rcnn_parts as parts
from kplab.models.heads.base import HeadInputs
from kplab.models.heads.rcnn import RCNNHead
from kplab.models.necks import FPN
from kplab.models.pose_model import PoseModel
from kplab.models.weights import load_model_weights
from kplab.structures.skeleton import Skeleton

CONF = Path(__file__).resolve().parents[2] / "conf"


def make(skeleton: str = "coco17", pool: bool = True) -> PoseModel:
    """A small Keypoint R-CNN, laid out as torchvision's."""
    backbone = Backbone("resnet18", False, [1, 2, 3, 4])
    neck = FPN(backbone.channels, backbone.strides, 256, norm=False, pool=pool)
    names = Skeleton.from_config(yaml.safe_load((CONF / "skeleton" / f"{skeleton}.yaml").read_text()))
    head = RCNNHead(
        HeadInputs(neck.channels, neck.strides, (64, 64), names), box_width=8, keypoint_layers=1,
        keypoint_width=8,
    )  # fmt: skip
    return PoseModel(backbone, neck, head, (64, 64))


@pytest.fixture(scope="module")
def torchvisions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as torchvision writes them."""
    theirs = KeypointRCNN(
        _resnet_fpn_extractor(resnet18(weights=None), 5),
        box_head=TwoMLPHead(256 * 49, 8),
        box_predictor=parts.FastRCNNPredictor(8, 2),
        keypoint_head=KeypointRCNNHeads(256, (8,)),
        keypoint_predictor=KeypointRCNNPredictor(8, 17),
    )
    path = tmp_path_factory.mktemp("weights") / "theirs.pth"
    torch.save(theirs.state_dict(), path)
    return path


def same(a: nn.Module, b: nn.Module) -> bool:
    """Whether all weights are equal."""
    one, other = a.state_dict(), b.state_dict()
    return all(torch.equal(one[k], other[k]) for k in one)


def test_a_checkpoint_fills_the_model(tmp_path: Path) -> None:
    """Its model's weights alone: those of the optimiser are left."""
    source, target = make(), make()
    assert not same(source, target)
    state = {f"model.{k}": v for k, v in source.state_dict().items()}
    torch.save({"state_dict": {**state, "other.weight": torch.ones(1)}, "epoch": 3}, tmp_path / "a.ckpt")
    load_model_weights(target, tmp_path / "a.ckpt")
    assert same(source, target)


@pytest.mark.parametrize("old", [False, True])
def test_torchvisions_weights_all_find_their_place(torchvisions: Path, old: bool, tmp_path: Path) -> None:
    """In today's names and in those of the published files, and each once: the sum over all of them is kept."""
    state = torch.load(torchvisions)
    path = torchvisions
    if old:
        for kind in ("inner", "layer"):
            for i in range(4):
                for end in ("weight", "bias"):
                    key = f"backbone.fpn.{kind}_blocks.{i}"
                    state[f"{key}.{end}"] = state.pop(f"{key}.0.{end}")
        for end in ("weight", "bias"):
            state[f"rpn.head.conv.{end}"] = state.pop(f"rpn.head.conv.0.0.{end}")
        state = {k: v for k, v in state.items() if "num_batches" not in k}
        path = tmp_path / "old.pth"
        torch.save(state, path)
    model = make()
    load_model_weights(model, path)
    ours = [v.double().sum() for k, v in model.state_dict().items() if "num_batches" not in k]
    theirs = [v.double().sum() for k, v in state.items() if "num_batches" not in k]
    # the memory's layout orders the sums
    assert sorted(map(float, ours)) == pytest.approx(sorted(map(float, theirs)), rel=1e-9)
    torch.testing.assert_close(
        model.neck.out["16"].weight, torch.load(torchvisions)["backbone.fpn.layer_blocks.2.0.weight"]
    )


def test_what_does_not_fit_is_listed(torchvisions: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"of another shape: .*kps_score_lowres.*\[8, 17, 4, 4\] instead of \[8, 21"):
        load_model_weights(make("hand21"), torchvisions)
    state = {f"model.{k}": v for k, v in make().state_dict().items()}
    del state["model.head.rpn.head.bbox_pred.bias"]
    state["model.neck.more"] = torch.ones(1)
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    with pytest.raises(
        ModelError, match=r"it lacks head.rpn.head.bbox_pred.bias; the model has no neck.more. Give weights of a run"
    ):
        load_model_weights(make(), tmp_path / "a.ckpt")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no file"):
        load_model_weights(make(), tmp_path / "a.pth")
    (tmp_path / "a.pth").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="can't be read"):
        load_model_weights(make(), tmp_path / "a.pth")
    torch.save({"epoch": 1}, tmp_path / "b.pth")
    with pytest.raises(ModelError, match="holds no tensors by name"):
        load_model_weights(make(), tmp_path / "b.pth")
