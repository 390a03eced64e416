"""Keypoint R-CNN: proposals, then for each a score, a refined box and a heatmap per keypoint inside it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads
from torchvision.models.detection.roi_heads import RoIHeads, heatmaps_to_keypoints, keypoints_to_heatmap
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers
from torchvision.ops import box_iou

from kplab.models.heads import rcnn_parts as parts
from kplab.models.heads import rcnn_static
from kplab.models.heads.base import Head, HeadInputs
from kplab.models.heads.multi import boxes_of, padded
from kplab.ops.nms import box_nms
from kplab.structures.poses import Poses

#: Logit of ideal outputs.
CONFIDENT = 20.0

Tensors = dict[str, Any]


class RCNNHead(Head):
    """Keypoint R-CNN: torchvision's proposals, box head and keypoint head, with background and one class.

    With torchvision's defaults, a ResNet-50, ``neck=fpn_pool`` and its weights, outputs are those of
    torchvision's ``keypointrcnn_resnet50_fpn``. Maps of different widths pass through 1x1 convolutions first.

    Outputs are, for B views, A anchors per view, R regions and P boxes with keypoints:
    ``objectness`` (B, A) logits, ``anchor_deltas`` (B, A, 4) from ``anchors`` (A, 4);
    ``class_logits`` (R, 2) background and subject, ``box_deltas`` (R, 8) from ``roi`` (R, 4) of view ``roi_view`` (R,);
    ``heatmap`` (P, K, S, S) logits inside ``box`` (P, 4) of view ``view`` (P,), and ``score`` (P,).
    Given targets, regions are sampled around them, P are the positive ones, and ``anchor_label`` (B, A) and ``roi_label``
    (R,) are 1, 0, or -1 if not sampled; ``anchor_instance``, ``roi_instance`` and ``instance`` (P,) are the assigned
    subjects. Without targets, the P boxes are those left by NMS. Sampling depends on torch's random state.

    Ignored instances (crowds, unlabelled subjects): an anchor or a region without a match is no negative if
    its stage's ``negative`` share of it is in an ignored box. Subjects without labelled keypoints train boxes only.

    The score of a keypoint is a probability: the score of the box times the probability of the 3x3 cells around the peak of
    its heatmap. (Torchvision returns the raw logit of the peak.)

    Args:
        boxes: ``annotated`` or ``keypoints``, see ``multi.boxes_of``.
        margin: of hulls of keypoints, fraction of their longer side.
        shift: added to decoded keypoints in x and in y, view pixels. Torchvision's weights were trained on the index of a
            pixel as its position, which at their scale of about 1.5 is 0.75 pixels.
        anchor_sizes: a list of sizes for each map, square roots of areas in pixels; None is 8 strides each.
        anchor_ratios: height over width.
        rpn_positive: smallest IoU of a positive anchor; the best anchor of each subject is positive as well.
        rpn_negative: IoU below which an anchor is negative.
        rpn_samples: sampled anchors per view.
        rpn_share: largest share of positives among them.
        rpn_before: proposals per map before NMS, in training and in prediction.
        rpn_after: proposals per view after NMS, likewise.
        rpn_nms: IoU threshold of the NMS of proposals.
        positive: smallest IoU of a positive region.
        negative: IoU below which a region is negative.
        samples: sampled regions per view.
        share: largest share of positives among them.
        box_size: cells along a side of a region, for its box.
        box_width: of both layers of the box head.
        keypoint_size: cells along a side of a region, for its keypoints; heatmaps have four times as many.
        keypoint_layers: 3x3 convolutions on them.
        keypoint_width: of each.
        sampling: samples of a cell along each axis; 0 is adaptive.
        aligned: RoIAlign with exact centres of cells; torchvision's weights were trained without.
        min_score: smallest score of a box.
        nms_threshold: IoU threshold of the NMS of boxes.
        max_poses: largest number of poses of a view.

    Source: He et al., "Mask R-CNN", 2017, section 5, as in torchvision.
    """

    after_graph = "peaks of the heatmaps inside the boxes"

    def __init__(
        self,
        inputs: HeadInputs,
        *,
        boxes: str = "annotated",
        margin: float = 0.1,
        shift: float = 0.0,
        anchor_sizes: list[list[float]] | None = None,
        anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
        rpn_positive: float = 0.7,
        rpn_negative: float = 0.3,
        rpn_samples: int = 256,
        rpn_share: float = 0.5,
        rpn_before: tuple[int, int] = (2000, 1000),
        rpn_after: tuple[int, int] = (2000, 1000),
        rpn_nms: float = 0.7,
        positive: float = 0.5,
        negative: float = 0.5,
        samples: int = 512,
        share: float = 0.25,
        box_size: int = 7,
        box_width: int = 1024,
        keypoint_size: int = 14,
        keypoint_layers: int = 8,
        keypoint_width: int = 512,
        sampling: int = 2,
        aligned: bool = False,
        min_score: float = 0.05,
        nms_threshold: float = 0.5,
        max_poses: int = 100,
    ) -> None:
        super().__init__(inputs)
        self.max_poses = max_poses
        parts.check_thresholds("rpn_positive", rpn_positive, "rpn_negative", rpn_negative)
        parts.check_thresholds("positive", positive, "negative", negative)
        parts.check_counts(
            rpn_samples=rpn_samples, samples=samples, rpn_before=min(rpn_before), rpn_after=min(rpn_after),
            box_size=box_size, box_width=box_width, keypoint_size=keypoint_size, keypoint_layers=keypoint_layers,
            keypoint_width=keypoint_width, max_poses=max_poses,
        )  # fmt: skip
        boxes_of(Poses.empty(len(self.skeleton)), boxes, margin)  # checks the option
        self.strides = list(inputs.strides)
        self.boxes, self.margin, self.shift, self.nms_threshold = boxes, margin, shift, nms_threshold
        self.side = 4 * keypoint_size
        width = max(inputs.in_channels)
        even = len(set(inputs.in_channels)) == 1
        self.even = nn.ModuleList(
            nn.Identity() if even else nn.Conv2d(c, width, kernel_size=1) for c in inputs.in_channels
        )
        sizes = parts.sizes_of(anchor_sizes, inputs.strides)
        anchors = AnchorGenerator(sizes, (tuple(anchor_ratios),) * len(inputs.strides))
        self.rpn = RegionProposalNetwork(
            anchors, parts.Layers(width, len(sizes[0]) * len(anchor_ratios)), rpn_positive, rpn_negative, rpn_samples,
            rpn_share, parts.by_mode(rpn_before), parts.by_mode(rpn_after), rpn_nms,
        )  # fmt: skip
        self.cut_from = [s for s in inputs.strides if s <= parts.COARSEST_STRIDE] or inputs.strides[:1]
        self.roi_heads = RoIHeads(
            parts.RoIPool(self.cut_from, box_size, sampling, aligned), TwoMLPHead(width * box_size**2, box_width),
            parts.BoxPredictor(box_width, 2), positive, negative, samples, share, None, min_score, nms_threshold,
            max_poses,
            keypoint_roi_pool=parts.RoIPool(self.cut_from, keypoint_size, sampling, aligned),
            keypoint_head=KeypointRCNNHeads(width, (keypoint_width,) * keypoint_layers),
            keypoint_predictor=parts.HeatmapPredictor(keypoint_width, len(self.skeleton)),
        )  # fmt: skip

    def encode(self, poses: list[Poses], size: tuple[int, int]) -> Tensors:
        """Stack true boxes and keypoints, padded to equal numbers per view; ``forward`` samples the regions assigned to them.

        Returns:
            ``box`` (B, M, 4), ``xy`` (B, M, K, 2), ``labelled`` (B, M, K), ``exists`` (B, M), ``ignored`` (B, I, 4),
            ``ignores`` (B, I) and ``size``, view pixels.
        """
        rows: dict[str, list[np.ndarray]] = {
            name: [] for name in ("box", "xy", "labelled", "exists", "ignored", "ignores")
        }
        for view in poses:
            box = boxes_of(view, self.boxes, self.margin)
            boxed = np.isfinite(box).all(1)
            learnt, left_out = boxed & ~view.ignore, boxed & view.ignore
            rows["box"].append(box[learnt])
            rows["xy"].append(np.nan_to_num(view.xy[learnt] - self.shift))
            rows["labelled"].append(view.labelled[learnt])
            rows["exists"].append(np.ones(learnt.sum(), dtype=bool))
            rows["ignored"].append(box[left_out])
            rows["ignores"].append(np.ones(left_out.sum(), dtype=bool))
        return {**{name: padded(values, self.device) for name, values in rows.items()}, "size": size}

    def forward(self, maps: list[Tensor], targets: Tensors | None = None) -> Tensors:
        """Proposals and the outputs of the second stage: for regions sampled around targets, or for detections."""
        maps = [even(m) for even, m in zip(self.even, maps, strict=True)]
        shape = (maps[0].shape[-2] * self.strides[0], maps[0].shape[-1] * self.strides[0])
        views = len(maps[0])
        anchors = self._anchors([(m.shape[-2], m.shape[-1]) for m in maps], shape)
        logits, deltas = self.rpn.head(maps)
        counts = [m[0].numel() for m in logits]
        objectness, anchor_deltas = concat_box_prediction_layers(logits, deltas)
        proposals = self.rpn.box_coder.decode(anchor_deltas.detach(), [anchors] * views).view(views, -1, 4)
        out: Tensors = {
            "anchors": anchors,
            "objectness": objectness.view(views, -1),
            "anchor_deltas": anchor_deltas.view(views, -1, 4),
        }
        # RoIAlign does not support half precision on every device
        full = [m.float() for m in maps[: len(self.cut_from)]]
        if self.static:
            return out | rcnn_static.detect(self, full, objectness.flatten(), proposals[0], counts, shape)
        proposed, _ = self.rpn.filter_proposals(proposals, objectness, [shape] * views, counts)
        if targets is None:
            return out | self._detected(full, proposed, shape)
        return out | self._sample_anchors(anchors, targets) | self._sample_regions(full, proposed, targets)

    def _anchors(self, shapes: list[tuple[int, int]], shape: tuple[int, int]) -> Tensor:
        """(A, 4) anchors of maps with these (rows, columns), in a view with those."""
        maps = [torch.empty(1, 0, *s, device=self.device) for s in shapes]
        (anchors,) = self.rpn.anchor_generator(ImageList(torch.empty(1, 0, *shape), [shape]), maps)
        return anchors

    def _sample_anchors(self, anchors: Tensor, targets: Tensors) -> dict[str, Tensor]:
        """Labels and subjects of the anchors, of which a random sample counts."""
        labels, instances = [], []
        for true, ignored in zip(
            parts.each(targets, "box", "exists"), parts.each(targets, "ignored", "ignores"), strict=True
        ):
            label, instance = parts.assign(self.rpn.proposal_matcher, anchors, true, ignored)
            labels.append(label)
            instances.append(instance)
        drawn = [p.bool() | n.bool() for p, n in zip(*self.rpn.fg_bg_sampler(labels), strict=True)]
        chosen = [torch.where(d, label, -1) for d, label in zip(drawn, labels, strict=True)]
        return {"anchor_label": torch.stack(chosen), "anchor_instance": torch.stack(instances)}

    def _sample_regions(self, maps: list[Tensor], proposed: list[Tensor], targets: Tensors) -> Tensors:
        """Second stage for a random sample of proposals and true boxes, with the keypoints of positives."""
        rois, labels, instances = [], [], []
        true, ignored = parts.each(targets, "box", "exists"), parts.each(targets, "ignored", "ignores")
        for boxes, here, there in zip(proposed, true, ignored, strict=True):
            rois.append(torch.cat([boxes, here]))
            label, instance = parts.assign(self.roi_heads.proposal_matcher, rois[-1], here, there)
            labels.append(label)
            instances.append(instance)
        drawn = self.roi_heads.subsample(labels)
        rois, labels, instances = ([v[d] for v, d in zip(x, drawn, strict=True)] for x in (rois, labels, instances))
        positive = [label > 0 for label in labels]
        out = self._read_boxes(maps, rois)
        score = out["class_logits"].softmax(-1)[:, 1][torch.cat(positive)]
        return {
            **out,
            "roi_label": torch.cat(labels),
            "roi_instance": torch.cat(instances),
            "instance": torch.cat([i[p] for i, p in zip(instances, positive, strict=True)]),
            **self._read_keypoints(maps, [r[p] for r, p in zip(rois, positive, strict=True)], score),
        }

    def _detected(self, maps: list[Tensor], proposed: list[Tensor], shape: tuple[int, int]) -> Tensors:
        """Second stage for all proposals, with the keypoints of those left by NMS."""
        out = self._read_boxes(maps, proposed)
        boxes, scores, _ = self.roi_heads.postprocess_detections(
            out["class_logits"], out["box_deltas"], proposed, [shape] * len(proposed)
        )
        return out | self._read_keypoints(maps, boxes, torch.cat(scores))

    def _read_boxes(self, maps: list[Tensor], rois: list[Tensor]) -> Tensors:
        """Second stage, for B lists of regions."""
        hidden = self.roi_heads.box_head(self.roi_heads.box_roi_pool(maps, rois))
        class_logits, box_deltas = self.roi_heads.box_predictor(hidden)
        return {
            "roi": torch.cat(rois),
            "roi_view": parts.views_of(rois),
            "class_logits": class_logits,
            "box_deltas": box_deltas,
        }

    def _read_keypoints(self, maps: list[Tensor], boxes: list[Tensor], score: Tensor) -> Tensors:
        """Heatmaps inside B lists of boxes."""
        cut = self.roi_heads.keypoint_roi_pool(maps, boxes)
        heatmap = self.roi_heads.keypoint_predictor(self.roi_heads.keypoint_head(cut))
        return {"box": torch.cat(boxes), "view": parts.views_of(boxes), "score": score, "heatmap": heatmap}

    def loss(self, outputs: Tensors, targets: Tensors) -> dict[str, Tensor]:
        """The five losses of Keypoint R-CNN, of weight 1.

        objectness: mean cross entropy of the anchors drawn; rpn_box: smooth L1 of the positive ones' corrections, summed,
        over the number of all drawn. classifier, box: the same of regions. keypoint: mean cross entropy, over the cells
        of a heatmap, of the labelled keypoints inside their region; ln(S**2) for uniform heatmaps.
        """
        label = outputs["anchor_label"]
        drawn, positive = label >= 0, label > 0
        count = drawn.sum().clamp_min(1)
        entropy = F.binary_cross_entropy_with_logits(
            outputs["objectness"][drawn], label[drawn].float(), reduction="sum"
        )
        view, anchor = positive.nonzero(as_tuple=True)
        true = targets["box"][view, outputs["anchor_instance"][positive]]
        wanted = self.rpn.box_coder.encode_single(true, outputs["anchors"][anchor])
        losses = {
            "objectness": entropy / count,
            "rpn_box": parts.smooth_l1(outputs["anchor_deltas"][positive], wanted) / count,
        }

        label, view = outputs["roi_label"], outputs["roi_view"]
        positive, count = label > 0, max(len(label), 1)
        true = targets["box"][view[positive], outputs["roi_instance"][positive]]
        wanted = self.roi_heads.box_coder.encode_single(true, outputs["roi"][positive])
        losses["classifier"] = F.cross_entropy(outputs["class_logits"], label, reduction="sum") / count
        losses["box"] = parts.smooth_l1(outputs["box_deltas"].unflatten(1, (2, 4))[positive, 1], wanted) / count

        view, instance, heatmap = outputs["view"], outputs["instance"], outputs["heatmap"]
        labelled = targets["labelled"][view, instance]
        points = torch.cat([targets["xy"][view, instance], labelled[..., None].float()], dim=-1)
        cell, valid = keypoints_to_heatmap(points, outputs["box"], self.side)
        learnt = valid.bool()
        if learnt.any():
            losses["keypoint"] = F.cross_entropy(heatmap[learnt].flatten(1).float(), cell[learnt])
        else:
            losses["keypoint"] = heatmap.sum() * 0  # a gradient of 0: distributed training waits for one
        return losses

    def decode_tensors(self, outputs: Tensors) -> dict[str, Tensor]:
        """The P largest number of boxes of a view: ``boxes`` (B, P, 4), ``scores`` (B, P) and ``heatmaps`` (B, P, K, S, S).

        Views of fewer boxes are padded with scores of -1.
        """
        return parts.stacked(self._by_view(outputs))

    @torch.no_grad()
    def make_poses(self, decoded: dict[str, Tensor]) -> list[Poses]:
        """Decode keypoints as the maxima of their heatmaps, resized to the pixels of the box by bicubic interpolation.

        Boxes, and therefore all keypoints, are inside the view. NMS is applied once more, which only changes sampled or
        ideal outputs.
        """
        found = []
        for box, score, heatmap in zip(decoded["boxes"], decoded["scores"], decoded["heatmaps"], strict=True):
            real = (score >= 0).nonzero().squeeze(1)
            kept = real[box_nms(box[real], score[real], self.nms_threshold)]
            box, score, heatmap = box[kept], score[kept], heatmap[kept]
            xy = heatmaps_to_keypoints(heatmap, box)[0][..., :2]
            each = parts.peak_probability(heatmap, xy, box) * score[:, None]
            arrays = [t.double().cpu().numpy() for t in (xy + self.shift, score, each, box)]
            found.append(Poses.make(arrays[0], score=arrays[1], keypoint_score=arrays[2], box=arrays[3]))
        return found

    def _by_view(self, outputs: Tensors) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Boxes (n, 4), their scores (n,) and heatmaps (n, K, S, S) of each view."""
        if len(outputs["objectness"]) == 1:
            return [(outputs["box"], outputs["score"], outputs["heatmap"])]
        mine = [outputs["view"] == i for i in range(len(outputs["objectness"]))]
        return [(outputs["box"][m], outputs["score"][m], outputs["heatmap"][m]) for m in mine]

    @torch.no_grad()
    def roi_heatmaps(self, outputs: Tensors) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The heatmaps that ``decode`` reads, for drawing.

        Returns:
            for each view boxes (n, 4) xyxy, view pixels; their scores (n,); and (n, K, S, S) probabilities that a keypoint is
            in a cell of its box, S rows of S cells, which sum to 1 for each keypoint.
        """
        return [
            (box.cpu().numpy(), score.cpu().numpy(), heat.flatten(2).softmax(-1).view_as(heat).cpu().numpy())
            for box, score, heat in self._by_view(outputs)
        ]

    def ideal(self, targets: Tensors) -> Tensors:
        """Correct scores and boxes of all anchors; the only regions are the true boxes, with narrow heatmaps."""
        shape = (targets["size"][1], targets["size"][0])
        anchors = self._anchors([(math.ceil(shape[0] / s), math.ceil(shape[1] / s)) for s in self.strides], shape)
        true, ignored = parts.each(targets, "box", "exists"), parts.each(targets, "ignored", "ignores")
        labels, instances, deltas = [], [], []
        for here, there in zip(true, ignored, strict=True):
            label, instance = parts.assign(self.rpn.proposal_matcher, anchors, here, there)
            wanted = torch.zeros_like(anchors)
            wanted[label > 0] = self.rpn.box_coder.encode_single(here[instance[label > 0]], anchors[label > 0])
            labels.append(label)
            instances.append(instance)
            deltas.append(wanted)
        box, view = torch.cat(true), parts.views_of(true)
        instance = torch.cat([torch.arange(len(t), device=self.device) for t in true])
        xy, labelled = targets["xy"][view, instance], targets["labelled"][view, instance]
        return {
            "anchors": anchors,
            "objectness": torch.where(torch.stack(labels) > 0, CONFIDENT, -CONFIDENT),
            "anchor_deltas": torch.stack(deltas),
            "anchor_label": torch.stack(labels),
            "anchor_instance": torch.stack(instances),
            "roi": box,
            "roi_view": view,
            "class_logits": box.new_tensor([-CONFIDENT / 2, CONFIDENT / 2]).repeat(len(box), 1),
            "box_deltas": box.new_zeros(len(box), 8),
            "roi_label": torch.ones_like(view),
            "roi_instance": instance,
            "instance": instance,
            "box": box,
            "view": view,
            "score": box.new_ones(len(box)),
            "heatmap": parts.perfect_heatmaps(xy, labelled, box, self.side),
        }

    def representable(self, poses: Poses, size: tuple[int, int]) -> np.ndarray:
        """Which instances have a box that contains all their keypoints and isn't removed by NMS."""
        box = boxes_of(poses, self.boxes, self.margin)
        boxed = np.isfinite(box).all(1)
        inside = ((poses.xy >= box[:, None, :2]) & (poses.xy <= box[:, None, 2:])).all(-1) | ~poses.labelled
        some = torch.from_numpy(np.where(boxed[:, None], box, 0.0))
        overlap = box_iou(some, some).fill_diagonal_(0).numpy()
        return boxed & inside.all(1) & ~(overlap > self.nms_threshold).any(1)

    def round_trip_error(self, poses: Poses) -> np.ndarray:
        """The error of a heatmap of S x S cells that fills the box and is resized to its pixels.

        Along each axis: half a cell, since a target names a cell only, or a third more in the cells at the border, where
        the cubic of the resizing peaks 1/6 of a cell from the side of the box; and half a pixel of the resized map.
        """
        box = boxes_of(poses, self.boxes, self.margin)
        return np.hypot(*(5 / 6 * (box[:, 2:] - box[:, :2]) / self.side + 0.5).T)
