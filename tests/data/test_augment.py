"""Labels stay on their points: light one spot, send it through the whole pipeline, and look where it is."""

from __future__ import annotations

from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kplab.data.augment import MIRRORING, Augment
from kplab.data.datamodule import PoseDataset, cut
from kplab.data.regions import annotated_regions, image_regions
from kplab.data.sources.files import FileSource
from kplab.ops import affine
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

SKELETON = Skeleton("pair", ("left_eye", "right_eye"), ((0, 1),), (1, 0), (0.025, 0.025), "made up for this test")
SIZE = (160, 120)


def lit(folder: Path, xy: np.ndarray) -> Labels:
    """A black image with a red spot at the left eye and a green one at the right, labelled at their exact centres."""
    image = np.zeros((SIZE[1], SIZE[0], 3), np.float64)
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]] + 0.5
    for channel, (x, y) in enumerate(xy):
        image[..., channel] = 250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 2.5**2))
    path = folder / "spots.png"
    cv2.imwrite(str(path), image[..., ::-1].round().astype(np.uint8))
    poses = Poses.make(xy[None], box=np.array([[20.0, 15.0, 140.0, 105.0]]), area=np.array([5000.0]))
    return make_labels(
        SKELETON, FileSource(folder, ["spots.png"]), np.array([1]), np.array([SIZE]), None, poses, np.zeros(1, int), np.ones(1, int),
        box_source="test", area_source="test",
    )  # fmt: skip


def centroid(channel: np.ndarray) -> np.ndarray:
    """Centre of mass of a bright spot, continuous coordinates."""
    weight = channel.astype(np.float64)
    weight[weight < 20] = 0
    rows, columns = np.mgrid[: channel.shape[0], : channel.shape[1]] + 0.5
    return np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()


GEOMETRY = {
    "plain": Augment(),
    "turn, scale, shift, flip": Augment(rotate=60, scale=(0.8, 1.3), shift=0.05, flip=0.5),
    "always flipped": Augment(flip=1.0),
    "albumentations' own affine": Augment(flip=0.5, transforms=[A.Affine(rotate=(-30, 30), scale=(0.8, 1.2), p=1.0)]),
    "albumentations' perspective": Augment(transforms=[A.Perspective(scale=(0.02, 0.06), p=1.0)]),
    "albumentations' turn by 90": Augment(transforms=[A.Rotate(limit=(90, 90), p=1.0)]),
    "colour and blur": Augment(
        rotate=20, flip=0.5, transforms=[A.GaussianBlur(blur_limit=(3, 5), p=1.0), A.ColorJitter(p=0)]
    ),
    "cutting out elsewhere": Augment(transforms=[A.CoarseDropout(fill=0, num_holes_range=(1, 1), p=1.0)]),
}


@pytest.mark.parametrize("kind", ["image", "annotated"])
@pytest.mark.parametrize("name", GEOMETRY)
def test_light_stays_on_its_keypoint(tmp_path: Path, name: str, kind: str) -> None:
    """Resampling moves a spot's centroid by well under a tenth of a pixel; half a pixel of drift would show at once."""
    labels = lit(tmp_path, np.array([[60.3, 50.7], [95.1, 71.4]]))
    regions = image_regions(labels) if kind == "image" else annotated_regions(labels, 1.25)
    dataset = PoseDataset(labels, regions, (192, 160), GEOMETRY[name], seed=7)
    seen = 0
    for epoch in range(12):
        sample = dataset[0, epoch]
        # red marks the left eye, which is the right eye of the mirrored subject
        for channel, keypoint in ((0, 0), (1, 1)):
            spot = sample.image[..., channel]
            mirrored = np.linalg.det(sample.view[:2, :2]) < 0
            expected = sample.poses.xy[0, 1 - keypoint if mirrored else keypoint]
            inside = 12 < expected[0] < 180 and 12 < expected[1] < 148
            if not inside or spot.max() < 100:
                continue
            whole = 250 * 2 * np.pi * 2.5**2 * affine.area_scale(sample.view)
            if name.startswith("cutting") and abs(spot.astype(int).sum() - whole) > 0.005 * whole:
                continue
            seen += 1
            tolerance = 0.25 if "perspective" in name else 0.1  # perspective foreshortens a spot of finite size
            assert np.abs(centroid(spot) - expected).max() < tolerance
    assert seen >= 4


def test_mirror_swaps_names(tmp_path: Path) -> None:
    """After a flip the left eye is where the right eye's light is."""
    labels = lit(tmp_path, np.array([[40.0, 50.0], [100.0, 60.0]]))
    sample = PoseDataset(labels, image_regions(labels), SIZE, Augment(flip=1.0))[0, 0]
    np.testing.assert_allclose(sample.poses.xy[0, 0], [SIZE[0] - 100.0, 60.0], atol=1e-9)
    np.testing.assert_allclose(centroid(sample.image[..., 1]), sample.poses.xy[0, 0], atol=0.05)


@given(st.floats(0.0, SIZE[0]), st.floats(0.0, SIZE[1]))
@settings(max_examples=60)
def test_no_keypoint_is_lost_at_an_edge(x: float, y: float) -> None:
    """A labelled keypoint anywhere on the closed image stays labelled and finite through pixel transforms."""
    poses = Poses.make(np.array([[[x, y], [np.nan, np.nan]]]))
    augment = Augment(transforms=[A.Affine(rotate=(-45, 45), p=1.0), A.CoarseDropout(p=1.0)])
    _, out = augment.change_pixels(np.zeros((SIZE[1], SIZE[0], 3), np.uint8), poses, np.random.default_rng(0))
    assert np.isfinite(out.xy[0, 0]).all()
    assert np.isnan(out.xy[0, 1]).all()
    assert (out.visible == poses.visible).all()


def test_cut_out_keypoints_stay_labelled() -> None:
    """Albumentations drops keypoints inside a hole by default; here they are to be guessed from the rest."""
    augment = Augment(
        transforms=[
            A.CoarseDropout(num_holes_range=(1, 1), hole_height_range=(1.0, 1.0), hole_width_range=(1.0, 1.0), p=1.0)
        ]
    )
    poses = Poses.make(np.array([[[50.0, 50.0], [90.0, 20.0]]]))
    _, out = augment.change_pixels(np.full((120, 160, 3), 9, np.uint8), poses, np.random.default_rng(0))
    np.testing.assert_allclose(out.xy, poses.xy, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in MIRRORING if hasattr(A, n)])
def test_mirroring_transforms_are_refused(name: str) -> None:
    """They would leave left and right as they were."""
    with pytest.raises(ValueError, match=r"augment\.flip"):
        Augment(transforms=[getattr(A, name)(p=0.5)])


def test_flipping_twice_is_the_identity() -> None:
    """Mirror and rename, twice."""
    poses = Poses.make(np.random.default_rng(0).uniform(0, 100, (3, 2, 2)), box=np.full((3, 4), 5.0))
    twice = poses
    for _ in range(2):
        twice = twice.permute_keypoints(SKELETON.flip_array).transform(affine.mirror(160))
    np.testing.assert_allclose(twice.xy, poses.xy, atol=1e-12)


def test_the_same_seed_gives_the_same_pixels(tmp_path: Path) -> None:
    """What is drawn depends on seed, epoch and index, not on what was drawn before."""
    labels = lit(tmp_path, np.array([[60.3, 50.7], [95.1, 71.4]]))
    augment = Augment(rotate=30, flip=0.5, transforms=[A.GaussNoise(p=1.0), A.CoarseDropout(p=0.5)])
    one, two = (PoseDataset(labels, image_regions(labels), SIZE, augment, seed=3) for _ in range(2))
    for epoch in range(5):
        two[0, epoch]
    for epoch in (4, 1, 3):
        a, b = one[0, epoch], two[0, epoch]
        assert (a.image == b.image).all()
        np.testing.assert_array_equal(a.poses.xy, b.poses.xy)
    assert (one[0, 1].image != one[0, 2].image).any()
    other = PoseDataset(labels, image_regions(labels), SIZE, augment, seed=4)
    assert (one[0, 1].image != other[0, 1].image).any()


@pytest.mark.parametrize("kind", ["image", "annotated"])
def test_only_whole_images_are_clipped_to_their_view(tmp_path: Path, kind: str) -> None:
    """Keypoints just outside a box's view are kept; those outside a whole image are not."""
    labels = lit(tmp_path, np.array([[10.3, 50.7], [90.1, 71.4]]))
    regions = image_regions(labels) if kind == "image" else annotated_regions(labels, 1.25)
    sample = PoseDataset(labels, regions, SIZE, Augment(scale=(1.5, 1.5)), seed=1)[0, 0]
    outside = ~((sample.poses.xy >= 0) & (sample.poses.xy < SIZE)).all(-1)
    assert outside.any()
    assert (np.isnan(sample.poses.xy[outside]).all(), sample.poses.labelled.all()) == (
        (True, False) if kind == "image" else (False, True)
    )


def test_windows_clip_too(tmp_path: Path) -> None:
    """A window of a view is what the network sees of it."""
    labels = lit(tmp_path, np.array([[40.3, 50.7], [100.1, 71.4]]))
    dataset = PoseDataset(labels, image_regions(labels), SIZE, Augment(rotate=10), window=(96, 64))
    shown = [dataset[0, epoch] for epoch in range(30)]
    assert any(s.poses.labelled.all() for s in shown)
    assert any(not s.poses.labelled.all() for s in shown)
    for sample in shown:
        points = sample.poses.xy[sample.poses.labelled]
        assert ((points >= 0) & (points < [96, 64])).all()
        box = sample.poses.box
        assert ((box >= 0) & (box <= [96, 64, 96, 64])).all()


@pytest.mark.parametrize("source", [(333, 517), (517, 333), (64, 48), (1023, 7), (641, 1)])
@pytest.mark.parametrize("view", [(256, 256), (192, 160), (640, 384)])
def test_letterboxing_and_its_inverse_are_exact_on_odd_sizes(source: tuple[int, int], view: tuple[int, int]) -> None:
    """One scale for both axes and no rounded sides: corners land where arithmetic puts them, and come back to 1e-9 px."""
    width, height = source
    matrix = affine.fit_box(np.array([0, 0, width, height]), view)
    scale = min(view[0] / width, view[1] / height)
    pad = (np.array(view) - scale * np.array(source)) / 2
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height], [width / 3, height / 7]], dtype=float)
    seen = affine.apply(matrix, corners)
    np.testing.assert_allclose(seen, corners * scale + pad, atol=1e-9)
    assert (seen >= -1e-9).all()
    assert (seen <= np.array(view) + 1e-9).all()
    np.testing.assert_allclose(affine.apply(np.linalg.inv(matrix), seen), corners, atol=1e-9)


@pytest.mark.parametrize("size", [(333, 517), (517, 333)])
def test_pixels_of_odd_sizes_are_letterboxed_as_their_labels(size: tuple[int, int]) -> None:
    """The same in pixels: a lit spot lands where the map puts it, through the letterbox."""
    rows, columns = np.mgrid[: size[1], : size[0]] + 0.5
    x, y = size[0] - 40.25, size[1] - 31.5
    image = (250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 4.0**2))).astype(np.float32)
    matrix = affine.fit_box(np.array([0, 0, *size]), (256, 256))
    found = centroid(affine.warp(image, matrix, (256, 256)))
    # bilinear resampling of a spot of 2 px keeps its centroid to a few hundredths
    np.testing.assert_allclose(found, affine.apply(matrix, np.array([x, y])), atol=0.03)


def test_windows_lie_around_subjects_or_anywhere() -> None:
    """Around a subject its centre is within a third of the window; anywhere, the window stays inside the view."""
    rng = np.random.default_rng(0)
    one = Poses.make(np.array([[[90.0, 30.0], [110.0, 50.0]]]))
    for _ in range(50):
        x, y = affine.apply(cut(one, (400, 200), (60, 40), rng), np.array([100.0, 40.0]))
        assert 10 - 1e-9 <= x <= 50 + 1e-9
        assert 20 / 3 - 1e-9 <= y <= 100 / 3 + 1e-9
    corners = np.array([affine.apply(cut(one, (400, 200), (60, 40), rng, 1.0), np.zeros(2)) for _ in range(200)])
    assert (corners <= 0).all()
    assert (corners >= [-340, -160]).all()
    assert (corners.min(0) < [-300, -140]).all()
