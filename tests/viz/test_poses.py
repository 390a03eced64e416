"""Drawings are at their coordinates, and left and right, truth and prediction, visible and hidden points differ."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from kplab.ops import affine
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton
from kplab.viz import look
from kplab.viz import poses as drawing

SKELETON = Skeleton("three", ("left_ear", "right_ear", "nose"), ((0, 2), (1, 2)), (1, 0, 2), (0.1, 0.1, 0.1), "made up")
DOT = Skeleton("dot", ("nose",), (), (0,), (0.1,), "made up")
LINE = Skeleton("line", ("head", "tail"), ((0, 1),), (0, 1), (0.1, 0.1), "made up")

coordinate = st.floats(12, 52, allow_nan=False)


def black(width: int = 64, height: int = 64) -> np.ndarray:
    return np.zeros((height, width, 3), dtype=np.uint8)


def centroid(image: np.ndarray) -> np.ndarray:
    """(x, y) centroid of the brightness of an image, continuous coordinates."""
    light = image.astype(np.float64).sum(-1)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return np.array([(light * x).sum(), (light * y).sum()]) / light.sum()


@given(coordinate, coordinate, st.floats(1, 6), st.sampled_from([1.0, 2.0, 3.5]), st.sampled_from([1, 2]))
def test_a_keypoint_is_drawn_at_its_coordinates(x: float, y: float, mark: float, scale: float, seen: int) -> None:
    poses = Poses.make(np.array([[[x, y]]]), visible=np.array([[seen]]))
    image = drawing.draw(black(), poses, DOT, scale=scale, mark=mark)
    assert image.shape == (round(64 * scale), round(64 * scale), 3)
    # a disc is rounded to 8 bits a pixel, which moves its centroid by less than a tenth of a pixel
    np.testing.assert_allclose(centroid(image), [x * scale, y * scale], atol=0.1)


@given(st.tuples(coordinate, coordinate), st.tuples(coordinate, coordinate))
def test_a_limb_is_drawn_between_its_ends(a: tuple[float, float], b: tuple[float, float]) -> None:
    # the marks of ends that are close hide one another
    assume(np.hypot(a[0] - b[0], a[1] - b[1]) > 6)
    poses = Poses.make(np.array([[a, b]]))
    image = drawing.draw(black(), poses, LINE, mark=1.5, colour=(255, 255, 255))
    # an anti-aliased line of OpenCV is off by up to an eighth of a pixel, and the marks at its ends are rounded to 8 bits
    np.testing.assert_allclose(centroid(image), np.mean([a, b], axis=0), atol=0.2)


def test_keypoints_of_an_enlarged_image_are_at_the_same_content() -> None:
    image = black(24, 16)
    image[9, 5] = 255
    enlarged = drawing.draw(image, Poses.empty(1), DOT, scale=4)
    np.testing.assert_allclose(centroid(enlarged), [5.5 * 4, 9.5 * 4], atol=0.1)


def test_sides_are_derived_from_names() -> None:
    def of(*names: str) -> list[str]:
        return drawing.sides(Skeleton("s", names, (), (1, 0, 2), (0.1,) * 3, "made up"))

    assert of("left_ear", "right_ear", "nose") == ["left", "right", "middle"]
    assert of("wingR", "wingL", "head") == ["right", "left", "middle"]
    assert of("legR4", "legL4", "head") == ["right", "left", "middle"]
    assert of("point00", "point16", "point08") == ["left", "right", "middle"]


def test_left_right_and_middle_have_their_colours() -> None:
    poses = Poses.make(np.array([[[10.5, 10.5], [50.5, 10.5], [30.5, 50.5]]]))
    image = drawing.draw(black(), poses, SKELETON, mark=4)
    assert image[10, 10].tolist() == list(drawing.LEFT)
    assert image[10, 50].tolist() == list(drawing.RIGHT)
    assert image[50, 30].tolist() == list(drawing.MIDDLE)
    # the limb from the left ear to the nose is left
    assert image[30, 20].tolist() == list(drawing.LEFT)
    assert len({drawing.LEFT, drawing.RIGHT, drawing.MIDDLE, drawing.TRUTH, drawing.ERROR}) == 5


def test_instances_have_different_colours() -> None:
    poses = Poses.make(np.array([[[10.5, 10.5]], [[40.5, 40.5]]]))
    image = drawing.draw(black(), poses, DOT, mark=4, colour="instances")
    assert tuple(image[10, 10]) == look.rgb(look.BLUE)
    assert tuple(image[40, 40]) == look.rgb(look.ORANGE)
    with pytest.raises(ValueError, match="'sides', 'instances', 'tracks' or an RGB triple"):
        drawing.draw(black(), poses, DOT, colour="rainbow")


def test_hidden_keypoints_are_hollow() -> None:
    place = np.array([[[30.5, 30.5]]])
    seen = drawing.draw(black(), Poses.make(place, np.array([[2]])), DOT, mark=6)
    hidden = drawing.draw(black(), Poses.make(place, np.array([[1]])), DOT, mark=6)
    assert seen[30, 30].any()
    assert not hidden[30, 30].any()
    assert (seen[30, 35] == hidden[30, 35]).all()
    assert seen[30, 35].any()


def test_unlabelled_and_low_scoring_keypoints_are_not_drawn_nor_are_their_limbs() -> None:
    xy = np.array([[[10.5, 10.5], [50.5, 10.5], [30.5, 50.5]]])
    alone = drawing.draw(black(), Poses.make(np.where([[[True], [False], [False]]], xy, np.nan)), SKELETON, mark=3)
    scored = Poses.make(xy, keypoint_score=np.array([[0.9, 0.2, 0.4]]))
    np.testing.assert_array_equal(drawing.draw(black(), scored, SKELETON, mark=3, min_score=0.5), alone)
    assert alone[10, 10].any()
    assert not alone[40:].any()


def test_the_image_is_not_changed_and_extreme_coordinates_are_no_error() -> None:
    image = black()
    wild = Poses.make(np.array([[[1e300, -1e300], [-1e9, 30.0], [30.0, 30.0]]]))
    drawn = drawing.draw(image, wild, SKELETON)
    assert not image.any()
    assert drawn[30, 30].any()
    np.testing.assert_array_equal(drawing.draw(image, Poses.empty(3), SKELETON), image)


def test_small_instances_have_small_marks() -> None:
    corners = np.array([[[10.0, 10.0], [20.0, 20.0]], [[100.0, 100.0], [600.0, 400.0]]])
    image = drawing.draw(black(640, 480), Poses.make(corners), LINE)
    assert (image[:30, :30].sum(-1) > 0).sum() < (image[85:115, 85:115].sum(-1) > 0).sum()


def test_boxes_are_drawn_on_their_edges() -> None:
    poses = Poses.make(np.full((1, 1, 2), np.nan), box=np.array([[10.5, 20.5, 40.5, 50.5]]))
    image = drawing.draw(black(), poses, DOT, boxes=True)
    assert image[20, 25].any()
    assert image[35, 10].any()
    assert image[35, 40].any()
    assert image[50, 25].any()
    assert not image[35, 25].any()


def test_truth_prediction_and_error_have_different_colours() -> None:
    true, predicted = Poses.make(np.array([[[12.5, 30.5]]])), Poses.make(np.array([[[52.5, 30.5]]]))
    image = drawing.overlay(black(), true, predicted, DOT, mark=5)
    assert image[30, 32].tolist() == list(drawing.ERROR)
    assert image[30, 52].tolist() == list(drawing.MIDDLE)
    assert image[26, 12].tolist() == list(drawing.TRUTH)
    separate = drawing.overlay(black(), true, predicted, DOT, mark=5, pairs=[])
    assert not separate[30, 32].any()
    assert not separate[30, 12].any(), "the ring of truth is hollow"
    weak = Poses.make(predicted.xy, keypoint_score=np.array([[0.1]]))
    hidden = drawing.overlay(black(), true, weak, DOT, mark=5, min_score=0.5)
    assert not hidden[30, 32].any()
    assert not hidden[30, 52].any()


@given(st.permutations(range(5)), st.integers(0, 2**31))
def test_predictions_are_paired_with_the_nearest_truth(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 30, (5, 3, 2)) + 100 * np.arange(5)[:, None, None]
    predicted = Poses.make((xy + rng.normal(0, 1, xy.shape))[order])
    assert dict(drawing.pair(Poses.make(xy), predicted)) == {true: order.index(true) for true in range(5)}


def test_far_and_missing_instances_have_no_pair() -> None:
    xy = np.array([[[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]])
    assert drawing.pair(Poses.make(xy), Poses.make(xy + 5)) == [(0, 0)]
    assert drawing.pair(Poses.make(xy), Poses.make(xy + 50)) == []
    assert drawing.pair(Poses.make(xy), Poses.empty(3)) == []
    assert drawing.pair(Poses.empty(3), Poses.make(xy)) == []
    # one keypoint has no extent, and another far away may be the same
    assert drawing.pair(Poses.make(xy[:, :1]), Poses.make(xy[:, :1] + 50)) == [(0, 0)]


def test_a_contact_sheet_keeps_order_and_aspect() -> None:
    colours, shapes = [(200, 0, 0), (0, 200, 0), (0, 0, 200)], [(40, 80), (80, 40), (40, 80)]
    images = [np.full((h, w, 3), c, dtype=np.uint8) for (h, w), c in zip(shapes, colours, strict=True)]
    sheet = drawing.contact_sheet(images, 2, cell=(40, 40), gap=4)
    # the first row is as high as its highest picture, the second as high as its own
    assert sheet.shape == (4 + 40 + 4 + 20 + 4, 4 + 40 + 4 + 40 + 4, 3)
    found = []
    for colour in colours:
        rows, columns = np.nonzero((sheet == colour).all(-1))
        found.append((rows.min(), rows.max() + 1, columns.min(), columns.max() + 1))
    assert found == [(24, 44, 4, 44), (4, 44, 48, 68), (48, 68, 4, 44)]
    assert (sheet[0] == 255).all()


def test_labels_are_below_their_images_and_truncated() -> None:
    images = [np.zeros((40, 60, 3), dtype=np.uint8)] * 2
    sheet = drawing.contact_sheet(images, 2, labels=["i", "a label that is far too long for its picture"])
    under = sheet[48:66] < 128
    assert under[:, 8:68].any()
    assert under[:, 76:136].any()
    assert not under[:, 136:].any()
    assert under[:, 76:136].sum() > under[:, 8:68].sum()


def test_a_contact_sheet_refuses_invalid_input() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        drawing.contact_sheet([])
    with pytest.raises(ValueError, match="2 images but 1 labels"):
        drawing.contact_sheet([black(), black()], labels=["one"])


def test_a_png_contains_the_same_pixels(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = drawing.write_png(tmp_path / "new" / "image.png", image)
    # Pillow is the oracle: red and blue would be swapped if OpenCV's order leaked
    np.testing.assert_array_equal(np.asarray(Image.open(path)), image)
    with pytest.raises(ValueError, match="uint8 RGB"):
        drawing.write_png(path, image / 255)


def test_a_figure_is_the_same_file_every_time() -> None:
    def made(end: float) -> look.Plot:
        plot, (panel,) = look.figure(size=(2, 1))
        panel.plot([0, end], [0, 1])
        return plot

    assert look.png(made(1)) == look.png(made(1)) != look.png(made(2))
    assert Image.open(io.BytesIO(made(1)._repr_png_())).size == (240, 120)


def test_a_real_snout_is_marked_where_it_is(real_data: Path) -> None:
    folder = real_data / "dlc_openfield_mouse" / "labeled-data" / "m4s1"
    table = np.genfromtxt(next(folder.glob("CollectedData*.csv")), delimiter=",", skip_header=3, usecols=(-8, -7))
    files = [line.split(",")[0] for line in next(folder.glob("CollectedData*.csv")).read_text().splitlines()[3:]]
    image = np.asarray(Image.open(folder / Path(files[0]).name).convert("RGB"))
    snout = table[0] + 0.5
    changed = np.abs(drawing.draw(image, Poses.make(snout[None, None]), DOT, mark=4).astype(int) - image).sum(-1) > 0
    rows, columns = np.nonzero(changed)
    assert np.hypot(columns + 0.5 - snout[0], rows + 0.5 - snout[1]).max() < 4 + 1 + 1
    view = affine.fit_box(np.array([*(snout - 20), *(snout + 20)]), (80, 80))
    assert drawing.draw(affine.warp(image, view, (80, 80)), Poses.make(snout[None, None]).transform(view), DOT)[
        40, 40
    ].any()


def test_a_legend_names_the_keypoints_of_each_colour() -> None:
    """Below the picture, which is unchanged: a disc of each side that the skeleton has, and the note."""
    skeleton = Skeleton("t", ("nose", "left_eye", "right_eye"), (), (0, 2, 1), (0.1,) * 3, "made up")
    picture = np.full((40, 300, 3), 7, dtype=np.uint8)
    shown = drawing.with_legend(picture, skeleton, "rings: truth")
    assert (shown[:40] == 7).all()
    assert shown.shape[1] == 300
    discs = [tuple(shown[40 + 18 * i + 8, 14].tolist()) for i in range(3)]
    assert discs == [drawing.LEFT, drawing.RIGHT, drawing.MIDDLE]
    alone = drawing.with_legend(picture, Skeleton("t", ("nose",), (), (0,), (0.1,), "made up"))
    assert alone.shape[0] < shown.shape[0]
