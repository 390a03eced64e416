"""Behaviour of tracked subjects: distance, speed, heading, time and visits in zones, and time near each other.

Nothing is interpolated. A *step* is the movement of a subject between two consecutive frames in which it is seen, at most
``max_gap`` seconds apart. Distances, speeds and times are sums over steps; half of the duration of a step belongs to each of
its two frames. All other time of the recording is reported as missing, with the number of gaps and the straight distance
across them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from kplab.applications.trajectories import Trajectories
from kplab.applications.zones import Zone
from kplab.errors import ConfigError

#: Steps are at most this many times as long as the median time between frames.
USUAL_STEPS = 1.5


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
