"""Inference of Keypoint R-CNN for one view with shapes that don't depend on values, as exported graphs need them.

What torchvision removes has a score of -1 here, and remains. The results are those of torchvision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image, nms

if TYPE_CHECKING:
    from kplab.models.heads.rcnn import RCNNHead

#: Smallest sides of proposals and of boxes, pixels, and the score above which a proposal is used: torchvision's.
LEAST_PROPOSAL, LEAST_BOX, LEAST_SCORE = 1e-3, 1e-2, 0.0


def detect(
    head: RCNNHead, maps: list[Tensor], objectness: Tensor, boxes: Tensor, counts: list[int], shape: tuple[int, int]
) -> dict[str, Any]:
    """Both stages from the outputs of the first.

    Args:
        head: whose layers compute the second stage.
        maps: (1, C, h, w) that regions are cropped from.
        objectness: (A,) logits.
        boxes: (A, 4) proposals.
        counts: anchors of each map, A in all.
        shape: (rows, columns) of the view.

    Returns:
        ``box`` (P, 4), ``score`` (P,), -1 where there is no pose, and ``heatmap`` (P, K, S, S).
    """
    proposed = proposals(head, objectness, boxes, counts, shape)
    read = head._read_boxes(maps, [proposed])
    scores = read["class_logits"].softmax(-1)[:, 1]
    decoded = head.roi_heads.box_coder.decode(read["box_deltas"], [proposed])[:, 1]
    decoded = clip_boxes_to_image(decoded, shape)
    scores = suppressed(decoded, scores, head.roi_heads.nms_thresh, head.roi_heads.score_thresh, LEAST_BOX)
    score, best = scores.topk(min(head.roi_heads.detections_per_img, len(scores)))
    box = decoded[best]
    cut = head.roi_heads.keypoint_roi_pool(maps, [box])
    heatmap = head.roi_heads.keypoint_predictor(head.roi_heads.keypoint_head(cut))
    return {"box": box, "score": score, "heatmap": heatmap}


def proposals(head: RCNNHead, objectness: Tensor, boxes: Tensor, counts: list[int], shape: tuple[int, int]) -> Tensor:
    """(P, 4) best proposals of all maps after NMS within each; ones without an area where there are fewer."""
    kept, every = [], []
    for logits, level in zip(objectness.split(counts), boxes.split(counts), strict=True):
        best, index = logits.topk(min(head.rpn.pre_nms_top_n(), len(logits)))
        here = clip_boxes_to_image(level[index], shape)
        kept.append(suppressed(here, best.sigmoid(), head.rpn.nms_thresh, LEAST_SCORE, LEAST_PROPOSAL))
        every.append(here)
    score, index = torch.cat(kept).topk(min(head.rpn.post_nms_top_n(), sum(len(k) for k in kept)))
    return torch.cat(every)[index] * (score >= 0)[:, None]


def suppressed(boxes: Tensor, scores: Tensor, threshold: float, min_score: float, least: float) -> Tensor:
    """(N,) scores after NMS, with -1 where a box is removed: suppressed, too small, or of a score that is too low."""
    sides = boxes[:, 2:] - boxes[:, :2]
    scores = torch.where((sides >= least).all(1) & (scores > min_score), scores, -1.0)
    left = torch.zeros_like(scores).index_fill(0, nms(boxes, scores, threshold), 1.0)
    return torch.where(left > 0, scores, -1.0)
