"""Parts of Keypoint R-CNN beyond torchvision's: layers in full precision, RoIAlign with options, ignored subjects, scores."""

from __future__ import annotations

import itertools
import re

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import box_iou, roi_align
from torchvision.ops.poolers import LevelMapper

from kplab.errors import ModelError

#: Coarsest stride of the maps that RoIs are cropped from; the pooled map above it is used for proposals only.
COARSEST_STRIDE = 32
#: Error up to which smooth L1 is quadratic, in units of the box coder.
BETA = 1 / 9
#: Curvature of ideal heatmaps, nats per squared cell.
CURVATURE = 20.0


class Layers(RPNHead):
    """A 3x3 convolution, and in full precision two 1x1 convolutions: bfloat16 resolves a side of 500 pixels to 2 pixels only."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """(B, C, h, w) maps to (B, anchors, h, w) logits and (B, 4 anchors, h, w) corrections of each."""
        hidden = [self.conv(m) for m in x]
        with torch.autocast(hidden[0].device.type, enabled=False):
            return [self.cls_logits(h.float()) for h in hidden], [self.bbox_pred(h.float()) for h in hidden]


class BoxPredictor(FastRCNNPredictor):
    """Torchvision's, in full precision."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(R, width) to (R, classes) logits and (R, 4 classes) corrections."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class HeatmapPredictor(KeypointRCNNPredictor):
    """Torchvision's, in full precision: its logits are compared over thousands of cells."""

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, s, s) to (R, K, 4 s, 4 s) logits."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class RoIPool(nn.Module):
    """RoIAlign on the map of each box's scale: level floor(4 + log2(sqrt(area) / 224)), 2 being stride 4.

    Args:
        strides: of the maps, finest first, each twice the one before.
        side: of the crop, cells.
        sampling: samples of a cell along each axis; 0 takes as many as the map has.
        aligned: whether the value of a cell of the map is at its centre, which is exact, or at its corner, as for the
            published weights of torchvision.

    Source: Lin et al., "Feature Pyramid Networks for Object Detection", 2017; He et al., "Mask R-CNN", 2017.
    """

    def __init__(self, strides: list[int], side: int, sampling: int, aligned: bool) -> None:
        super().__init__()
        if any(coarse != 2 * fine for fine, coarse in itertools.pairwise(strides)) or strides[0].bit_count() != 1:
            raise ModelError(
                f"head 'rcnn' crops its regions from maps whose strides double, such as 4, 8, 16, 32, but the neck gives "
                f"{strides}. Use neck=fpn, or neck=simple_pyramid for equal strides."
            )
        self.strides, self.side, self.sampling, self.aligned = strides, side, sampling, aligned
        self.level_of = LevelMapper(strides[0].bit_length() - 1, strides[-1].bit_length() - 1)

    def forward(self, maps: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """Crop R boxes.

        Args:
            maps: (B, C, h, w), one per stride.
            boxes: B tensors (n, 4) xyxy, view pixels, R in all.

        Returns:
            (R, C, side, side).
        """
        rois = torch.cat(boxes)
        view = torch.cat([torch.full_like(b[:, :1], i) for i, b in enumerate(boxes)])
        level = self.level_of(boxes)
        out = maps[0].new_zeros(len(rois), maps[0].shape[1], self.side, self.side)
        for i, (m, stride) in enumerate(zip(maps, self.strides, strict=True)):
            here = torch.where(level == i)[0]
            cut = torch.cat([view[here], rois[here]], dim=1)
            out[here] = roi_align(m, cut, self.side, 1 / stride, self.sampling, self.aligned)
        return out


def assign(matcher: Matcher, boxes: Tensor, true: Tensor, ignored: Tensor) -> tuple[Tensor, Tensor]:
    """Assign labels and subjects to the anchors or proposals of one view.

    A box without a match is neither positive nor negative if the matcher's lower threshold of its area is in an ignored box.

    Args:
        boxes: (A, 4) xyxy, view pixels.
        true: (M, 4) of subjects.
        ignored: (I, 4) of crowds and unlabelled subjects.

    Returns:
        (A,) int64 label: 1 a subject, 0 background, -1 neither; and (A,) int64 index of the subject, 0 where there is none.
    """
    instance = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    label = torch.zeros_like(instance)
    if len(boxes) and len(true):
        matched = matcher(box_iou(true, boxes))
        label = torch.where(matched >= 0, 1, torch.where(matched == matcher.BELOW_LOW_THRESHOLD, 0, -1))
        instance = matched.clamp_min(0)
    if len(boxes) and len(ignored):
        low, high = torch.maximum(boxes[:, None, :2], ignored[:, :2]), torch.minimum(boxes[:, None, 2:], ignored[:, 2:])
        area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
        share = (high - low).clamp_min(0).prod(-1).amax(1) / area
        label[(label == 0) & (share >= matcher.low_threshold)] = -1
    return label, instance


def perfect_heatmaps(xy: Tensor, labelled: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Logits of a narrow Gaussian around the cell of each keypoint, 0 if it is unlabelled.

    -20 d**2, d the distance from the cell in cells. It is smooth, because boxes of fewer pixels than cells are decoded
    from a sample of the heatmap, which would miss a single lit cell.

    Args:
        xy: (R, K, 2) view pixels.
        labelled: (R, K) bool.
        boxes: (R, 4) view pixels; keypoints outside are assigned to the nearest cell.
        side: of a heatmap, cells.

    Returns:
        (R, K, side, side).
    """
    cell = cells(xy, boxes, side)
    along = torch.arange(side, device=xy.device)
    squared = ((along - cell[..., None]) ** 2).float()
    return -CURVATURE * (squared[:, :, 1, :, None] + squared[:, :, 0, None, :]) * labelled[..., None, None]


def cells(xy: Tensor, boxes: Tensor, side: int) -> Tensor:
    """(R, K, 2) int64 (column, row) of the cell of the heatmap that contains each keypoint, or is nearest to it."""
    low, sides = boxes[:, None, :2], (boxes[:, None, 2:] - boxes[:, None, :2]).clamp_min(1e-6)
    return ((xy - low) / sides * side).floor().long().clamp(0, side - 1)


def peak_probability(heatmap: Tensor, xy: Tensor, boxes: Tensor) -> Tensor:
    """Probability that a keypoint is within a cell of its decoded position: the softmax of its heatmap, summed over 3x3 cells.

    Args:
        heatmap: (R, K, S, S) logits.
        xy: (R, K, 2) decoded positions, view pixels.
        boxes: (R, 4) view pixels.

    Returns:
        (R, K) in [0, 1].
    """
    share = heatmap.flatten(2).softmax(-1).view_as(heatmap)
    around = F.avg_pool2d(share, kernel_size=3, stride=1, padding=1, divisor_override=1)
    column, row = cells(xy, boxes, heatmap.shape[-1]).unbind(-1)
    r, k = torch.meshgrid(*(torch.arange(n, device=xy.device) for n in heatmap.shape[:2]), indexing="ij")
    return around[r, k, row, column].clamp(0, 1)


def is_torchvisions(state: dict[str, Tensor]) -> bool:
    """Whether weights are those of torchvision's Keypoint R-CNN."""
    return any(key.startswith("roi_heads.keypoint_predictor.") for key in state)


def from_torchvision(state: dict[str, Tensor], strides: list[int]) -> dict[str, Tensor]:
    """Weights of torchvision's Keypoint R-CNN under the names of a PoseModel: timm's ResNet, ``fpn_pool``, ``rcnn``.

    Both sets of names are accepted: those of torchvision 0.13 and those of earlier files.

    Args:
        state: tensors by torchvision's names.
        strides: of the backbone's maps, finest first.
    """
    renamed = {}
    for key, value in state.items():
        name = re.sub(r"^backbone\.body\.", "backbone.net.", key)
        name = re.sub(r"^backbone\.fpn\.inner_blocks\.(\d+)(?:\.0)?\.(?=weight|bias)", r"neck.lateral.\1.", name)
        if level := re.match(r"^backbone\.fpn\.layer_blocks\.(\d+)(?:\.0)?\.(?=weight|bias)", name):
            name = f"neck.out.{strides[int(level[1])]}.{name[level.end() :]}"
        name = re.sub(r"^rpn\.head\.conv\.(?=weight|bias)", "rpn.head.conv.0.0.", name)
        renamed[re.sub(r"^(rpn|roi_heads)\.", r"head.\1.", name)] = value
    return renamed


def sizes_of(anchor_sizes: list[list[float]] | None, strides: list[int]) -> tuple[tuple[float, ...], ...]:
    """Sizes of anchors on each map, pixels; 8 strides by default.

    Raises:
        ModelError: not as many lists as maps, or lists of different lengths, which torchvision doesn't support.
    """
    if anchor_sizes is None:
        return tuple((8.0 * stride,) for stride in strides)
    if len(anchor_sizes) != len(strides) or len({len(row) for row in anchor_sizes}) != 1 or not anchor_sizes[0]:
        raise ModelError(
            f"head 'rcnn' needs anchor_sizes for each of the neck's {len(strides)} maps (strides {strides}), equally many "
            f"for each, but got {anchor_sizes}. Set head.anchor_sizes=null for 8 strides."
        )
    return tuple(tuple(row) for row in anchor_sizes)


def by_mode(counts: tuple[int, int]) -> dict[str, int]:
    """Counts under torchvision's names for training and prediction."""
    return {"training": counts[0], "testing": counts[1]}


def check_thresholds(high_name: str, high: float, low_name: str, low: float) -> None:
    """Check that IoU thresholds are in order."""
    if not 0 < low <= high <= 1:
        raise ModelError(
            f"head 'rcnn' needs 0 < {low_name} <= {high_name} <= 1, but got {low} and {high}. "
            "0.3 and 0.7 are usual for proposals, 0.5 and 0.5 for regions."
        )


def check_counts(**counts: int) -> None:
    """Check that counts are at least 1."""
    if low := [f"{name} {value}" for name, value in counts.items() if value < 1]:
        raise ModelError(f"head 'rcnn' needs at least 1 of each, but got {', '.join(low)}. See conf/head/rcnn.yaml.")


def stacked(rows: list[tuple[Tensor, Tensor, Tensor]]) -> dict[str, Tensor]:
    """Boxes, scores and heatmaps of B views as (B, P, ...) tensors, padded with scores of -1."""
    names = {"boxes": 0.0, "scores": -1.0, "heatmaps": 0.0}
    columns = zip(names.items(), zip(*rows, strict=True), strict=True)
    if len(rows) == 1:
        return {name: column[0][None] for (name, _), column in columns}
    return {name: pad_sequence(list(column), batch_first=True, padding_value=v) for (name, v), column in columns}


def each(targets: dict[str, Tensor], name: str, there: str) -> list[Tensor]:
    """One tensor per view, without the padding."""
    return [rows[real] for rows, real in zip(targets[name], targets[there], strict=True)]


def views_of(boxes: list[Tensor]) -> Tensor:
    """(R,) int64: the view of each of R boxes."""
    count = torch.tensor([len(b) for b in boxes], device=boxes[0].device)
    return torch.arange(len(boxes), device=boxes[0].device).repeat_interleave(count)


def smooth_l1(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Smooth L1, summed; quadratic up to an error of ``BETA``."""
    return F.smooth_l1_loss(predicted, wanted, beta=BETA, reduction="sum")
