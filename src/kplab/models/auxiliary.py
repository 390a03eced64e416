"""Heatmaps that are trained beside a head: a dense loss for any family, and peaks that predicted keypoints can snap to."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from kplab.errors import ModelError
from kplab.models.heads.base import HeadInputs
from kplab.models.heads.centernet import Branch
from kplab.models.heads.multi import boxes_of, padded
from kplab.ops import centernet, heatmap
from kplab.structures.poses import Poses

#: Gaussians reach this number of sigmas.
REACH = 3.0
#: Number of peaks of a heatmap that keypoints can snap to; the highest ones.
PEAKS = 100


class AuxiliaryHeatmaps(nn.Module):
    """A 3x3 and a 1x1 convolution from one feature map to K heatmaps, each of one keypoint of all subjects.

    A head that regresses coordinates has a loss in few cells of a feature map; the auxiliary heatmaps have one in all
    cells. They are computed in training, and in prediction for ``snap`` only.

    Args:
        inputs: the feature maps, the view and the skeleton.
        one_pose: whether a view shows one subject, as heads of one pose require. An unlabelled keypoint may then be anywhere
            in the view, and a view without a subject has no loss; otherwise a keypoint is in the box of its subject.
        weight: factor on the loss.
        sigma: of the Gaussians, cells of the map.
        level: index of the feature map; 0 is the finest.
        snap: largest distance, view pixels, by which a predicted keypoint is moved to a peak of its heatmap; None disables it.
        snap_score: height that a peak must exceed.

    Raises:
        ModelError: an option is out of range, or there is no such feature map.
    """

    flip: Tensor

    def __init__(
        self,
        inputs: HeadInputs,
        one_pose: bool,
        *,
        weight: float = 0.5,
        sigma: float = 2.0,
        level: int = 0,
        snap: float | None = None,
        snap_score: float = 0.2,
    ) -> None:
        super().__init__()
        if not (weight > 0 and sigma > 0 and (snap is None or snap > 0) and 0 <= snap_score < 1):
            raise ModelError(
                "model.auxiliary needs weight and sigma > 0, snap > 0 or null, and snap_score in [0, 1), but got "
                f"{weight}, {sigma}, {snap} and {snap_score}. Use model.auxiliary=null for no auxiliary heatmaps."
            )
        self.one_pose, self.weight, self.sigma, self.snap, self.snap_score = one_pose, weight, sigma, snap, snap_score
        self.level = inputs.level("auxiliary", level, key="model.auxiliary.level")
        self.stride, width = inputs.strides[self.level], inputs.in_channels[self.level]
        self.net = Branch(width, width, len(inputs.skeleton), 0.0, 0.001)
        self.register_buffer("flip", torch.from_numpy(inputs.skeleton.flip_array), persistent=False)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """(B, K, h, w) float32 heatmaps from the feature maps of the neck."""
        return self.net(maps[self.level])

    def encode(self, poses: list[Poses], size: tuple[int, int]) -> dict[str, Tensor]:
        """Stack the labelled keypoints of B views, and the boxes in which others may be.

        Args:
            poses: B true Poses, view pixels.
            size: (width, height) of the views, pixels.

        Returns:
            ``xy`` (B, M, K, 2), view pixels, and ``labelled`` (B, M, K); ``box`` (B, R, 4) xyxy, view pixels, and ``hidden``
            (B, R, K), the keypoints that may be anywhere in it: unlabelled ones, and all of ignored subjects.
        """
        parts: dict[str, list[np.ndarray]] = {"xy": [], "labelled": [], "box": [], "hidden": []}
        for view in poses:
            learnt = view[~view.ignore]
            if self.one_pose:
                box, hidden = np.array([[0.0, 0.0, *size]]), ~learnt.labelled.any(0, keepdims=True)
            else:
                box, hidden = boxes_of(view), ~view.labelled | view.ignore[:, None]
            of_view = {"xy": np.nan_to_num(learnt.xy), "labelled": learnt.labelled, "box": box, "hidden": hidden}
            for name, rows in of_view.items():
                parts[name].append(rows)
        return {name: padded(rows, self.flip.device) for name, rows in parts.items()}

    def shift_targets(self, targets: dict[str, Tensor], by: Tensor) -> dict[str, Tensor]:
        """Targets whose keypoints are moved by (B, K, 2) view pixels, differentiable; see ``Head.shift_targets``."""
        return {**targets, "xy": targets["xy"] + by[:, None]}

    def target(self, targets: dict[str, Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Heatmaps of the labelled keypoints: the maximum of their Gaussians in each cell.

        Args:
            targets: of ``encode``.
            size: (width, height) of the maps, cells.

        Returns:
            (B, K, h, w), and a mask of the cells that a keypoint in ``hidden`` may raise.
        """
        views, subjects, keypoints = targets["labelled"].shape
        wanted = targets["xy"].new_zeros(views, keypoints, size[1], size[0])
        for m in range(subjects):
            drawn = heatmap.gaussian_map(targets["xy"][:, m] / self.stride, self.sigma, size)
            wanted = torch.maximum(wanted, drawn * targets["labelled"][:, m, :, None, None])
        reach = REACH * self.sigma * targets["box"].new_tensor([-1, -1, 1, 1])
        covered = centernet.covered(targets["box"] / self.stride + reach, size)
        masked = torch.zeros_like(wanted, dtype=torch.bool)
        for r in range(covered.shape[1]):
            masked |= targets["hidden"][:, r, :, None, None] & covered[:, r, None]
        return wanted, masked

    def loss(self, heatmaps: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """Squared error of the heatmaps, divided by the energy of the Gaussians of the n labelled keypoints.

        weight * sum_cells (p - t)**2 / (pi sigma**2 n)

        Maps of zeros cost ``weight``, as in the head ``heatmap``. A masked cell is between its target t and 1: where t is
        that of a keypoint within 3 sigma, p < t costs as elsewhere; nothing else of it costs anything.

        Args:
            heatmaps: (B, K, h, w).
            targets: of ``encode``.
        """
        size = (heatmaps.shape[-1], heatmaps.shape[-2])
        wanted, masked = self.target(targets, size)
        error = heatmaps - wanted
        near = wanted >= math.exp(-(REACH**2) / 2)
        error = torch.where(masked, error.clamp_max(0) * near, error)
        uv, reach = targets["xy"] / self.stride, REACH * self.sigma
        inside = ((uv >= -reach) & (uv <= uv.new_tensor(size) + reach)).all(-1)
        count = (targets["labelled"] & inside).sum().clamp_min(1)
        return self.weight * error.square().sum() / (math.pi * self.sigma**2 * count)

    def unflip(self, heatmaps: Tensor) -> Tensor:
        """Heatmaps of mirrored views, mirrored back and permuted."""
        return heatmaps.flip(-1)[:, self.flip]

    def snapped(self, poses: list[Poses], heatmaps: Tensor) -> list[Poses]:
        """Move each keypoint to the nearest peak of its heatmap, if there is one within ``snap``.

        A peak is a cell that no neighbour exceeds, refined as in DARK. Scores and boxes stay as they are.

        Args:
            poses: B predicted Poses, view pixels.
            heatmaps: (B, K, h, w).
        """
        if self.snap is None:
            return poses
        score, cell, _ = centernet.top_peaks(heatmaps.clamp_min(0), PEAKS)
        blur = 2 * round(2.5 * self.sigma) + 1  # DARK's 11 for sigma 2, 17 for sigma 3
        each = heatmaps[:, :, None].expand(-1, -1, score.shape[2], -1, -1)
        peak = heatmap.refined(each, cell, score, blur) * self.stride
        moved = []
        for i, view in enumerate(poses):
            guess = torch.from_numpy(view.xy).to(peak)
            nearest, _, distance = centernet.nearest_peaks(guess[None], peak[i, None], score[i, None], self.snap_score)
            near = (distance[0] <= self.snap).cpu().numpy()[..., None]
            moved.append(replace(view, xy=np.where(near, nearest[0].double().cpu().numpy(), view.xy)))
        return moved
