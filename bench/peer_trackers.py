"""Tracks of another library for the poses of ``kplab track``, to be scored by ``kplab track tracker=null``.

Each library has an environment of its own, which needs neither kplab nor torch: ``pip install norfair``, or
``pip install trackers``. The poses are those of a results file; what is added is ``track_id``.

    python bench/peer_trackers.py norfair predictions.json norfair.json --rate 25
    python bench/peer_trackers.py bytetrack predictions.json bytetrack.json --rate 25
    kplab track predictions=norfair.json tracker=null skeleton=fly13 rate=25 truth=clip.slp
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Rows = list[dict[str, Any]]
#: Poses of one frame to the track of each; -1 for none.
Step = Callable[[Rows], list[int]]


def norfair_step(rate: float, min_score: float) -> Step:
    """Norfair on keypoints: mean distance of the keypoints that are found, up to a typical subject's size.

    The threshold is the size of a subject, as in norfair's examples of pose tracking; identities are kept for 2 seconds.
    """
    from norfair import Detection, Tracker

    sizes: list[float] = []

    def distance(detection: Any, track: Any) -> float:
        known = (detection.scores > 0) & np.isfinite(track.estimate).all(1)
        if not known.any():
            return np.inf
        away = np.linalg.norm(detection.points[known] - track.estimate[known], axis=1).mean()
        return float(away / np.median(sizes))

    tracker = Tracker(distance, distance_threshold=1.0, hit_counter_max=round(2 * rate), initialization_delay=2)

    def step(rows: Rows) -> list[int]:
        detections = []
        for n, row in enumerate(rows):
            points = np.array(row["keypoints"]).reshape(-1, 3)
            if row["score"] < min_score or not points.any():
                continue
            found = points.any(1)
            sizes.append(max(float(np.linalg.norm(np.ptp(points[found, :2], axis=0)) / np.sqrt(2)), 1.0))
            detections.append(Detection(points[:, :2], scores=found.astype(float), data=n))
        tracks = [-1] * len(rows)
        for track in tracker.update(detections=detections):
            if any(track.last_detection is d for d in detections):
                tracks[track.last_detection.data] = track.id
        return tracks

    return step


def box_step(name: str, rate: float, min_score: float) -> Step:
    """ByteTrack, SORT or OC-SORT of the package trackers on the boxes of the poses.

    Scores from which a pose is a sure one are set to ``min_score``, since scores of poses are lower than those of boxes;
    identities are kept for 2 seconds; all other settings are the defaults.
    """
    import supervision
    import trackers

    kinds = {"bytetrack": "ByteTrackTracker", "sort": "SORTTracker", "ocsort": "OCSORTTracker"}
    scores = {
        "bytetrack": {"high_conf_det_threshold": min_score, "track_activation_threshold": min_score},
        "sort": {"track_activation_threshold": min_score},
        "ocsort": {"high_conf_det_threshold": min_score},
    }
    # the buffer is counted in frames of a video of 30 frames per second
    tracker = getattr(trackers, kinds[name])(frame_rate=rate, lost_track_buffer=60, **scores[name])

    def step(rows: Rows) -> list[int]:
        boxes = np.array([row["bbox"] for row in rows], dtype=float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        found = supervision.Detections(
            xyxy=boxes,
            confidence=np.array([row["score"] for row in rows], dtype=float),
            data={"row": np.arange(len(rows))},
        )
        tracks = [-1] * len(rows)
        updated = tracker.update(found)
        for row, track in zip(updated.data.get("row", []), updated.tracker_id, strict=True):
            tracks[int(row)] = int(track)
        return tracks

    return step


def main() -> None:
    """Read the poses, track them frame by frame, and write them with their tracks and a card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tracker", choices=["norfair", "bytetrack", "sort", "ocsort"])
    parser.add_argument("predictions", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rate", type=float, required=True, help="frames per second")
    parser.add_argument("--min-score", type=float, default=0.3, help="of poses that start tracks")
    given = parser.parse_args()
    norfair = given.tracker == "norfair"
    step = (
        norfair_step(given.rate, given.min_score) if norfair else box_step(given.tracker, given.rate, given.min_score)
    )
    rows: Rows = json.loads(given.predictions.read_text())
    ids = [row["image_id"] for row in rows]
    for image in range(min(ids), max(ids) + 1):
        members = [row for row in rows if row["image_id"] == image]
        for row, track in zip(members, step(members), strict=True):
            row.pop("track_id", None)
            if track >= 0:
                row["track_id"] = track
    given.out.write_text(json.dumps(rows))
    package = "norfair" if norfair else "trackers"
    print(f"{given.tracker} ({package} {version(package)}): {len(rows)} poses, {given.out}")


if __name__ == "__main__":
    main()
