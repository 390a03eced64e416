"""What only the YOLO head promises: the published formulas, its losses, its crowds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kplab.errors import ModelError
from kplab.models.heads.base import HeadInputs
from kplab.models.heads.yolo import YoloHead, keypoint_loss
from kplab.ops.oks import oks
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

SIZE = (128, 96)
STRIDES = [8, 16, 32]
THREE = Skeleton("three", ("left", "right", "tail"), (), (1, 0, 2), (0.05, 0.1, 0.2), "made up")
COCO = Skeleton.from_config(
    yaml.safe_load((Path(__file__).resolve().parents[3] / "conf" / "skeleton" / "coco17.yaml").read_text())
)
NAN = np.nan


def head(strides: list[int] | None = None, skeleton: Skeleton = THREE, **options: Any) -> YoloHead:
    torch.manual_seed(0)
    strides = strides or STRIDES
    return YoloHead(HeadInputs([8] * len(strides), strides, SIZE, skeleton), **options)


def maps(h: YoloHead, views: int = 2, seed: int = 0) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [
        torch.randn(views, 8, SIZE[1] // s, SIZE[0] // s, generator=random).requires_grad_() for s in h.strides
    ]  # fmt: skip


def poses(*boxes: tuple[float, float, float, float], keypoints: int = 3, seed: int = 0) -> Poses:
    """Instances with these boxes, and keypoints somewhere in them."""
    box = np.array(boxes, dtype=float).reshape(-1, 4)
    random = np.random.default_rng(seed)
    xy = box[:, None, :2] + random.uniform(0, 1, (len(box), keypoints, 2)) * (box[:, None, 2:] - box[:, None, :2])
    return Poses.make(xy, box=box)


def nearest(found: Poses, true: Poses) -> np.ndarray:
    """Of each true instance, the largest keypoint error of the prediction that is nearest, pixels."""
    away = np.linalg.norm(found.xy[:, None] - true.xy, axis=-1)
    return np.where(true.labelled, away, 0).max(-1).min(0)


# decoding


def test_a_keypoint_is_read_from_its_cells_corner() -> None:
    """(2 t + i) * stride for the layers' own t: t = 0 is the corner, not the centre."""
    h = head().eval()
    given_maps = maps(h)
    raw = [to(m).detach() for to, m in zip(h.to_keypoints, given_maps, strict=True)]
    said = h.by_anchor(h(given_maps))
    assert said.xy is not None
    got = said.anchors[:, None] + said.xy * said.stride[:, None, None]
    row = 0
    for stride, t in zip(STRIDES, raw, strict=True):
        for i in range(t.shape[2]):
            for j in range(t.shape[3]):
                for k in range(3):
                    x, y = t[1, 3 * k, i, j], t[1, 3 * k + 1, i, j]
                    wanted = [(2 * float(x) + j) * stride, (2 * float(y) + i) * stride]
                    assert got[1, row, k].tolist() == pytest.approx(wanted, abs=1e-4)
                row += 1
    assert row == len(said.anchors)


def test_no_offset_is_the_corner() -> None:
    h = head().eval()
    for layers in h.to_keypoints:
        torch.nn.init.zeros_(layers[-1].weight)  # type: ignore[index]
        torch.nn.init.zeros_(layers[-1].bias)  # type: ignore[index]
    said = h.by_anchor(h(maps(h)))
    assert said.xy is not None
    corner = said.anchors + said.xy[0, :, 0] * said.stride[:, None]
    assert torch.equal(corner, torch.cat([(a / s).floor() * s for a, s in zip(*split(said), strict=True)]))


def split(said: Any) -> tuple[list[torch.Tensor], list[int]]:
    return [said.anchors[said.stride == s] for s in STRIDES], STRIDES


def test_a_box_is_the_mean_of_four_distributions() -> None:
    h = head().eval()
    outputs = h(maps(h))
    boxes = h.anchor_boxes(h.by_anchor(outputs)).detach()
    m = outputs[1]["box"][0].detach().double().numpy()  # stride 16, 8 x 6 cells, after 16 x 12 of stride 8
    for i, j in ((0, 0), (2, 5), (5, 7)):
        logits = m[:, i, j].reshape(4, 16)
        left, up, right, down = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)) @ np.arange(16)
        wanted = np.array([j + 0.5 - left, i + 0.5 - up, j + 0.5 + right, i + 0.5 + down]) * 16
        np.testing.assert_allclose(boxes[0, 192 + i * 8 + j].numpy(), wanted, atol=1e-4)


def test_scores_of_keypoints_are_of_the_instance_and_the_keypoint() -> None:
    h = head(min_score=0.0, nms_threshold=1.0, max_poses=10**6).eval()
    outputs = h(maps(h, 1))
    said = h.by_anchor(outputs)
    found = h.decode(outputs)[0]
    assert said.visible is not None
    wanted = (said.score[0].sigmoid()[:, None] * said.visible[0].sigmoid()).detach()
    order = said.score[0].argsort(descending=True)
    assert len(found) == len(order)
    np.testing.assert_allclose(np.sort(found.keypoint_score, 0), np.sort(wanted.numpy(), 0), atol=1e-6)
    assert (np.diff(found.score) <= 0).all()
    assert (found.keypoint_score <= found.score[:, None]).all()


# what is encoded comes back


@pytest.mark.parametrize("strides", [[8, 16, 32], [4, 8, 16, 32], [8], [16, 32]])
@pytest.mark.parametrize("bins", [16, 8])
def test_boxes_and_keypoints_come_back(strides: list[int], bins: int) -> None:
    """0.01 px: float32 keeps 15 cells of 32 px to 1e-4."""
    true = poses((5.3, 7.1, 60.9, 50.2), (70, 3, 75, 9.5), (80.4, 30.3, 127, 95), (10, 60, 11, 61))
    if (bins, strides) == (8, [8]):
        true = true[[1, 3]]  # seven cells to a side, no more
    h = head(strides, bins=bins, skeleton=THREE)
    found = h.decode(h.ideal(h.encode([true], SIZE)))[0]
    assert len(found) == len(true)
    assert (nearest(found, true) < 0.01).all()
    away = np.abs(found.box[:, None] - true.box).max(-1).min(0)
    small = (true.box[:, 2:] - true.box[:, :2]).max(1) < strides[0]
    assert (away[~small] < 0.01).all()
    # where no cell's centre is inside, the nearest says what it can: its own place is the side beyond which it can't see
    assert (away[small] < strides[0] / 2 + 1).all()
    assert (found.score > 0.99).all()


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 25))
def test_crowds_of_small_subjects_come_back(seed: int, count: int) -> None:
    """Anywhere, of any size from 2 px, one over the other: whom suppression by keypoints can tell apart is found."""
    random = np.random.default_rng(seed)
    centre, side = random.uniform([4, 4], [124, 92], (count, 2)), random.choice([2, 10, 30, 70], (count, 2))
    true = poses(*np.concatenate([centre - side / 2, centre + side / 2], axis=1).tolist(), seed=seed)
    h = head(nms="oks", nms_threshold=0.99)
    found = h.decode(h.ideal(h.encode([true], SIZE)))[0]
    assert (nearest(found, true) < 0.01).all()
    assert len(found) == count


def test_two_in_one_box() -> None:
    """Suppression by boxes takes one of them, whoever it is; suppression by keypoints finds both."""
    true = Poses.concat([poses((20, 20, 70, 70), seed=1), poses((20, 20, 70, 70), seed=2)])
    ideal = head().ideal(head().encode([true], SIZE))
    assert len(head().decode(ideal)[0]) == 1
    both = head(nms="oks", nms_threshold=0.9).decode(ideal)[0]
    assert len(both) == 2
    assert (nearest(both, true) < 0.01).all()


def test_subjects_at_the_views_border_come_back() -> None:
    """A box whose centre is no cell's, and one that reaches out of the view."""
    true = poses((0, 0, 3, 90), (125, 90, 128, 96), (-40, 20, 30, 80))
    h = head()
    assert (nearest(h.decode(h.ideal(h.encode([true], SIZE)))[0], true) < 0.01).all()


def test_limits_of_what_is_given_out() -> None:
    true = poses(*[(x, y, x + 12, y + 12) for x in range(2, 110, 20) for y in range(2, 80, 20)])
    ideal = head().ideal(head().encode([true], SIZE))
    assert len(head().decode(ideal)[0]) == len(true)
    assert len(head(max_poses=5).decode(ideal)[0]) == 5
    for level in ideal:
        level["score"] = torch.full_like(level["score"], math.log(0.2 / 0.8))
    assert len(head(min_score=0.25).decode(ideal)[0]) == 0
    assert len(head(min_score=0.15).decode(ideal)[0]) > 0


# losses


def test_golden_keypoint_losses() -> None:
    """One cell of shift, a box of 100 cells, COCO's sigmas: all labelled, and the nose alone."""
    sigmas = torch.tensor(COCO.sigmas)
    true = torch.zeros(1, 17, 2)
    said = true + torch.tensor([1.0, 0.0])
    area = torch.tensor([100.0])
    labelled = torch.ones(1, 17)
    assert float(keypoint_loss(said, true, labelled, area, sigmas)) == pytest.approx(0.3530052, abs=1e-6)
    labelled[:, 1:] = 0
    assert float(keypoint_loss(said, true, labelled, area, sigmas)) == pytest.approx(0.8426232, abs=1e-6)
    assert float(keypoint_loss(true, true, labelled, area, sigmas)) == 0
    labelled[:] = 0
    assert float(keypoint_loss(said, true, labelled, area, sigmas)) == 0


@given(st.integers(0, 10**6), st.floats(0.01, 100))
def test_keypoint_loss_is_one_minus_oks_in_any_unit(seed: int, unit: float) -> None:
    random = np.random.default_rng(seed)
    true, said = random.uniform(0, 20, (2, 4, 3, 2))
    labelled = random.uniform(size=(4, 3)) < 0.7
    labelled[:, 0] = True
    area = random.uniform(50, 400, 4)
    got = keypoint_loss(
        torch.tensor(said * unit), torch.tensor(true * unit), torch.tensor(labelled).double(),
        torch.tensor(area * unit**2), torch.tensor(THREE.sigmas),
    )  # fmt: skip
    np.testing.assert_allclose(got, 1 - np.diag(oks(said, true, labelled * 2, area, THREE.sigma_array)), atol=1e-6)


def by_hand(h: YoloHead, outputs: list[dict[str, torch.Tensor]], view: Poses) -> dict[str, float]:
    """The five losses of one view in plain NumPy, anchor by anchor."""
    said = h.by_anchor(outputs)
    anchors, stride = said.anchors.numpy(), said.stride.numpy()
    boxes = h.anchor_boxes(said)[0].detach().double().numpy()
    logit = said.score[0].detach().double().numpy()
    score = 1 / (1 + np.exp(-logit))

    def ciou(a: np.ndarray, b: np.ndarray) -> float:
        wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        common = max(wide, 0) * max(high, 0)
        iou = common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)
        c2 = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
        rho2 = ((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2) / 4
        v = 4 / np.pi**2 * (np.arctan((b[2] - b[0]) / (b[3] - b[1])) - np.arctan((a[2] - a[0]) / (a[3] - a[1]))) ** 2
        return iou - rho2 / c2 - v**2 / (v - iou + 1)

    real = np.flatnonzero(~view.ignore)
    overlap = np.array([[ciou(boxes[a], view.box[m]) for a in range(len(anchors))] for m in real])
    claims: dict[int, list[int]] = {}
    for m in range(len(real)):
        x0, y0, x1, y1 = view.box[real[m]]
        inside = [a for a, (x, y) in enumerate(anchors) if x0 < x < x1 and y0 < y < y1]
        metric = {a: score[a] ** 0.5 * max(overlap[m, a], 0) ** 6 for a in inside}
        for a in sorted(inside, key=lambda a, metric=metric: -metric[a])[: h.top_k]:
            claims.setdefault(a, []).append(m)
    owner = {a: max(who, key=lambda m, a=a: overlap[m, a]) for a, who in claims.items()}
    target = np.zeros(len(anchors))
    for m in range(len(real)):
        mine = [a for a in owner if owner[a] == m]
        metric = {a: score[a] ** 0.5 * max(overlap[m, a], 0) ** 6 for a in mine}
        for a in mine:
            target[a] = metric[a] / (max(metric.values()) + 1e-9) * max(max(overlap[m, b], 0) for b in mine)
    total = max(target.sum(), 1)
    out = dict.fromkeys(("score", "box", "dfl", "keypoint", "visible"), 0.0)
    for a, (x, y) in enumerate(anchors):
        masked = any(b[0] < x < b[2] and b[1] < y < b[3] for b in view.box[view.ignore])
        if a in owner or not masked:
            out["score"] += -target[a] * np.log(score[a]) - (1 - target[a]) * np.log(1 - score[a])
    logits = said.box[0].detach().double().numpy()
    xy, visible = said.xy[0].detach().double().numpy(), said.visible[0].detach().double().numpy()  # type: ignore[index]
    for a, m in owner.items():
        box = view.box[real[m]]
        out["box"] += (1 - overlap[m, a]) * target[a]
        sides = np.array([*(anchors[a] - box[:2]), *(box[2:] - anchors[a])]) / stride[a]
        for side, d in enumerate(sides.clip(0, 14.99)):
            log = logits[a, side] - np.log(np.exp(logits[a, side]).sum())
            left = int(d)
            out["dfl"] += (-(left + 1 - d) * log[left] - (d - left) * log[left + 1]) / 4 * target[a]
        labelled = view.labelled[real[m]]
        area = (box[2] - box[0]) * (box[3] - box[1]) / stride[a] ** 2
        for k in range(labelled.size):
            if labelled[k]:
                # cells on both sides
                squared = ((xy[a, k] + anchors[a] / stride[a] - view.xy[real[m], k] / stride[a]) ** 2).sum()
                out["keypoint"] += (
                    (1 - np.exp(-squared / (8 * THREE.sigmas[k] ** 2 * area))) / labelled.sum() / len(owner)
                )
            doubt = np.log1p(np.exp(-visible[a, k] if labelled[k] else visible[a, k]))
            out["visible"] += doubt / labelled.size / len(owner)
    for name in ("score", "box", "dfl"):
        out[name] /= total
    gains = {"box": 7.5, "dfl": 1.5, "score": 0.5, "keypoint": 12.0, "visible": 1.0}
    return {name: float(gains[name] * value) for name, value in out.items()}


@pytest.mark.parametrize("seed", range(4))
def test_losses_by_hand(seed: int) -> None:
    """Overlapping people, one of them with an unlabelled keypoint, and a crowd that reaches over both."""
    h = head().eval()
    view = poses((10, 8, 70, 60), (40, 20, 100, 88), (60, 4, 126, 70), seed=seed)
    visible = view.visible.copy()
    visible[1, 2] = 0
    view = Poses.make(view.xy, visible, box=view.box, ignore=np.array([False, False, True]))
    # about what a half-trained network says: boxes that overlap the truth, scores between 0 and 1
    outputs = h.ideal(h.encode([Poses.make(view.xy, box=view.box)], SIZE))
    random = torch.Generator().manual_seed(seed)
    outputs = [
        {n: v.clamp(-3, 3) + torch.randn(v.shape, generator=random) for n, v in level.items()} for level in outputs
    ]
    got = {name: float(value) for name, value in h.loss(outputs, h.encode([view], SIZE)).items()}
    wanted = by_hand(h, outputs, view)
    assert got.keys() == wanted.keys()
    for name in wanted:
        # float32 against float64, and 1e-7 beside areas
        assert got[name] == pytest.approx(wanted[name], rel=2e-4), name


def test_sigmas_are_the_skeletons_own() -> None:
    """A keypoint twice as tolerant takes twice the error for the same loss, whatever the number of keypoints."""
    costs = []
    for k, shift in ((0, 1.0), (1, 2.0), (2, 4.0)):
        h = head()
        view = poses((10, 8, 70, 60))
        targets = h.encode([view], SIZE)
        xy = view.xy.copy()
        xy[0, k, 0] += shift
        said = h.ideal(h.encode([Poses.make(xy, box=view.box)], SIZE))
        costs.append(float(h.loss(said, targets)["keypoint"]))
    assert costs[0] > 0.01
    assert costs == pytest.approx([costs[0]] * 3, rel=1e-3)


def test_an_unlabelled_keypoint_gets_no_gradient_but_its_visibility_does() -> None:
    h = head(distance_weight=5.0)
    view = poses((10, 8, 70, 60))
    view = Poses.make(view.xy, np.array([[2, 0, 1]]), box=view.box)
    outputs = h(maps(h, 1))
    for level in outputs:
        for value in level.values():
            value.retain_grad()
    torch.stack(list(h.loss(outputs, h.encode([view], SIZE)).values())).sum().backward()
    xy = torch.cat([level["xy"].grad.flatten(2) for level in outputs], dim=-1)[0].reshape(3, 2, -1)
    visible = torch.cat([level["visible"].grad.flatten(2) for level in outputs], dim=-1)[0]
    assert (xy[1] == 0).all()
    assert (xy[2] != 0).any()
    assert (visible[1] > 0).any(), "it is to say that nothing is labelled"
    assert (visible[2] < 0).any(), "hidden keypoints count as labelled"


def test_a_distance_far_away_has_a_gradient_and_none_at_all_has_none() -> None:
    """1 - OKS is flat there: exp(-e) is 0 in float32."""
    view = poses((10, 8, 70, 60))
    for gain, moved in ((0.0, False), (5.0, True)):
        h = head(distance_weight=gain)
        targets = h.encode([view], SIZE)
        outputs = h.ideal(targets)
        for level in outputs:
            level["xy"] = (level["xy"] + 100).requires_grad_()
        torch.stack(list(h.loss(outputs, targets).values())).sum().backward()
        assert any(bool((level["xy"].grad != 0).any()) for level in outputs) is moved
    # at the truth itself, the root has no derivative
    exact = h.ideal(targets)
    for level in exact:
        level["xy"].requires_grad_()
    torch.stack(list(h.loss(exact, targets).values())).sum().backward()
    assert all(torch.isfinite(level["xy"].grad).all() for level in exact)


@pytest.mark.parametrize("views", ["nobody", "nobody labelled", "one small", "batch of both"])
def test_losses_are_finite_with_gradients_whatever_is_there(views: str) -> None:
    unlabelled = Poses.make(np.full((1, 3, 2), NAN), box=np.array([[10.0, 10, 50, 50]]))
    batch = {
        "nobody": [Poses.empty(3)] * 2,
        "nobody labelled": [unlabelled] * 2,
        "one small": [poses((33, 33, 34, 34)), Poses.empty(3)],
        "batch of both": [unlabelled, poses((5, 5, 60, 60), (5, 5, 60, 60))],
    }[views]
    h = head()
    outputs = h(maps(h))
    losses = h.loss(outputs, h.encode(batch, SIZE))
    assert set(losses) == {"score", "box", "dfl", "keypoint", "visible"}
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(v) for v in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in h.parameters() if p.grad is not None)
    assert (losses["keypoint"] > 0) == (views in ("one small", "batch of both"))


def test_cells_in_a_crowd_say_what_they_like() -> None:
    h = head()
    crowd = poses((40, 20, 100, 80))
    targets = h.encode([Poses.make(crowd.xy, box=crowd.box, ignore=np.array([True]))], SIZE)
    quiet = h.ideal(h.encode([Poses.empty(3)], SIZE))
    loud = h.ideal(h.encode([crowd], SIZE))

    def cost(outputs: list[dict[str, torch.Tensor]]) -> float:
        return float(h.loss(outputs, targets)["score"])

    assert cost(loud) == pytest.approx(cost(quiet), abs=1e-6)
    elsewhere = h.ideal(h.encode([poses((2, 2, 38, 60))], SIZE))
    assert cost(elsewhere) > 10


# options


def test_boxes_of_keypoints() -> None:
    """A hull of 40 x 20 px with a tenth of 40 on each side, whatever was annotated."""
    view = Poses.make(np.array([[[20.0, 30], [60, 50], [40, 40]]]), box=np.array([[0.0, 0, 128, 96]]))
    box = head(boxes="keypoints", margin=0.1).encode([view], SIZE)["box"]
    assert box[0, 0].tolist() == [16, 26, 64, 54]
    assert head(boxes="annotated").encode([view], SIZE)["box"][0, 0].tolist() == [0, 0, 128, 96]


def test_a_detector_gives_boxes_only() -> None:
    h = head(keypoints=False)
    assert not h.to_keypoints
    view = poses((10, 8, 70, 60), (80, 30, 120, 90))
    targets = h.encode([view], SIZE)
    found = h.decode(h.ideal(targets))[0]
    np.testing.assert_allclose(found.box[np.argsort(found.box[:, 0])], view.box, atol=0.01)
    assert np.isnan(found.xy).all()
    assert (found.keypoint_score == 0).all()
    assert (found.score > 0.99).all()
    outputs = h(maps(h, 1))
    losses = h.loss(outputs, targets)
    assert set(losses) == {"score", "box", "dfl"}
    torch.stack(list(losses.values())).sum().backward()
    back = h.unflip(h.unflip(outputs))
    assert all(torch.equal(a[n], b[n]) for a, b in zip(back, outputs, strict=True) for n in a)


def test_biases_start_as_published() -> None:
    torch.manual_seed(0)
    h = YoloHead(HeadInputs([8, 8, 8], STRIDES, (640, 640), THREE))
    for stride, box, score in zip(STRIDES, h.to_box, h.to_score, strict=True):
        assert (box[-1].bias == 1).all()  # type: ignore[index]
        assert float(score[-1].bias) == pytest.approx(math.log(5 / (640 / stride) ** 2))  # type: ignore[index]


def test_last_layers_are_not_rounded() -> None:
    """Under bfloat16, offsets of some 50 cells would be rounded to a quarter of a cell."""
    h = head().eval()
    for layers in h.to_keypoints:
        torch.nn.init.constant_(layers[-1].bias, 50.1)  # type: ignore[index]
        torch.nn.init.zeros_(layers[-1].weight)  # type: ignore[index]
    with torch.autocast("cpu", torch.bfloat16):
        outputs = h(maps(h))
    assert outputs[0]["xy"].flatten().tolist() == pytest.approx([99.7] * outputs[0]["xy"].numel(), abs=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nms": "soft"}, "got nms 'soft'"),
        ({"nms": "oks", "keypoints": False}, "keypoints False"),
        ({"nms_threshold": 0.0}, "nms_threshold in"),
        ({"min_score": 1.0}, "min_score in"),
        ({"top_k": 0}, "top_k > 0"),
        ({"bins": 1}, "bins"),
        ({"boxes": "hull"}, "annotated or keypoints"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        head(**options)
