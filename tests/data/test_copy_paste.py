"""Copy-paste: pasted subjects keep their labels, what they hide is unlabelled, and no subject arrives without labels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.data.test_mosaic import lit, same

from kplab.data.augment import Augment
from kplab.data.copy_paste import MARGIN, contains, corners, coverage, outline_of, paste
from kplab.data.datamodule import PoseDataset
from kplab.data.mosaic import Tile
from kplab.data.regions import image_regions
from kplab.structures.poses import Poses

SIZE = (192, 160)


class Place(np.random.Generator):
    """A generator that always draws the same place."""

    def __init__(self, x: float, y: float) -> None:
        super().__init__(np.random.PCG64(0))
        self.at = np.array([x, y])

    def uniform(self, *_: object) -> np.ndarray:  # type: ignore[override]
        return self.at


def donor(*subjects: list[tuple[float, float]], seed: int = 1) -> Tile:
    image = np.random.default_rng(seed).integers(0, 256, (100, 120, 3)).astype(np.uint8)
    return Tile(image, Poses.make(np.array(subjects)), np.eye(3))


PAIR = [(40.0, 30.0), (60.0, 50.0)]


def pasted(
    tile: Tile, poses: Poses, shape: str = "box", at: tuple[float, float] = (100, 80)
) -> tuple[np.ndarray, Poses]:
    view = np.full((160, 192, 3), 7, dtype=np.uint8)
    return paste(view, poses, tile, 0, np.eye(2), shape, Place(*at))


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("shape", ["hull", "box"])
def test_light_is_on_its_keypoint(tmp_path: Path, shape: str, flip: float) -> None:
    """Red light under each left eye and green under each right one, of pasted subjects, too; a mirrored left eye is green."""
    labels = lit(tmp_path)
    augment = Augment(paste=1, paste_shape=shape, rotate=90, scale=(0.7, 1.4), flip=flip)
    dataset = PoseDataset(labels, image_regions(labels), SIZE, augment, seed=5)
    plain = PoseDataset(labels, image_regions(labels), SIZE, Augment(rotate=90, scale=(0.7, 1.4), flip=flip), seed=5)
    seen = more = 0
    for epoch in range(12):
        for index in range(len(dataset)):
            sample = dataset[index, epoch]
            more += len(sample.poses) > len(plain[index, epoch].poses)
            for k in (0, 1):
                right, wrong = (k, 1 - k) if flip == 0 else (1 - k, k)
                for x, y in np.floor(sample.poses.xy[sample.poses.labelled[:, k], k]).astype(int):
                    seen += 1
                    near = sample.image[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].astype(int)
                    assert near[..., right].max() > 2 * near[..., wrong].max() + 30
    assert more > 20
    assert seen > 100


def test_pixels_are_those_of_the_donor() -> None:
    """At whole pixels and scale 1 a box comes through as it is, and all else stays."""
    tile = donor(PAIR)
    out, poses = pasted(tile, Poses.empty(2))
    # the box is 3 px (15 % of 20) wider on each side, and its centre (50, 40) lands on (100, 80)
    expected = np.full((160, 192, 3), 7, dtype=np.uint8)
    expected[67:93, 87:113] = tile.image[27:53, 37:63]
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_allclose(poses.xy, [[(90, 70), (110, 90)]])


def test_the_edge_of_a_hull_is_soft() -> None:
    """Full at the subject, none at the outline, which is a margin away, and falling between the two."""
    line = [(20.0, 50.0), (100.0, 50.0)]
    tile = donor(line)
    tile.image[:] = 207
    out, _ = pasted(tile, Poses.empty(2), "hull", (96, 80))
    margin = MARGIN * 80
    middle = out[:, 96, 0].astype(int)
    assert middle[80] == 207
    assert middle[int(80 + margin / 2 - 1)] == 207
    assert 60 < middle[int(80 + 0.75 * margin)] < 160
    assert middle[int(80 + margin)] == 7
    assert (np.diff(middle[80:]) <= 0).all()


def test_what_is_hidden_is_unlabelled() -> None:
    """Half of a subject may be hidden; where more would be, nothing is pasted."""
    half = Poses.make(np.array([[(100.0, 80.0), (10.0, 10.0)]]), box=np.array([[5.0, 5, 105, 85]]))
    out, poses = pasted(donor(PAIR), half)
    assert poses.labelled.tolist() == [[False, True], [True, True]]
    assert np.isnan(poses.xy[0, 0]).all()
    assert poses.box[0].tolist() == [5, 5, 105, 85]
    assert out.max() > 7
    whole = Poses.make(np.array([[(100.0, 80.0), (101.0, 80.0)]]))
    out, poses = pasted(donor(PAIR), whole)
    assert (len(poses), out.max()) == (1, 7)


@pytest.mark.parametrize(
    "tile",
    [
        donor(PAIR, [(50.0, 40.0), (110.0, 90.0)]),  # another subject's keypoint between
        donor([(2.0, 30.0), (42.0, 50.0)]),  # 6 px of margin, 2 px of picture
    ],
)
def test_nothing_is_pasted_that_would_lack_labels_or_pixels(tile: Tile) -> None:
    out, poses = pasted(tile, Poses.empty(2))
    assert (len(poses), out.max()) == (0, 7)


def test_crowds_are_not_pasted() -> None:
    """A crowd's middle in the part means subjects without labels."""
    tile = donor(PAIR, PAIR)
    tile.poses.visible[1] = 0
    tile.poses.xy[1] = np.nan
    tile.poses.ignore[1] = True
    tile.poses.box[1] = [40, 30, 60, 50]
    assert len(pasted(tile, Poses.empty(2))[1]) == 0
    tile.poses.box[1] = [70, 60, 110, 90]
    assert len(pasted(tile, Poses.empty(2))[1]) == 1


def test_a_subject_without_a_place_is_not_pasted() -> None:
    """Half of its keypoints must be in the view."""
    assert len(pasted(donor(PAIR), Poses.empty(2), at=(195, 80))[1]) == 1
    assert len(pasted(donor(PAIR), Poses.empty(2), at=(205, 80))[1]) == 0


@pytest.mark.parametrize("seed", range(5))
def test_outlines_against_opencv(seed: int) -> None:
    """Inside is what OpenCV says, and the covered area is the polygon's."""
    rng = np.random.default_rng(seed)
    polygon = outline_of(rng.uniform(20, 80, (6, 2)), "hull")
    points = rng.uniform(0, 100, (300, 2))
    oracle = [cv2.pointPolygonTest(polygon.astype(np.float32), tuple(p), False) >= 0 for p in points.tolist()]
    assert contains(polygon, points).tolist() == oracle
    assert contains(polygon[::-1], points).tolist() == oracle
    assert not contains(polygon, np.array([[np.nan, 50.0]])).any()
    box = outline_of(rng.uniform(20, 80, (6, 2)), "box")
    area = cv2.contourArea(box.astype(np.float32))
    assert coverage(box, (100, 100), "box").sum() == pytest.approx(area, rel=0.01)
    assert contains(corners(100, 100), points).all()


def test_one_keypoint_has_an_outline() -> None:
    """A pixel around it."""
    outline = outline_of(np.array([[5.0, 5.0]]), "hull")
    assert np.abs(np.linalg.norm(outline - 5, axis=1) - 1).max() < 1e-6


def test_draws_depend_on_seed_epoch_and_index_alone(tmp_path: Path) -> None:
    labels = lit(tmp_path)
    augment = Augment(paste=0.7, rotate=45, flip=0.5)
    one, two = (PoseDataset(labels, image_regions(labels), (96, 96), augment, seed=3) for _ in range(2))
    first = {(i, e): one[i, e] for e in range(3) for i in range(5)}
    assert all(same(first[key], two[key]) for key in reversed(first))
    assert not same(first[0, 0], first[0, 1])


def test_a_view_without_a_pasted_subject_is_the_plain_one(tmp_path: Path) -> None:
    """The draw follows those of the view."""
    labels = lit(tmp_path)
    assert all(
        same(
            PoseDataset(labels, image_regions(labels), (96, 96), Augment(rotate=45), seed=3)[i, 0],
            PoseDataset(labels, image_regions(labels), (96, 96), Augment(rotate=45, paste=1e-12), seed=3)[i, 0],
        )
        for i in range(2)
    )
