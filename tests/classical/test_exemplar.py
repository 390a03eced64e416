"""Stored subjects are found to a pixel: unchanged, rotated, scaled, shifted, twice, and after loading; others are not."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from kplab.classical.exemplar import Exemplar
from kplab.classical.frames import described, features, root
from kplab.classical.memory import Thinned
from kplab.classical.voting import Votes, agreed, as_complex, as_points, compose, fitted, inverse, mean_shape, peak
from kplab.errors import ModelError
from kplab.ops import affine
from kplab.structures.poses import Poses
from kplab.structures.sample import Batch
from kplab.structures.skeleton import Skeleton

SKELETON = Skeleton.from_config(
    {
        "name": "patch", "keypoints": ["head", "left_hand", "right_hand", "tail"], "edges": [["head", "tail"]],
        "flip_pairs": [["left_hand", "right_hand"]], "sigmas": [0.05] * 4, "sigma_source": "made up for tests",
    }
)  # fmt: skip
SIZE = (320, 240)
XY = np.array([[[160.0, 85.0], [120.0, 125.0], [205.0, 130.0], [165.0, 160.0]]])


def blurred(seed: int, size: tuple[int, int], sigma: float) -> np.ndarray:
    """Blurred grey noise from 0 to 255."""
    noise = cv2.GaussianBlur(np.random.default_rng(seed).uniform(0, 255, size[::-1]), (0, 0), sigma)
    return (noise - noise.min()) / np.ptp(noise) * 255


def scene(seed: int, *places: np.ndarray, background: int = 99) -> tuple[np.ndarray, Poses]:
    """A textured disc that holds its four keypoints, once for each map, on its own background.

    Returns:
        (240, 320, 3) uint8, and the mapped poses.
    """
    disc = np.zeros(SIZE[::-1], np.float32)
    cv2.circle(disc, (163, 124), 72, 1.0, -1, cv2.LINE_AA)
    texture = blurred(seed, SIZE, 2.5).astype(np.float32)
    # half the contrast of the subject, so that there is background to separate it from
    image = 64 + blurred(background, SIZE, 4) / 2
    poses = []
    for m in places or (np.eye(3),):
        weight = affine.warp(disc, m, SIZE)
        image = image * (1 - weight) + affine.warp(texture, m, SIZE) * weight
        poses.append(Poses.make(XY).transform(m))
    return np.repeat(image.round().astype(np.uint8)[..., None], 3, axis=2), Poses.concat(poses)


def batch(*scenes: tuple[np.ndarray, Poses]) -> Batch:
    """Whole images as views."""
    n = len(scenes)
    images = torch.from_numpy(np.stack([image for image, _ in scenes]).transpose(0, 3, 1, 2).copy())
    box = np.tile(np.array([0.0, 0.0, *SIZE]), (n, 1))
    return Batch(images, [p for _, p in scenes], np.tile(np.eye(3), (n, 1, 1)), np.arange(n), box, np.ones(n))


def about(degrees: float, scale: float, dx: float, dy: float) -> np.ndarray:
    """Rotate and scale about the disc's centre, then shift."""
    turn = affine.rotation(degrees) @ affine.scaling(scale, scale)
    return affine.translation(163 + dx, 124 + dy) @ turn @ affine.translation(-163, -124)


@pytest.fixture(scope="module")
def model() -> Exemplar:
    """Fitted to three discs, each in front of its own background."""
    made = Exemplar(SIZE, SKELETON)
    made.fit([batch(scene(1, background=11)), batch(scene(2, background=12), scene(3, background=13))])
    return made


def same(one: list[Poses], other: list[Poses]) -> bool:
    """Equal bit for bit."""
    return len(one) == len(other) and all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for a, b in zip(one, other, strict=True)
        for name in ("xy", "score", "keypoint_score")
    )


def test_stored_subjects_are_found_at_their_positions(model: Exemplar) -> None:
    """Within 1 px, every point of every subject; and no other detection has half the score."""
    seen = batch(scene(1, background=11), scene(2, background=12), scene(3, background=13))
    for found, true in zip(model.predict(seen), seen.poses, strict=True):
        assert np.linalg.norm(found.xy[0] - true.xy[0], axis=-1).max() < 1
        assert found.score[0] > 0.5
        assert (found.score[1:] < found.score[0] / 2).all()


@pytest.mark.parametrize(
    ("degrees", "scale", "dx", "dy"),
    [(90, 1, 0, 0), (180, 1, 20, -15), (37, 1, 0, 0), (-120, 1.25, 10, 5), (10, 0.8, -50, 25)],
)
def test_rotated_scaled_and_shifted(model: Exemplar, degrees: float, scale: float, dx: float, dy: float) -> None:
    """Within 3 px, 4 % of the subject's width: SIFT's angles err by a degree or two, and shrinking changes its points."""
    seen = batch(scene(2, about(degrees, scale, dx, dy), background=77))
    (found,) = model.predict(seen)
    assert np.linalg.norm(found.xy[0] - seen.poses[0].xy[0], axis=-1).max() < 3
    assert found.score[0] > 0.5


def test_two_copies_are_two_poses(model: Exemplar) -> None:
    """One upright and one upside down, in one view: one pose each, and no third pose of similar score."""
    maps = about(0, 0.8, -85, 40), about(180, 0.8, 80, -35)
    seen = batch(scene(1, *maps, background=78))
    (found,) = model.predict(seen)
    sure = found[found.score > 0.5]
    assert len(sure) == 2
    order = np.argsort(sure.xy[:, 0, 0])
    assert np.linalg.norm(sure.xy[order] - seen.poses[0].xy, axis=-1).max() < 3
    single = Exemplar(SIZE, SKELETON, max_poses=1)
    single.load_state_dict(model.state_dict())
    assert single.max_poses == 1
    assert np.array_equal(single.predict(seen)[0].xy, found.xy[:1])


def test_no_subject_in_a_blank_image_and_no_confident_one_in_a_random_image(model: Exemplar) -> None:
    """A blank image has no points and no votes; an image without similarity to the memory has low scores at most."""
    blank = np.full((*SIZE[::-1], 3), 128, np.uint8), Poses.empty(4)
    strange = np.repeat(blurred(500, SIZE, 3).astype(np.uint8)[..., None], 3, axis=2), Poses.empty(4)
    empty, unlike = model.predict(batch(blank, strange))
    assert len(empty) == 0
    assert (unlike.score < 0.5).all()


def test_prior_votes_place_a_subject_in_a_blank_view() -> None:
    """With a prior, a blank view has one subject, at the training poses, with score 0; a visible subject scores as before."""
    made = Exemplar(SIZE, SKELETON, max_poses=1, prior=0.3)
    made.fit([batch(scene(1, background=11), scene(2, background=12))])
    blank = np.full((*SIZE[::-1], 3), 128, np.uint8), Poses.empty(4)
    (found,) = made.predict(batch(blank))
    assert np.linalg.norm(found.xy - XY, axis=-1).max() < 1e-6
    sure = made.predict(batch(scene(1, background=11)))[0]
    assert found.score.tolist() == [0.0]
    assert found.keypoint_score.tolist() == [[0.0] * 4]
    assert sure.score[0] > 0.9


def test_predictions_do_not_depend_on_the_truth(model: Exemplar) -> None:
    """Without poses, with other poses, alone or in a batch: the same bits."""
    one, two = scene(1, about(20, 1, 5, 5)), scene(3, background=13)
    with_truth = model.predict(batch(one, two))
    for poses in ([], [Poses.empty(4), Poses.make(XY + 50)]):
        assert same(with_truth, model.predict(replace(batch(one, two), poses=poses)))
    assert same(with_truth, model.predict(batch(one)) + model.predict(batch(two)))


def test_the_same_memory_and_the_same_poses_from_a_file(model: Exemplar, tmp_path: object) -> None:
    """A second fit gives the same bits for any batch size; so does loading from a file."""
    again = Exemplar(SIZE, SKELETON)
    again.fit([batch(scene(1, background=11), scene(2, background=12)), batch(scene(3, background=13))])
    state = model.state_dict()
    assert state.keys() == again.state_dict().keys()
    assert all(
        torch.equal(a.nan_to_num(0), b.nan_to_num(0))
        for a, b in zip(state.values(), again.state_dict().values(), strict=True)
    )
    path = f"{tmp_path}/memory.pt"
    torch.save(state, path)
    read = Exemplar(SIZE, SKELETON)
    read.load_state_dict(torch.load(path))
    seen = batch(scene(2, about(15, 1, 0, 0)))
    assert same(read.predict(seen), model.predict(seen))


def test_unlabelled_points_are_predicted_from_other_exemplars() -> None:
    """Labels without tail in one view and without head in the other give poses with both; one labelled point is enough."""
    first, second = scene(1, background=11), scene(1, background=12)
    first[1].xy[0, 3], first[1].visible[0, 3] = np.nan, 0
    second[1].xy[0, 0], second[1].visible[0, 0] = np.nan, 0
    lone = scene(2, background=13)
    lone[1].xy[0, 1:], lone[1].visible[0, 1:] = np.nan, 0
    made = Exemplar(SIZE, SKELETON, max_poses=1)
    made.fit([batch(first, second, lone)])
    (found,) = made.predict(batch(scene(1, background=14)))
    assert np.linalg.norm(found.xy - XY, axis=-1).max() < 2


def test_views_without_a_labelled_keypoint_are_refused() -> None:
    """The message is kplab's, not NumPy's."""
    image, _ = scene(1)
    with pytest.raises(ModelError, match="no subject of the training views has a labelled keypoint"):
        Exemplar(SIZE, SKELETON).fit([batch((image, Poses.empty(4)))])


def test_memory_is_bounded() -> None:
    """Every 2**j-th item is kept, with the smallest sufficient j; for subjects and both kinds of features."""
    thinned: Thinned[int] = Thinned(10)
    thinned.add(range(35))
    assert thinned.kept == [0, 4, 8, 12, 16, 20, 24, 28, 32]
    made = Exemplar(SIZE, SKELETON, exemplars=2, memory=50, background=60)
    made.fit([batch(*(scene(i, background=i + 10) for i in range(5)))])
    counts = made.counts()
    assert counts["subjects"] == 2
    assert 25 <= counts["features of subjects"] <= 50
    assert 30 <= counts["features of the background"] <= 60
    assert made.get_buffer("view").tolist() == [0, 4]


def test_similarities() -> None:
    """Complex pairs against matrices; fits are exact; their distance is that of the shapes they draw."""
    random = np.random.default_rng(0)
    xy = random.normal(0, 30, (6, 2)) + 100
    one, two = about(30, 1.5, 4, -7), about(-100, 0.7, 1, 2)
    pairs = [np.array([m[0, 0] + 1j * m[1, 0], m[0, 2] + 1j * m[1, 2]]) for m in (one, two)]
    z = as_complex(xy)
    both = compose(pairs[0], pairs[1])
    np.testing.assert_allclose(as_points(both[0] * z + both[1]), affine.apply(one @ two, xy), atol=1e-9)
    np.testing.assert_allclose(compose(inverse(pairs[0]), pairs[0]), [1, 0], atol=1e-12)
    shapes = np.stack([m[0] * z + m[1] for m in pairs])
    shapes[1, 2] = np.nan
    np.testing.assert_allclose(fitted(z, shapes), pairs, atol=1e-9)
    shape = mean_shape(shapes)
    assert abs(shape.mean()) < 1e-12
    assert np.mean(np.abs(shape) ** 2) == pytest.approx(1)
    drawn = [m[0] * shape + m[1] for m in pairs]
    distance = np.sqrt(np.mean(np.abs(drawn[0] - drawn[1]) ** 2))
    assert distance == pytest.approx(np.linalg.norm(pairs[0] - pairs[1]))


def test_agreeing_votes_outweigh_strong_votes_that_disagree() -> None:
    """Ten weak votes for nearly one map against twenty for anything; then ten points around a position and three outliers."""
    random = np.random.default_rng(1)
    noise = random.normal(0, 0.3, (10, 4)) @ np.array([[1, 0], [1j, 0], [0, 1], [0, 1j]])
    right = np.array([20 + 5j, 100 + 60j])
    others = np.stack(
        [random.uniform(-40, 40, 20) + 20j, random.uniform(0, 300, 20) + 1j * random.uniform(0, 200, 20)], 1
    )
    maps = np.concatenate([right + noise, others])
    weight = np.concatenate([np.full(10, 1.0), np.full(20, 3.0)])
    number = np.arange(30)
    centre, agreement = peak(Votes(maps, weight, number, number, maps[:, 1]), 0.2)
    assert np.abs(centre - right).max() < 0.5
    assert (agreement[:10] > 0).all()
    points = np.concatenate([right[1] + noise[:, 1], [0, 300, 100j]])[:, None]
    place, total = agreed(np.concatenate([points, np.full_like(points, np.nan)], axis=1), np.ones((13, 2)), 3.0)
    assert abs(place[0] - right[1]) < 1
    assert np.isnan(place[1])
    assert 8 < total[0] < 11


def test_features_are_those_of_sift() -> None:
    """A blob of deviation s is found at its place with a radius of 0.89 s; descriptors of found frames are SIFT's own.

    0.89 is 2**(-1/6), where the difference of two Gaussians 2**(1/3) apart answers a Gaussian most.
    """
    rows, columns = np.mgrid[:128, :128] + 0.5
    blob = 60 + 150 * np.exp(-((columns - 60.25) ** 2 + (rows - 70.75) ** 2) / (2 * 6.0**2))
    seen = features(np.repeat(blob.round().astype(np.uint8)[..., None], 3, 2), 0.02, 100)
    best = np.argmin(np.abs(seen.frame[:, 1] - (60.25 + 70.75j)))
    assert abs(seen.frame[best, 1] - (60.25 + 70.75j)) < 0.25
    assert abs(seen.frame[best, 0]) / 2 == pytest.approx(0.89 * 6, rel=0.05)
    image, _ = scene(4)
    seen = features(image, 0.04, 200)
    large = seen.frame[np.abs(seen.frame[:, 0]) > 7]
    wanted = seen.descriptor[np.abs(seen.frame[:, 0]) > 7]
    again = described(image, large[:, 1], 3 * np.abs(large[:, 0]), np.angle(large[:, 0]))
    # RootSIFT's cosine: the layer of the pyramid is chosen anew, so bits differ a little
    like = (root(again) * root(wanted)).sum(1)
    assert len(like) > 10
    assert np.median(like) > 0.98
