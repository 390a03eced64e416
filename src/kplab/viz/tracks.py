"""Drawing of the frames of a stream: poses in the colours of their tracks, trails behind them, and captions."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import cv2
import numpy as np

from kplab.structures.frames import Frame
from kplab.structures.skeleton import Skeleton
from kplab.viz.poses import CASING, TRUTH, draw, track_colour

CAPTIONS = ("track", "score")


class FrameDrawing:
    """Draws frames, in order: trails are the way of each track through the frames before.

    Args:
        skeleton: names, sides and edges of the keypoints.
        colour: "sides", "instances", "tracks", or "auto": by track where an instance has one, else by side.
        trails: length of the trails, frames; 0: none.
        captions: what is written at each instance: "track", "score" or both.
        min_keypoint_score: keypoints with a lower score are not drawn.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        colour: str = "auto",
        trails: int = 0,
        captions: Sequence[str] = CAPTIONS,
        min_keypoint_score: float = 0.0,
    ) -> None:
        self.skeleton, self.colour, self.length, self.captions = skeleton, colour, trails, tuple(captions)
        self.min_keypoint_score = min_keypoint_score
        #: the last centres of each track, with their position in the stream
        self.trails: dict[int, deque[tuple[int, np.ndarray]]] = {}
        self.position = -1

    def follow(self, frame: Frame) -> None:
        """Take a frame into the trails; call it for every frame, also for those that are not drawn."""
        self.position += 1
        for n in np.flatnonzero(frame.poses.track >= 0) if self.length else ():
            centre = np.nanmean(frame.poses.xy[n], axis=0) if frame.poses.labelled[n].any() else None
            if centre is not None:
                way = self.trails.setdefault(int(frame.poses.track[n]), deque(maxlen=self.length + 1))
                way.append((self.position, centre))
        for track, way in list(self.trails.items()):
            while way and way[0][0] < self.position - self.length:
                way.popleft()
            if not way:
                del self.trails[track]

    def draw(self, frame: Frame) -> np.ndarray:
        """The picture of the frame that was followed last, (H, W, 3) uint8 RGB."""
        assert frame.image is not None
        poses = frame.poses
        colour = self.colour
        if colour == "auto":
            colour = "tracks" if (poses.track >= 0).any() else "sides"
        canvas = frame.image
        if self.trails:
            canvas = canvas.copy()
            width = max(2, round(0.002 * np.hypot(*canvas.shape[:2])))
            for track, way in self.trails.items():
                points = np.rint((np.array([xy for _, xy in way]) - 0.5) * 16).astype(np.int32)
                cv2.polylines(canvas, [points[:, None]], False, track_colour(track), width, cv2.LINE_AA, 4)
        canvas = draw(canvas, poses, self.skeleton, min_score=self.min_keypoint_score, colour=colour)
        for n in range(len(poses)):
            self._caption(canvas, frame, n)
        return canvas

    def _caption(self, canvas: np.ndarray, frame: Frame, n: int) -> None:
        """Write track and score above an instance, inside the picture."""
        poses = frame.poses
        texts = {"track": f"#{poses.track[n]}" if poses.track[n] >= 0 else "", "score": f"{poses.score[n]:.2f}"}
        text = " ".join(filter(None, (texts[name] for name in self.captions)))
        if not text or not poses.labelled[n].any():
            return
        height, width = canvas.shape[:2]
        scale = float(np.clip(0.0009 * np.hypot(height, width), 0.35, 1.2))
        thickness = max(1, round(1.4 * scale))
        (across, up), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
        low = np.nanmin(poses.xy[n], axis=0)
        x = int(np.clip(low[0], 2, max(2, width - across - 2)))
        y = int(np.clip(low[1] - 6, up + 2, height - 2))
        colour = track_colour(int(poses.track[n])) if poses.track[n] >= 0 else TRUTH
        for ink, extra in ((CASING, 2), (colour, 0)):
            cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thickness + extra, cv2.LINE_AA)


def keep_evenly(position: int, stride: int, count: int) -> tuple[bool, int]:
    """Whether a frame is one of about ``count`` that are spread evenly over a stream of unknown length.

    Args:
        position: of the frame in the stream, from 0.
        stride: as it is.
        count: frames wanted: at most twice as many are kept.

    Returns:
        whether it is kept, and the new stride, with which those before are thinned.

    >>> keep_evenly(4, 1, 2), keep_evenly(6, 2, 2)
    ((True, 2), (True, 2))
    """
    if position % stride:
        return False, stride
    while position // stride >= 2 * count:
        stride *= 2
    return position % stride == 0, stride
