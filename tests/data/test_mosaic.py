"""Mosaics: light stays on its keypoint, tiles stay apart, and the last epochs see none."""

from __future__ import annotations

from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pytest

from kplab.data.augment import Augment
from kplab.data.datamodule import PoseDataset
from kplab.data.mosaic import Tile, mosaic
from kplab.data.regions import annotated_regions, image_regions
from kplab.data.sources.files import FileSource
from kplab.errors import DataError
from kplab.ops import affine
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses
from kplab.structures.sample import Sample
from kplab.structures.skeleton import Skeleton

SKELETON = Skeleton("pair", ("left_eye", "right_eye"), ((0, 1),), (1, 0), (0.025, 0.025), "made up for this test")
SIZES = [(160, 120), (120, 160), (200, 90), (333, 517), (97, 64)]


def lit(folder: Path, seed: int = 0) -> Labels:
    """Dim images of several sizes, each with two subjects of a red spot (left eye) and a green one (right eye)."""
    rng = np.random.default_rng(seed)
    files, points = [], []
    for i, (width, height) in enumerate(SIZES):
        rows, columns = np.mgrid[:height, :width] + 0.5
        image = np.zeros((height, width, 3))
        image[..., 2] = 60 + 30 * i
        # one spot in each quarter, so that no two of them touch
        quarters = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * [width / 2, height / 2]
        spots = quarters + rng.uniform(0.3, 0.7, (4, 2)) * [width / 2, height / 2]
        for k, (x, y) in enumerate(spots):
            scale = 1.7 * max(width, height) / 160
            image[..., k % 2] += 250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * scale**2))
        cv2.imwrite(str(folder / f"{i}.png"), image[..., ::-1].clip(0, 255).round().astype(np.uint8))
        files.append(f"{i}.png")
        points += [spots[:2], spots[2:]]
    size = np.array(SIZES)
    poses = Poses.make(np.array(points))
    poses.box = np.concatenate([np.array(points).min(1) - 4, np.array(points).max(1) + 4], axis=1)
    image_of = np.repeat(np.arange(len(SIZES)), 2)
    return make_labels(
        SKELETON, FileSource(folder, files), np.arange(1, 6), size, None, poses, image_of, np.arange(1, 11), box_source="t", area_source="t"
    )  # fmt: skip


GEOMETRY = {
    "plain": Augment(mosaic=1),
    "as YOLO": Augment(mosaic=1, scale=(0.5, 1.5), shift=0.1, flip=0.5),
    "turned": Augment(mosaic=1, rotate=90, scale=(0.7, 1.4), flip=0.5),
    "albumentations' own affine": Augment(mosaic=1, flip=0.5, transforms=[A.Affine(rotate=(-30, 30), p=1.0)]),
    "sometimes": Augment(mosaic=0.5, scale=(0.5, 1.5), flip=0.5),
}


@pytest.mark.parametrize("window", [None, (96, 80)])
@pytest.mark.parametrize("name", GEOMETRY)
def test_light_stays_on_its_keypoint(tmp_path: Path, name: str, window: tuple[int, int] | None) -> None:
    """Each label has its light, within the tenth of a pixel that resampling costs, and each light its label."""
    labels = lit(tmp_path)
    dataset = PoseDataset(labels, image_regions(labels), (192, 160), GEOMETRY[name], seed=5, window=window)
    held = found = 0
    for epoch in range(12):
        for index in range(len(dataset)):
            sample = dataset[index, epoch]
            # a mirrored left eye is called the right one, but its light is red as ever
            mirrored = np.linalg.det(sample.view[:2, :2]) < 0
            for channel in (0, 1):
                k = 1 - channel if mirrored else channel
                labelled = sample.poses.xy[sample.poses.labelled[:, k], k]
                light = sample.image[..., channel].astype(np.float64)
                for xy in labelled[[whole(sample.image, xy) for xy in labelled]]:
                    held += 1
                    assert np.abs(centroid(light, xy) - xy).max() < 0.1
                for xy in brightest(light):
                    if whole(sample.image, xy):
                        found += 1
                        # a pixel's centre is up to half a pixel off, and the top of an enlarged spot is flat
                        assert np.abs(labelled - xy).max(1).min(initial=99) < 1.5
    assert min(held, found) > 15


RADIUS = 13


def centroid(light: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Centre of mass of the spot around a point."""
    x, y = np.floor(near).astype(int)
    part = light[y - RADIUS : y + RADIUS + 1, x - RADIUS : x + RADIUS + 1]
    part = np.where(part < 10, 0, part)
    rows, columns = np.mgrid[y - RADIUS : y + RADIUS + 1, x - RADIUS : x + RADIUS + 1] + 0.5
    return np.array([(part * columns).sum(), (part * rows).sum()]) / part.sum()


def brightest(light: np.ndarray) -> np.ndarray:
    """(N, 2) centres of the pixels that outshine all others near."""
    peak = (light > 100) & (light == cv2.dilate(light, np.ones((9, 9))))
    return np.argwhere(peak)[:, ::-1] + 0.5


def whole(image: np.ndarray, xy: np.ndarray) -> bool:
    """Whether one image alone (identified by its blue) is all around a point."""
    x, y = np.floor(xy).astype(int)
    if min(x, y) < RADIUS or x + RADIUS >= image.shape[1] or y + RADIUS >= image.shape[0]:
        return False
    blue = image[y - RADIUS : y + RADIUS + 1, x - RADIUS : x + RADIUS + 1, 2]
    return bool(blue.min() == blue.max() > 0)


def tile(seed: int, size: tuple[int, int], view: tuple[int, int], *points: tuple[float, float]) -> Tile:
    image = np.random.default_rng(seed).integers(1, 256, (size[1], size[0], 3)).astype(np.uint8)
    poses = Poses.make(np.array([points or [(1.0, 1.0), (2.0, 2.0)]]), box=np.array([[0.0, 0.0, *size]]))
    return Tile(image, poses, affine.fit_box(np.array([0, 0, *size]), view))


def test_four_images_meet_at_the_centre() -> None:
    """At whole pixels and scale 1 the view is made of the images' own pixels, corner to corner."""
    tiles = [tile(i, (64, 48), (64, 64)) for i in range(4)]
    pixels, _, maps = mosaic(tiles, (64, 64), np.array([24.0, 40.0]), np.eye(3))
    a, b, c, d = (t.image for t in tiles)
    np.testing.assert_array_equal(pixels[:40, :24], a[8:, 40:])
    np.testing.assert_array_equal(pixels[:40, 24:], b[8:, :40])
    np.testing.assert_array_equal(pixels[40:, :24], c[:24, 40:])
    np.testing.assert_array_equal(pixels[40:, 24:], d[:24, :40])
    np.testing.assert_allclose(affine.apply(maps[0], np.array([64.0, 48.0])), [24, 40])


def test_images_are_resampled_once() -> None:
    """Shrunk by mosaic and enlarged by the change, an image is as sharp as it is: the pixels come through exactly."""
    half = [tile(i, (64, 64), (32, 32)) for i in range(4)]
    twice = affine.scaling(2, 2)
    pixels, _, _ = mosaic(half, (32, 32), np.array([0.0, 0.0]), twice)
    np.testing.assert_array_equal(pixels, half[3].image[:32, :32])


def test_what_a_tile_does_not_show_is_unlabelled() -> None:
    """A window of each image is shown; the poses beyond it are cut off, though their place is in the neighbour's tile."""
    one = tile(0, (100, 100), (100, 100), (10.0, 10.0), (45.0, 20.0))
    windows = [Tile(one.image, one.poses, affine.translation(0, 0)) for _ in range(4)]
    _, poses, _ = mosaic(windows, (40, 40), np.array([20.0, 20.0]), np.eye(3))
    assert poses.labelled.tolist() == [[True, False]] * 4
    np.testing.assert_allclose(poses.xy[:, 0], [[-10, -10], [30, -10], [-10, 30], [30, 30]])
    # boxes end where the tiles do
    assert poses.box.tolist() == [[-20, -20, 20, 20], [20, -20, 60, 20], [-20, 20, 20, 60], [20, 20, 60, 60]]


def test_windows_without_a_picture_show_nothing() -> None:
    """A window may lie in the letterbox altogether."""
    away = tile(0, (64, 64), (64, 64))
    away.view = affine.translation(200, 0)
    pixels, poses, _ = mosaic([away] * 4, (32, 32), np.array([16.0, 16.0]), np.eye(3))
    assert (pixels.max(), len(poses)) == (0, 0)


def same(a: Sample, b: Sample) -> bool:
    return bool((a.image == b.image).all()) and np.array_equal(a.poses.xy, b.poses.xy, equal_nan=True)


def test_a_resumed_run_draws_the_same(tmp_path: Path) -> None:
    """What is drawn depends on seed, epoch and index alone; and it does change with each."""
    labels = lit(tmp_path)
    augment = Augment(mosaic=0.7, scale=(0.5, 1.5), flip=0.5, transforms=[A.GaussNoise(p=0.5)])
    one, two = (PoseDataset(labels, image_regions(labels), (96, 96), augment, seed=3) for _ in range(2))
    first = {(i, e): one[i, e] for e in range(3) for i in range(5)}
    for key in reversed(first):
        assert same(first[key], two[key])
    assert not same(first[0, 0], first[0, 1])
    assert not same(first[0, 0], PoseDataset(labels, image_regions(labels), (96, 96), augment, seed=4)[0, 0])


def test_the_item_is_one_of_the_four_and_gives_its_name(tmp_path: Path) -> None:
    """``view`` maps the item's own image, wherever that is placed."""
    labels = lit(tmp_path)
    dataset = PoseDataset(labels, image_regions(labels), (192, 160), GEOMETRY["as YOLO"], seed=1)
    corners = []
    for epoch in range(40):
        sample = dataset[0, epoch]
        assert (sample.image_id, sample.box.tolist()) == (1, [0, 0, 160, 120])
        mirrored = np.linalg.det(sample.view[:2, :2]) < 0
        own = labels.poses_of(0)
        own = (
            (own.permute_keypoints(SKELETON.flip_array) if mirrored else own).transform(sample.view).clipped((192, 160))
        )
        for xy in own.xy[own.labelled]:
            assert np.abs(sample.poses.xy[sample.poses.labelled] - xy).max(1).min() < 1e-9
        middle = affine.apply(sample.view, np.array([80.0, 60.0]))
        corners.append(tuple(middle > [96, 80]))
    assert len(set(corners)) == 4, "it lies in each corner at times"


def test_the_last_epochs_see_whole_images_only(tmp_path: Path) -> None:
    labels = lit(tmp_path)
    plain = PoseDataset(labels, image_regions(labels), (96, 96), Augment(scale=(0.5, 1.5), flip=0.5))
    augment = Augment(scale=(0.5, 1.5), flip=0.5, mosaic=1, mosaic_off=2)
    with_mosaics = PoseDataset(labels, image_regions(labels), (96, 96), augment, epochs=5)
    assert [same(with_mosaics[0, e], plain[0, e]) for e in range(5)] == [False] * 3 + [True] * 2
    endless = PoseDataset(labels, image_regions(labels), (96, 96), augment)
    assert not any(same(endless[0, e], plain[0, e]) for e in range(5))


def test_boxes_of_subjects_are_no_mosaics(tmp_path: Path) -> None:
    labels = lit(tmp_path)
    with pytest.raises(DataError, match=r"regions are 'annotated'\. Use regions=image or augment\.mosaic=0"):
        PoseDataset(labels, annotated_regions(labels), (96, 96), Augment(mosaic=0.5))
    with pytest.raises(ValueError, match="a probability lies between 0 and 1"):
        Augment(mosaic=2)
