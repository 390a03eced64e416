"""Detector → spatial-transformer crop → one-pose model, as one network on whole images."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

from kplab.errors import ModelError
from kplab.models.heads.multi import boxes_of
from kplab.models.pose_model import PoseModel, predicting
from kplab.ops import affine, spatial
from kplab.ops.nms import box_nms
from kplab.structures.poses import HULL_MARGIN, Poses
from kplab.structures.predictor import Model
from kplab.structures.sample import Batch

#: Reads one pose for each box: from (N,) the view of each and (N, 4) xyxy, view pixels.
Reader = Callable[[np.ndarray, np.ndarray], Poses]

#: IoU from which a detected box is matched with a true one, in joint training.
SAME = 0.5


class Cascade(Model):
    """A detector finds boxes in a view, and a model of one pose reads the crop of each from the pixels of the view.

    The detector may read the view at a smaller size; crops are taken at the full size.

    Args:
        detector: a model of any number of poses per view, which predicts boxes.
        subject: a model of one pose per view; its size is that of the crops.
        size: (width, height) of the view, pixels; of the detector's aspect.
        padding: factor on a box's sides before it is cropped.
        boxes: on which the pose model is trained: ``annotated`` boxes; ``jittered`` ones, shifted and scaled at random as
            detected ones are; ``detected``: those of the detector, with gradients through pixels and targets (a true
            subject without a detected box is cropped as jittered).
        hull: ``annotated`` or ``keypoints``, which boxes are taken as true; as ``boxes`` of the detector's head.
        shift: largest shift of jittered boxes, fraction of their sides.
        scale: largest change of their sides; 0.2 is a factor from 1 / 1.2 to 1.2.
        detector_weight: factor on the detector's losses.
        detector_share: share of the views of a training step that the detector reads; crops are taken from all. Boxes are
            easier to learn than keypoints, so that a share saves time.
        min_score: smallest score of a detected box that is cropped.
        max_crops: largest number of crops of a training step; of more, a random choice is taken.
        passes: how often a subject is read: first the crop of its detected box, then that of the pose that was found. A pose
            shows where the subject is better than the detector does. It needs ``hull: keypoints``.
        keep: largest number of poses of a view after the first pass: those whose keypoints have the highest mean score, which
            tells better than the detector which box shows the subject. None: all.
        nms_threshold: IoU of the hulls of two poses of a view above which the one of the lower score is left out, after each
            pass; the score is that of the box times the mean score of the keypoints. Boxes that overlap too little for the NMS of
            the detector often lead to poses of the same subject. None: no NMS.
        turned: the passes that read crops turned by the pose model's ``turns`` as well: ``all``, or the ``last`` alone. The
            others show only where the subject is.

    Source: the order of the parts is PoseTED's (2021) and PRTR's (Li et al., 2021); the crop is a spatial transformer
    (Jaderberg et al., 2015) whose transform is given by the box.
    """

    def __init__(
        self,
        detector: PoseModel,
        subject: PoseModel,
        size: tuple[int, int],
        padding: float = 1.25,
        boxes: str = "jittered",
        hull: str = "annotated",
        shift: float = 0.1,
        scale: float = 0.2,
        detector_weight: float = 1.0,
        detector_share: float = 1.0,
        min_score: float = 0.05,
        max_crops: int = 64,
        passes: int = 1,
        keep: int | None = None,
        nms_threshold: float | None = None,
        turned: str = "all",
    ) -> None:
        super().__init__()
        if turned not in ("all", "last"):
            raise ModelError(f"model.turned can be all or last, but is '{turned}'.")
        if boxes not in ("annotated", "jittered", "detected"):
            raise ModelError(f"model.boxes can be annotated, jittered or detected, but is '{boxes}'.")
        if subject.max_poses != 1:
            raise ModelError(
                f"a cascade reads one pose from each crop, but head '{type(subject.head).__name__}' predicts any number. "
                "Leave the detector out, or use a head such as heatmap or simcc."
            )
        if type(detector.head).max_poses == 1:  # of the class: max_poses=1 as an option of YOLO keeps the best box
            raise ModelError(
                f"head '{type(detector.head).__name__}' predicts one pose per view and can't detect. "
                "Use detector.head=yolo or centernet."
            )
        if detector.size[0] * size[1] != detector.size[1] * size[0]:
            raise ModelError(
                f"the detector sees {list(detector.size)} pixels of a view of {list(size)}: another aspect. "
                "Change detector.size or size."
            )
        if boxes == "detected" and not subject.head.shifts_targets:
            raise ModelError(
                f"head '{type(subject.head).__name__}' can't move its targets along with a box, so that the gradient of "
                "the detector would be wrong. Use model.boxes=jittered."
            )
        if not 0 < detector_share <= 1:
            raise ModelError(
                f"model.detector_share is {detector_share}, but must be a share of the views, above 0 and up to 1."
            )
        if boxes == "detected" and detector_share < 1:
            raise ModelError(
                "with model.boxes=detected, all views need detected boxes. Use model.detector_share=1, or model.boxes=jittered."
            )
        boxes_of(Poses.empty(len(subject.head.skeleton)), hull)  # checks the option
        if keep is not None and keep < 1:
            raise ModelError(
                f"model.keep is {keep}, but must be the largest number of poses of a view, or null for all."
            )
        if nms_threshold is not None and not 0 < nms_threshold <= 1:
            raise ModelError(
                f"model.nms_threshold is {nms_threshold}, but must be an IoU, above 0 and up to 1, or null for no NMS of poses."
            )
        if passes < 1 or (passes > 1 and hull != "keypoints"):
            raise ModelError(
                f"model.passes is {passes} with model.hull={hull}. Use passes=1; or more with hull=keypoints, since the crop of a "
                "pose that was found is that of its keypoints."
            )
        self.detector, self.subject, self.size, self.padding = detector, subject, size, padding
        self.turns = subject.turns
        self.skeleton = subject.skeleton
        self.boxes, self.hull, self.shift, self.scale = boxes, hull, shift, scale
        self.detector_weight, self.detector_share = detector_weight, detector_share
        self.min_score, self.max_crops, self.passes, self.keep = min_score, max_crops, passes, keep
        self.nms_threshold, self.turned = nms_threshold, turned

    @property
    def without_flip(self) -> list[str]:
        """The heads of both stages without a flip test."""
        return [*self.detector.without_flip, *self.subject.without_flip]

    @property
    def networks(self) -> dict[str, Model]:
        """The detector, the pose model without turned crops if the passes before the last have none, and the pose model."""
        if self.turned == "all" or self.passes == 1 or not self.subject.turns:
            return {"detector": self.detector, "subject": self.subject}
        upright = copy.copy(self.subject)  # of the same weights
        upright.turns = ()
        return {"detector": self.detector, "upright": upright, "subject": self.subject}

    def for_regions(self, kind: str) -> Model:
        """The pose model alone for given boxes."""
        return self if kind == "image" else self.subject

    def seen(self, batch: Batch) -> Batch:
        """The batch as the detector reads it: resized, with poses in pixels of its size."""
        smaller = affine.scaling(*(d / s for d, s in zip(self.detector.size, self.size, strict=True)))
        images = batch.images.float()
        if tuple(batch.size) != self.size:
            raise ModelError(f"the cascade is built for views of {list(self.size)} pixels, but got {list(batch.size)}.")
        if self.detector.size != self.size:
            images = F.interpolate(images, size=self.detector.size[::-1], mode="area")
        return replace(
            batch, images=images, poses=[p.transform(smaller) for p in batch.poses], view=smaller @ batch.view
        )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The detector's losses, times their weight, and those of the pose model on the crops."""
        batch = replace(batch, images=batch.images.float())  # once for both stages
        seen = self.seen(batch.first(math.ceil(self.detector_share * len(batch))))
        targets = self.detector.head.encode(seen.poses, seen.size)
        outputs = self.detector(seen.images, targets)
        found = self.detector.head.loss(outputs, targets)
        losses = {f"detector_{name}": self.detector_weight * value for name, value in found.items()}
        return losses | self.losses_of_crops(batch, outputs)

    def losses_of_crops(self, batch: Batch, outputs: object) -> dict[str, Tensor]:
        """Losses of the pose model; 0 without subjects.

        Args:
            batch: views with pixels as floats.
            outputs: of the detector, for ``boxes: detected``.
        """
        device = batch.images.device
        rows = [
            (i, n) for i, p in enumerate(batch.poses) for n in np.flatnonzero(~p.ignore & p.labelled.any(1)).tolist()
        ]
        if len(rows) > self.max_crops:
            rows = [rows[i] for i in torch.randperm(len(rows))[: self.max_crops].tolist()]
        empty = Poses.empty(len(self.subject.head.skeleton))
        poses = [batch.poses[i][[n]] for i, n in rows]
        true = np.concatenate([boxes_of(p, self.hull) for p in poses]) if poses else np.zeros((0, 4))
        index = torch.tensor([i for i, _ in rows], dtype=torch.long, device=device)
        boxes = self.jittered(torch.from_numpy(true).to(device, torch.float32))
        if self.boxes == "detected" and rows:
            boxes = self.detected(outputs, index, torch.from_numpy(true).to(device, torch.float32), boxes)
        if not rows:
            # distributed training needs the pose model's parameters in every step
            poses, index, boxes = [empty], index.new_zeros(1), boxes.new_tensor([[0.0, 0.0, *self.size]])
        views = spatial.crop_views(boxes, self.subject.size, self.padding)
        crops = spatial.crop(batch.images, index, views, self.subject.size)
        shown = [p.transform(_matrix(v)) for p, v in zip(poses, views.detach().double().cpu().numpy(), strict=True)]
        targets = self.subject.encode(shown, self.subject.size)
        if boxes.requires_grad:
            xy = torch.from_numpy(np.concatenate([np.nan_to_num(p.xy) for p in poses])).to(views)
            moved = views[:, None, :1] * xy + views[:, None, 1:]
            targets = self.subject.shift_targets(targets, moved - moved.detach())
        return self.subject.losses_of(crops, targets)

    def jittered(self, boxes: Tensor) -> Tensor:
        """Boxes (N, 4) shifted and scaled at random; unchanged where ``boxes`` is annotated, and outside training."""
        if self.boxes == "annotated" or not self.training:
            return boxes
        sides = boxes[:, 2:] - boxes[:, :2]
        drawn = torch.rand(3, len(boxes), 2).to(boxes.device) * 2 - 1
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2 + drawn[0] * self.shift * sides
        # width and height change mostly together
        half = sides / 2 * (1 + self.scale) ** (0.75 * drawn[1, :, :1] + 0.25 * drawn[2])
        return torch.cat([centre - half, centre + half], dim=-1)

    def detected(self, outputs: object, index: Tensor, true: Tensor, otherwise: Tensor) -> Tensor:
        """For each true box the detected one, with its gradient; a fallback where none overlaps it enough.

        Args:
            outputs: of the detector.
            index: (N,) view of each true box.
            true: (N, 4) xyxy, view pixels.
            otherwise: (N, 4) fallbacks.
        """
        candidate, score = self.detector.head.candidates(outputs)
        larger = self.size[0] / self.detector.size[0]
        boxes = []
        for view, box, fallback in zip(index.tolist(), true, otherwise, strict=True):
            overlap = torchvision.ops.box_iou(candidate[view].detach() * larger, box[None]).squeeze(1)
            quality = torch.where(overlap >= SAME, score[view].detach() * overlap, -1.0)
            best = int(quality.argmax())
            boxes.append(candidate[view, best] * larger if quality[best] >= 0 else fallback)
        return torch.stack(boxes)

    def predict(self, batch: Batch, flip_test: bool = False) -> list[Poses]:
        """Poses of each view, view pixels: detected boxes with their scores, and the pose of each crop.

        Args:
            batch: B views; its poses are not read.
            flip_test: average the outputs of both stages with those of mirrored views.
        """
        with predicting(self):
            batch = batch.to(self.detector.mean.device)
            batch = replace(batch, images=batch.images.float())  # once for all crops
            seen = self.seen(replace(batch, poses=[]))
            larger = affine.scaling(*(s / d for d, s in zip(self.detector.size, self.size, strict=True)))
            found = self.detector.decode(self.detector.outputs(seen.images, flip_test))
            found = [p[p.score >= self.min_score].transform(larger) for p in found]
            readers = [
                partial(self.read, cast("PoseModel", network), batch.images, flip_test)
                for network in [*self.networks.values()][1:]
            ]
            return self.in_passes(found, readers)

    def in_passes(self, found: Sequence[Poses], readers: Sequence[Reader]) -> list[Poses]:
        """The pose of each detected box, read in ``passes`` passes; see there, ``nms_threshold`` and ``keep``.

        Args:
            found: what the detector has found in each view, of which boxes and scores are read.
            readers: what reads the crops: that of all passes; or that of those before the last one, and that of the last.

        Returns:
            the poses of each view, with their last boxes and the scores of the detector.
        """
        poses, index = Poses.concat(found), np.repeat(np.arange(len(found)), [len(p) for p in found])
        for number in range(self.passes if len(poses) else 0):
            reader = readers[-1 if number == self.passes - 1 else 0]
            box = around(poses, poses.box) if number else poses.box
            poses = replace(reader(index, box), box=box, score=poses.score)
            kept = self.kept(poses, index)
            poses, index = poses[kept], index[kept]
        return [poses[index == i] for i in range(len(found))]

    def kept(self, poses: Poses, index: np.ndarray) -> np.ndarray:
        """The rows of the poses that are kept after a pass, in their order; see ``nms_threshold`` and ``keep``.

        Args:
            poses: N poses, with the boxes that they were read from and the scores of these.
            index: (N,) view of each.
        """
        certain = poses.keypoint_score.mean(1)
        rows = np.arange(len(poses))
        if self.nms_threshold is not None:
            hulls, score = torch.from_numpy(around(poses, poses.box)), torch.from_numpy(poses.score * certain)
            of_views = [np.flatnonzero(index == i) for i in np.unique(index)]
            rows = np.concatenate([v[box_nms(hulls[v], score[v], self.nms_threshold).numpy()] for v in of_views])
        rows = rows[np.lexsort((-certain[rows], index[rows]))]
        rank = np.arange(len(rows)) - np.searchsorted(index[rows], index[rows])
        return np.sort(rows[rank < (self.keep or len(rows))])

    def read(self, network: PoseModel, images: Tensor, flip_test: bool, index: np.ndarray, box: np.ndarray) -> Poses:
        """One pose for each of N boxes, view pixels, computed ``max_crops`` crops at a time.

        Args:
            network: the pose model, of this pass.
            images: (B, 3, H, W).
            index: (N,) view of each box.
            box: (N, 4) xyxy, view pixels.
        """
        device = images.device
        views = spatial.crop_views(torch.from_numpy(box).to(device, torch.float32), self.subject.size, self.padding)
        where, pixels = torch.from_numpy(index).to(device), images.float()
        poses: list[Poses] = []
        for part in torch.arange(len(views), device=device).split(self.max_crops):
            crops = spatial.crop(pixels, where[part], views[part], self.subject.size)
            poses += network.decode(network.outputs(crops, flip_test))
        back = [np.linalg.inv(_matrix(v)) for v in views.double().cpu().numpy()]
        return Poses.concat([p.transform(m) for p, m in zip(poses, back, strict=True)])


def around(poses: Poses, otherwise: np.ndarray) -> np.ndarray:
    """The boxes of poses that a model has found, by their keypoints of at least half the mean score.

    Args:
        poses: N found poses.
        otherwise: (N, 4) boxes of those without an extent.

    Returns:
        (N, 4) xyxy, padded as the true boxes of the training are.
    """
    score = poses.keypoint_score
    certain = score >= 0.5 * score.mean(1, keepdims=True)
    boxes = Poses.make(poses.xy, visible=np.where(certain, poses.visible, 0)).extent(HULL_MARGIN)
    wide = (boxes[:, 2:] > boxes[:, :2]).any(1, keepdims=True)  # false for NaN
    return np.where(wide, boxes, otherwise)


def _matrix(view: np.ndarray) -> np.ndarray:
    """(3,) scale and shift of a crop to the (3, 3) map from image pixels to its pixels."""
    return affine.translation(view[1], view[2]) @ affine.scaling(view[0], view[0])
