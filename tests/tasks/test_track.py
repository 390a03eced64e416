"""``kplab track``: from a file of predictions to a file of tracks and their scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kplab.config import conf_dir
from kplab.errors import ConfigError, DataError
from kplab.runs.records import read_record
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton
from kplab.tasks import compose
from kplab.tasks.track import main

SKELETON = Skeleton.from_config(compose("track", ["predictions=x", "skeleton=fly13"]).skeleton)
SHAPE = np.random.default_rng(0).uniform(0, 60, (13, 2))


def predicted(folder: Path, timed: bool = True, names: str = "clip.mp4#{:06d}") -> Path:
    """Two flies that walk towards each other for 20 frames, of which frame 7 is missing, in changing order."""
    poses = {}
    for i in range(20):
        xy = (SHAPE + np.array([[[5 * i, 0]], [[300 - 5 * i, 80]]]))[:: 1 - 2 * (i % 2)]
        if i != 7:
            poses[i + 1] = Poses.make(xy, score=np.full(2, 0.8))
    card = {"run": "r", **({"times": {str(i): (i - 1) / 10 for i in poses}} if timed else {})}
    return Predictions(SKELETON, poses, card, {i: names.format(i - 1) for i in poses}).write(
        folder / "predictions.json"
    )


def test_tracks_are_written_with_their_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Poses are those of the predictions; the skeleton and the times are those of their card."""
    path = predicted(tmp_path)
    main([f"predictions={path}"])
    assert "19 frames, 38 poses, 2 tracks, 0 poses without one" in capsys.readouterr().out
    written = tmp_path / "predictions.tracked.json"
    record = read_record(written)
    assert record["made_from"]["predictions"]["file"] == "predictions.json"
    before, after = (Predictions.read(p, SKELETON) for p in (path, written))
    assert before.files == after.files
    for image, poses in before.poses.items():
        assert np.array_equal(poses.xy, after.poses[image].xy)
        first = int(after.poses[image].track[0])
        assert sorted(after.poses[image].track.tolist()) == [0, 1]
        # the fly on the left is the first one of the first frame
        assert (poses.xy[0, 0, 1] < 80) == (first == 0)
    assert after.card["run"] == "r"
    assert after.card["times"] == before.card["times"]
    assert after.card["tracker"]["min_hits"] == 3
    with pytest.raises(ConfigError, match="would be written over the predictions"):
        main([f"predictions={written}", "tracker=null"])


def test_existing_tracks_are_filled_and_smoothed(tmp_path: Path) -> None:
    """Without a tracker; the missing frame has no entry, so that nothing is filled into it."""
    path = predicted(tmp_path)
    main([f"predictions={path}"])
    more = [f"predictions={tmp_path / 'predictions.tracked.json'}", "tracker=null", f"out={tmp_path / 'out'}"]
    main([*more, "fill=cubic", "smooth=one_euro", "smooth.beta=0.1"])
    after = Predictions.read(tmp_path / "out" / "predictions.tracked.json", SKELETON)
    assert (after.card["tracker"], after.card["fill"]["method"], after.card["smooth"]["beta"]) == (None, "cubic", 0.1)
    with pytest.raises(ConfigError, match="has no tracks, which fill and smooth need"):
        main([f"predictions={path}", "tracker=null", "fill=linear"])


def test_tracks_are_scored_against_a_sleap_file(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SLEAP's own predictions of two flies, of which only two keypoints are predicted."""
    folder = real_data / "sleap_videos"
    files = [f"predictions={folder / 'clip.predictions.slp'}", f"truth={folder / 'clip.slp'}", f"out={tmp_path}"]
    main([*files, "skeleton=fly13", "rate=25", "tracker.subjects=2", "sigma_factor=4"])
    out = capsys.readouterr().out
    assert "HOTA" in out
    assert "OKS of 2 keypoints, sigmas x 4" in out
    scores = json.loads((tmp_path / "clip.predictions.tracked.scores.json").read_text())
    summary = scores["summary"]
    assert scores["settings"]["keypoints"] == ["head", "thorax"]
    assert (summary["n_frames"], summary["n_true"], summary["n_tracks"]) == (1500, 3000, 2)
    assert summary["n_predicted"] + summary["n_untracked"] == 2948
    assert len(scores["switches"]) == summary["switches"]
    assert len(scores["alphas"]) == 19
    read_record(tmp_path / "clip.predictions.tracked.scores.json")


@pytest.mark.parametrize(
    ("timed", "names", "overrides", "error", "message"),
    [
        (False, "clip.mp4#{:06d}", [], ConfigError, "does not state the times of its frames"),
        (False, "clip.mp4#{:06d}", ["rate=-1"], ConfigError, "must be positive"),
        (True, "{:06d}.png", [], DataError, "no frame of a video"),
        (True, "clip.mp4#{:06d}", ["min_oks=0"], ConfigError, "min_oks is 0"),
        (True, "clip.mp4#{:06d}", ["tracker.subject=2"], ConfigError, "tracker has no key 'subject'"),
        (True, "clip.mp4#{:06d}", ["tracker.appearance_weight=1"], ConfigError, "features of a network"),
        (True, "clip.mp4#{:06d}", ["truth=truth.csv"], ConfigError, "SLEAP file"),
        (True, "clip.mp4#{:06d}", ["truth=truth.slp"], DataError, "no such SLEAP file"),
    ],
)
def test_mistakes_are_told(
    tmp_path: Path,
    timed: bool,
    names: str,
    overrides: list[str],
    error: type[Exception],
    message: str,
) -> None:
    path = predicted(tmp_path, timed, names)
    with pytest.raises(error, match=message):
        main([f"predictions={path}", *overrides])
    assert not (tmp_path / "predictions.tracked.json").exists()


def test_the_skeleton_is_named_where_no_card_names_it(tmp_path: Path) -> None:
    path = predicted(tmp_path)
    path.with_suffix(".card.json").unlink()
    with pytest.raises(ConfigError, match="Name it: skeleton=NAME"):
        main([f"predictions={path}"])
    with pytest.raises(ConfigError, match="no such predictions file"):
        main([f"predictions={tmp_path / 'none.json'}"])
    main([f"predictions={path}", "skeleton=fly13", "rate=10"])


def test_every_group_of_stages_composes() -> None:
    """And a group is left out with null, also one that is chosen by default."""
    for group in ("tracker", "fill", "smooth"):
        for path in sorted((conf_dir() / group).glob("*.yaml")):
            assert compose("track", ["predictions=x", f"{group}={path.stem}"])[group]._target_
        assert compose("track", ["predictions=x", f"{group}=null"])[group] is None
