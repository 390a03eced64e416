"""Scores of tracks against TrackEval, and on tracks that are easy to count."""

from __future__ import annotations

import numpy as np
import pytest

from kplab.errors import ScoreError
from kplab.metrics.tracking import Sequence, _clear, hota, track_scores
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

SKELETON = Skeleton("pair", ("a", "b"), ((0, 1),), (0, 1), (0.1, 0.1), "made up")

#: Computed by TrackEval 1.0.0 (HOTA, CLEAR and Identity with their default settings) of ``confused(seed)``.
TRACKEVAL = {
    0: {
        "HOTA": 0.335667744, "DetA": 0.459914823, "AssA": 0.245810304, "LocA": 0.775754067,
        "IDF1": 0.4168618266978923, "MOTA": 0.1834862385321101, "switches": 5, "n_missed": 91, "n_extra": 82,
    },
    1: {
        "HOTA": 0.418607137, "DetA": 0.431624126, "AssA": 0.40637846, "LocA": 0.772331496,
        "IDF1": 0.5592417061611374, "MOTA": 0.21153846153846154, "switches": 2, "n_missed": 78, "n_extra": 84,
    },
}  # fmt: skip


def confused(seed: int, frames: int = 60, subjects: int = 4) -> Sequence:
    """Tracks with misses, false positives, exchanged identities, and similarities below and above every threshold."""
    rng = np.random.default_rng(seed)
    true, found, similarity = [], [], []
    names = np.arange(subjects + 2)
    for _ in range(frames):
        there = np.flatnonzero(rng.random(subjects) < 0.9)
        if rng.random() < 0.05:
            a, b = rng.choice(len(names), 2, replace=False)
            names[[a, b]] = names[[b, a]]
        shown = [i for i in range(subjects + 2) if rng.random() < (0.85 if i < subjects else 0.1)]
        s = rng.uniform(0, 0.4, (len(there), len(shown)))
        for row, i in enumerate(there):
            for column, j in enumerate(shown):
                if i == j:
                    s[row, column] = rng.uniform(0.3, 1)
        true.append(there)
        found.append(names[np.array(shown, dtype=int)])
        similarity.append(s)
    return Sequence(true, found, similarity)


@pytest.mark.parametrize("seed", TRACKEVAL)
def test_scores_are_those_of_trackeval(seed: int) -> None:
    """To the digits that are stated; motmetrics gives the lower half of them."""
    sequence = confused(seed)
    rows = hota(sequence)
    found = {key: np.mean([row[key] for row in rows]) for key in ("HOTA", "DetA", "AssA", "LocA")}
    events, switches = _clear(sequence, 0.5)
    found |= events
    assert len(switches) == events["switches"]
    for key, value in TRACKEVAL[seed].items():
        assert found[key] == pytest.approx(value, abs=1e-9), key


def walk(frames: int = 10) -> dict[int, Poses]:
    """Two subjects that move in parallel, 100 px apart."""
    out = {}
    for i in range(frames):
        xy = np.array([[[i, 0.0], [i, 10.0]], [[i, 100.0], [i, 110.0]]])
        out[i] = Poses.make(xy, area=np.full(2, 100.0), track=np.array([3, 7]))
    return out


def test_truth_scores_one_and_an_exchange_is_one_switch_per_subject() -> None:
    truth = walk()
    assert track_scores(truth, truth, SKELETON).summary["HOTA"] == 1.0
    swapped = {i: p if i < 5 else Poses.make(p.xy, track=p.track[::-1]) for i, p in truth.items()}
    scores = track_scores(truth, swapped, SKELETON)
    assert scores.switches == [
        {"frame": 5, "subject": 3, "before": 3, "after": 7},
        {"frame": 5, "subject": 7, "before": 7, "after": 3},
    ]
    # each subject shares half of its frames with each track: A = 5, n_i = n_j = 10
    assert scores.summary["AssA"] == pytest.approx(5 / 15)
    assert scores.summary["DetA"] == 1.0
    assert scores.summary["IDF1"] == pytest.approx(0.5)
    assert scores.summary["MOTA"] == pytest.approx(1 - 2 / 20)


def test_what_is_left_out_is_counted() -> None:
    """Poses without a track, frames without truth, and keypoints that are predicted nowhere."""
    truth = walk()
    predicted = {}
    for i, p in walk(12).items():
        xy = p.xy.copy()
        xy[:, 1] = np.nan
        predicted[i] = Poses.make(xy, track=np.array([0, -1 if i % 2 else 1]))
    scores = track_scores(truth, predicted, SKELETON)
    assert scores.settings["keypoints"] == ["a"]
    counts = {key: scores.summary[key] for key in ("n_untracked", "n_unlabelled_frames", "n_missed", "switches")}
    assert counts == {"n_untracked": 5, "n_unlabelled_frames": 2, "n_missed": 5, "switches": 0}
    assert scores.summary["LocA"] == 1.0


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        ({}, walk(), "no labelled instance"),
        (walk(), {0: Poses.empty(2)}, "kplab track"),
        ({0: Poses.make(np.zeros((1, 2, 2)), area=np.ones(1))}, walk(), "frame 0: true instances have tracks"),
        ({0: Poses.make(np.zeros((1, 2, 2)), track=np.zeros(1))}, walk(), "frame 0: a true instance has no area"),
        (walk(), {0: Poses.make(np.zeros((2, 2, 2)), track=np.zeros(2))}, "frame 0: predicted instances share"),
    ],
)
def test_what_cannot_be_scored_is_refused(truth: dict[int, Poses], predicted: dict[int, Poses], message: str) -> None:
    with pytest.raises(ScoreError, match=message):
        track_scores(truth, predicted, SKELETON)
