"""The tracker: its parts against other libraries, what each rule does on made-up videos, and two flies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from filterpy.common import Q_continuous_white_noise
from filterpy.kalman import KalmanFilter
from hypothesis import given
from hypothesis import strategies as st

from kplab.config import conf_dir
from kplab.data.formats import sleap
from kplab.errors import ConfigError, DataError, ModelError
from kplab.metrics.tracking import track_scores
from kplab.models.backbone import Backbone
from kplab.models.heads.base import HeadInputs
from kplab.models.heads.heatmap import HeatmapHead
from kplab.models.necks import FPN
from kplab.models.pose_model import PoseModel
from kplab.ops.oks import oks
from kplab.ops.overlap import box_iou
from kplab.structures.frames import Frame, Stage, process
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton
from kplab.tasks.inference.tracking.appearance import BackboneFeatures
from kplab.tasks.inference.tracking.association import assign, keypoint_similarity
from kplab.tasks.inference.tracking.kalman import Motion
from kplab.tasks.inference.tracking.tracker import Tracker

SHAPE = np.array([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0], [20.0, 20.0]])
SKELETON = Skeleton("square", ("a", "b", "c", "d"), (), (0, 1, 2, 3), (0.05,) * 4, "made up")


def at(*corners: tuple[float, float], score: float = 0.9) -> Poses:
    """Squares of 20 px at these corners."""
    xy = np.array([SHAPE + corner for corner in corners]).reshape(-1, 4, 2)
    box = np.concatenate([xy.min(1), xy.max(1)], axis=1) if len(xy) else None
    return Poses.make(xy, score=np.full(len(xy), score), box=box)


def tracks(poses: Iterable[Poses], rate: float = 25, **options: object) -> list[list[int]]:
    """The tracks of each frame."""
    frames = [Frame(i, f"#{i}", i / rate, p) for i, p in enumerate(poses)]
    return [f.poses.track.tolist() for f in process(frames, [Tracker(SKELETON, **options)])]


def test_the_kalman_filter_is_filterpys() -> None:
    """States and variances of both coordinates, with unequal intervals and missing measurements; rounding only."""
    rng = np.random.default_rng(0)
    density, noise, speed = 7.0, 1.5, 4.0
    xy = rng.normal(0, 10, (30, 3, 2))
    xy[5:9, 1] = np.nan
    seconds = rng.uniform(0.02, 0.5, 30)
    motion = Motion.start(xy[0], noise, speed)
    others = {}
    for point in range(3):
        for axis in range(2):
            f = KalmanFilter(dim_x=2, dim_z=1)
            f.x, f.P = np.array([[xy[0, point, axis]], [0.0]]), np.diag([noise**2, speed**2])
            f.H, f.R = np.array([[1.0, 0.0]]), np.array([[noise**2]])
            others[point, axis] = f
    for z, t in zip(xy[1:], seconds[1:], strict=True):
        motion = motion.predicted(t, density).updated(z, noise, speed)
        for (point, axis), f in others.items():
            f.F, f.Q = np.array([[1, t], [0, 1]]), Q_continuous_white_noise(2, t, density)
            f.predict()
            f.update(None if np.isnan(z[point, axis]) else z[point, axis])
            assert [motion.xy[point, axis], motion.velocity[point, axis]] == pytest.approx(f.x[:, 0], abs=1e-9)
            expected = [f.P[0, 0], f.P[0, 1], f.P[1, 1]]
            assert motion.variance[point] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_similarity_without_uncertainty_is_oks() -> None:
    rng = np.random.default_rng(1)
    xy, other = rng.uniform(0, 30, (3, 4, 2)), rng.uniform(0, 30, (5, 4, 2))
    area, sigmas = rng.uniform(100, 900, 3), np.array([0.1, 0.2, 0.3, 0.4])
    ours = keypoint_similarity(xy, np.zeros((3, 4)), other, np.repeat(area[:, None], 5, 1), sigmas)
    assert ours == pytest.approx(oks(other, xy, np.full((3, 4), 2), area, sigmas).T, abs=1e-12)
    assert (keypoint_similarity(xy, np.full((3, 4), 50.0), other, np.ones((3, 5)), sigmas) > 0).all()


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 10**6))
def test_the_assignment_is_the_best_of_all(rows: int, columns: int, seed: int) -> None:
    """By trying every one; no pair is below the least similarity."""
    similarity = np.random.default_rng(seed).uniform(0, 1, (rows, columns))
    pairs = assign(similarity, 0.4)
    worth = np.where(similarity >= 0.4, similarity, 0)
    worth = worth if rows <= columns else worth.T
    best = max(worth[np.arange(len(worth)), list(p)].sum() for p in permutations(range(worth.shape[1]), len(worth)))
    assert sum(similarity[pair] for pair in pairs) == pytest.approx(best)
    assert all(similarity[pair] >= 0.4 for pair in pairs)


def test_a_track_has_its_identity_from_its_first_frame_and_short_false_positives_have_none() -> None:
    poses = [at((2.0 * i, 0.0), *([(300.0, 300.0)] if i in (4, 5) else [])) for i in range(10)]
    assert tracks(poses) == [[0] if i not in (4, 5) else [0, -1] for i in range(10)]
    assert tracks(poses, min_hits=1)[4] == [0, 1]


def test_velocity_keeps_identities_through_a_crossing() -> None:
    """Two subjects meet at frame 15 and are not found around it; without motion they would be exchanged."""

    def crossing(missing: range) -> list[Poses]:
        return [at() if i in missing else at((10.0 * i, 0.0), (300.0 - 10 * i, 5.0)) for i in range(31)]

    ids = tracks(crossing(range(13, 18)), coast=0.5)
    assert [ids[12], ids[18], ids[30]] == [[0, 1]] * 3
    still = tracks(crossing(range(13, 18)), coast=0.0, reach=20.0)
    assert [still[12], still[30]] == [[0, 1], [1, 0]]


def test_unsure_poses_continue_tracks_but_start_none() -> None:
    """A score that falls for ten frames (longer than a subject may be missing) changes nothing."""
    low = [at((3.0 * i, 0.0), score=0.2 if 5 <= i < 15 else 0.9) for i in range(20)]
    assert tracks(low, max_lost=0.2) == [[0]] * 20
    assert tracks(low, max_lost=0.2, low_score=0.3)[-1] == [1]
    assert tracks([at((0.0, 0.0), score=0.25)] * 5) == [[-1]] * 5


def test_identities_end_and_a_known_number_of_subjects_does_not() -> None:
    """A subject is away for three seconds and comes back elsewhere."""
    poses = [at((0.0, 0.0), *([] if 10 <= i < 85 else [(100.0 + i, 100.0)])) for i in range(100)]
    assert tracks(poses)[-1] == [0, 2]
    assert tracks(poses, subjects=2)[-1] == [0, 1]
    three = [at((0.0, 0.0), (100.0, 100.0), (200.0, 200.0))] * 5
    assert tracks(three, subjects=2) == [[0, 1, -1]] * 5


def test_a_second_pose_of_a_subject_gets_no_identity() -> None:
    """Also where it is a known subject's turn to be found again."""
    poses = [at((0.0, 0.0), (100.0, 0.0))] * 5 + [at((0.0, 0.0), (1.0, 1.0))] * 60
    assert tracks(poses, subjects=2)[-1] == [0, -1]


def test_poses_that_jump_keep_their_track() -> None:
    """A pose of other keypoints, or one that is predicted beside the subject, in single frames."""
    poses = [at((100.0, 100.0), (200.0, 100.0)) for _ in range(20)]
    poses[10] = at((118.0, 112.0), (200.0, 100.0))
    alone = poses[12].xy.copy()
    alone[0, 1:] = np.nan
    poses[12] = replace(Poses.make(alone), score=poses[12].score)
    assert tracks(poses) == [[0, 1]] * 20


def test_appearance_decides_where_motion_cannot() -> None:
    """Two subjects vanish side by side and return in exchanged places; their appearance differs."""
    poses = [at() if 10 <= i < 20 else at((0.0, 0.0), (24.0, 0.0)) for i in range(30)]

    def embed(frame: Frame) -> np.ndarray:
        return np.eye(2)[[0, 1] if frame.index < 10 else [1, 0]][: len(frame.poses)]

    assert tracks(poses, subjects=2)[-1] == [0, 1]
    assert tracks(poses, subjects=2, appearance_weight=2.0, embed=embed)[-1] == [1, 0]
    with pytest.raises(ConfigError, match="needs the features of a network"):
        Tracker(SKELETON, appearance_weight=1.0)


@pytest.fixture(scope="module")
def network() -> PoseModel:
    """A small network of random weights, for views of 128 x 64 pixels."""
    torch.manual_seed(0)
    backbone = Backbone("resnet10t", False, [1, 2, 3, 4])
    neck = FPN(backbone.channels, backbone.strides, 16)
    head = HeatmapHead(HeadInputs(neck.channels, neck.strides, (128, 64), SKELETON))
    return PoseModel(backbone, neck, head, (128, 64)).eval()


def test_descriptors_are_those_of_the_keypoints(network: PoseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a backbone that returns the pixels: the colour at the keypoints, in a frame that is scaled and padded."""
    image = np.zeros((100, 256, 3), np.uint8)  # the view has half its size, and margins
    image[..., 2] = 60
    image[20:60, 20:60, 0] = 200
    image[20:60, 100:140, 1] = 200
    poses = at((30.0, 30.0), (110.0, 30.0), (200.0, 30.0))
    poses.xy[0, 1:], poses.visible[0, 1:] = np.nan, 0
    monkeypatch.setattr(network.backbone, "forward", lambda x: [x * network.std + network.mean])
    found = BackboneFeatures(network)(Frame(0, "#0", 0.0, poses, image))
    assert found == pytest.approx(
        np.array([[200, 0, 60], [0, 200, 60], [0, 0, 60]]) / [[208.8], [208.8], [60]], abs=1e-3
    )


def test_features_of_a_network_tell_subjects_apart(network: PoseModel) -> None:
    """Two textures exchange places while they are not found; all that is random is seeded."""
    rng = np.random.default_rng(0)
    looks = [np.full((24, 24, 3), 230), rng.integers(0, 255, (24, 24, 3))]

    def shown(i: int) -> Frame:
        image = np.full((64, 128, 3), 90) + rng.integers(-8, 8, (64, 128, 3))
        for look, x in zip(looks, (28, 58) if i < 10 else (58, 28), strict=True):
            image[18:42, x : x + 24] = look
        poses = at() if 10 <= i < 20 else at((30.0, 20.0), (60.0, 20.0))
        return Frame(i, f"#{i}", i / 25, poses, image.astype(np.uint8))

    frames = [shown(i) for i in range(30)]
    for weight, expected in ((0.0, [0, 1]), (2.0, [1, 0])):
        stage = Tracker(SKELETON, subjects=2, appearance_weight=weight, embed=BackboneFeatures(network))
        assert list(process(frames, [stage]))[-1].poses.track.tolist() == expected
    with pytest.raises(ModelError, match="has no backbone"):
        BackboneFeatures(object())  # type: ignore[arg-type]


@st.composite
def videos(draw: st.DrawFn) -> list[Frame]:
    """Frames with up to four squares anywhere, of any score, at unequal times."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    frames, time = [], 0.0
    for i in range(draw(st.integers(1, 12))):
        time += float(rng.uniform(0.01, 0.3))
        poses = at(*map(tuple, rng.uniform(0, 60, (rng.integers(0, 5), 2))))
        xy = np.where(rng.random(poses.xy.shape[:2])[..., None] < 0.2, np.nan, poses.xy)
        frames.append(Frame(i, f"#{i}", time, replace(Poses.make(xy), score=rng.uniform(0, 1, len(poses)))))
    return frames


@given(videos(), st.sampled_from([None, 1, 2]), st.integers(1, 4))
def test_frames_and_poses_come_out_once_and_the_same_each_time(
    frames: list[Frame], subjects: int | None, hits: int
) -> None:
    def tracked() -> list[Frame]:
        stage = Tracker(SKELETON, subjects=subjects, min_hits=hits)
        assert isinstance(stage, Stage)
        return list(process(frames, [stage]))

    out, again = tracked(), tracked()
    assert [f.index for f in out] == [f.index for f in frames]
    for before, after, same in zip(frames, out, again, strict=True):
        ids = after.poses.track
        assert ids.tolist() == same.poses.track.tolist()
        assert len(set(ids[ids >= 0].tolist())) == (ids >= 0).sum()
        assert subjects is None or ids.max(initial=-1) < subjects
        assert (ids[before.poses.score < 0.1] == -1).all()
        for field in fields(Poses):
            if field.name != "track":
                assert np.array_equal(
                    getattr(before.poses, field.name), getattr(after.poses, field.name), equal_nan=True
                )


def test_mistakes_are_told() -> None:
    with pytest.raises(ConfigError, match=r"(?s)subjects is 0.*min_hits is 0.*low_score is 0.9, above"):
        Tracker(SKELETON, subjects=0, min_hits=0, low_score=0.9)
    stage = Tracker(SKELETON)
    stage.push(Frame(0, "clip.mp4#000000", 1.0, at()))
    with pytest.raises(DataError, match=r"clip.mp4#000001: its time is 1 s, but the frame before it has 1 s"):
        stage.push(Frame(1, "clip.mp4#000001", 1.0, at()))


@pytest.fixture(scope="module")
def flies(real_data: Path) -> tuple[dict[int, Poses], Skeleton]:
    """The true poses of two flies in 1500 frames, with their identities."""
    skeleton = Skeleton.from_config(yaml.safe_load((conf_dir() / "skeleton" / "fly13.yaml").read_text()))
    return sleap.read_frames(real_data / "sleap_videos" / "clip.slp", skeleton), skeleton


@pytest.mark.parametrize(("subjects", "kept"), [(None, 1.0), (2, 0.7)])
def test_true_poses_of_two_flies_are_tracked_without_a_switch(
    flies: tuple[dict[int, Poses], Skeleton], subjects: int | None, kept: float
) -> None:
    """In any order within a frame; and with 30 % of the frames left out."""
    truth, skeleton = flies
    rng = np.random.default_rng(0)
    frames = []
    for i, poses in truth.items():
        if rng.random() < kept:
            shuffled = poses[rng.permutation(len(poses))]
            frames.append(Frame(i, f"#{i}", i / 25, replace(shuffled, track=np.full(len(poses), -1))))
    out = {f.index: f.poses for f in process(frames, [Tracker(skeleton, subjects=subjects)])}
    scores = track_scores({i: truth[i] for i in out}, out, skeleton).summary
    assert (scores["switches"], scores["n_tracks"], scores["IDF1"], scores["HOTA"]) == (0, 2, 1.0, 1.0)
    assert scores["n_frames"] > 1000 * kept


@pytest.mark.parametrize("hidden_above", [1.0, 0.5])
def test_flies_that_walk_over_one_another_keep_their_identities(
    flies: tuple[dict[int, Poses], Skeleton], hidden_above: float
) -> None:
    """Their recorded walks, overlaid so that they cross; where boxes overlap by more than half, one of them is not found."""
    recorded, skeleton = flies
    rng = np.random.default_rng(0)
    truth, frames, hidden = {}, [], 0
    for i in range(200):
        one, other = recorded[1000 + i], recorded[1199 - i]
        poses = Poses.concat([one[one.track == 0], other[other.track == 1]])
        truth[i] = poses
        kept = rng.permutation(2)
        if box_iou(poses.box[:1], poses.box[1:])[0, 0] > hidden_above:
            kept, hidden = kept[:1], hidden + 1
        frames.append(Frame(i, f"#{i}", i / 25, replace(poses[kept], track=np.full(len(kept), -1))))
    assert (hidden > 0) == (hidden_above < 1)
    crossed = [np.sign(np.diff(np.nanmean(truth[i].xy[..., 0], axis=1))[0]) for i in (0, 199)]
    assert crossed[0] == -crossed[1]
    out = {f.index: f.poses for f in process(frames, [Tracker(skeleton, subjects=2)])}
    scores = track_scores(truth, out, skeleton).summary
    assert (scores["switches"], scores["n_tracks"], scores["n_missed"]) == (0, 2, hidden)
