"""Predictions on disk: tracks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kplab.errors import DataError
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton

TWO = Skeleton("two", ("a", "b"), (), (0, 1), (0.05, 0.05), "made up")


def test_tracks_are_written_where_there_are_any(tmp_path: Path) -> None:
    poses = Poses.make(np.arange(12.0).reshape(3, 2, 2) + 0.5, track=np.array([7, -1, 0]))
    path = Predictions(TWO, {4: poses, 5: Poses.empty(2)}).write(tmp_path / "p.json")
    rows = json.loads(path.read_text())
    assert [row.get("track_id", "none") for row in rows] == [7, "none", 0]
    assert rows[0]["keypoints"] == [0, 1, 1, 2, 3, 1], "pixel indices"
    again = Predictions.read(path, TWO)
    assert again.poses[4].track.tolist() == [7, -1, 0]
    np.testing.assert_array_equal(again.poses[4].xy, poses.xy)
    assert again.poses[5].track.dtype == np.int64


@pytest.mark.parametrize(("value", "track"), [(None, -1), (-5, -1), (3, 3), ("a", None), (1.5, None), (True, None)])
def test_a_track_of_another_system_is_an_integer_or_an_error(tmp_path: Path, value: object, track: int | None) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps([{"image_id": 1, "keypoints": [1, 2, 1, 3, 4, 1], "score": 1, "track_id": value}]))
    if track is None:
        with pytest.raises(DataError, match=r"result 0 \(image 1\): track_id is .*Write an integer"):
            Predictions.read(path, TWO)
    else:
        assert Predictions.read(path, TWO).poses[1].track.tolist() == [track]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bbox": [1, 1, -2, 5]}, "bbox has a negative side"),
        ({"bbox": [1, 1, 2e9, 5]}, "bbox holds a value that is not a finite number below 1e"),
        ({"keypoints": [1, 2, 1, 3, 1e12, 1]}, "keypoints holds a value"),
        ({"keypoints": [1, 2, 1, 3, 10**400, 1]}, "keypoints holds a value"),
        ({"score": True}, "score holds a value"),
        ({"track_id": 2**63}, "track_id is 9223372036854775808"),
        ({"image_id": 2**63}, "has image_id 9223372036854775808"),
    ],
)
def test_numbers_that_no_image_has_are_refused(tmp_path: Path, change: dict[str, object], words: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps([{"image_id": 1, "keypoints": [1, 2, 1, 3, 4, 1], "score": 1, **change}]))
    with pytest.raises(DataError, match=rf"p\.json: result 0.*{words}"):
        Predictions.read(path, TWO)


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ({"keypoints": 3}, "'keypoints' is not a list of names"),
        ({"keypoints": ["a", 2]}, "'keypoints' is not a list of names"),
        ({"images": [1]}, "'images' does not map ids to file names"),
        ({"images": {"x": "a"}}, "'images' does not map ids to file names"),
        ({"images": {"1": 5}}, "'images' does not map ids to file names"),
    ],
)
def test_a_damaged_card_is_named(tmp_path: Path, card: object, words: str) -> None:
    path = tmp_path / "p.json"
    path.write_text("[]")
    (tmp_path / "p.card.json").write_text(json.dumps(card))
    with pytest.raises(DataError, match=rf"p\.card\.json: {words}"):
        Predictions.read(path, TWO)


def test_json_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"p\.json: cannot be read as JSON"):
        Predictions.read(path, TWO)
