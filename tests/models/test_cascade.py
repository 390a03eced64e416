"""A cascade of perfect stages gives the truth back; what it trains on, and what its detector learns from that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from kplab.errors import ModelError
from kplab.models.backbone import Backbone
from kplab.models.cascade import Cascade, around
from kplab.models.heads.base import HeadInputs
from kplab.models.heads.centernet import CenterNetHead
from kplab.models.heads.heatmap import HeatmapHead
from kplab.models.heads.query import QueryHead
from kplab.models.heads.rle import RLEHead
from kplab.models.heads.simcc import SimCCHead
from kplab.models.heads.yolo import YoloHead
from kplab.models.necks import FPN
from kplab.models.pose_model import PoseModel
from kplab.structures.poses import Poses
from kplab.structures.sample import Batch
from kplab.structures.skeleton import Skeleton

ROOT = Path(__file__).resolve().parents[2]
COCO = Skeleton.from_config(yaml.safe_load((ROOT / "conf/skeleton/coco17.yaml").read_text()))
VIEW, SEEN, CROP = (256, 192), (128, 96), (64, 96)


def model(head: Any, size: tuple[int, int], levels: list[int], **options: Any) -> PoseModel:
    """A small network with a head."""
    backbone = Backbone("resnet18", False, [1, 2, 3, 4], layers=[1, 1, 1, 1], channels=[16, 16, 16, 16])
    neck = FPN(in_channels=backbone.channels, strides=backbone.strides, channels=16, levels=levels)
    made = head(HeadInputs(neck.channels, neck.strides, size, COCO), **options)
    return PoseModel(backbone, neck, made, size)


def cascade(detector: Any = YoloHead, subject: Any = HeatmapHead, **options: Any) -> Cascade:
    """Two small networks."""
    torch.manual_seed(0)
    first = {YoloHead: ([8, 16, 32], {"keypoints": False}), CenterNetHead: ([4], {"hidden": 8})}[detector]
    return Cascade(model(detector, SEEN, first[0], **first[1]), model(subject, CROP, [4]), VIEW, **options)


def scene(seed: int = 0) -> Batch:
    """Two views with two subjects and one."""
    random = np.random.default_rng(seed)
    poses = []
    for corners in ([(10, 20), (140, 70)], [(90, 40)]):
        start = np.array(corners, dtype=float)
        xy = start[:, None] + random.uniform(5, 75, (len(start), 17, 2))
        box = np.concatenate([start, start + 80], axis=1)
        poses.append(Poses.make(xy, box=box, area=np.full(len(start), 6400.0)))
    images = torch.from_numpy(random.integers(0, 256, (2, 3, VIEW[1], VIEW[0]), dtype=np.uint8))
    eye = np.repeat(np.eye(3)[None], 2, 0)
    return Batch(images, poses, eye, np.array([1, 2]), np.array([[0, 0, *VIEW]] * 2, dtype=float), np.ones(2))


@pytest.mark.parametrize(
    ("detector", "subject"),
    [(CenterNetHead, HeatmapHead), *((YoloHead, s) for s in (HeatmapHead, SimCCHead, RLEHead, QueryHead))],
)
def test_perfect_stages_give_the_truth_back(detector: Any, subject: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector says where the true boxes are; each crop's model, what its crop shows."""
    net, batch = cascade(detector, subject), scene()
    seen = net.seen(batch)
    said = net.detector.head.ideal(net.detector.head.encode(seen.poses, SEEN))
    monkeypatch.setattr(net.detector, "outputs", lambda images, flip_test: (said, None))
    every = Poses.concat(batch.poses)
    shown: list[torch.Tensor] = []

    def ideal(crops: torch.Tensor, flip_test: bool) -> Any:
        shown.append(crops)
        # the order is that of the detected boxes: of a view by score, which all are the same here
        views = [p[[int(i)]].transform(m) for p, i, m in order]
        return net.subject.head.ideal(net.subject.head.encode(views, CROP)), None

    from kplab.ops import affine

    found = [p.box * 2 for p in net.detector.head.decode(said)]
    assert [len(b) for b in found] == [2, 1]
    order = []
    for poses, boxes in zip(batch.poses, found, strict=True):
        for box in boxes:
            nearest = np.abs(poses.box - box).sum(1).argmin()
            assert np.abs(poses.box[nearest] - box).max() < 0.5
            order.append((poses, nearest, affine.fit_box(box, CROP, 1.25)))
    monkeypatch.setattr(net.subject, "outputs", ideal)
    predicted = net.predict(replace(batch, poses=[]))
    assert len(shown) == 1
    for poses, truth in zip(predicted, batch.poses, strict=True):
        assert len(poses) == len(truth)
        # by a heatmap of stride 4, or two bins a pixel, of a crop 1.56 times smaller than its subject
        for one in truth.xy:
            assert np.abs(poses.xy - one).max((1, 2)).min() < 0.2
        assert (poses.score > 0.9).all()
    assert len(every) == sum(map(len, predicted))


def test_boxes_around_found_poses() -> None:
    """Padded by a tenth of the longer side, of the keypoints with at least half the mean score; else as they were."""
    xy = np.array([[[10.0, 20.0], [50.0, 100.0], [400.0, 0.0]], [[7.0, 7.0]] * 3])
    poses = replace(Poses.make(xy), keypoint_score=np.array([[0.8, 0.9, 0.1], [0.5, 0.5, 0.5]]))
    before = np.array([[0.0, 0.0, 1.0, 1.0], [5.0, 5.0, 9.0, 9.0]])
    assert around(poses, before).tolist() == [[2.0, 12.0, 58.0, 108.0], [5.0, 5.0, 9.0, 9.0]]
    assert around(Poses.empty(3), np.zeros((0, 4))).shape == (0, 4)


def test_a_second_pass_reads_the_crop_of_the_pose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a detector that is off by a third of a subject, the second crops are those of the subjects."""
    net, batch = cascade(hull="keypoints", passes=2), scene()
    seen = net.seen(batch)
    off = [replace(p, xy=p.xy + 14, box=p.box + 14) for p in seen.poses]
    said = net.detector.head.ideal(net.detector.head.encode(off, SEEN))
    monkeypatch.setattr(net.detector, "outputs", lambda images, flip_test: (said, None))
    read: list[np.ndarray] = []

    def perfect(network: object, images: torch.Tensor, flip_test: bool, index: np.ndarray, box: np.ndarray) -> Poses:
        read.append(box)
        near = [np.abs(batch.poses[i].box - b).sum(1).argmin() for i, b in zip(index, box, strict=True)]
        return Poses.concat([batch.poses[i][[int(n)]] for i, n in zip(index, near, strict=True)])

    monkeypatch.setattr(net, "read", perfect)
    found = Poses.concat(net.predict(replace(batch, poses=[])))
    assert len(read) == 2
    hulls = around(found, found.box)
    assert np.allclose(read[1], hulls)
    assert np.abs(read[0] - hulls).max(1).min() > 14
    assert np.allclose(found.box, read[1])  # what is stated is the box that was read last


def test_passes_before_the_last_may_read_upright_crops_alone() -> None:
    """The last one then reads turned crops around the poses that upright ones show, with the same weights."""
    batch = scene()

    def made(turns: tuple[float, ...], **options: Any) -> Cascade:
        net = cascade(hull="keypoints", min_score=0.0, **options)
        net.detector.head.min_score, net.detector.head.max_poses = 0.0, 3
        net.subject.turns = turns
        return net.eval()

    every, last, upright = made((45.0, 90.0), passes=2), made((45.0, 90.0), passes=2, turned="last"), made(())
    assert list(every.networks) == ["detector", "subject"]
    assert list(last.networks) == ["detector", "upright", "subject"]
    assert list(last.state_dict()) == list(every.state_dict())
    poses = Poses.concat(upright.predict(batch))
    index = np.repeat([0, 1], [3, 3])
    with torch.inference_mode():
        again = last.read(last.subject, batch.images, False, index, around(poses, poses.box))
    found, other = (Poses.concat(net.predict(batch)).xy for net in (last, every))
    np.testing.assert_array_equal(found, again.xy)
    assert np.abs(found - other).max() > 0.01
    last.without_turns()
    assert list(last.networks) == ["detector", "subject"]
    assert last.subject.turns == ()


def test_the_best_poses_are_kept() -> None:
    """Of each view, by their keypoints, in the order of the detector."""
    poses = Poses.make(np.zeros((6, 17, 2)))
    poses = replace(poses, keypoint_score=np.repeat([[0.2], [0.5], [0.1], [0.7], [0.3], [0.3]], 17, 1))
    index = np.array([0, 0, 0, 0, 3, 3])
    assert cascade(keep=2).kept(poses, index).tolist() == [1, 3, 4, 5]
    assert cascade(keep=1).kept(poses, index).tolist() == [3, 4]
    assert cascade().kept(poses, index).tolist() == [0, 1, 2, 3, 4, 5]
    assert cascade(keep=1).kept(Poses.empty(17), np.zeros(0, int)).tolist() == []
    one, every = cascade(keep=1, min_score=0.0), cascade(min_score=0.0)
    for net in (one, every):
        net.detector.head.min_score = 0.0
    for best, several in zip(one.predict(scene()), every.predict(scene()), strict=True):
        assert len(several) > 1
        assert len(best) == 1
        assert best.keypoint_score.mean() == pytest.approx(several.keypoint_score.mean(1).max())


def test_poses_of_one_subject_become_one() -> None:
    """Of boxes that overlap little, but whose poses are the same, the best is kept, so that it alone is read again."""
    truth = scene().poses[0]
    at = np.array([0, 1, 0, 1, 0])  # the subject that each box leads to
    shift = np.array([[0.0], [0.0], [50.0], [-50.0], [45.0]])
    found = replace(truth[at], box=truth.box[at] + shift, score=np.array([0.5, 0.9, 0.8, 0.3, 0.9]))
    certain = np.array([0.9, 0.8, 0.7, 0.9, 0.4])
    views, read = [found, found[[0, 2]]], []

    def reader(index: np.ndarray, box: np.ndarray) -> Poses:
        read.append((index, box))
        near = np.abs(box[:, None] - found.box).sum(2).argmin(1) if len(read) == 1 else np.array([1, 2, 2])
        return replace(found[near], keypoint_score=np.repeat(certain[near, None], 17, 1))

    net = cascade(hull="keypoints", passes=2, nms_threshold=0.5)
    poses = net.in_passes(views, [reader])
    # scores times certainty: .45, .72, .56, .27 and .36; in the second view .45 and .56
    assert [index.tolist() for index, _ in read] == [[0, 0, 0, 0, 0, 1, 1], [0, 0, 1]]
    np.testing.assert_array_equal(read[1][1], around(found, found.box)[[1, 2, 2]])
    assert [p.score.tolist() for p in poses] == [[0.9, 0.8], [0.8]]
    np.testing.assert_array_equal(poses[0].xy, truth.xy[[1, 0]])

    read.clear()
    every = cascade(hull="keypoints", passes=1).in_passes(views, [reader])
    assert [p.score.tolist() for p in every] == [[0.5, 0.9, 0.8, 0.3, 0.9], [0.5, 0.8]]
    empty = net.in_passes([Poses.empty(17), Poses.empty(17)], [reader])
    assert [len(p) for p in empty] == [0, 0]
    assert len(read) == 1


def test_subjects_that_overlap_less_than_the_threshold_stay_apart() -> None:
    """By the IoU of hulls, which are a tenth of a side larger on each side."""
    corner = np.array([[0.0, 0.0], [100.0, 100.0]])
    xy = np.stack([corner, corner + np.array([20.0, 0.0])])
    poses = replace(Poses.make(xy), score=np.array([0.6, 0.9]), keypoint_score=np.full((2, 2), 0.5))
    poses = replace(poses, box=poses.extent())
    index = np.zeros(2, dtype=int)
    hulls = around(poses, poses.box)
    width, apart = 120.0, 20.0
    assert (hulls[:, 2:] - hulls[:, :2] == width).all()
    overlap = (width - apart) / (width + apart)
    assert cascade(nms_threshold=overlap + 0.01).kept(poses, index).tolist() == [0, 1]
    assert cascade(nms_threshold=overlap - 0.01).kept(poses, index).tolist() == [1]
    assert cascade(nms_threshold=overlap - 0.01).kept(poses, np.array([0, 1])).tolist() == [0, 1]


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.5])
def test_thresholds_that_are_no_iou(threshold: float) -> None:
    with pytest.raises(ModelError, match="must be an IoU, above 0 and up to 1, or null"):
        cascade(nms_threshold=threshold)


def test_crops_show_what_the_data_pipeline_would_show() -> None:
    """On given boxes the pose model reads the same through the transformer as through OpenCV."""
    import cv2

    from kplab.ops import affine

    net, batch = cascade(), scene()
    net.eval()
    smooth = np.stack([cv2.GaussianBlur(i.permute(1, 2, 0).numpy(), (0, 0), 5) for i in batch.images])
    batch = replace(batch, images=torch.from_numpy(smooth.transpose(0, 3, 1, 2).copy()))
    box, index = np.concatenate([p.box for p in batch.poses]), np.array([0, 0, 1])
    views = [affine.fit_box(b, CROP, 1.25) for b in box]
    pixels = [affine.warp(smooth[i], v, CROP) for i, v in zip(index, views, strict=True)]
    with torch.inference_mode():
        through, _ = net.subject.outputs(torch.from_numpy(np.stack(pixels).transpose(0, 3, 1, 2).copy()))
        seen: list[torch.Tensor] = []
        outputs_of = net.subject.outputs
        net.subject.outputs = lambda images, flip_test: seen.append(images) or outputs_of(images, flip_test)  # type: ignore
        net.read(net.subject, batch.images, False, index, box)
        outputs, _ = outputs_of(seen[0])
    # whole grey levels there, fractions here
    assert np.abs(seen[0].numpy() - np.stack(pixels).transpose(0, 3, 1, 2)).max() < 2
    assert torch.allclose(outputs, through, atol=0.05)


def test_truth_is_not_looked_at() -> None:
    net, batch = cascade(), scene()
    for other in ([], [Poses.empty(17)] * 2, [p.transform(np.diag([0.5, 0.5, 1.0])) for p in batch.poses]):
        for a, b in zip(net.predict(batch), net.predict(replace(batch, poses=other)), strict=True):
            np.testing.assert_array_equal(a.xy, b.xy)
            np.testing.assert_array_equal(a.box, b.box)


def gradients(stage: nn.Module) -> float:
    """Sum of all absolute gradients."""
    return sum(float(p.grad.abs().sum()) for p in stage.parameters() if p.grad is not None)


def test_on_jittered_boxes_the_stages_learn_apart() -> None:
    net, batch = cascade(detector_weight=0.0), scene()
    torch.stack(list(net.losses(batch).values())).sum().backward()
    assert gradients(net.detector) == 0
    assert gradients(net.subject) > 0


def test_a_share_of_the_views_is_read_by_the_detector() -> None:
    """Its losses are those of the first views, rounded up; those of the crops are of all."""
    net, batch = cascade(boxes="annotated"), scene()
    net.eval()
    whole, first = net.losses(batch), net.losses(batch.first(1))
    for share in (0.1, 0.5):
        net.detector_share = share
        found = net.losses(batch)
        assert found.keys() == whole.keys()
        for name, value in found.items():
            wanted = first if name.startswith("detector") else whole
            torch.testing.assert_close(value, wanted[name])
    assert any(not torch.equal(first[name], whole[name]) for name in first if name.startswith("detector"))


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"detector_share": 0.0}, "above 0"),
        ({"detector_share": 0.5, "boxes": "detected"}, "Use model.detector_share=1"),
    ],
)
def test_shares_that_are_none(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ModelError, match=fault):
        cascade(subject=RLEHead, **options)


def sure_of(net: Cascade, batch: Batch, offset: torch.Tensor) -> None:
    """Let the detector say the true boxes, moved by an offset (4,) in view pixels, and nothing else."""
    smaller = SEEN[0] / VIEW[0]
    most = max(map(len, batch.poses))
    boxes = torch.zeros(len(batch.poses), most, 4)
    for i, p in enumerate(batch.poses):
        boxes[i, : len(p)] = torch.from_numpy(p.box)
    score = (boxes[..., 2] > 0).float()
    net.detector.head.candidates = lambda outputs: ((boxes + offset) * smaller, score)  # type: ignore[method-assign]


def test_joint_training_tells_the_detector_where_crops_had_better_been() -> None:
    """The gradient through pixels and targets is that of finite differences of the pose model's loss."""
    net, batch = cascade(subject=RLEHead, boxes="detected", detector_weight=0.0), scene()
    net.eval()
    smooth = torch.nn.functional.avg_pool2d(batch.images.float(), 15, 1, 7)
    batch = replace(batch, images=(smooth - smooth.mean()) * 8 + 128)

    def cost(offset: torch.Tensor) -> torch.Tensor:
        sure_of(net, batch, offset)
        return torch.stack(list(net.losses_of_crops(batch, None).values())).sum()

    start = torch.tensor([3.0, -2.0, 5.0, 4.0], requires_grad=True)
    cost(start).backward()
    assert start.grad is not None
    step = 0.25
    for i in range(4):
        by = step * torch.eye(4)[i]
        with torch.no_grad():
            slope = float(cost(start + by) - cost(start - by)) / (2 * step)
        # bilinear sampling has kinks, which differences over half a pixel smooth out
        assert float(start.grad[i]) == pytest.approx(slope, rel=0.05, abs=2e-4)


def test_joint_training_reaches_the_detectors_weights() -> None:
    net, batch = cascade(subject=RLEHead, boxes="detected", detector_weight=0.0), scene()
    # a detector at random overlaps nobody: then subjects are cropped as jittered, and it learns nothing from that
    torch.stack(list(net.losses(batch).values())).sum().backward()
    assert gradients(net.detector) == 0
    assert gradients(net.subject) > 0
    said = net.detector.head.candidates
    true = [torch.from_numpy(p.box).float() * SEEN[0] / VIEW[0] for p in batch.poses]

    def near(outputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Its own boxes, carried to the true ones, so that their gradient stays its own."""
        boxes, score = said(outputs)
        close = torch.stack([t[torch.arange(boxes.shape[1]) % len(t)] for t in true])
        return close + boxes - boxes.detach(), score

    net.detector.head.candidates = near  # type: ignore[method-assign]
    torch.stack(list(net.losses(batch).values())).sum().backward()
    assert gradients(net.detector) > 0


def test_jitter_is_bounded_centred_and_off_outside_training() -> None:
    net = cascade(shift=0.1, scale=0.2)
    boxes = torch.tensor([[10.0, 20.0, 60.0, 120.0]]).expand(4000, 4)
    drawn = net.jittered(boxes)
    sides = drawn[:, 2:] - drawn[:, :2]
    ratio = sides / torch.tensor([50.0, 100.0])
    centre = (drawn[:, 2:] + drawn[:, :2]) / 2 - torch.tensor([35.0, 70.0])
    assert ratio.max() <= 1.2
    assert ratio.min() >= 1 / 1.2 - 1e-6
    assert (centre.abs() <= 0.1 * torch.tensor([50.0, 100.0]) + 1e-4).all()
    assert centre.mean(0).abs().max() < 0.3
    assert float(torch.corrcoef(ratio.log().T)[0, 1]) > 0.5
    net.eval()
    assert torch.equal(net.jittered(boxes), boxes)


def test_a_batch_of_nobody_costs_the_crops_nothing() -> None:
    net, batch = cascade(), scene()
    crowd = [replace(p, ignore=np.ones(len(p), dtype=bool)) for p in batch.poses]
    for poses in ([Poses.empty(17)] * 2, crowd):
        losses = net.losses(replace(batch, poses=poses))
        assert all(torch.isfinite(v) for v in losses.values())
        assert all(float(v.detach()) == 0 for name, v in losses.items() if not name.startswith("detector"))


def test_contradictions_are_refused() -> None:
    with pytest.raises(ModelError, match="another aspect"):
        Cascade(model(YoloHead, SEEN, [8, 16, 32]), model(HeatmapHead, CROP, [4]), (256, 256))
    with pytest.raises(ModelError, match="reads one pose"):
        Cascade(model(YoloHead, SEEN, [8, 16, 32]), model(CenterNetHead, CROP, [4]), VIEW)
    with pytest.raises(ModelError, match="can't detect"):
        Cascade(model(HeatmapHead, SEEN, [4]), model(HeatmapHead, CROP, [4]), VIEW)
    with pytest.raises(ModelError, match="can be annotated, jittered or detected"):
        cascade(boxes="true")
    with pytest.raises(ModelError, match=r"model\.keep is 0"):
        cascade(keep=0)
    with pytest.raises(ModelError, match=r"model\.turned can be all or last, but is 'none'"):
        cascade(turned="none")
    with pytest.raises(ModelError, match=r"model\.passes is 2 with model\.hull=annotated"):
        cascade(passes=2)
    with pytest.raises(ModelError, match="detector would be wrong"):
        cascade(boxes="detected")
