"""Behaviour of tracked subjects: distance, speed, heading, time and visits in zones, and time near each other.

Nothing is interpolated. A *step* is the movement of a subject between two consecutive frames in which it is seen, at most
``max_gap`` seconds apart. Distances, speeds and times are sums over steps; half of the duration of a step belongs to each of
its two frames. All other time of the recording is reported as missing, with the number of gaps and the straight distance
across them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from kplab.applications.zones import Zone
from kplab.errors import ConfigError, DataError
from kplab.structures.predictions import Predictions

#: Steps are at most this many times as long as the median time between frames.
USUAL_STEPS = 1.5


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


@dataclass(frozen=True)
class Behaviour:
    """Tables of a recording; lengths in ``unit``, whose name ends their columns.

    Args:
        frames: one row per identity and frame: image_id, time_s, track, x_px, y_px, speed (of the step that ends there),
            heading_deg, and in_<zone> (True, False, or missing).
        identities: one row per identity: frames_seen, frames_missing, observed_s, missing_s, gaps (between two sightings),
            longest_gap_s, distance, gap_distance (straight, not part of distance), mean_speed, max_speed, turned_deg (sum
            of changes of the heading, positive clockwise on the screen).
        zones: one row per identity and zone: time_s, share (of observed_s), visits, first_s (first sighting in it).
        pairs: one row per two identities: together_s (both seen), near_s, encounters, mean_distance, min_distance.
        unit: of lengths.
        notes: what was left out, with counts.
    """

    frames: pd.DataFrame
    identities: pd.DataFrame
    zones: pd.DataFrame
    pairs: pd.DataFrame
    unit: str
    notes: tuple[str, ...]

    def write(self, folder: Path) -> list[Path]:
        """Write frames.parquet, and identities.csv, zones.csv and pairs.csv; creates the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / "frames.parquet"]
        self.frames.to_parquet(paths[0], index=False)
        for name in ("identities", "zones", "pairs"):
            paths.append(folder / f"{name}.csv")
            getattr(self, name).to_csv(paths[-1], index=False)
        return paths


@dataclass(frozen=True)
class Measures:
    """How behaviour is measured.

    Args:
        zones: places of interest, pixels of the image.
        near: two subjects closer than this are near each other, units.
        unit_per_px: length of a pixel, e.g. 0.12 for 0.12 mm.
        unit: name of the unit.
        min_step: movements smaller than this are not counted as distance until they add up to it, units: noise of the
            keypoints is no movement. 0 counts everything.
        min_absence: shorter absences end neither a visit nor an encounter, seconds.
        max_gap: longest step, seconds; None is 1.5 times the median time between frames.

    Raises:
        ConfigError: a number is out of its range, or two zones have one name.
    """

    zones: Sequence[Zone] = field(default=())
    near: float = 0.0
    unit_per_px: float = 1.0
    unit: str = "px"
    min_step: float = 0.0
    min_absence: float = 0.0
    max_gap: float | None = None

    def __post_init__(self) -> None:
        least = min(self.near, self.min_step, self.min_absence)
        if not (self.unit_per_px > 0 and least >= 0 and (self.max_gap is None or self.max_gap > 0)):
            raise ConfigError(f"{self}: unit_per_px and max_gap must be above 0, the other numbers 0 or more.")
        names = [zone.name for zone in self.zones]
        if len(set(names)) < len(names):
            raise ConfigError(f"zones have the names {', '.join(names)}. Give each its own.")

    def measure(self, paths: Trajectories) -> Behaviour:
        """Measure trajectories."""
        unit, time = self.unit, paths.time
        interval = np.diff(time)
        longest = USUAL_STEPS * float(np.median(interval)) if self.max_gap is None else self.max_gap
        xy = paths.xy * self.unit_per_px
        seen = np.asarray(np.isfinite(xy).all(-1))
        step: np.ndarray = seen[:, 1:] & seen[:, :-1] & (interval <= longest)
        inside = {zone.name: zone.contains(paths.xy) for zone in self.zones}
        identities, zones, pairs, frames = [], [], [], []
        for i, track in enumerate(paths.track.tolist()):
            moved = np.linalg.norm(np.diff(xy[i], axis=0), axis=-1)
            speed = np.where(step[i], moved / interval, np.nan)
            observed = float(interval[step[i]].sum())
            gap_s, gap_length = _gaps(time, xy[i], longest)
            distance = _distance(xy[i], step[i], self.min_step)
            turned = np.angle(np.exp(1j * np.diff(paths.heading[i])))[step[i]]
            known_turns = turned[np.isfinite(turned)]
            row: dict[str, object] = {
                "track": track, "frames_seen": int(seen[i].sum()), "frames_missing": int((~seen[i]).sum()),
                "observed_s": observed, "missing_s": float(time[-1] - time[0]) - observed, "gaps": len(gap_s),
                "longest_gap_s": float(gap_s.max(initial=0.0)), f"distance_{unit}": distance,
                f"gap_distance_{unit}": float(gap_length.sum()),
                f"mean_speed_{unit}_s": distance / observed if observed else np.nan,
                f"max_speed_{unit}_s": float(np.nanmax(speed)) if step[i].any() else np.nan,
                "turned_deg": float(np.rad2deg(known_turns.sum())) if len(known_turns) else np.nan,
            }  # fmt: skip
            identities.append(row)
            dwell = _dwell(interval, step[i])
            columns: dict[str, object] = {
                "image_id": paths.image_id, "time_s": time, "track": track, "x_px": paths.xy[i, :, 0],
                "y_px": paths.xy[i, :, 1], f"speed_{unit}_s": np.concatenate([[np.nan], speed]),
                "heading_deg": np.rad2deg(paths.heading[i]),
            }  # fmt: skip
            for name, here in inside.items():
                there = here[i] & seen[i]
                stay = float(dwell[there].sum())
                first = float(time[np.argmax(there)]) if there.any() else np.nan
                zones.append(
                    {
                        "track": track, "zone": name, "time_s": stay, "share": stay / observed if observed else np.nan,
                        "visits": _visits(time, there, seen[i], self.min_absence), "first_s": first,
                    }
                )  # fmt: skip
                columns[f"in_{name}"] = pd.array(np.where(seen[i], here[i], None), dtype="boolean")
            frames.append(pd.DataFrame(columns))
        for i, j in combinations(range(len(paths.track)), 2):
            apart = np.linalg.norm(xy[i] - xy[j], axis=-1)
            both, near = seen[i] & seen[j], apart < self.near
            dwell = _dwell(interval, step[i] & step[j])
            pairs.append(
                {
                    "track_a": int(paths.track[i]), "track_b": int(paths.track[j]), "together_s": float(dwell.sum()),
                    "near_s": float(dwell[both & near].sum()),
                    "encounters": _visits(time, both & near, both, self.min_absence),
                    f"mean_distance_{unit}": float(apart[both].mean()) if both.any() else np.nan,
                    f"min_distance_{unit}": float(apart[both].min()) if both.any() else np.nan,
                }
            )  # fmt: skip
        return Behaviour(
            pd.concat(frames, ignore_index=True), pd.DataFrame(identities),
            pd.DataFrame(zones, columns=["track", "zone", "time_s", "share", "visits", "first_s"]),
            pd.DataFrame(pairs), unit, paths.notes,
        )  # fmt: skip


def _dwell(interval: np.ndarray, step: np.ndarray) -> np.ndarray:
    """(T,) seconds that belong to each frame: half of each step before and after it."""
    half = np.where(step, interval, 0.0) / 2
    dwell: np.ndarray = np.concatenate([half, [0.0]]) + np.concatenate([[0.0], half])
    return dwell


def _gaps(time: np.ndarray, xy: np.ndarray, longest: float) -> tuple[np.ndarray, np.ndarray]:
    """Durations and straight lengths of the gaps between consecutive sightings."""
    seen = np.flatnonzero(np.isfinite(xy).all(-1))
    pause = np.diff(time[seen])
    gap = (np.diff(seen) > 1) | (pause > longest)
    return pause[gap], np.linalg.norm(np.diff(xy[seen], axis=0), axis=-1)[gap]


def _distance(xy: np.ndarray, step: np.ndarray, min_step: float) -> float:
    """Length of the path over all steps; positions within ``min_step`` of the last counted one are skipped."""
    if not min_step:
        return float(np.linalg.norm(np.diff(xy, axis=0), axis=-1)[step].sum())
    total, anchor = 0.0, xy[0]
    for i, joined in enumerate(step.tolist()):
        if not joined:
            anchor = xy[i + 1]
        elif (moved := float(np.hypot(*(xy[i + 1] - anchor)))) >= min_step:
            total, anchor = total + moved, xy[i + 1]
    return total


def _visits(time: np.ndarray, inside: np.ndarray, known: np.ndarray, min_absence: float) -> int:
    """Number of stays: from the first frame inside to the last one before an absence.

    Frames that are not known are no absence: a subject that is inside before and after a gap has not left.
    """
    where, state = np.flatnonzero(known), inside[known]
    here = np.flatnonzero(state)
    if not len(here):
        return 0
    left = np.diff(here) > 1  # a frame outside lies between
    away = np.diff(time[where[here]])
    return 1 + int((left & (away >= min_absence)).sum())
