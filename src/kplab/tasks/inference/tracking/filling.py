"""Filling of gaps: keypoints and poses of a track that are missing in a few frames are interpolated."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np
from scipy.interpolate import KroghInterpolator

from kplab.errors import ConfigError
from kplab.structures.frames import Frame
from kplab.structures.poses import Poses

METHODS = ("linear", "cubic")


class GapFilling:
    """Interpolates what is missing in at most ``max_gap`` consecutive frames of a track: a stage that needs ``Poses.track``.

    A filled keypoint has ``Poses.visible`` 1 (which predictions have nowhere else) and keypoint score 0. A filled pose has
    score 0 as well, and a box between those of its neighbours. What was predicted is not changed. Results files have no
    visibility: there a filled keypoint is one of score 0 with a position.

    ``max_gap`` frames are kept back, with ``cubic`` one more.

    Args:
        max_gap: largest number of consecutive frames that are filled.
        method: linear; or cubic, the polynomial through the keypoint in the two frames before and the two after the gap.
        min_score: keypoints of lower score are missing too, and are replaced.

    Raises:
        ConfigError: an option is out of its range.
    """

    def __init__(self, max_gap: int = 5, method: str = "linear", min_score: float = 0.0) -> None:
        if max_gap < 1:
            raise ConfigError(f"fill.max_gap is {max_gap}, but must be at least 1 frame. To fill nothing: fill=null.")
        if method not in METHODS:
            raise ConfigError(f"fill.method is '{method}'. Use {' or '.join(METHODS)}.")
        self.max_gap, self.method, self.min_score = max_gap, method, min_score
        self.delay = max_gap + (method == "cubic")
        # frames before and after the one that is filled; those before have no images any more
        self.before: deque[Frame] = deque(maxlen=self.delay)
        self.kept: deque[Frame] = deque()

    def push(self, frame: Frame) -> list[Frame]:
        """The frame that is complete now, if any."""
        self.kept.append(frame)
        return [self._next()] if len(self.kept) > self.delay else []

    def flush(self) -> list[Frame]:
        """The frames that are kept back."""
        return [self._next() for _ in range(len(self.kept))]

    def _next(self) -> Frame:
        frame = self.kept.popleft()
        window = [*self.before, frame, *self.kept]
        at = len(self.before)
        poses = frame.poses
        added = []
        tracks = {int(t) for f in window for t in f.poses.track if t >= 0}
        for track in sorted(tracks):
            rows = [np.flatnonzero(f.poses.track == track) for f in window]
            known = np.stack([self._known(f.poses, r) for f, r in zip(window, rows, strict=True)])
            if not known[at].all() and known[:at].any() and known[at + 1 :].any():
                xy = self._filled(window, rows, known, at)
                if len(rows[at]):
                    poses = with_filled(poses, int(rows[at][0]), xy)
                elif np.isfinite(xy).any():
                    added.append(self._new_pose(window, rows, at, track, xy))
        self.before.append(replace(frame, image=None))
        return replace(frame, poses=Poses.concat([poses, *added]) if added else poses)

    def _known(self, poses: Poses, row: np.ndarray) -> np.ndarray:
        """(K,) keypoints that a track has in a frame."""
        if not len(row):
            return np.zeros(poses.xy.shape[1], dtype=bool)
        usable: np.ndarray = poses.labelled[row[0]] & (poses.keypoint_score[row[0]] >= self.min_score)
        return usable

    def _filled(self, window: list[Frame], rows: list[np.ndarray], known: np.ndarray, at: int) -> np.ndarray:
        """(K, 2) interpolated keypoints of a frame; NaN where they are known or can't be interpolated."""
        xy = np.full((known.shape[1], 2), np.nan)
        for k in np.flatnonzero(~known[at]):
            seen = np.flatnonzero(known[:, k])
            before, after = seen[seen < at], seen[seen > at]
            if not len(before) or not len(after) or after[0] - before[-1] - 1 > self.max_gap:
                continue
            ends = [before[-1], after[0]]
            if self.method == "cubic":
                ends = [i for i in (ends[0] - 1, *ends, ends[1] + 1) if i in seen]
            points = np.array([window[i].poses.xy[rows[i][0], k] for i in ends])
            # the polynomial through two, three or four samples
            xy[k] = KroghInterpolator([window[i].time for i in ends], points)(window[at].time)
        return xy

    def _new_pose(self, window: list[Frame], rows: list[np.ndarray], at: int, track: int, xy: np.ndarray) -> Poses:
        """One pose that is filled in, with the box between the nearest ones."""
        there = [i for i, r in enumerate(rows) if len(r)]
        ends = [max((i for i in there if i < at), default=-1), min((i for i in there if i > at), default=-1)]
        first, last = (window[i].poses.box[rows[i][0]] for i in ends)
        share = (window[at].time - window[ends[0]].time) / (window[ends[1]].time - window[ends[0]].time)
        return Poses.make(
            xy[None],
            np.where(np.isfinite(xy).all(1), 1, 0)[None],
            score=np.zeros(1),
            keypoint_score=np.zeros((1, len(xy))),
            box=((1 - share) * first + share * last)[None],
            track=np.array([track]),
        )


def with_filled(poses: Poses, row: int, xy: np.ndarray) -> Poses:
    """The poses with the finite ones of (K, 2) ``xy`` as filled keypoints of pose ``row``."""
    new = np.isfinite(xy).all(1)
    out = replace(poses, xy=poses.xy.copy(), visible=poses.visible.copy(), keypoint_score=poses.keypoint_score.copy())
    out.xy[row, new], out.visible[row, new], out.keypoint_score[row, new] = xy[new], 1, 0.0
    return out
