"""Trajectories: positions and headings of tracked subjects in the frames of a video, and the times of the frames."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kplab.errors import DataError
from kplab.structures.predictions import Predictions


def times_at(predictions: Predictions, rate: float) -> dict[int, float]:
    """Image id to seconds, by the frame numbers in the names (``clip.mp4#000123``) and a constant frame rate.

    Args:
        predictions: of the frames of one video.
        rate: frames per second.

    Raises:
        DataError: a name has no frame number, or there are frames of several videos.
    """
    found = {i: re.fullmatch(r"(.*)#(\d+)", predictions.files.get(i, "")) for i in predictions.poses}
    bad = [i for i, match in found.items() if match is None]
    videos = sorted({match[1] for match in found.values() if match})
    if bad or len(videos) > 1 or not rate > 0:
        what = (
            f"image {bad[0]} is named '{predictions.files.get(bad[0], '')}'" if bad else f"videos: {', '.join(videos)}"
        )
        raise DataError(
            f"frame times need names such as clip.mp4#000123 of one video, and a rate above 0, but got {what}; rate {rate}. "
            "Give the times yourself: image id to seconds."
        )
    return {i: int(match[2]) / rate for i, match in found.items() if match}


def times_in(predictions: Predictions, table: Path) -> dict[int, float]:
    """Image id to seconds, from the column ``time_s`` of the table of keypoints that ``kplab predict`` writes.

    Frames without a pose have no row in that table and no time, so they are left out: the time between the frames around
    them shows the gap.

    Raises:
        DataError: the table can't be read, lacks the columns, or a frame with poses is not in it.
    """
    try:
        rows = pd.read_csv(table, usecols=["file", "time_s"]).dropna().drop_duplicates("file")
    except (OSError, ValueError) as error:
        raise DataError(f"{table}: no table of a video's keypoints with columns file and time_s ({error}).") from error
    seconds = dict(zip(rows["file"], rows["time_s"].astype(float), strict=True))
    lacking = [i for i, poses in predictions.poses.items() if len(poses) and predictions.files.get(i) not in seconds]
    if lacking:
        raise DataError(
            f"{table}: has no time of image {lacking[0]} ({predictions.files.get(lacking[0], 'without a name')}) and "
            f"{len(lacking) - 1} others. Is it of the same prediction?"
        )
    return {i: seconds[name] for i, name in predictions.files.items() if name in seconds}


@dataclass(frozen=True)
class Trajectories:
    """Positions of I identities in T frames.

    Args:
        time: (T,) seconds, ascending.
        image_id: (T,) int64.
        track: (I,) int64 identities, ascending.
        xy: (I, T, 2) pixels; NaN where an identity is not seen.
        heading: (I, T) radians, from the x axis towards the y axis (down); NaN where unknown.
        notes: what was left out, with counts.
    """

    time: np.ndarray
    image_id: np.ndarray
    track: np.ndarray
    xy: np.ndarray
    heading: np.ndarray
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        predictions: Predictions,
        times: Mapping[int, float],
        position: str | Sequence[str],
        heading: tuple[str, str] | None = None,
        min_score: float = 0.0,
        one_subject: bool = False,
    ) -> Trajectories:
        """Trajectories of the identities of predictions.

        Args:
            predictions: with tracks.
            times: image id to seconds, of every frame that is used; see ``times_at`` and ``times_in``.
            position: keypoint whose position is the subject's, or several, whose mean it is; all of them must be found.
            heading: (from, to) keypoints, e.g. ("thorax", "head"); None leaves the heading unknown.
            min_score: keypoints of a lower score count as missing.
            one_subject: all poses are of one subject, and tracks are not read; of several poses in a frame the one with
                the highest score is used.

        Raises:
            DataError: there are no tracks, an identity occurs twice in a frame, or times are not finite or not distinct.
            ConfigError: the skeleton has no such keypoint.
        """
        skeleton = predictions.skeleton
        parts = [skeleton.index(name) for name in ([position] if isinstance(position, str) else position)]
        ends = None if heading is None else [skeleton.index(name) for name in heading]
        ids = sorted((i for i in predictions.poses if i in times), key=lambda i: times[i])
        time = np.array([times[i] for i in ids], dtype=np.float64)
        if len(ids) < 2 or not np.isfinite(time).all() or (np.diff(time) <= 0).any():
            raise DataError(
                f"got {len(ids)} frames with a time. Two or more are needed, with finite times that differ from each other."
            )
        tracks = sorted({int(t) for i in ids for t in predictions.poses[i].track if t >= 0})
        if one_subject:
            tracks = [0]
        elif not tracks:
            raise DataError(
                "the predictions have no identities (track_id). Predict with a tracker, or use one_subject=True if all "
                "poses are of one subject."
            )
        row = {t: n for n, t in enumerate(tracks)}
        xy = np.full((len(tracks), len(ids), 2), np.nan)
        angle = np.full(xy.shape[:2], np.nan)
        nameless = incomplete = surplus = 0
        for column, image_id in enumerate(ids):
            poses = predictions.poses[image_id]
            points = np.where((poses.keypoint_score >= min_score)[..., None], poses.xy, np.nan)
            chosen = list(enumerate(poses.track.tolist()))
            if one_subject:
                chosen = [(int(poses.score.argmax()), 0)] if len(poses) else []
                surplus += len(poses) - len(chosen)
            seen = [t for _, t in chosen if t >= 0]
            if len(set(seen)) < len(seen):
                twice = next(t for t in seen if seen.count(t) > 1)
                raise DataError(
                    f"identity {twice} occurs {seen.count(twice)} times in image {image_id} "
                    f"({predictions.files.get(image_id, 'without a name')}). Track the predictions again."
                )
            for n, t in chosen:
                if t < 0:
                    nameless += 1
                    continue
                xy[row[t], column] = points[n, parts].mean(0)
                incomplete += not np.isfinite(xy[row[t], column]).all()
                if ends is not None:
                    dx, dy = points[n, ends[1]] - points[n, ends[0]]
                    angle[row[t], column] = np.arctan2(dy, dx)
        counts = {
            f"{nameless} poses without an identity are left out": nameless,
            f"{surplus} poses of lower score beside the subject are left out": surplus,
            f"{incomplete} poses lack a keypoint of the position, and count as missing": incomplete,
            f"{len(predictions.poses) - len(ids)} frames without a time are left out": len(predictions.poses)
            - len(ids),
        }
        return cls(
            time, np.array(ids, dtype=np.int64), np.array(tracks, dtype=np.int64), xy, angle,
            tuple(text for text, count in counts.items() if count),
        )  # fmt: skip
