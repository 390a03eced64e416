"""Gestures: invariant to the pose's frame, right on rendered hands, and unknown where they should be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kplab.applications import gestures
from kplab.applications.gestures import UNKNOWN, Gestures, accuracy_by_shots, features
from kplab.errors import ConfigError, DataError
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton
from kplab.synthetic import scene
from kplab.synthetic.hands import EDGES, GESTURES, KEYPOINTS, gesturing

HAND = Skeleton("hand21", KEYPOINTS, EDGES, tuple(range(21)), (0.025,) * 21, "test")
KNOWN = [name for name in GESTURES if name not in ("horns", "ring")]


def hands(names: list[str], count: int, seed: int) -> dict[str, np.ndarray]:
    """Gesture to the true keypoints of so many hands, in any view."""
    return {
        name: np.array(
            [scene.keypoints(gesturing(name), np.random.default_rng([seed, i, j])) for i in range(count)]
        )
        for j, name in enumerate(names)
    }  # fmt: skip


@pytest.fixture(scope="module")
def examples() -> dict[str, np.ndarray]:
    return hands(KNOWN, 20, 5)


@pytest.fixture(scope="module")
def tests() -> dict[str, np.ndarray]:
    return hands(KNOWN, 25, 6)


def test_features_are_invariant_and_distinguish_shapes() -> None:
    """Rotation, scale, translation and mirroring change nothing (to rounding); another shape does."""
    rng = np.random.default_rng(0)
    xy = rng.normal(0, 20, (4, 21, 2))
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = 3.1 * xy @ turn.T * [-1, 1] + [100, -40]
    np.testing.assert_allclose(features(moved), features(xy), rtol=1e-12)
    assert np.abs(features(xy[:1]) - features(xy[1:2])).max() > 0.1
    assert np.isnan(features(np.zeros((1, 5, 2)))).all()


def test_rendered_gestures(examples: dict[str, np.ndarray], tests: dict[str, np.ndarray]) -> None:
    """Accuracy rises with the examples; chance is 1/8. Bounds lie below the accuracy of other seeds: .86 at 10, .90 at 20."""
    unknown = np.concatenate(list(hands(["horns", "ring"], 25, 6).values()))
    table = accuracy_by_shots(examples, tests, [1, 5, 20], draws=4, unknown=unknown).set_index("shots")
    assert table.accuracy[1] > 0.4
    assert table.accuracy[5] > 0.65
    assert table.accuracy[20] > 0.84
    assert table.accuracy.is_monotonic_increasing
    assert ((table.low <= table.accuracy) & (table.accuracy <= table.high)).all()
    # one example sets no limit; 20 reject about the stated 5 % of the known gestures, and most of the others
    assert table.rejected[1] == 0
    assert table.rejected[20] < 0.12
    assert table.unknown_rejected[20] > 0.6


def test_distance_is_that_of_scipy() -> None:
    """With two examples each and a limit of none, the ranking is that of SciPy's Mahalanobis distance."""
    from scipy.spatial.distance import mahalanobis

    rng = np.random.default_rng(1)
    data = {"a": rng.normal(0, 1, (6, 4, 2)), "b": rng.normal(0, 1, (6, 4, 2)) + np.arange(4)[:, None]}
    query = rng.normal(0, 1, (5, 4, 2))
    found = Gestures.learn(data, shrinkage=0.2, rejected=0.5, min_keypoints=4).classify(query)
    x = {name: features(xy) for name, xy in data.items()}
    deviation = np.concatenate([v - v.mean(0) for v in x.values()])
    covariance = deviation.T @ deviation / 10
    covariance = 0.8 * covariance + 0.2 * np.trace(covariance) / 6 * np.eye(6)
    distance = np.array(
        [[mahalanobis(q, v.mean(0), np.linalg.inv(covariance)) for v in x.values()] for q in features(query)]
    )
    assert found.nearest.tolist() == [list(data)[i] for i in distance.argmin(1)]
    ratio = distance.min(1) / found.distance
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)


def test_missing_keypoints(examples: dict[str, np.ndarray], tests: dict[str, np.ndarray]) -> None:
    """Keypoints of a low score are not compared; with too few the hand is unknown, and the count is stated."""
    model = Gestures.learn(examples)
    truth = np.repeat(np.array(list(tests), dtype=object), 25)
    xy = np.concatenate(list(tests.values()))
    whole = (model.classify(xy).nearest == truth).mean()
    part = xy.copy()
    part[:, [4, 17]] = np.nan
    found = model.classify(part)
    assert set(found.keypoints) == {19}
    assert (found.nearest == truth).mean() > whole - 0.1
    poses = Poses.make(part[:2], track=[3, 4])
    poses.keypoint_score[1, :12] = 0.1
    table = gestures.recognise(model, Predictions(HAND, {7: poses, 8: Poses.empty(21)}, files={7: "a.jpg"}), 0.5)
    assert table.image_id.tolist() == [7, 7]
    assert table.track.tolist() == [3, 4]
    assert table.keypoints.tolist() == [19, 8]
    assert (table.gesture[1], table.nearest[1]) == (UNKNOWN, "")
    assert np.isnan(table.distance[1])
    assert gestures.recognise(model, Predictions(HAND, {})).empty


def test_bad_examples_are_refused(examples: dict[str, np.ndarray]) -> None:
    hidden = examples["fist"].copy()
    hidden[3, 5] = np.nan
    for bad, message in (
        ({"fist": examples["fist"]}, "two or more are needed"),
        ({**examples, "fist": hidden}, r"'fist': a keypoint is missing.*1 of 20 examples \(number 3"),
        ({**examples, "fist": examples["fist"][:, :5]}, "shape"),
        ({**examples, UNKNOWN: examples["fist"]}, "name other than"),
    ):
        with pytest.raises(DataError, match=message):
            Gestures.learn(bad)
    with pytest.raises(DataError, match="21 keypoints"):
        Gestures.learn(examples).classify(np.zeros((1, 5, 2)))
    with pytest.raises(DataError, match="20 examples only"):
        accuracy_by_shots(examples, examples, [21])
    with pytest.raises(ConfigError, match="'wave' is unknown"):
        gesturing("wave")


def test_keypoints_are_those_of_the_picture() -> None:
    """Without drawing, the keypoints are where ``render`` draws them, if nothing is removed from the picture."""
    subject = gesturing("open")
    _, poses, _ = scene.render(subject, np.random.default_rng([0, 1]), max_subjects=1)
    # render draws the number of subjects first
    rng = np.random.default_rng([0, 1])
    rng.integers(1, 2)
    xy = scene.keypoints(subject, rng)
    labelled = poses.labelled[0]
    assert labelled.sum() > 10
    np.testing.assert_allclose(poses.xy[0, labelled], xy[labelled], atol=1e-9)


def test_photographs_of_hands(real_data: Path) -> None:
    """Two photographs whose gestures are plain to see, by their labelled keypoints and rendered examples alone."""
    model = Gestures.learn(hands(list(GESTURES), 40, 7))
    folder = real_data / "mmpose_samples"
    for name, image, gesture in (
        ("panoptic", "005880453_01_r.jpg", "thumb"),
        ("onehand10k", "1402.jpg", "ring"),
    ):
        labels = json.loads((folder / name / f"test_{name}.json").read_text())
        ids = [row["id"] for row in labels["images"] if row["file_name"].endswith(image)]
        (points,) = [row["keypoints"] for row in labels["annotations"] if row["image_id"] in ids]
        xy = np.array(points, dtype=float).reshape(-1, 3)[:, :2]
        assert model.classify(xy[None]).nearest[0] == gesture
