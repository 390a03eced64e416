"""Films: exact, repeatable, and refused where a pose is unknown; the predictions on them that the notebooks show."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kplab.applications.overlay import jitter
from kplab.apps import films
from kplab.errors import ConfigError
from kplab.structures.frames import Frame
from kplab.structures.image_source import ImageSource
from kplab.structures.skeleton import Skeleton
from kplab.synthetic import motions
from kplab.synthetic.film import film

Named = Callable[[str], Skeleton]
ANKLES = ("left_ankle", "right_ankle")


def test_a_film_shows_one_individual_whose_keypoints_are_exact() -> None:
    """The background stays to the bit, in another film too; the subject moves, and visible keypoints lie in its box."""
    clip = film("person", [motions.squat(d) for d in (0.0, 0.5, 1.0)], (96, 96), seed=2, anchor=ANKLES)
    assert isinstance(clip, ImageSource)
    first, last = clip.read(0), clip.read(2)
    again = film("person", [motions.squat(0.0), motions.squat(1.0)], (96, 96), seed=2, anchor=ANKLES)
    np.testing.assert_array_equal(again.read(0)[:8], first[:8])
    changed = (first != last).any(-1)
    assert 0.05 < changed.mean() < 0.5
    for i in range(3):
        truth = clip.truth(i)
        np.testing.assert_allclose(truth.xy[0][truth.visible[0] > 0], clip.xy[i][truth.visible[0] > 0])
        x0, y0, x1, y1 = truth.box[0]
        seen = truth.xy[0][truth.visible[0] == 2]
        assert ((seen >= [x0, y0]) & (seen <= [x1, y1])).all()
    ankles = clip.xy[:, [15, 16]].mean(1)
    np.testing.assert_allclose(ankles, ankles[:1].repeat(3, 0), atol=1e-9)


def test_cycles_are_counted_from_rest_to_rest() -> None:
    times = np.linspace(0, 10, 1001)
    depth = motions.cycles(times, 2.0, 3, 1.0)
    assert (depth[times < 1] == 0).all()
    assert (depth[times > 7] == 0).all()
    np.testing.assert_allclose(depth[[200, 400, 600]], 1.0)
    np.testing.assert_allclose(depth[[300, 500, 700]], 0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("subject", "pose", "words"),
    [
        ("hand", {}, "takes no poses"),
        ("person", {"left_leg": {"bent": 3.0}}, "unknown 'left_leg' bent. Its angles: swing"),
        ("arm", {"legs": {"bend": 3.0}}, "Parts: view, joints"),
    ],
)
def test_unknown_poses_are_refused(subject: str, pose: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        film(subject, [pose])
    with pytest.raises(ConfigError, match="needs the pose of one frame"):
        film("arm", [])


def test_errors_have_the_stated_size_and_frames_are_missing(skeleton: Named) -> None:
    """400 frames of 6 keypoints: the deviation is known to 1 %, the share of missing frames to 0.05."""
    clip, _ = films.moving_arm(np.zeros((400, 4)))
    found = films.detect(clip, skeleton("arm6"), None, 2.0, missing=0.25)
    error = found.xy - clip.xy
    assert np.nanstd(error) == pytest.approx(2.0, rel=0.03)
    assert np.isnan(error[:, 0, 0]).mean() == pytest.approx(0.25, abs=0.065)
    assert found.source == "exact keypoints with normal errors of 2.0 px"
    assert found.predictions.files[3] == "arm.mp4#000003"


def test_stages_change_the_keypoints(skeleton: Named) -> None:
    """A stage of a stream, such as smoothing, sees each frame with its time and one track."""
    clip, _ = films.moving_arm(np.zeros((30, 4)))
    noisy = films.detect(clip, skeleton("arm6"), None, 1.0).xy

    class Mean:
        def __init__(self) -> None:
            self.xy: list[np.ndarray] = []
            self.times: list[float] = []

        def push(self, frame: Frame) -> list[Frame]:
            self.xy.append(frame.poses.xy.copy())
            self.times.append(frame.time)
            assert frame.poses.track.tolist() == [0]
            frame.poses.xy[:] = np.mean(self.xy, axis=0)
            return [frame]

        def flush(self) -> list[Frame]:
            return []

    stage = Mean()
    assert jitter(films.processed(noisy, clip.times, stage)) < jitter(noisy) / 2
    assert stage.times == clip.times.tolist()
