"""Poses: the one type for true and predicted instances in one frame of reference."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import numpy as np

from kplab.ops import affine

SEEN_SIDE, SEEN_SHARE = 2.0, 0.1
"""A subject that is cut off and has no keypoint left counts as seen where its box keeps this many pixels a side and this
share of its area (as in YOLO's choice of boxes after augmentation)."""
#: Usual padding of a hull of keypoints on every side, fraction of its longer side.
HULL_MARGIN = 0.1


@dataclass
class Poses:
    """N instances of K keypoints in one frame of reference. ``poses[mask]`` filters every field at once.

    Args:
        xy: (N, K, 2) float64 keypoints, pixels of the frame, continuous (see ``ops.affine``); NaN where unlabelled.
        visible: (N, K) uint8 as in COCO: 0 not labelled, 1 labelled but hidden, 2 visible. Predictions have 2.
        score: (N,) float64 confidence of the instance; 1 for truth.
        keypoint_score: (N, K) float64 confidence of each keypoint; 1 for truth.
        box: (N, 4) float64 xyxy, pixels of the frame; NaN where there is none.
        area: (N,) float64 pixels**2 of the subject's segment (or its substitute); NaN where unknown.
        ignore: (N,) bool: crowds and unlabelled subjects, which are neither trained on nor scored.
        track: (N,) int64 number that one subject keeps through the images of a video, 0 or more; -1 where unknown.
    """

    xy: np.ndarray
    visible: np.ndarray
    score: np.ndarray
    keypoint_score: np.ndarray
    box: np.ndarray
    area: np.ndarray
    ignore: np.ndarray
    track: np.ndarray

    def __post_init__(self) -> None:
        n, k = self.xy.shape[:2]
        for name, shape in (
            ("xy", (n, k, 2)),
            ("visible", (n, k)),
            ("score", (n,)),
            ("keypoint_score", (n, k)),
            ("box", (n, 4)),
            ("area", (n,)),
            ("ignore", (n,)),
            ("track", (n,)),
        ):
            got = getattr(self, name).shape
            if got != shape:
                raise ValueError(f"Poses.{name} has shape {got}, but xy {self.xy.shape} needs {shape}")

    @classmethod
    def make(
        cls,
        xy: np.ndarray,
        visible: np.ndarray | None = None,
        score: np.ndarray | None = None,
        keypoint_score: np.ndarray | None = None,
        box: np.ndarray | None = None,
        area: np.ndarray | None = None,
        ignore: np.ndarray | None = None,
        track: np.ndarray | None = None,
    ) -> Poses:
        """Fill what is not given: visible 2 where xy is finite, scores 1, box and area NaN, ignore False, track -1.

        Points with ``visible == 0`` become NaN, and points that are NaN become ``visible == 0``.
        """
        xy = np.array(xy, dtype=np.float64)
        n, k = xy.shape[:2]
        finite = np.isfinite(xy).all(-1)
        visible = np.where(finite, 2 if visible is None else np.asarray(visible), 0).astype(np.uint8)
        xy[visible == 0] = np.nan
        return cls(
            xy,
            visible,
            np.ones(n) if score is None else np.asarray(score, dtype=np.float64),
            np.ones((n, k)) if keypoint_score is None else np.asarray(keypoint_score, dtype=np.float64),
            np.full((n, 4), np.nan) if box is None else np.asarray(box, dtype=np.float64).reshape(n, 4),
            np.full(n, np.nan) if area is None else np.asarray(area, dtype=np.float64),
            np.zeros(n, dtype=bool) if ignore is None else np.asarray(ignore, dtype=bool),
            np.full(n, -1, dtype=np.int64) if track is None else np.asarray(track, dtype=np.int64),
        )

    @classmethod
    def empty(cls, keypoints: int) -> Poses:
        """Poses without any instance."""
        return cls.make(np.zeros((0, keypoints, 2)))

    @classmethod
    def concat(cls, parts: Iterable[Poses]) -> Poses:
        """All instances of several Poses of one frame, in order; at least one part."""
        parts = list(parts)
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    def __len__(self) -> int:
        return len(self.xy)

    def __getitem__(self, index: np.ndarray | slice | list[int]) -> Poses:
        return Poses(*(getattr(self, f.name)[index] for f in fields(self)))

    def __repr__(self) -> str:
        labelled = int((self.visible > 0).sum())
        return (
            f"Poses({len(self)} x {self.xy.shape[1]} keypoints, {labelled} labelled, {int(self.ignore.sum())} ignored)"
        )

    @property
    def labelled(self) -> np.ndarray:
        """(N, K) bool: keypoints that have a position."""
        return self.visible > 0

    def transform(self, matrix: np.ndarray) -> Poses:
        """The same poses in another frame. A mirroring map needs ``flip`` as well, to rename left and right."""
        return replace(
            self,
            xy=affine.apply(matrix, self.xy),
            box=affine.apply_to_boxes(matrix, self.box),
            area=self.area * affine.area_scale(matrix),
        )

    def permute_keypoints(self, permutation: np.ndarray) -> Poses:
        """The same points under permuted names, e.g. ``Skeleton.flip`` after mirroring."""
        return replace(
            self,
            xy=self.xy[:, permutation],
            visible=self.visible[:, permutation],
            keypoint_score=self.keypoint_score[:, permutation],
        )

    def clipped(self, size: tuple[float, float], corner: tuple[float, float] = (0.0, 0.0)) -> Poses:
        """The instances as far as a view shows them.

        Keypoints outside become unlabelled and boxes are clipped. An instance that keeps part of its box but no labelled
        keypoint becomes ``ignore``; one of which less is left than ``SEEN_SIDE`` or ``SEEN_SHARE`` is removed. Instances
        that were ignored before, such as crowds, are removed only below ``SEEN_SIDE``: any part of them may show
        subjects. Areas stay those of the whole subjects.

        Args:
            size: (width, height) of the view, pixels of the frame.
            corner: its upper left corner. The view is half open: a point at x = 0 is in it, one at x = width is not.
        """
        low = np.asarray(corner, dtype=np.float64)
        high = low + size
        inside = ((self.xy >= low) & (self.xy < high)).all(-1) & self.labelled
        box = np.concatenate([np.maximum(self.box[:, :2], low), np.minimum(self.box[:, 2:], high)], axis=1)
        sides, whole = box[:, 2:] - box[:, :2], self.box[:, 2:] - self.box[:, :2]
        box[~(sides > 0).all(1)] = np.nan
        seen = (sides >= SEEN_SIDE).all(1) & (self.ignore | (sides.prod(1) >= SEEN_SHARE * whole.prod(1)))
        found = inside.any(1)
        out = replace(
            self,
            xy=np.where(inside[..., None], self.xy, np.nan),
            visible=np.where(inside, self.visible, 0).astype(np.uint8),
            box=box,
            ignore=self.ignore | ~found,
        )
        return out[found | seen]

    def extent(self, margin: float = 0.0, least: float = 0.0) -> np.ndarray:
        """(N, 4) xyxy hull of the labelled keypoints; NaN where none is labelled.

        Args:
            margin: by which it is padded on every side, fraction of its longer side.
            least: by which it is padded at least, pixels.
        """
        box = np.full((len(self), 4), np.nan)
        some = self.labelled.any(1)
        xy = self.xy[some]
        if len(xy):
            low, high = np.nanmin(xy, 1), np.nanmax(xy, 1)
            padding = np.maximum(margin * (high - low).max(1, keepdims=True), least)
            box[some] = np.concatenate([low - padding, high + padding], axis=1)
        return box
