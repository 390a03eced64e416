"""Identities of poses over the frames of a video: tracking by detection."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from kplab.errors import ConfigError, DataError
from kplab.ops.overlap import box_iou
from kplab.structures.frames import Frame
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton
from kplab.tasks.inference.tracking.association import assign, keypoint_similarity
from kplab.tasks.inference.tracking.kalman import Motion

MEMORY = 0.9
"""Share of a track's former appearance and size in the new one, per frame."""

COVERED = 0.5
"""OKS or box IoU with a subject's track above which a further pose in the frame is a second pose of that subject."""

Embed = Callable[[Frame], np.ndarray]
"""A frame to (N, D) descriptors of the appearance of its poses."""


@dataclass(eq=False)
class Track:
    """A subject that is followed.

    Args:
        motion: of its keypoints and the two corners of its box.
        size: square root of its area, pixels.
        time: of the last frame that showed it, seconds.
        look: (D,) descriptor of its appearance; (0,) where appearance is not used.
        row: index of its pose in that frame.
        hits: frames that showed it, all consecutive up to its confirmation.
        identity: number of the subject; -1 until the track is confirmed.
    """

    motion: Motion
    size: float
    time: float
    look: np.ndarray
    row: int
    hits: int = 1
    identity: int = -1


@dataclass(frozen=True)
class Found:
    """The poses of a frame as they are compared with tracks.

    Args:
        points: (N, K + 2, 2) keypoints and corners of the box, pixels.
        size: (N,) pixels, the same for all directions of a subject: sqrt((width**2 + height**2) / 2) of its box.
        look: (N, D) descriptors of appearance; D is 0 where it is not used.
    """

    points: np.ndarray
    size: np.ndarray
    look: np.ndarray

    @classmethod
    def of(cls, poses: Poses, look: np.ndarray, least_size: float) -> Found:
        """Take the poses of a frame; a pose without a box has the hull of its keypoints."""
        boxed = np.isfinite(poses.box).all(1, keepdims=True)
        box = np.where(boxed, poses.box, poses.extent())
        sides = box[:, 2:] - box[:, :2]
        size = np.maximum(np.sqrt((sides**2).sum(1) / 2), least_size)
        return cls(np.concatenate([poses.xy, box.reshape(-1, 2, 2)], axis=1), size, look)


class Tracker:
    """Gives each pose the number of its subject: a stage that sets ``Poses.track``.

    A frame is processed in four steps.

    1. Tracks are moved to the time of the frame by a constant-velocity Kalman filter of each keypoint and of the box.
    2. Association: poses of score ``high_score`` or more are assigned to tracks; then the rest of those of ``low_score``
       or more to the tracks that are left (as in ByteTrack). The assignment maximises the sum of the similarities, each
       the weighted mean of OKS, box IoU and, optionally, appearance.
    3. Birth: a pose of ``high_score`` or more that is left starts a tentative track, unless it covers a subject that has
       a pose already. After ``min_hits`` consecutive frames the track is confirmed. It takes the identity of a track
       that was lost, if that subject can have moved there, and a new one otherwise.
    4. Death: an identity that was not seen for ``max_lost`` seconds is not used again. With ``subjects``, identities do
       not die, and no more than so many are made.

    ``min_hits - 1`` frames are kept back, so that a track has its identity from its first frame. Poses without an identity
    keep track -1; no pose is removed. Frames may be missing, and intervals of time may differ.

    Args:
        skeleton: of the poses.
        subjects: number of subjects in the video, where it is known; null: any number.
        high_score: poses of this score or more start tracks.
        low_score: poses of lower score continue no track.
        min_similarity: below it, no pose continues a track.
        box_weight: weight of box IoU, where OKS has weight 1.
        appearance_weight: weight of appearance, where OKS has weight 1; 0: not computed.
        min_hits: frames that confirm a track.
        max_lost: seconds until the identity of a subject that is not seen is given up.
        coast: seconds for which a subject that is not seen is taken to move on at its velocity; then to stand still.
        reach: largest speed at which a lost subject is found again, sizes per second. A size is sqrt((width**2 + height**2)
            / 2) of a subject's box.
        agility: standard deviation of the change of a keypoint's velocity within a second, sizes per second.
        noise: standard deviation of a coordinate of a predicted keypoint, sizes.
        embed: the appearance of the poses of a frame; needed with ``appearance_weight``.

    Raises:
        ConfigError: an option is out of its range.

    Source: Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", 2022, for the two rounds
        of association.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        subjects: int | None = None,
        high_score: float = 0.3,
        low_score: float = 0.1,
        min_similarity: float = 0.2,
        box_weight: float = 0.5,
        appearance_weight: float = 0.0,
        min_hits: int = 3,
        max_lost: float = 2.0,
        coast: float = 0.2,
        reach: float = 4.0,
        agility: float = 10.0,
        noise: float = 0.02,
        embed: Embed | None = None,
    ) -> None:
        self.subjects, self.high_score, self.low_score = subjects, high_score, low_score
        self.min_similarity, self.box_weight, self.appearance_weight = min_similarity, box_weight, appearance_weight
        self.min_hits, self.max_lost, self.coast, self.reach = min_hits, max_lost, coast, reach
        self.agility, self.noise, self.embed = agility, noise, embed
        self._check()
        self.sigmas = skeleton.sigma_array
        self.tracks: list[Track] = []
        self.identities = 0
        self.now = -np.inf
        self.kept: deque[tuple[Frame, list[Track | None]]] = deque()

    def _check(self) -> None:
        least = {"subjects": 1, "min_hits": 1, "min_similarity": 1e-6, "agility": 1e-6, "noise": 1e-6}
        least |= dict.fromkeys(("box_weight", "appearance_weight", "max_lost", "coast", "reach"), 0.0)
        faults = [
            f"tracker.{key} is {getattr(self, key)}, but must be at least {low:g}."
            for key, low in least.items()
            if getattr(self, key) is not None and getattr(self, key) < low
        ]
        if self.low_score > self.high_score:
            faults.append(f"tracker.low_score is {self.low_score}, above tracker.high_score, {self.high_score}.")
        if self.appearance_weight > 0 and self.embed is None:
            faults.append("tracker.appearance_weight needs the features of a network. Set it to 0 here.")
        if faults:
            raise ConfigError("\n".join(faults))

    def push(self, frame: Frame) -> list[Frame]:
        """The frames whose identities are known after this one.

        Raises:
            DataError: the frame is not later than the one before.
        """
        if frame.time <= self.now:
            raise DataError(
                f"{frame.name}: its time is {frame.time:g} s, but the frame before it has {self.now:g} s. Frames are "
                "tracked in the order of their times."
            )
        before, self.now = self.now, frame.time
        self._move(before)
        self.kept.append((frame, self._follow(frame, before)))
        return [self._released() for _ in range(len(self.kept) - self.min_hits + 1)]

    def flush(self) -> list[Frame]:
        """The frames that are kept back."""
        return [self._released() for _ in range(len(self.kept))]

    def _released(self) -> Frame:
        frame, owners = self.kept.popleft()
        track = np.array([-1 if owner is None else owner.identity for owner in owners], dtype=np.int64)
        return replace(frame, poses=replace(frame.poses, track=track))

    def _move(self, before: float) -> None:
        """Move all tracks from the time of the frame before to now."""
        for track in self.tracks:
            motion = track.motion
            if track.time < before:  # the keypoints of a subject that was not seen move as one
                moving = self.now - track.time <= self.coast
                mean = np.nanmean(motion.velocity[np.isfinite(motion.xy).all(1)], axis=0) * moving
                motion = replace(motion, velocity=np.broadcast_to(mean, motion.velocity.shape))
            track.motion = motion.predicted(self.now - before, (self.agility * track.size) ** 2)

    def _follow(self, frame: Frame, before: float) -> list[Track | None]:
        """The track of each pose of a frame; updates all tracks."""
        poses = frame.poses
        look = np.zeros((len(poses), 0))
        if self.embed is not None and self.appearance_weight > 0:
            look = self.embed(frame)
        # a pose of few keypoints has a small hull
        typical = np.median([t.size for t in self.tracks if t.identity >= 0] or [1.0])
        found = Found.of(poses, look, max(float(typical) / 2, 1.0))
        owners: list[Track | None] = [None] * len(poses)
        shown = poses.labelled.any(1)
        high = shown & (poses.score >= self.high_score)
        low = shown & ~high & (poses.score >= self.low_score)

        recent = [t for t in self.tracks if t.identity >= 0 and before - t.time <= self.coast]
        tentative = [t for t in self.tracks if t.identity < 0]
        self._associate(recent, high, found, owners)
        self._associate(recent, low, found, owners)
        self._rejoin(recent, high, found, owners)
        followed = [t for t in recent if t.time == self.now]
        self._associate(tentative, high, found, owners)
        self._rejoin(tentative, high, found, owners)
        self.tracks = [t for t in self.tracks if t.identity >= 0 or t.time == self.now]
        self._bear(followed, high, found, owners)
        self._confirm(found)
        if self.subjects is None:
            self.tracks = [t for t in self.tracks if self.now - t.time <= self.max_lost]
        return owners

    def _associate(self, tracks: list[Track], usable: np.ndarray, found: Found, owners: list[Track | None]) -> None:
        """Assign poses without an owner to tracks, and update these tracks.

        Args:
            usable: (N,) bool, poses that may be assigned.
            owners: track of each pose; is changed.
        """
        tracks, rows = self._left(tracks, usable, owners)
        for t, n in assign(self._similarity(tracks, found, rows), self.min_similarity):
            track, row = tracks[t], rows[n]
            noise, speed = self.noise * track.size, self.agility * track.size
            track.motion = track.motion.updated(found.points[row], noise, speed)
            self._extend(track, row, found, owners)

    def _rejoin(self, tracks: list[Track], usable: np.ndarray, found: Found, owners: list[Track | None]) -> None:
        """Assign poses to tracks by distance alone, where the pose has changed too much; their motion starts anew."""
        tracks, rows = self._left(tracks, usable, owners)
        for t, n in assign(self._continuity(tracks, found, rows), 1e-9):
            track, row = tracks[t], rows[n]
            track.motion = self._started(found, row)
            self._extend(track, row, found, owners)

    def _left(
        self, tracks: list[Track], usable: np.ndarray, owners: list[Track | None]
    ) -> tuple[list[Track], list[int]]:
        """The tracks that have no pose in this frame yet, and the usable poses that have no track yet."""
        rows = [n for n in np.flatnonzero(usable).tolist() if owners[n] is None]
        return [t for t in tracks if t.time < self.now], rows

    def _started(self, found: Found, row: int) -> Motion:
        size = float(found.size[row])
        return Motion.start(found.points[row], self.noise * size, self.agility * size)

    def _extend(self, track: Track, row: int, found: Found, owners: list[Track | None]) -> None:
        """Add a pose to a track, whose motion is up to date."""
        track.size = MEMORY * track.size + (1 - MEMORY) * float(found.size[row])
        track.look = MEMORY * track.look + (1 - MEMORY) * found.look[row]
        track.time, track.row, track.hits = self.now, row, track.hits + 1
        owners[row] = track

    def _similarity(self, tracks: list[Track], found: Found, rows: list[int]) -> np.ndarray:
        """(T, n) similarity of tracks with the poses ``rows``."""
        if not tracks or not rows:
            return np.zeros((len(tracks), len(rows)))
        keypoints, boxes = self._overlap(tracks, found, rows)
        total = keypoints + self.box_weight * boxes
        if self.appearance_weight > 0:
            total = total + self.appearance_weight * self._alikeness(tracks, found.look[rows])
        return total / (1 + self.box_weight + self.appearance_weight)

    def _overlap(self, tracks: list[Track], found: Found, rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """(T, n) similarity of keypoints, and (T, n) IoU of boxes, of tracks with the poses ``rows``; at least one each."""
        xy = np.stack([t.motion.xy for t in tracks])
        size = np.array([t.size for t in tracks])
        variance = np.stack([t.motion.variance[:, 0] for t in tracks]) + (self.noise * size[:, None]) ** 2
        area = (size[:, None] ** 2 + found.size[None, rows] ** 2) / 2
        points = found.points[rows]
        keypoints = keypoint_similarity(xy[:, :-2], variance[:, :-2], points[:, :-2], area, self.sigmas)
        return keypoints, box_iou(xy[:, -2:].reshape(-1, 4), points[:, -2:].reshape(-1, 4))

    def _alikeness(self, tracks: list[Track], look: np.ndarray) -> np.ndarray:
        """(T, n) cosine of the differences of descriptors from the mean of all subjects; 0 where it is negative."""
        known = [t.look for t in self.tracks if t.identity >= 0]
        mean = np.mean(known, axis=0) if known else np.zeros(look.shape[1])
        units = []
        for rows in (np.stack([t.look for t in tracks]), look):
            away = rows - mean
            units.append(away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-12))
        return np.maximum(units[0] @ units[1].T, 0.0)

    def _bear(self, followed: list[Track], high: np.ndarray, found: Found, owners: list[Track | None]) -> None:
        """Start a tentative track at each pose without an owner that covers no subject that has a pose already.

        Args:
            followed: tracks that were updated in this frame.
        """
        for row in self._left([], high, owners)[1]:
            if not followed or np.maximum(*self._overlap(followed, found, [row])).max() <= COVERED:
                track = Track(self._started(found, row), float(found.size[row]), self.now, found.look[row], row)
                self.tracks.append(track)
                owners[row] = track

    def _confirm(self, found: Found) -> None:
        """Give identities to tentative tracks with enough frames: that of a lost track, or a new one."""
        ready = [t for t in self.tracks if t.identity < 0 and t.hits >= self.min_hits]
        lost = [t for t in self.tracks if t.identity >= 0 and t.time < self.now]
        for old, new in assign(self._continuity(lost, found, [t.row for t in ready]), 1e-9):
            ready[new].identity = lost[old].identity
        taken = {t.identity for t in ready}
        self.tracks = [t for t in self.tracks if t.time == self.now or t.identity not in taken]
        for track in ready:
            if track.identity < 0 and (self.subjects is None or self.identities < self.subjects):
                track.identity = self.identities
                self.identities += 1

    def _continuity(self, tracks: list[Track], found: Found, rows: list[int]) -> np.ndarray:
        """(T, n) how well poses continue tracks by distance; 0 where a subject can't have moved so far."""
        if not tracks or not rows:
            return np.zeros((len(tracks), len(rows)))
        places = np.stack([t.motion.xy[-2:].mean(0) for t in tracks])
        size = np.array([t.size for t in tracks])
        reach = size * (1 + self.reach * (self.now - np.array([t.time for t in tracks])))
        near = 1 - np.linalg.norm(places[:, None] - found.points[None, rows, -2:].mean(2), axis=-1) / reach[:, None]
        if self.appearance_weight > 0:
            alike = self._alikeness(tracks, found.look[rows])
            return np.where(near > 0, (near + self.appearance_weight * alike) / (1 + self.appearance_weight), 0.0)
        return near
