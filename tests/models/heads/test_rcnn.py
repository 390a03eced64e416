"""Keypoint R-CNN against torchvision's own, with its weights copied over; and what torchvision has not: ignored subjects."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torchvision.models import resnet18
from torchvision.models.detection import KeypointRCNN, keypointrcnn_resnet50_fpn
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints, keypointrcnn_loss, keypoints_to_heatmap
from torchvision.ops import MultiScaleRoIAlign, box_iou

from kplab.models.backbone import Backbone
from kplab.models.heads import rcnn_parts as parts
from kplab.models.heads.base import HeadInputs
from kplab.models.heads.rcnn import RCNNHead
from kplab.models.necks import FPN
from kplab.models.pose_model import PoseModel
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

CONF = Path(__file__).resolve().parents[3] / "conf"
COCO = Skeleton.from_config(yaml.safe_load((CONF / "skeleton" / "coco17.yaml").read_text()))
SIZE = (192, 128)  # width, height
SIDE, K = 56, 17


def ours(name: str = "resnet50", size: tuple[int, int] = SIZE, **options: Any) -> PoseModel:
    """A model that torchvision's weights fit into."""
    backbone = Backbone(name, False, [1, 2, 3, 4], frozen_norm=True)
    neck = FPN(backbone.channels, backbone.strides, 256, norm=False, pool=True)
    head = RCNNHead(HeadInputs(neck.channels, neck.strides, size, COCO), **options)
    return PoseModel(backbone, neck, head, size, channels_last=False)


def small() -> tuple[PoseModel, KeypointRCNN]:
    """Torchvision's parts on a ResNet-18, narrow heads, weights drawn so that it detects something; and ours with them."""
    torch.manual_seed(0)
    body = _resnet_fpn_extractor(resnet18(weights=None), 5)
    theirs = KeypointRCNN(
        body,
        min_size=SIZE[1],
        max_size=SIZE[0],
        rpn_pre_nms_top_n_train=200,
        rpn_post_nms_top_n_train=100,
        box_head=TwoMLPHead(256 * 49, 64),
        box_predictor=parts.FastRCNNPredictor(64, 2),
        keypoint_head=KeypointRCNNHeads(256, (32,) * 2),
        keypoint_predictor=KeypointRCNNPredictor(32, K),
    )
    spread(theirs)
    model = ours(
        "resnet18", box_width=64, keypoint_layers=2, keypoint_width=32, rpn_before=(200, 1000), rpn_after=(100, 1000)
    )
    copy(theirs, model)
    return model, theirs


def spread(theirs: KeypointRCNN) -> None:
    """Untrained layers say next to nothing: wider ones disagree about where there is a subject."""
    random = torch.Generator().manual_seed(1)
    for module in (theirs.rpn.head.cls_logits, theirs.rpn.head.bbox_pred, theirs.roi_heads.box_predictor.bbox_pred):
        module.weight.data.normal_(0, 0.05, generator=random)
    theirs.roi_heads.box_predictor.cls_score.weight.data.normal_(0, 1.0, generator=random)


def copy(theirs: torch.nn.Module, model: PoseModel) -> None:
    """All weights, by name: nothing missing and nothing left over."""
    state = parts.from_torchvision(theirs.state_dict(), [4, 8, 16, 32])
    state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    model.load_state_dict(state, strict=True)


def people(views: int = 2, count: int = 3) -> list[Poses]:
    """Overlapping people, some keypoints unlabelled, some outside their box."""
    random = np.random.default_rng(3)
    out = []
    for _ in range(views):
        low = random.uniform(0, 60, (count, 2))
        box = np.concatenate([low, low + random.uniform(30, 65, (count, 2))], axis=1)
        xy = box[:, None, :2] + random.uniform(-0.1, 1.1, (count, K, 2)) * (box[:, None, 2:] - box[:, None, :2])
        out.append(Poses.make(xy, random.integers(0, 3, (count, K)), box=box))
    return out


def as_theirs(poses: list[Poses]) -> list[dict[str, torch.Tensor]]:
    """Targets as torchvision takes them."""
    return [
        {
            "boxes": torch.from_numpy(p.box).float(),
            "labels": torch.ones(len(p), dtype=torch.int64),
            "keypoints": torch.from_numpy(np.concatenate([np.nan_to_num(p.xy), p.visible[..., None]], axis=2)).float(),
        }
        for p in poses
    ]


def images(views: int = 2, size: tuple[int, int] = SIZE) -> torch.Tensor:
    """Noise with some structure, 0 to 255."""
    random = torch.Generator().manual_seed(5)
    coarse = torch.rand(views, 3, size[1] // 16, size[0] // 16, generator=random) * 255
    return torch.nn.functional.interpolate(coarse, size=(size[1], size[0]), mode="bicubic").clamp(0, 255)


def compare_detections(model: PoseModel, theirs: KeypointRCNN, views: torch.Tensor) -> int:
    """Same boxes, scores and keypoints; how many there are."""
    model.eval()
    theirs.eval()
    with torch.inference_mode():
        found = model.head.decode(model(views))
        wanted = theirs(list(views / 255))
    for mine, their in zip(found, wanted, strict=True):
        assert len(mine) == len(their["boxes"])
        # both in float32, by other orders of the same sums: the frozen norms are computed within the convolutions here, and 50
        # layers of random weights amplify the difference (test_frozen_norms compares them in float64)
        np.testing.assert_allclose(mine.box, their["boxes"].numpy(), atol=2e-2)
        np.testing.assert_allclose(mine.score, their["scores"].numpy(), atol=1e-4)
        np.testing.assert_allclose(mine.xy, their["keypoints"][..., :2].numpy(), atol=2e-2)
    return sum(map(len, found))


def compare_losses(model: PoseModel, theirs: KeypointRCNN, views: torch.Tensor, poses: list[Poses]) -> dict[str, float]:
    """The five losses in training, with the same random draws."""
    model.train()
    theirs.train()
    # the backbone's norms are frozen here and not there
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    torch.manual_seed(7)
    for _ in views:
        torch.rand(1)  # torchvision's transform draws a size for each image, of one here
    targets = model.head.encode(poses, SIZE)
    mine = model.head.loss(model(views, targets), targets)
    torch.manual_seed(7)
    wanted = theirs(list(views / 255), as_theirs(poses))
    names = {
        "objectness": "loss_objectness", "rpn_box": "loss_rpn_box_reg", "classifier": "loss_classifier",
        "box": "loss_box_reg", "keypoint": "loss_keypoint",
    }  # fmt: skip
    for name, their in names.items():
        assert float(mine[name].detach()) == pytest.approx(float(wanted[their].detach()), abs=1e-4, rel=1e-4), name
    total = torch.stack(list(mine.values())).sum()
    total.backward()
    torch.stack(list(wanted.values())).sum().backward()
    gradient = model.head.rpn.head.conv[0][0].weight.grad
    torch.testing.assert_close(gradient, theirs.rpn.head.conv[0][0].weight.grad, atol=1e-4, rtol=1e-3)
    return {name: float(value.detach()) for name, value in mine.items()}


def test_it_detects_and_learns_as_torchvisions_parts_do() -> None:
    model, theirs = small()
    assert compare_detections(model, theirs, images()) > 10
    losses = compare_losses(model, theirs, images(), people())
    assert min(losses.values()) > 1e-3


@pytest.mark.slow
def test_it_is_torchvisions_keypoint_rcnn() -> None:
    """keypointrcnn_resnet50_fpn whole: the published number of parameters, its detections and its losses."""
    torch.manual_seed(0)
    theirs = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None, min_size=SIZE[1], max_size=SIZE[0])
    spread(theirs)
    # the published weights have frozen norms, whose scales and offsets are no parameters: 53,120 in a ResNet-50
    model = ours(max_poses=100)
    copy(theirs, model)
    scales = sum(p.numel() for m in theirs.modules() if isinstance(m, torch.nn.BatchNorm2d) for p in m.parameters())
    assert sum(p.numel() for p in model.parameters()) == 59_137_258
    assert sum(p.numel() for p in theirs.parameters()) == 59_137_258 + scales
    theirs.roi_heads.detections_per_img = model.head.roi_heads.detections_per_img = 10
    assert compare_detections(model, theirs, images(1)) > 5
    theirs.roi_heads.fg_bg_sampler.batch_size_per_image = model.head.roi_heads.fg_bg_sampler.batch_size_per_image = 16
    compare_losses(model, theirs, images(1), people(1))


def random_rois(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes, and keypoints in, on the border of, and outside them."""
    random = torch.Generator().manual_seed(0)
    low = torch.rand(count, 2, generator=random) * 300
    boxes = torch.cat([low, low + 1 + torch.rand(count, 2, generator=random) * 300], dim=1)
    unit = torch.rand(count, K, 2, generator=random) * 1.4 - 0.2
    xy = boxes[:, None, :2] + unit * (boxes[:, None, 2:] - boxes[:, None, :2])
    xy[::3, 0] = boxes[::3, 2:]  # both far borders at once
    xy[1::3, 1] = boxes[1::3, :2]
    return boxes, xy


def test_cells_are_torchvisions() -> None:
    boxes, xy = random_rois(10_000)
    points = torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1)
    wanted, valid = keypoints_to_heatmap(points, boxes, SIDE)
    column, row = parts.cells(xy, boxes, SIDE).unbind(-1)
    # ours divides before it multiplies: a point within 1e-5 of a cell's border may fall on its other side
    exact = (xy - boxes[:, None, :2]) / (boxes[:, None, 2:] - boxes[:, None, :2]) * SIDE
    clear = ((exact - exact.round()).abs() > 1e-3).all(-1) | (exact == SIDE).all(-1)
    chosen = valid.bool() & clear
    assert chosen.float().mean() > 0.4
    assert torch.equal((row * SIDE + column)[chosen], wanted[chosen])


def test_a_perfect_heatmap_is_decoded_within_the_bound_of_its_cells() -> None:
    """Boxes smaller and larger than the heatmap, through torchvision's own decoding."""
    boxes, xy = random_rois(300)
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    inside = torch.minimum(torch.maximum(xy, low), high)
    heatmap = parts.perfect_heatmaps(inside, torch.ones(len(boxes), K, dtype=torch.bool), boxes, SIDE)
    found = heatmaps_to_keypoints(heatmap, boxes)[0][..., :2]
    error = (found - inside).abs()
    assert (error <= 5 / 6 * (high - low) / SIDE + 0.501).all()
    # two cells away from the border, half a cell is enough
    cell = parts.cells(inside, boxes, SIDE)
    middle = ((cell > 1) & (cell < SIDE - 2)).all(-1)
    assert (error <= 0.5 * (high - low) / SIDE + 0.501)[middle].all()


def loss_of(heatmap: torch.Tensor, xy: torch.Tensor, labelled: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    """The head's keypoint loss of one view of R regions, each of a subject of its own."""
    head = narrow()
    targets = {
        "box": box[None], "xy": xy[None], "labelled": labelled[None], "exists": torch.ones(1, len(box), dtype=torch.bool),
        "ignored": torch.zeros(1, 1, 4), "ignores": torch.zeros(1, 1, dtype=torch.bool), "size": SIZE,
    }  # fmt: skip
    return head.loss(head.ideal(targets) | {"heatmap": heatmap}, targets)["keypoint"]


def narrow(**options: Any) -> RCNNHead:
    """A head of few weights on narrow maps."""
    torch.manual_seed(0)
    few = {"box_width": 16, "keypoint_layers": 1, "keypoint_width": 8, "rpn_after": (50, 20)}
    return RCNNHead(HeadInputs([8] * 4, [4, 8, 16, 32], SIZE, COCO), **few | options)


def test_the_keypoint_loss_is_torchvisions() -> None:
    random = torch.Generator().manual_seed(2)
    boxes, xy = random_rois(20)
    labelled = torch.rand(20, K, generator=random) > 0.3
    heatmap = torch.randn(20, K, SIDE, SIDE, generator=random)
    points = torch.cat([xy, labelled[..., None].float()], dim=-1)
    wanted = keypointrcnn_loss(heatmap, [boxes], [points], [torch.arange(20)])
    torch.testing.assert_close(loss_of(heatmap, xy, labelled, boxes), wanted)


def test_what_knows_nothing_costs_the_logarithm_of_the_cells() -> None:
    boxes, xy = random_rois(5)
    labelled = torch.ones(5, K, dtype=torch.bool)
    assert float(loss_of(torch.zeros(5, K, SIDE, SIDE), xy, labelled, boxes)) == pytest.approx(math.log(3136), abs=1e-5)


def test_logits_of_keypoints_that_are_unlabelled_or_outside_do_not_matter() -> None:
    boxes, xy = random_rois(5)
    labelled = torch.ones(5, K, dtype=torch.bool)
    labelled[:, 3] = False
    xy[2, 5] = boxes[2, :2] - 1
    xy[2, 6] = boxes[2].view(2, 2).mean(0)
    heatmap = torch.randn(5, K, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    other = heatmap.clone()
    other[:, 3] += torch.randn(5, SIDE, SIDE)
    other[2, 5] *= -7
    assert torch.equal(loss_of(heatmap, xy, labelled, boxes), loss_of(other, xy, labelled, boxes))
    other[2, 6] *= -7
    assert not torch.equal(loss_of(heatmap, xy, labelled, boxes), loss_of(other, xy, labelled, boxes))


def test_regions_are_cut_as_torchvision_cuts_them() -> None:
    """On every level; aligned is the same in maps that are shifted by half a cell."""
    random = torch.Generator().manual_seed(4)
    strides = [4, 8, 16, 32]
    maps = [torch.randn(2, 6, 1024 // s, 1024 // s, generator=random) for s in strides]
    low = torch.rand(60, 2, generator=random) * 400
    sides = 2 ** torch.linspace(2, 9, 60)[:, None] * torch.tensor([1.0, 1.2])
    boxes = [torch.cat([low, low + sides], dim=1)] * 2
    pool = parts.RoIPool(strides, 7, 2, aligned=False)
    assert set(pool.level_of(boxes).tolist()) == {0, 1, 2, 3}
    reference = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    wanted = reference({str(i): m for i, m in enumerate(maps)}, boxes, [(1024, 1024)] * 2)
    torch.testing.assert_close(pool(maps, boxes), wanted)
    # on a ramp, whose cell j holds its own centre, only aligned regions read the position that they are at
    x = (torch.arange(256.0) + 0.5) * 4
    ramp = x.expand(1, 1, 256, 256)
    box = torch.tensor([[100.0, 60.0, 198.0, 158.0]])
    centres = 100 + (torch.arange(7) + 0.5) * 14
    torch.testing.assert_close(parts.RoIPool([4], 7, 2, aligned=True)([ramp], [box])[0, 0, 3], centres)
    torch.testing.assert_close(parts.RoIPool([4], 7, 2, aligned=False)([ramp], [box])[0, 0, 3], centres + 2)


def test_what_lies_on_an_ignored_subject_is_neither_positive_nor_negative() -> None:
    random = torch.Generator().manual_seed(6)
    low = torch.rand(2000, 2, generator=random) * 100
    boxes = torch.cat([low, low + 5 + torch.rand(2000, 2, generator=random) * 60], dim=1)
    true, ignored = torch.tensor([[20.0, 20, 60, 60]]), torch.tensor([[50.0, 10, 120, 90], [130.0, 130, 150, 150]])
    matcher = Matcher(0.5, 0.5)
    label, instance = parts.assign(matcher, boxes, true, ignored)
    plain, _ = parts.assign(matcher, boxes, true, ignored[:0])
    overlap = box_iou(true, boxes)[0]
    assert torch.equal(plain == 1, overlap >= 0.5)
    assert torch.equal(label == 1, plain == 1), "true subjects stay positive, crowd or none"
    for box, said in zip(boxes[:300].tolist(), label.tolist(), strict=False):
        area = (box[2] - box[0]) * (box[3] - box[1])
        inside = max(
            max(0, min(box[2], c[2]) - max(box[0], c[0])) * max(0, min(box[3], c[3]) - max(box[1], c[1]))
            for c in ignored.tolist()
        )
        if said != 1 and abs(inside / area - 0.5) > 1e-3:
            assert said == (-1 if inside / area >= 0.5 else 0)
    assert (instance == 0).all()


def test_a_crowd_is_never_drawn() -> None:
    """In a view that is all crowd but for one subject, anchors and regions that learn are that subject's."""
    head = narrow()
    true = people(1, 1)[0]
    crowd = Poses.make(np.full((1, K, 2), np.nan), box=np.array([[-500.0, -500, 700, 700]]), ignore=np.array([True]))
    targets = head.encode([Poses.concat([true, crowd])], SIZE)
    maps = [torch.randn(1, 8, SIZE[1] // s, SIZE[0] // s) for s in head.strides]
    outputs = head(maps, targets)
    assert (outputs["anchor_label"] != 0).all()
    assert (outputs["anchor_label"] == 1).any()
    assert (outputs["roi_label"] == 1).all()
    assert len(outputs["roi_label"]) > 0
    only = head.encode([crowd], SIZE)
    losses = head.loss(head(maps, only), only)
    assert all(float(value.detach()) == 0 for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()


def test_subjects_without_keypoints_teach_their_box() -> None:
    head = narrow()
    box = people(1, 1)[0].box
    targets = head.encode([Poses.make(np.full((1, K, 2), np.nan), box=box)], SIZE)
    losses = head.loss(head([torch.randn(1, 8, SIZE[1] // s, SIZE[0] // s) for s in head.strides], targets), targets)
    assert float(losses["keypoint"].detach()) == 0
    assert min(float(losses[name].detach()) for name in ("objectness", "classifier", "box", "rpn_box")) > 0


def test_draws_depend_on_the_seed_alone() -> None:
    head = narrow(samples=8, rpn_samples=8)
    targets = head.encode(people(), SIZE)
    maps = [torch.randn(2, 8, SIZE[1] // s, SIZE[0] // s) for s in head.strides]

    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return head(maps, targets)["anchor_label"]

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert ((drawn(1) >= 0).sum(1) == 8).all()


def test_the_shift_of_foreign_weights_is_taken_off_what_is_learnt_and_put_back() -> None:
    plain, shifted = narrow(), narrow(shift=0.75)
    true = Poses.make(np.full((1, K, 2), 60.25), box=np.array([[20.0, 20, 132, 132]]))
    mine, theirs = plain.encode([true], SIZE), shifted.encode([true], SIZE)
    torch.testing.assert_close(theirs["xy"], mine["xy"] - 0.75)
    assert torch.equal(theirs["box"], mine["box"])
    outputs = plain.ideal(mine)
    np.testing.assert_allclose(shifted.decode(outputs)[0].xy, plain.decode(outputs)[0].xy + 0.75, atol=1e-5)


def test_scores_are_probabilities_of_the_cells_around_the_peak() -> None:
    heatmap = torch.full((1, K, SIDE, SIDE), -30.0)
    heatmap[0, :, 20, 30] = math.log(0.6)
    heatmap[0, :, 21, 31] = math.log(0.3)
    heatmap[0, :, 50, 5] = math.log(0.1)
    box = torch.tensor([[0.0, 0, 112, 112]])
    xy = torch.tensor([61.0, 41.0]).expand(1, K, 2)
    np.testing.assert_allclose(parts.peak_probability(heatmap, xy, box), 0.9, atol=1e-4)


def test_heatmaps_for_drawing_belong_to_what_is_decoded() -> None:
    head = narrow()
    targets = head.encode(people(2, 2), SIZE)
    outputs = head.ideal(targets)
    drawn = head.roi_heatmaps(outputs)
    for i, (boxes, scores, heat) in enumerate(drawn):
        np.testing.assert_allclose(boxes, targets["box"][i].numpy())
        assert (scores == 1).all()
        np.testing.assert_allclose(heat.sum((2, 3)), 1, atol=1e-4)
