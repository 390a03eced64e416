"""Harris, Shi-Tomasi, SIFT, ORB and AKAZE against independent formulas, exact symmetries, and OpenCV itself."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import ndimage

from kplab.classical import changes
from kplab.classical.detectors import AKAZE, ORB, ORB_PATCH, SIFT, Corners, Harris, ShiTomasi
from kplab.classical.points import Detector, Points
from kplab.errors import ConfigError
from kplab.metrics.repeatability import common, descriptor_distances, mutual_nearest, project, repeatability
from kplab.ops import affine


def texture(low: int = 40, high: int = 210, size: tuple[int, int] = (320, 240), sigma: float = 2.0) -> np.ndarray:
    """Blurred noise over a range of grey levels: many distinct corners and blobs."""
    grain = cv2.GaussianBlur(np.random.default_rng(0).normal(size=size[::-1]), (0, 0), sigma)
    return np.round(np.interp(grain, (grain.min(), grain.max()), (low, high))).astype(np.uint8)


IMAGE = texture()


def tensor(image: np.ndarray, block: int) -> tuple[np.ndarray, ...]:
    """Sums of products of SciPy's Sobel gradients over a square window, in OpenCV's units: 1 / (4 block) per gradient."""
    grey = image.astype(np.float64) / 255
    gx, gy = (ndimage.sobel(grey, axis=axis, mode="mirror") / (4 * block) for axis in (1, 0))
    return tuple(ndimage.uniform_filter(p, block, mode="mirror") * block**2 for p in (gx * gx, gy * gy, gx * gy))


@pytest.mark.parametrize("block", [3, 5])
def test_responses_equal_their_formulas(block: int) -> None:
    """det - k trace**2 and the smaller eigenvalue, by SciPy and NumPy; 1e-5 of the maximum is the precision of float32."""
    xx, yy, xy = tensor(IMAGE, block)
    k = 0.05
    for found, wanted in (
        (Harris(k=k, block=block).response(IMAGE), xx * yy - xy**2 - k * (xx + yy) ** 2),
        (
            ShiTomasi(block=block).response(IMAGE),
            np.linalg.eigvalsh(np.stack([np.stack([xx, xy], -1), np.stack([xy, yy], -1)], -1))[..., 0],
        ),
    ):
        # OpenCV scales Sobel by 1 / 4 block, and cornerMinEigenVal takes its eigenvalue of halves of the diagonal
        scale = found.max() / wanted.max()
        np.testing.assert_allclose(found / scale, wanted, atol=1e-5 * wanted.max())


def test_harris_agrees_with_scikit_image() -> None:
    """scikit-image's window is a Gaussian and ours a box: responses differ, but 45 of the best 50 corners are within 2 px."""
    from skimage import feature

    response = feature.corner_harris(IMAGE / 255.0, method="k", k=0.04, sigma=1)
    assert agreement(response) >= 45


def agreement(response: np.ndarray) -> int:
    """Number of the 50 best corners of a response within 2 px of one of Harris's best 60, without the border."""
    inner = np.zeros_like(response)
    inner[8:-8, 8:-8] = response[8:-8, 8:-8]
    top = (inner == ndimage.maximum_filter(inner, 9)) & (inner > 0)
    rows, columns = np.nonzero(top)
    order = np.argsort(-inner[rows, columns])[:50]
    theirs = np.column_stack([columns, rows])[order] + 0.5
    ours = Harris().detect(IMAGE)
    ours = ours[((ours.xy > 8) & (ours.xy < np.array([312, 232]))).all(1)].strongest(60)
    return int((np.linalg.norm(theirs[:, None] - ours.xy[None], axis=-1).min(1) < 2).sum())


@pytest.mark.parametrize("detector", [Harris(), ShiTomasi(), Harris(sigma=1, block=5)], ids=["harris", "shi", "smooth"])
def test_quarter_turns_and_mirrors_give_the_same_corners(detector: Corners) -> None:
    """All corners, to 0.01 px: the arithmetic is the same in another order."""
    height, width = IMAGE.shape
    best = detector.detect(IMAGE).strongest(300)
    turn = np.array([[0, -1, height], [1, 0, 0], [0, 0, 1.0]])
    for changed, matrix in (
        (np.rot90(IMAGE, -1), turn),
        (IMAGE[::-1, ::-1], affine.rotation(180) + affine.translation(width, height) - np.eye(3)),
        (IMAGE[:, ::-1], affine.mirror(width)),
    ):
        found = detector.detect(np.ascontiguousarray(changed)).strongest(300)
        assert repeatability(project(matrix, best.xy), found.xy, 0.01)["repeatability"] == 1


@pytest.mark.parametrize("detector", [Harris(quality=1e-4), ShiTomasi(quality=1e-3)], ids=["harris", "shi"])
def test_whole_pixel_shifts_give_the_same_corners(detector: Corners) -> None:
    """Corners whose windows don't touch the border or corners there."""
    dx, dy = 7, 4
    crop = np.ascontiguousarray(IMAGE[dy:-5, dx:-3])
    a, b = detector.detect(IMAGE), detector.detect(crop)
    whole, part = (320, 240), (crop.shape[1], crop.shape[0])
    there = affine.translation(-dx, -dy)
    a = a[common(a.xy, there, whole, part, margin=25)]
    b = b[common(b.xy, np.linalg.inv(there), part, whole, margin=25)]
    assert len(a) == len(b) > 300
    assert repeatability(a.xy - [dx, dy], b.xy, 0.01)["repeatability"] == 1


def test_corners_are_invariant_to_gain_and_offset() -> None:
    """R(a I + b) = a**4 R(I), and thresholds are relative; to the precision of floats."""
    harris = Harris()
    r = harris.response(IMAGE)
    brighter = harris.response(IMAGE.astype(np.float32) * 0.5 + 30)
    np.testing.assert_allclose(brighter, r / 16, atol=1e-5 * r.max() / 16)


def test_signs_of_the_response() -> None:
    """Negative on an edge, 0 in flat regions, maximal at the corner."""
    edge, corner = np.zeros((40, 40), np.uint8), np.zeros((40, 40), np.uint8)
    edge[:, 20:] = 200
    corner[20:, 20:] = 200
    harris = Harris()
    r = harris.response(edge)
    assert r[20, 20] < -1e-3
    assert abs(r[20, 5]) < 1e-12
    assert len(harris.detect(edge).xy) == 0 or harris.response(edge).max() < 1e-6
    assert len(harris.detect(np.full((40, 40), 90, np.uint8))) == 0
    (best,) = harris.detect(corner).strongest(1).xy
    assert np.abs(best - 20).max() < 1.5


def test_corners_of_a_checkerboard_are_exact() -> None:
    """All inner corners and no others, at their positions between pixels, in every orientation."""
    square, n = 24, 8
    board = np.kron(np.indices((n, n)).sum(0) % 2, np.ones((square, square))) * 180 + 40
    board = board.astype(np.uint8)
    i = np.arange(1, n) * square
    true = np.stack(np.meshgrid(i, i), -1).reshape(-1, 2).astype(float)
    for detector in (Harris(quality=0.1), ShiTomasi(quality=0.1)):
        found = detector.detect(board)
        assert len(found) == len(true)
        assert repeatability(true, found.xy, 1e-3)["repeatability"] == 1
        # turned edges are stairs of pixels, which pull a corner by up to half of one
        for degrees in (15, 33, 90):
            turned, matrix = changes.rotation(board, degrees)
            again = detector.detect(turned)
            seen = common(found.xy, matrix, (192, 192), (192, 192), 12)
            back = common(again.xy, np.linalg.inv(matrix), (192, 192), (192, 192), 12)
            figures = repeatability(project(matrix, found.xy[seen]), again.xy[back], 3)
            assert figures["repeatability"] == 1
            assert figures["localisation_px"] < 0.5


@pytest.mark.parametrize("bad", [{"block": 2}, {"aperture": 4}, {"block": 0}])
def test_even_windows_are_refused(bad: dict[str, int]) -> None:
    """OpenCV anchors them half a pixel off: the corner between pixels 7 and 8 comes out at pixel 9, not 8."""
    with pytest.raises(ConfigError, match="must be odd"):
        Harris(**bad)
    step = np.zeros((20, 20), np.float32)
    step[8:, 8:] = 1
    even = np.unravel_index(cv2.cornerHarris(step, 2, 3, 0.04).argmax(), step.shape)
    odd = np.unravel_index(Harris().response(step).argmax(), step.shape)
    assert (odd, even) == ((8, 8), (9, 9))


def blob(centre: float, sigma: float, size: int = 129) -> np.ndarray:
    """A bright Gaussian spot; centre in continuous pixels."""
    x = np.arange(size) + 0.5 - centre
    spot = np.exp(-(x[:, None] ** 2 + x[None] ** 2) / (2 * sigma**2))
    return np.round(40 + 180 * spot).astype(np.uint8)


@pytest.mark.parametrize("sigma", [4.0, 8.0, 12.0])
def test_sift_finds_position_and_size_of_a_blob(sigma: float) -> None:
    """Centre to 0.02 px and diameter 2 sigma 2**(-1/6) to 1 %; OpenCV's default upscaling would shift it by .23 px."""
    image = blob(64.5, sigma)
    points = SIFT().detect(image)
    best = points.strongest(1)
    np.testing.assert_allclose(best.xy[0], 64.5, atol=0.02)
    assert best.size[0] / 2 / sigma == pytest.approx(2 ** (-1 / 6), rel=0.01)
    default = max(cv2.SIFT.create().detect(image), key=lambda k: k.response)
    np.testing.assert_allclose(np.array(default.pt) + 0.5 - 64.5, 0.231, atol=0.03)


def test_sift_sizes_double_with_the_image() -> None:
    """To 3 %, as interpolation changes the blob a little."""
    small, large = (SIFT().detect(blob(64.5 * s, 5.0 * s, 129 * s)).strongest(1) for s in (1, 2))
    assert large.size[0] / small.size[0] == pytest.approx(2, rel=0.03)


def test_sift_descriptors_equal_opencv() -> None:
    """Octave and layer are derived from the size; descriptors equal those of joint detection and description exactly."""
    sift = cv2.SIFT.create(enable_precise_upscale=True)
    keypoints, wanted = sift.detectAndCompute(IMAGE, None)
    ours = SIFT()
    points = ours.detect(IMAGE)
    assert len(points) == len(keypoints) > 500
    rows = {
        (*np.round(np.array(k.pt) + 0.5, 4), round(k.size, 4), round(k.angle, 3)): i for i, k in enumerate(keypoints)
    }
    order = [
        rows[(*np.round(p, 4), round(s, 4), round(a, 3))]
        for p, s, a in zip(points.xy, points.size, points.angle, strict=True)
    ]
    found = ours.describe(IMAGE, points)
    np.testing.assert_array_equal(found, wanted[order])
    # 128 components are rounded to whole numbers, which moves a norm by .3 (one standard deviation), and of 1200 some by more
    norms = np.linalg.norm(found, axis=1)
    np.testing.assert_allclose(norms, 512, atol=2)
    assert norms.mean() == pytest.approx(512, abs=0.1)


@pytest.mark.parametrize("detector", [SIFT(), ORB()], ids=["sift", "orb"])
def test_angles_rotate_with_the_image(detector: Detector) -> None:
    """Median difference under 2 degrees (ORB: 4, as its levels are resampled); descriptors stay similar."""
    turned, matrix = changes.rotation(IMAGE, 35)
    a, b = detector.detect(IMAGE), detector.detect(turned)
    da, db = detector.describe(IMAGE, a), detector.describe(turned, b)
    distance = descriptor_distances(da, db)
    i, j = mutual_nearest(distance)
    right = np.linalg.norm(project(matrix, a.xy[i]) - b.xy[j], axis=1) < 2
    shift = (b.angle[j] - a.angle[i])[right] - 35
    assert right.sum() > 100
    assert np.median(np.abs((shift + 180) % 360 - 180)) < (2 if isinstance(detector, SIFT) else 4)
    assert np.median(distance[i, j][right]) < 0.7 * np.median(distance)


def test_descriptors_are_invariant_to_gain() -> None:
    """SIFT at the same points of a darker image: distances are below a tenth of those between different points."""
    sift = SIFT()
    points = sift.detect(IMAGE)
    a, b = sift.describe(IMAGE, points), sift.describe(changes.gain(IMAGE, 0.6)[0], points)
    own = np.linalg.norm(a - b, axis=1)
    assert np.median(own) < 0.1 * np.median(descriptor_distances(a, b))


def test_orb_points_are_at_the_centres_of_their_cells() -> None:
    """An image rotated by 180 degrees gives the same points to 1e-3 px, on every level; OpenCV's own positions differ."""
    image = texture(0, 255, size=(331, 257), sigma=1.5)
    turned = np.ascontiguousarray(image[::-1, ::-1])
    orb = ORB()
    a, b = orb.detect(image), orb.detect(turned)
    assert repeatability(np.array([331, 257]) - a.xy, b.xy, 1e-3)["repeatability"] > 0.99
    raw = [np.array([(*k.pt, k.size) for k in orb.orb.detect(i)]) for i in (image, turned)]
    coarse = [r[r[:, 2] > ORB_PATCH * 3][:, :2] + 0.5 for r in raw]
    assert repeatability(np.array([331, 257]) - coarse[0], coarse[1], 1.0)["repeatability"] < 0.5


def test_orb_descriptors_equal_opencv() -> None:
    """Positions are converted to OpenCV's convention before it describes them."""
    orb = ORB()
    keypoints, wanted = orb.orb.detectAndCompute(IMAGE, None)
    points = orb.detect(IMAGE)
    found = orb.describe(IMAGE, points)
    rows = {(round(k.size, 2), round(k.angle, 3), round(k.response, 9)): i for i, k in enumerate(keypoints)}
    order = [
        rows[(round(s, 2), round(a, 3), round(r, 9))]
        for s, a, r in zip(points.size, points.angle, points.score, strict=True)
    ]
    assert len(rows) == len(keypoints) == len(points)
    np.testing.assert_array_equal(found, wanted[order])


def test_points_that_cannot_be_described_are_an_error() -> None:
    """ORB drops points near the border, which would assign descriptors to the wrong points."""
    points = Points.make(np.array([[3.0, 3.0], [100, 100]]), [1, 2], [31, 31], [0, 0])
    with pytest.raises(ValueError, match="describes 1 of 2 points"):
        ORB().describe(IMAGE, points)


def test_akaze_descriptors_equal_opencv() -> None:
    """Equal to those of joint detection and description."""
    detector = AKAZE()
    points = detector.detect(IMAGE)
    _, wanted = detector.akaze.detectAndCompute(IMAGE, None)
    assert {d.tobytes() for d in detector.describe(IMAGE, points)} == {d.tobytes() for d in wanted}


def seen(
    detector: Detector, image: np.ndarray, changed: np.ndarray, matrix: np.ndarray, count: int | None, radius: float
):
    """Measures and numbers of points in the region that both images show."""
    sizes = [(i.shape[1], i.shape[0]) for i in (image, changed)]
    a, b = (detector.detect(i).distinct() for i in (image, changed))
    a = a[common(a.xy, matrix, *sizes)].strongest(count)
    b = b[common(b.xy, np.linalg.inv(matrix), *sizes[::-1])].strongest(count)
    return repeatability(project(matrix, a.xy), b.xy, radius), len(a), len(b)


TURN = (np.ascontiguousarray(np.rot90(IMAGE, -1)), np.array([[0, -1, 240], [1, 0, 0], [0, 0, 1.0]]))


@pytest.mark.parametrize(
    ("change", "radius", "sift", "harris", "tolerance"),
    [
        ((IMAGE, np.eye(3)), 0.01, 1.0, 1.0, 0),
        # measured elsewhere with the biased upscaling: .937; without it nearly all come back
        (TURN, 1, 0.99, 1.0, 0.012),
        (changes.bias(IMAGE, 40), 1, 1.0, 1.0, 0.005),
        (changes.scale(IMAGE, 0.5), 3, 0.78, None, 0.04),
        (changes.scale(IMAGE, 0.75), 3, 0.88, None, 0.04),
        (changes.scale(IMAGE, 1.5), 3, 0.86, None, 0.04),
        (changes.scale(IMAGE, 2), 3, 0.87, None, 0.04),
        (changes.gain(IMAGE, 1.2), 1, 0.92, 0.98, 0.03),
    ],
    ids=["identity", "quarter turn", "bias", "0.5", "0.75", "1.5", "2", "gain"],
)
def test_measured_invariances(change, radius: float, sift: float, harris: float | None, tolerance: float) -> None:
    """Symmetric repeatability, measured before with OpenCV on another sample of such noise; hence the tolerance."""
    figures, _, _ = seen(SIFT(), IMAGE, *change, None, radius)
    assert figures["repeatability_symmetric"] == pytest.approx(sift, abs=tolerance)
    if harris is not None:
        figures, _, _ = seen(Harris(), IMAGE, *change, 300, radius)
        assert figures["repeatability"] == pytest.approx(harris, abs=tolerance)


def test_harris_is_invariant_to_a_darker_image_and_sift_is_not() -> None:
    """SIFT's contrast threshold is absolute: most points are lost, and the others are found again."""
    dark = changes.gain(IMAGE, 0.5)
    figures, n, m = seen(SIFT(), IMAGE, *dark, None, 1)
    assert m < 0.5 * n
    assert figures["repeatability_symmetric"] == pytest.approx(2 * m / (n + m), abs=0.03)
    # halved grey levels are rounded, which moves the order of the weakest of the 300
    assert seen(Harris(), IMAGE, *dark, 300, 1)[0]["repeatability"] > 0.9


def test_harris_is_not_invariant_to_scale() -> None:
    """At equal numbers of points on images twice as large, SIFT finds more of them again."""
    twice = changes.scale(IMAGE, 2)
    harris, sift = (seen(d, IMAGE, *twice, 300, 3)[0]["repeatability"] for d in (Harris(), SIFT()))
    assert harris < sift - 0.1
