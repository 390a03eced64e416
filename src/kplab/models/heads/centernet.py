"""CenterNet: instances as centres of boxes, from which keypoints are regressed and snapped to peaks of heatmaps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from kplab.errors import ModelError
from kplab.models.heads.base import Head, HeadInputs
from kplab.models.heads.multi import boxes_of
from kplab.ops import centernet
from kplab.structures.poses import Poses

Maps = dict[str, Tensor]


class CenterNetHead(Head):
    """Six branches on one feature map, each a 3x3 and a 1x1 convolution.

    Outputs, in cells of the map, J being K or 1 (``offsets``):
    ``centre`` (B, 1, h, w) and ``heatmap`` (B, K, h, w): logits of the positions of centres and keypoints;
    ``size`` (B, 1, 2, h, w): width and height of the box centred in a cell;
    ``offset`` (B, 1, 2, h, w): from the centre of a cell to the centre of the box;
    ``keypoints`` (B, K, 2, h, w): from the centre of a cell to the keypoints of the instance;
    ``heatmap_offset`` (B, J, 2, h, w): from the centre of a cell to the keypoint in it.

    The released code counts from the corners of cells, which differs by a constant 0.5, so that mirroring is no negation.
    The last convolutions run in float32: bfloat16 resolves an offset of 40 cells to a quarter of a cell only.

    Targets are ``heatmap`` and ``counted`` (B, 1 + K, h, w), the centre first, and those of N instances in B views:
    ``view`` (N,), ``cell`` (N, 1 + K, 2) (column, row) of the centre and the keypoints, ``labelled`` (N, K), and ``size``,
    ``offset``, ``keypoints`` and ``heatmap_offset`` (N, points, 2), the regression targets in these cells. With a
    ``reach`` an instance has several rows, of which one is ``central`` (N,) bool.

    Ignored instances (crowds, unlabelled subjects): both heatmaps are masked out inside their boxes. (The released code
    intends to mask their centre, but then draws it as a positive, and treats their keypoints as background.) The heatmap
    of an unlabelled keypoint is masked out inside the box of its instance and as far around it as a Gaussian would
    reach. Positives of other instances always count.

    Instances whose centres share a cell can't be separated, nor can keypoints of one type that share a cell.

    Args:
        level: index of the feature map; 0 is the finest.
        hidden: channels of each branch; published are 64 with a ResNet, 256 with DLA and Hourglass.
        radius: of the Gaussians: ``released``, with the wrong root of the released code, or ``corrected``.
        overlap: smallest IoU with the true box of a box whose corners are within the radius.
        boxes: ``annotated``, or ``keypoints``: the padded hull of the labelled ones, which stays tight when views are
            rotated. (The box of a rotated box keeps its centre, but grows.)
        reach: rows and columns around the cell of a centre in which its box and keypoints are learnt, too, unless another
            centre is nearer; published is 0. With few training steps one cell of an instance is not enough.
        offsets: ``per_keypoint``, or ``shared`` as published: one map of offsets for all types, with errors of up
            to a cell where keypoints of two types share one.
        size_weight: of the box's size, in cells, in the loss.
        offset_weight: of both offsets.
        keypoint_weight: of the regressed keypoints.
        heatmap_weight: of the keypoints' heatmaps.
        most: largest number of poses of a view.
        min_score: smallest score of a pose.
        snap_score: smallest score of a peak to which a keypoint is snapped.
        snap_reach: largest distance by which a keypoint is snapped, fraction of its box's longer side.

    Source: Zhou et al., "Objects as Points", 2019, and its released code.
    """

    def __init__(
        self,
        inputs: HeadInputs,
        *,
        level: int = 0,
        hidden: int = 64,
        radius: str = "released",
        overlap: float = 0.7,
        boxes: str = "annotated",
        reach: int = 0,
        offsets: str = "per_keypoint",
        size_weight: float = 0.1,
        offset_weight: float = 1.0,
        keypoint_weight: float = 1.0,
        heatmap_weight: float = 1.0,
        max_poses: int = 100,
        min_score: float = 0.01,
        snap_score: float = 0.1,
        snap_reach: float = 0.3,
    ) -> None:
        super().__init__(inputs)
        for option, got, known in (
            ("radius", radius, ("released", "corrected")),
            ("boxes", boxes, ("annotated", "keypoints")),
            ("offsets", offsets, ("per_keypoint", "shared")),
        ):
            if got not in known:
                raise ModelError(f"head 'centernet' has {option} {' and '.join(known)}, but got '{got}'.")
        if hidden < 1 or max_poses < 1:
            raise ModelError(
                f"head 'centernet' needs hidden and max_poses of at least 1, but got {hidden} and {max_poses}. "
                "64 and 100 are usual."
            )
        if reach < 0:
            raise ModelError(f"head 'centernet' needs reach of at least 0, but got {reach}. 0 is published.")
        if not 0 < overlap < 1:
            raise ModelError(f"head 'centernet' needs overlap between 0 and 1, but got {overlap}. 0.7 is usual.")
        self.level = inputs.level("centernet", level)
        self.stride = inputs.strides[self.level]
        self.corrected, self.overlap = radius == "corrected", overlap
        self.boxes, self.reach, self.shared = boxes, reach, offsets == "shared"
        self.weights = {
            "centre": 1.0,
            "size": size_weight,
            "offset": offset_weight,
            "keypoints": keypoint_weight,
            "heatmap": heatmap_weight,
            "heatmap_offset": offset_weight,
        }
        self.max_poses: int = max_poses
        self.min_score, self.snap_score, self.snap_reach = min_score, snap_score, snap_reach
        k = len(self.skeleton)
        self.points = {"size": 1, "offset": 1, "keypoints": k, "heatmap_offset": 1 if self.shared else k}
        width, start = (
            inputs.in_channels[self.level],
            math.log(0.1 / 0.9),
        )  # initial probability 0.1, since few cells are positive
        self.branches = nn.ModuleDict(
            {
                "centre": Branch(width, hidden, 1, start, None),
                "heatmap": Branch(width, hidden, k, start, None),
                **{name: Branch(width, hidden, 2 * n, 0.0, 0.001) for name, n in self.points.items()},
            }
        )

    def encode(self, poses: list[Poses], size: tuple[int, int]) -> Maps:
        """Encode centres and keypoints as Gaussians of heatmaps and as regression targets in their cells.

        Boxes are clipped to the view before their centres are taken. Keypoints outside the view are unlabelled. An
        instance without a labelled keypoint in the view is ignored.
        """
        shape = (size[0] // self.stride, size[1] // self.stride)
        every = _in_view(Poses.concat(poses), size)
        view = np.repeat(np.arange(len(poses)), [len(p) for p in poses])
        box, shown, points, cell = self._located(every, size)
        positive, labelled = shown[:, 0], shown[:, 1:]
        extent = box[:, 2:] - box[:, :2]
        radius = np.zeros(len(every), dtype=np.int64)
        radius[positive] = centernet.gaussian_radius(np.ceil(extent[positive]), self.overlap, self.corrected)
        # where unlabelled points may be: all of an ignored instance, the unlabelled keypoints of a positive one
        own = every.box / self.stride
        anywhere = np.concatenate([np.fmin(box, own)[:, :2], np.fmax(box, own)[:, 2:]], axis=1)
        anywhere += radius[:, None] * np.array([-1, -1, 1, 1])
        heatmap, counted = self._heatmaps(view, cell, radius, shown, anywhere, len(poses), shape)
        centre = np.flatnonzero(positive)
        row, step = centernet.near_cells(view[centre], cell[centre, 0], self.reach, shape)
        one = centre[row]
        cell, points = cell[one], points[one]
        cell[:, 0] += step
        sparse = {
            "view": view[one],
            "cell": cell,
            "size": extent[one, None],
            "offset": (points - cell - 0.5)[:, :1],
            "keypoints": points[:, 1:] - cell[:, :1] - 0.5,
            "heatmap_offset": (points - cell - 0.5)[:, 1:],
            "labelled": labelled[one],
            "central": (step == 0).all(1),
        }
        tensors = {name: self._tensor(values) for name, values in sparse.items()}
        return {"heatmap": heatmap, "counted": counted, **tensors}

    def _located(self, poses: Poses, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Positions of N instances on the map.

        Args:
            poses: clipped to the view, view pixels.
            size: (width, height) of the view.

        Returns:
            (N, 4) boxes, cells; (N, 1 + K) bool, whether there is a centre, and which keypoints are labelled; (N, 1 + K, 2)
            their positions, cells; and (N, 1 + K, 2) int64 their cells (column, row).
        """
        box = np.clip(boxes_of(poses, self.boxes), 0, [*size, *size]) / self.stride
        positive = ~poses.ignore & poses.labelled.any(1) & (box[:, 2:] > box[:, :2]).all(1)
        shown = np.concatenate([positive[:, None], poses.labelled & positive[:, None]], axis=1)
        points = np.concatenate([(box[:, None, :2] + box[:, None, 2:]) / 2, poses.xy / self.stride], axis=1)
        points = np.where(shown[..., None], points, 0)
        last = np.array([size[0] // self.stride - 1, size[1] // self.stride - 1])
        # a point on the far border belongs to the last cell
        return box, shown, points, np.clip(np.floor(points), 0, last).astype(np.int64)

    def _heatmaps(
        self,
        view: np.ndarray,
        cell: np.ndarray,
        radius: np.ndarray,
        shown: np.ndarray,
        anywhere: np.ndarray,
        views: int,
        shape: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        """The maximum of the Gaussians in each cell, and a mask of the cells that count; both (B, 1 + K, h, w)."""
        heatmap = torch.zeros(views, cell.shape[1], shape[1], shape[0], device=self.device)
        counted = torch.ones_like(heatmap, dtype=torch.bool)
        for i in np.unique(view):
            rows = view == i
            there = self._tensor(shown[rows])
            drawn = centernet.gaussians(self._tensor(cell[rows]), self._tensor(radius[rows])[:, None], shape)
            heatmap[i] = (drawn * there[..., None, None]).amax(0)
            area = centernet.covered(self._tensor(anywhere[rows]), shape).float().flatten(1)
            masked = ((~there).float().T @ area).view_as(counted[i]) > 0
            counted[i] = ~masked | (heatmap[i] == 1)
        return heatmap, counted

    def forward(self, maps: list[Tensor], targets: Any | None = None) -> Maps:
        """The outputs of all branches."""
        outputs = {name: branch(maps[self.level]) for name, branch in self.branches.items()}
        return {name: m.unflatten(1, (-1, 2)) if name in self.points else m for name, m in outputs.items()}

    def loss(self, outputs: Maps, targets: Maps) -> dict[str, Tensor]:
        """Penalty-reduced focal losses of the heatmaps, and absolute errors of the regression in the cells of the instances.

        centre + 0.1 size + offset + keypoints + heatmap + heatmap_offset with the usual weights; all are means over the
        whole batch.
        """
        heatmap, counted = targets["heatmap"], targets["counted"]
        losses = {
            "centre": centernet.focal(outputs["centre"], heatmap[:, :1], counted[:, :1]),
            "heatmap": centernet.focal(outputs["heatmap"], heatmap[:, 1:], counted[:, 1:]),
        }
        for name in self.points:
            view, channel, row, column, valid = self._places(name, targets)
            predicted = outputs[name][view, channel, :, row, column]
            losses[name] = centernet.masked_l1(predicted, targets[name], valid)
        return {name: self.weights[name] * value for name, value in losses.items()}

    def decode_tensors(self, outputs: Maps) -> dict[str, Tensor]:
        """Decode the highest peaks of the centre heatmap, each with its box and its keypoints.

        A keypoint is regressed from its centre, and snapped to a peak of its heatmap (see ``ops.centernet.snap``). Its score
        is that of the peak; if it isn't snapped, the score of the centre times the highest score of its heatmap within
        a cell of it. The score of the instance is that of its centre.
        """
        heatmap = outputs["heatmap"].sigmoid()
        score, cell, _ = centernet.top_peaks(outputs["centre"].sigmoid()[:, 0], self.max_poses)
        peak_score, peak_cell, around = centernet.top_peaks(heatmap, self.max_poses)
        view = torch.arange(len(heatmap), device=heatmap.device)[:, None, None]
        channel = torch.arange(heatmap.shape[1], device=heatmap.device)

        def values(name: str, channel: Tensor, cell: Tensor) -> Tensor:
            return outputs[name][view, channel, :, cell[..., 1], cell[..., 0]]

        here = cell[:, :, None]
        centre = (here + 0.5 + values("offset", channel[:1], here)).squeeze(2)
        half = values("size", channel[:1], here).squeeze(2).clamp_min(0) / 2
        box = torch.cat([centre - half, centre + half], dim=-1)
        guess = here + 0.5 + values("keypoints", channel, here)
        kind = channel[:1] if self.shared else channel
        peak = peak_cell + 0.5 + values("heatmap_offset", kind[:, None], peak_cell)
        uv, keypoint_score, snapped = centernet.snap(guess, box, peak, peak_score, self.snap_score, self.snap_reach)

        last = torch.tensor(heatmap.shape[:-3:-1], device=heatmap.device) - 1
        column, row = torch.minimum(guess.long().clamp_min(0), last).unbind(-1)
        unsnapped = score[..., None] * around[view, channel, row, column]
        keypoint_score = torch.where(snapped, keypoint_score, unsnapped)
        return {
            "keypoints": uv * self.stride,
            "keypoint_scores": keypoint_score,
            "scores": score,
            "boxes": box * self.stride,
        }

    def candidates(self, outputs: Maps) -> tuple[Tensor, Tensor]:
        """The box of every cell."""
        height, width = outputs["centre"].shape[-2:]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        cell = torch.stack([x, y]).to(outputs["offset"]) + 0.5
        centre, half = cell + outputs["offset"][:, 0], outputs["size"][:, 0].clamp_min(0) / 2
        box = torch.cat([centre - half, centre + half], dim=1) * self.stride
        return box.flatten(2).transpose(1, 2), outputs["centre"].sigmoid().flatten(1)

    def ideal(self, targets: Maps) -> Maps:
        """Heatmaps that are high in the cells of centres and keypoints and low elsewhere, and the true offsets there.

        Where several instances share a cell, their mean offset.
        """
        confident = math.log((1 - centernet.LEAST) / centernet.LEAST)
        logits = torch.where(targets["heatmap"] == 1, confident, -confident)
        maps = {"centre": logits[:, :1], "heatmap": logits[:, 1:]}
        for name, points in self.points.items():
            view, channel, row, column, valid = self._places(name, targets)
            counting = torch.cat([targets[name], torch.ones_like(targets[name][..., :1])], dim=-1)
            total = logits.new_zeros(len(logits), points, *logits.shape[-2:], 3)
            total.index_put_((view, channel, row, column), counting * valid[..., None], accumulate=True)
            maps[name] = (total[..., :2] / total[..., 2:].clamp_min(1)).movedim(-1, 2)
        return maps

    def representable(self, poses: Poses, size: tuple[int, int]) -> np.ndarray:
        """Which instances share no cell of their centre or of a keypoint with another one."""
        every = _in_view(poses, size)
        _, shown, _, cell = self._located(every, size)
        number = np.where(shown, cell[..., 1] * size[0] + cell[..., 0], -1)
        with_others = (number[:, None] == number[None]) & (shown & ~np.eye(len(poses), dtype=bool)[..., None])
        alone = ~with_others.any((1, 2))
        if self.shared:
            _, index, count = np.unique(number[:, 1:], return_inverse=True, return_counts=True)
            alone &= ((count[index] == 1) | ~shown[:, 1:]).all(1)
        return alone & shown[:, 0]

    def unflip(self, outputs: Maps) -> Maps:
        """Maps mirrored, keypoints permuted, and the x of offsets negated, so that all branches can be averaged."""
        sign = outputs["centre"].new_tensor([-1.0, 1.0])[:, None, None]
        back = {name: m.flip(-1) for name, m in outputs.items()}
        back = {name: m if m.shape[1] == 1 else m[:, self.flip] for name, m in back.items()}
        return {name: m * sign if name in self.points and name != "size" else m for name, m in back.items()}

    def _places(self, name: str, targets: Maps) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """(view, channel, row, column) of a branch's sparse targets in its maps, and (N, points) bool which of them count."""
        labelled = targets["labelled"]
        view, cell = targets["view"][:, None], targets["cell"]
        channel = torch.arange(labelled.shape[1], device=labelled.device)
        if name in ("size", "offset"):
            cell, channel, valid = cell[:, :1], channel[:1], torch.ones_like(labelled[:, :1])
        elif name == "keypoints":
            cell, valid = cell[:, :1], labelled
        else:
            valid = labelled & targets["central"][:, None]
            cell, channel = cell[:, 1:], channel[:1] if self.shared else channel
        return view, channel, cell[..., 1], cell[..., 0], valid

    def _tensor(self, values: np.ndarray) -> Tensor:
        """An array on the head's device; floats as float32."""
        return torch.from_numpy(values).to(self.device, torch.float32 if values.dtype.kind == "f" else None)


class Branch(nn.Module):
    """A 3x3 convolution in the network's precision and a 1x1 convolution in float32."""

    def __init__(self, channels: int, hidden: int, out: int, bias: float, std: float | None) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Conv2d(channels, hidden, kernel_size=3, padding=1), nn.ReLU(inplace=True))
        self.last = nn.Conv2d(hidden, out, kernel_size=1)
        if std is not None:
            nn.init.normal_(self.last.weight, std=std)
        nn.init.constant_(cast(Tensor, self.last.bias), bias)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, out, h, w) float32."""
        hidden = self.hidden(features)
        with torch.autocast(hidden.device.type, enabled=False):
            return self.last(hidden.float())


def _in_view(poses: Poses, size: tuple[int, int]) -> Poses:
    """Keypoints outside the view are unlabelled, boxes clipped to it."""
    seen = poses.labelled & ((poses.xy >= 0) & (poses.xy <= size)).all(-1)
    return replace(
        poses,
        xy=np.where(seen[..., None], poses.xy, np.nan),
        visible=np.where(seen, poses.visible, 0),
        box=np.clip(poses.box, 0, [*size, *size]),
    )
