"""Scores of tracks: HOTA, IDF1, MOTA and identity switches, with OKS as the similarity of poses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from kplab.errors import ConfigError, ScoreError
from kplab.ops.oks import oks
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

#: Similarities from which HOTA counts a pair as matched; HOTA, DetA, AssA and LocA are means over them.
ALPHAS = np.arange(0.05, 0.99, 0.05)


@dataclass(frozen=True)
class Sequence:
    """True and predicted instances of a video with their identities, as numbers from 0.

    Args:
        true: of each frame, (M,) int64 identity of each true instance.
        found: of each frame, (N,) int64 identity of each predicted instance.
        similarity: of each frame, (M, N) in [0, 1].
    """

    true: list[np.ndarray]
    found: list[np.ndarray]
    similarity: list[np.ndarray]


@dataclass(frozen=True)
class TrackScores:
    """Scores of the tracks of a video.

    Args:
        summary: name to value. HOTA, DetA, AssA, LocA, IDF1 and MOTA are fractions, and MOTA may be negative; the others
            are counts.
        alphas: one row per similarity: alpha, HOTA, DetA, AssA, LocA.
        switches: one row per identity switch: frame, subject (its true track), before and after (predicted tracks).
        settings: how they were computed.
    """

    summary: dict[str, float]
    alphas: list[dict[str, float]]
    switches: list[dict[str, int]]
    settings: dict[str, Any]


def track_scores(
    truth: Mapping[int, Poses],
    predicted: Mapping[int, Poses],
    skeleton: Skeleton,
    min_oks: float = 0.5,
    sigma_factor: float = 1.0,
) -> TrackScores:
    """Score predicted tracks. Similarity is OKS with the true areas.

    Keypoints that no predicted instance of the video has are left out. Predicted instances without a track are no part of
    any track: they are counted as ``n_untracked``, and are otherwise left out. So are frames without an entry in ``truth``.

    Args:
        truth: number of frame to true instances, source pixels, each with a track. Ignored ones are left out.
        predicted: number of frame to predicted instances, source pixels.
        skeleton: names and sigmas of the keypoints.
        min_oks: similarity from which a pair counts in MOTA, IDF1 and switches; HOTA averages over ``ALPHAS``.
        sigma_factor: factor on the skeleton's sigmas; above 1, larger errors are tolerated.

    Raises:
        ScoreError: there is no true or no predicted instance, or a true one lacks a track or an area.
        ConfigError: motmetrics is not installed.

    Source: Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking", 2021. MOTA, IDF1 and switches
        are those of the package motmetrics.
    """
    frames = sorted(truth)
    true = [truth[f][~truth[f].ignore & truth[f].labelled.any(1)] for f in frames]
    shown = [predicted.get(f, Poses.empty(len(skeleton))) for f in frames]
    found = [p[p.track >= 0] for p in shown]
    _check(frames, true, found)
    used = np.any([p.labelled.any(0) for p in found if len(p)], axis=0)
    sigmas = skeleton.sigma_array[used] * sigma_factor
    similarity = [
        np.nan_to_num(oks(p.xy[:, used], t.xy[:, used], t.visible[:, used], t.area, sigmas)).T
        for t, p in zip(true, found, strict=True)
    ]
    subjects, of_true = np.unique(np.concatenate([t.track for t in true]), return_inverse=True)
    tracks, of_found = np.unique(np.concatenate([p.track for p in found]), return_inverse=True)
    sequence = Sequence(_split(of_true, true), _split(of_found, found), similarity)
    alphas = hota(sequence)
    events, switches = _clear(sequence, min_oks)
    means = {key: float(np.mean([row[key] for row in alphas])) for key in ("HOTA", "DetA", "AssA", "LocA")}
    counts = {
        "n_frames": len(frames),
        "n_true": len(of_true),
        "n_predicted": len(of_found),
        "n_untracked": sum(len(p) for p in shown) - len(of_found),
        "n_subjects": len(subjects),
        "n_tracks": len(tracks),
        "n_unlabelled_frames": len(set(predicted) - set(truth)),
    }
    rows = [
        {"frame": frames[i], "subject": int(subjects[s]), "before": int(tracks[a]), "after": int(tracks[b])}
        for i, s, a, b in switches
    ]
    settings = {
        "similarity": "OKS",
        "min_oks": min_oks,
        "sigma_factor": sigma_factor,
        "skeleton": skeleton.name,
        "sigma_source": skeleton.sigma_source,
        "keypoints": [name for name, use in zip(skeleton.keypoints, used, strict=True) if use],
    }
    return TrackScores(means | events | counts, alphas, rows, settings)


def hota(sequence: Sequence) -> list[dict[str, float]]:
    """HOTA and its parts at each similarity of ``ALPHAS``.

    DetA = TP / (TP + FN + FP);  AssA = mean over TP of  A / (n_i + n_j - A), with A the number of TP that have the same
    identities i and j as this one, and n_i, n_j the numbers of instances of i and j;  HOTA = sqrt(DetA * AssA)

    In each frame, pairs are assigned so that identities that overlap over the whole video are preferred.

    Source: Luiten et al., 2021, equations 7 to 16.
    """
    count_true, count_found = (np.bincount(np.concatenate(ids)) for ids in (sequence.true, sequence.found))
    overlap = np.zeros((len(count_true), len(count_found)))
    for i, j, s in zip(sequence.true, sequence.found, sequence.similarity, strict=True):
        rest = s.sum(0)[None] + s.sum(1)[:, None] - s
        overlap[np.ix_(i, j)] += np.divide(s, rest, out=np.zeros_like(s), where=rest > 0)
    union = count_true[:, None] + count_found[None]
    alignment = overlap / (union - overlap)
    pairs = []
    for i, j, s in zip(sequence.true, sequence.found, sequence.similarity, strict=True):
        a, b = linear_sum_assignment(alignment[np.ix_(i, j)] * s, maximize=True)
        pairs.append(np.stack([i[a], j[b], s[a, b]], axis=1))
    matched = np.concatenate(pairs)
    rows = []
    for alpha in ALPHAS:
        # as in the authors' code: a similarity that equals alpha up to rounding counts
        hits = matched[matched[:, 2] >= alpha - np.finfo(float).eps]
        ids = hits[:, :2].astype(np.int64)
        together = np.zeros_like(overlap)
        np.add.at(together, (ids[:, 0], ids[:, 1]), 1)
        true_positives = len(hits)
        association = together / np.maximum(union - together, 1)
        det_a = true_positives / (count_true.sum() + count_found.sum() - true_positives)
        ass_a = float((together * association).sum() / max(true_positives, 1))
        rows.append(
            {
                "alpha": round(float(alpha), 2),
                "HOTA": float(np.sqrt(det_a * ass_a)),
                "DetA": float(det_a),
                "AssA": ass_a,
                "LocA": float(hits[:, 2].mean()) if true_positives else 1.0,
            }
        )
    return rows


def _clear(sequence: Sequence, min_oks: float) -> tuple[dict[str, float], list[tuple[int, int, int, int]]]:
    """MOTA, IDF1 and counts of motmetrics; and each switch as (frame, subject, track before, track after)."""
    try:
        import motmetrics
    except ModuleNotFoundError:
        raise ConfigError(
            "scores of tracks need the package motmetrics. Install it: pip install 'kplab[tracks]'"
        ) from None
    events = motmetrics.MOTAccumulator()
    for frame, (i, j, s) in enumerate(zip(sequence.true, sequence.found, sequence.similarity, strict=True)):
        events.update(i, j, np.where(s >= min_oks, 1 - s, np.nan), frameid=frame)
    names = {
        "IDF1": "idf1",
        "MOTA": "mota",
        "switches": "num_switches",
        "fragmentations": "num_fragmentations",
        "n_missed": "num_misses",
        "n_extra": "num_false_positives",
    }
    table = motmetrics.metrics.create().compute(events, metrics=list(names.values()), name="video")
    values = {name: float(table.loc["video", key]) for name, key in names.items()}
    for name in names.keys() - {"IDF1", "MOTA"}:
        values[name] = int(values[name])
    log = events.mot_events
    matches = log[log["Type"].isin(["MATCH", "SWITCH"])].reset_index()
    switches = []
    for subject, of_subject in matches.groupby("OId"):
        steps = of_subject[["FrameId", "HId", "Type"]].itertuples(index=False)
        switches += [
            (int(now.FrameId), int(subject), int(before.HId), int(now.HId))
            for before, now in pairwise(steps)
            if now.Type == "SWITCH"
        ]
    return values, sorted(switches)


def _split(values: np.ndarray, parts: list[Poses]) -> list[np.ndarray]:
    return np.split(values, np.cumsum([len(p) for p in parts])[:-1])


def _check(frames: list[int], true: list[Poses], found: list[Poses]) -> None:
    if not sum(len(t) for t in true):
        raise ScoreError("the truth has no labelled instance, so there is nothing to score. Check the truth.")
    if not sum(len(p) for p in found):
        raise ScoreError("no predicted instance in the labelled frames has a track. Track them first: kplab track.")
    for frame, t in zip(frames, true, strict=True):
        if not (t.area > 0).all():
            raise ScoreError(
                f"frame {frame}: a true instance has no area, which OKS needs. Let the labels state areas."
            )
        if (t.track < 0).any() or len(np.unique(t.track)) < len(t):
            raise ScoreError(
                f"frame {frame}: true instances have tracks {t.track.tolist()}, but each needs one of its own (-1 is none)."
            )
    for frame, p in zip(frames, found, strict=True):
        if len(np.unique(p.track)) < len(p):
            raise ScoreError(f"frame {frame}: predicted instances share a track: {p.track.tolist()}. Track them again.")
