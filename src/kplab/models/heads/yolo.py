"""YOLOv8-pose: one-stage and anchor-free; each cell of each map predicts a score, a box and keypoints."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kplab.errors import ModelError
from kplab.models.csp import Conv
from kplab.models.heads.base import Head, HeadInputs
from kplab.models.heads.multi import boxes_of, padded
from kplab.ops.assignment import assigned_anchors, task_aligned
from kplab.ops.boxes import complete_iou, distance_logits, distance_loss, expected_distance
from kplab.ops.nms import box_nms
from kplab.ops.oks import oks_nms
from kplab.structures.poses import Poses

#: Number of predictions of a view that enter NMS, by score.
CANDIDATES = 1000
#: Logit of ideal outputs.
CONFIDENT = 20.0


class AnchorOutputs(NamedTuple):
    """Outputs by anchor: the cells of all maps in one row of A, finest map first.

    Attributes:
        box: (B, A, 4, bins) logits of the distances to the left, upper, right and lower side.
        score: (B, A) logits.
        xy: (B, A, K, 2) keypoints relative to the anchor, cells; or None.
        visible: (B, A, K) logits; or None.
        anchors: (A, 2) centres of the cells, view pixels.
        stride: (A,) pixels per cell.
    """

    box: Tensor
    score: Tensor
    xy: Tensor | None
    visible: Tensor | None
    anchors: Tensor
    stride: Tensor


class YoloHead(Head):
    """The head of YOLOv8-pose: for each cell of all feature maps a score, a box and K keypoints.

    Outputs are one dict per map: ``box`` (B, 4 * bins, h, w) logits of the distances from the cell's centre to the sides;
    ``score`` (B, 1, h, w) logits; ``xy`` (B, 2 K, h, w), keypoints relative to the cell's centre in cells, that is 2 t - 0.5 of
    the layer's t; ``visible`` (B, K, h, w) logits. A keypoint is at (2 t + i) * stride, i the cell's index.

    ``visible`` is trained on whether a keypoint is labelled; COCO's 1 and 2 are one class, so hidden ones are not distinguished.

    Args:
        keypoints: false is a detector without keypoints, whose poses have a score and a box only.
        boxes: ``annotated`` or ``keypoints``, see ``multi.boxes_of``.
        margin: of hulls of keypoints, fraction of their longer side.
        bins: of the distribution of a distance; a box extends at most bins - 1 cells from its anchor.
        top_k: anchors assigned to one instance.
        box_weight: of the box's 1 - CIoU.
        dfl_weight: of the distributions' cross entropy.
        score_weight: of the score's cross entropy.
        keypoint_weight: of 1 - OKS.
        visible_weight: of the cross entropy of ``visible``.
        distance_weight: of the keypoints' mean distance over the square root of the box's area; not in YOLOv8. The
            gradient of 1 - OKS vanishes far from a keypoint with a small sigma, and this one is constant.
        nms: ``box``: NMS by the IoU of boxes; ``oks``: by the OKS of keypoints.
        nms_threshold: IoU or OKS threshold of NMS.
        min_score: smallest score of a pose.
        max_poses: largest number of poses of a view.

    Source: Jocher et al., YOLOv8, 2023; Maji et al., "YOLO-Pose", 2022.
    """

    after_graph = "non-maximum suppression of the candidates"
    sigmas: Tensor

    def __init__(
        self,
        inputs: HeadInputs,
        *,
        keypoints: bool = True,
        boxes: str = "annotated",
        margin: float = 0.1,
        bins: int = 16,
        top_k: int = 10,
        box_weight: float = 7.5,
        dfl_weight: float = 1.5,
        score_weight: float = 0.5,
        keypoint_weight: float = 12.0,
        visible_weight: float = 1.0,
        distance_weight: float = 0.0,
        nms: str = "box",
        nms_threshold: float = 0.7,
        min_score: float = 0.001,
        max_poses: int = 100,
    ) -> None:
        super().__init__(inputs)
        if nms not in ("box", "oks") or (nms == "oks" and not keypoints):
            raise ModelError(
                f"head 'yolo' has nms box, and with keypoints oks, but got nms '{nms}' with "
                f"keypoints {keypoints}. Use head.nms=box."
            )
        if not (0 < nms_threshold <= 1 and 0 <= min_score < 1 and max_poses > 0 and top_k > 0 and bins > 1):
            raise ModelError(
                "head 'yolo' needs nms_threshold in (0, 1], min_score in [0, 1), max_poses and top_k > 0 and bins "
                f"> 1, but got {nms_threshold}, {min_score}, {max_poses}, {top_k} and {bins}. "
                "0.7, 0.001, 100, 10 and 16 are usual."
            )
        boxes_of(Poses.empty(len(self.skeleton)), boxes, margin)  # checks the option
        self.strides = list(inputs.strides)
        self.keypoints, self.boxes, self.margin, self.bins, self.top_k = keypoints, boxes, margin, bins, top_k
        self.weights = {
            "box": box_weight, "dfl": dfl_weight, "score": score_weight, "keypoint": keypoint_weight, "visible": visible_weight,
            "distance": distance_weight,
        }  # fmt: skip
        self.nms, self.nms_threshold = nms, nms_threshold
        self.min_score, self.max_poses = min_score, max_poses
        first, points = inputs.in_channels[0], 3 * len(self.skeleton)
        self.to_box = nn.ModuleList(branch(c, max(16, first // 4, 4 * 16), 4 * bins) for c in inputs.in_channels)
        self.to_score = nn.ModuleList(branch(c, first, 1) for c in inputs.in_channels)
        self.to_keypoints = nn.ModuleList(
            branch(c, max(first // 4, points), points) for c in inputs.in_channels if self.keypoints
        )
        for box, score, stride in zip(self.to_box, self.to_score, inputs.strides, strict=True):
            nn.init.constant_(last_bias(box), 1.0)
            # the probability of five subjects among the cells of a view
            nn.init.constant_(last_bias(score), min(0.0, math.log(5 * stride**2 / (self.size[0] * self.size[1]))))
        self.register_buffer("sigmas", torch.tensor(self.skeleton.sigmas, dtype=torch.float32), persistent=False)

    def encode(self, poses: list[Poses], size: tuple[int, int]) -> dict[str, Any]:
        """Stack true boxes and keypoints, padded to equal numbers per view; anchors are assigned in ``loss``, by predictions.

        Returns:
            ``box`` (B, M, 4), ``xy`` (B, M, K, 2), ``labelled`` (B, M, K), ``exists`` (B, M), ``ignored`` (B, I, 4) and
            ``size``, view pixels.
        """
        parts: dict[str, list[np.ndarray]] = {"box": [], "xy": [], "labelled": [], "exists": [], "ignored": []}
        for view in poses:
            box = boxes_of(view, self.boxes, self.margin)
            boxed = np.isfinite(box).all(1)
            learnt = boxed & ~view.ignore
            parts["box"].append(box[learnt])
            parts["xy"].append(np.nan_to_num(view.xy[learnt]))
            parts["labelled"].append(view.labelled[learnt])
            parts["exists"].append(np.ones(learnt.sum(), dtype=bool))
            parts["ignored"].append(box[boxed & view.ignore])
        return {**{name: padded(rows, self.device) for name, rows in parts.items()}, "size": size}

    def forward(self, maps: list[Tensor], targets: Any | None = None) -> list[dict[str, Tensor]]:
        """One dict of outputs per map, finest first."""
        out = []
        for i, m in enumerate(maps):
            level = {"box": self.to_box[i](m), "score": self.to_score[i](m)}
            if self.keypoints:
                raw = self.to_keypoints[i](m).unflatten(1, (-1, 3))
                level |= {"xy": (2 * raw[:, :, :2] - 0.5).flatten(1, 2), "visible": raw[:, :, 2]}
            out.append(level)
        return out

    def loss(self, outputs: list[dict[str, Tensor]], targets: dict[str, Any]) -> dict[str, Tensor]:
        """The five losses of YOLOv8 with their weights; w is the target score of an anchor, S = max(sum w, 1).

        box = sum w (1 - CIoU) / S, dfl = sum w DFL / S, score = sum BCE(score, w) / S over all anchors;
        keypoint = mean of 1 - OKS, with the box's area, and visible = mean of BCE(visible, labelled), over positives.

        Unassigned anchors in an ignored box are left out of the loss of scores.
        """
        flat = self.by_anchor(outputs)
        boxes = self.anchor_boxes(flat)
        assigned = task_aligned(
            flat.score.sigmoid(), boxes, flat.anchors, targets["box"], targets["exists"], self.top_k,
            least_side=2.0 * self.strides[0],
        )  # fmt: skip
        positive = assigned.instance >= 0
        low, high = targets["ignored"][:, :, None, :2], targets["ignored"][:, :, None, 2:]
        ignored = ((flat.anchors > low) & (flat.anchors < high)).all(-1).any(1)
        scale = assigned.score.sum().clamp_min(1)
        entropy = F.binary_cross_entropy_with_logits(flat.score, assigned.score, reduction="none")
        losses = {"score": (entropy * (positive | ~ignored)).sum() / scale}

        view, anchor = positive.nonzero(as_tuple=True)
        instance, weight = assigned.instance[positive], assigned.score[positive]
        true = targets["box"][view, instance]
        centre, stride = flat.anchors[anchor], flat.stride[anchor, None]
        distance = torch.cat([centre - true[:, :2], true[:, 2:] - centre], dim=-1) / stride
        losses["box"] = ((1 - complete_iou(boxes[positive], true)) * weight).sum() / scale
        losses["dfl"] = (distance_loss(flat.box[positive], distance).mean(-1) * weight).sum() / scale
        if flat.xy is not None and flat.visible is not None:
            true_xy, labelled = targets["xy"][view, instance], targets["labelled"][view, instance].float()
            # in cells, as the network predicts them
            wanted = (true_xy - centre[:, None]) / stride[..., None]
            area = (true[:, 2:] - true[:, :2]).prod(-1) / stride[:, 0] ** 2
            count = max(len(instance), 1)
            losses["keypoint"] = keypoint_loss(flat.xy[positive], wanted, labelled, area, self.sigmas).sum() / count
            if self.weights["distance"]:
                away = (flat.xy[positive] - wanted).norm(dim=-1) / (area[:, None] + 1e-9).sqrt()
                losses["distance"] = (away * labelled).sum() / labelled.sum().clamp_min(1)
            entropy_visible = F.binary_cross_entropy_with_logits(flat.visible[positive], labelled, reduction="sum")
            losses["visible"] = entropy_visible / (count * labelled.shape[1])
        return {name: self.weights[name] * value for name, value in losses.items()}

    @torch.no_grad()
    def decode_tensors(self, outputs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The highest-scoring predictions of each view, before NMS, sorted by score.

        The score of a keypoint is that of its instance times sigmoid(visible). Without keypoints there are boxes and scores only.
        """
        flat = self.by_anchor(outputs)
        score, anchor = flat.score.sigmoid().topk(min(CANDIDATES, len(flat.anchors)), dim=1)
        decoded = {"boxes": _at(self.anchor_boxes(flat), anchor), "scores": score}
        if flat.xy is not None and flat.visible is not None:
            offset = _at(flat.xy, anchor) * flat.stride[anchor][..., None, None]
            decoded["keypoints"] = flat.anchors[anchor][:, :, None] + offset
            decoded["keypoint_scores"] = _at(flat.visible, anchor).sigmoid() * score[..., None]
        return decoded

    def make_poses(self, decoded: dict[str, Tensor]) -> list[Poses]:
        """The predictions that are left by NMS, sorted by score. Without keypoints all of them are NaN."""
        found = []
        for i, score in enumerate(decoded["scores"]):
            kept = (score > self.min_score).nonzero().squeeze(1)
            if self.nms == "box":
                kept = kept[box_nms(decoded["boxes"][i, kept], score[kept], self.nms_threshold)[: self.max_poses]]
            arrays = {name: values[i, kept].double().cpu().numpy() for name, values in decoded.items()}
            shape = (len(kept), len(self.skeleton))
            xy = arrays.get("keypoints", np.full((*shape, 2), np.nan))
            score_of = {"score": arrays["scores"], "keypoint_score": arrays.get("keypoint_scores", np.zeros(shape))}
            poses = Poses.make(xy, box=arrays["boxes"], **score_of)
            if self.nms == "oks":
                area = (poses.box[:, 2:] - poses.box[:, :2]).prod(1)
                sigmas = self.skeleton.sigma_array
                poses = poses[oks_nms(xy, poses.score, area, sigmas, self.nms_threshold, self.max_poses)]
            found.append(poses)
        return found

    def ideal(self, targets: dict[str, Any]) -> list[dict[str, Tensor]]:
        """Each instance is predicted by ``top_k`` anchors near its centre, or by those nearer to it than to others."""
        shapes = [(targets["size"][1] // s, targets["size"][0] // s) for s in self.strides]
        anchors, stride = grid(shapes, self.strides, self.device)
        views, count, points = len(targets["box"]), len(anchors), len(self.skeleton)
        flat = AnchorOutputs(
            box=torch.zeros(views, count, 4, self.bins, device=self.device),
            score=torch.full((views, count), -CONFIDENT, device=self.device),
            xy=torch.zeros(views, count, points, 2, device=self.device) if self.keypoints else None,
            visible=torch.full((views, count, points), -CONFIDENT, device=self.device) if self.keypoints else None,
            anchors=anchors,
            stride=stride,
        )
        for i in range(views):
            true = targets["box"][i, targets["exists"][i]]
            assigned, owner = assigned_anchors(
                true, anchors, stride * (self.bins - 1.01), 2.0 * self.strides[0], self.top_k
            )
            box, centre, cell = true[owner], anchors[assigned], stride[assigned, None]
            distance = torch.cat([centre - box[:, :2], box[:, 2:] - centre], dim=-1) / cell
            flat.box[i, assigned] = distance_logits(distance, self.bins)
            flat.score[i, assigned] = CONFIDENT
            if flat.xy is not None and flat.visible is not None:
                labelled = targets["labelled"][i, owner]
                offset = (targets["xy"][i, owner] - centre[:, None]) / cell[..., None]
                flat.xy[i, assigned] = offset * labelled[..., None]
                flat.visible[i, assigned] = torch.where(labelled, CONFIDENT, -CONFIDENT)
        return self._levels(flat, shapes)

    def unflip(self, outputs: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Maps mirrored, keypoints permuted; left and right distances are swapped, and the x of offsets is negated."""
        out = []
        for level in outputs:
            m = {name: value.flip(-1) for name, value in level.items()}
            m["box"] = m["box"].unflatten(1, (4, self.bins))[:, [2, 1, 0, 3]].flatten(1, 2)
            if self.keypoints:
                sign = torch.tensor([-1.0, 1.0], device=m["xy"].device)[:, None, None]
                m["xy"] = (m["xy"].unflatten(1, (-1, 2))[:, self.flip] * sign).flatten(1, 2)
                m["visible"] = m["visible"][:, self.flip]
            out.append(m)
        return out

    def by_anchor(self, outputs: list[dict[str, Tensor]]) -> AnchorOutputs:
        """Maps to outputs by anchor."""

        def rows(name: str, *shape: int) -> Tensor | None:
            if name not in outputs[0]:
                return None
            return torch.cat([level[name].flatten(2).transpose(1, 2) for level in outputs], dim=1).unflatten(-1, shape)

        shapes = [(level["score"].shape[2], level["score"].shape[3]) for level in outputs]
        anchors, stride = grid(shapes, self.strides, outputs[0]["score"].device)
        box, score = cast(Tensor, rows("box", 4, self.bins)), cast(Tensor, rows("score", 1))
        return AnchorOutputs(box, score.squeeze(-1), rows("xy", -1, 2), rows("visible", -1), anchors, stride)

    def anchor_boxes(self, flat: AnchorOutputs) -> Tensor:
        """(B, A, 4) xyxy, view pixels."""
        reach = expected_distance(flat.box) * flat.stride[:, None]
        return torch.cat([flat.anchors - reach[..., :2], flat.anchors + reach[..., 2:]], dim=-1)

    def candidates(self, outputs: list[dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
        """The box of every anchor."""
        flat = self.by_anchor(outputs)
        return self.anchor_boxes(flat), flat.score.sigmoid()

    def _levels(self, flat: AnchorOutputs, shapes: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
        """Outputs by anchor to maps."""
        rows = {"box": flat.box.flatten(2), "score": flat.score[..., None]}
        if flat.xy is not None and flat.visible is not None:
            rows |= {"xy": flat.xy.flatten(2), "visible": flat.visible}
        lengths = [h * w for h, w in shapes]
        parts = {name: value.transpose(1, 2).split(lengths, dim=-1) for name, value in rows.items()}
        return [{n: p[i].unflatten(-1, shape).contiguous() for n, p in parts.items()} for i, shape in enumerate(shapes)]


def _at(values: Tensor, anchor: Tensor) -> Tensor:
    """(B, A, ...) values at (B, P) anchors: (B, P, ...)."""
    index = anchor.reshape(*anchor.shape, *[1] * (values.dim() - 2))
    return values.gather(1, index.expand(*anchor.shape, *values.shape[2:]))


class FullConv(nn.Conv2d):
    """A 1x1 convolution in full precision: bfloat16 resolves an offset of 100 pixels to half a pixel only."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H, W)."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


def branch(before: int, width: int, after: int) -> nn.Sequential:
    """Two 3x3 convolutions and a linear layer."""
    return nn.Sequential(Conv(before, width, 3), Conv(width, width, 3), FullConv(width, after, kernel_size=1))


def last_bias(layers: nn.Module) -> Tensor:
    """The bias of the last layer of a branch."""
    return cast(Tensor, cast(nn.Sequential, layers)[-1].bias)


def grid(shapes: list[tuple[int, int]], strides: list[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Centres of all cells (A, 2), pixels, rows of a map one after another, and the stride (A,) of each."""
    centres, steps = [], []
    for (height, width), stride in zip(shapes, strides, strict=True):
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centres.append((torch.stack([x, y], dim=-1).reshape(-1, 2) + 0.5) * stride)
        steps.append(torch.full((height * width,), float(stride)))
    return torch.cat(centres).to(device), torch.cat(steps).to(device)


def keypoint_loss(xy: Tensor, true_xy: Tensor, labelled: Tensor, area: Tensor, sigmas: Tensor) -> Tensor:
    """1 - OKS of each pair, with any area.

    f mean_k (1 - exp(-d_k**2 / (8 sigma_k**2 area))) m_k,  f = K / sum m

    Args:
        xy: (n, K, 2) predicted, any unit.
        true_xy: (n, K, 2) same unit; anything finite where unlabelled.
        labelled: (n, K) 1 or 0.
        area: (n,) squares of that unit.
        sigmas: (K,) dimensionless.

    Returns:
        (n,) in [0, 1]; 0 where nothing is labelled.
    """
    squared = ((xy - true_xy) ** 2).sum(-1)
    away = -torch.expm1(-squared / (8 * sigmas**2 * (area[:, None] + 1e-9)))
    factor = labelled.shape[1] / (labelled.sum(1) + 1e-9)
    return factor * (away * labelled).mean(1)
