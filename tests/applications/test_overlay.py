"""Homographies and poses in space against exact ones, and jitter against its formula."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from kplab.applications import overlay
from kplab.apps.films import turning_head
from kplab.errors import DataError
from kplab.synthetic.figure import turn
from kplab.synthetic.film import Film

#: A homography with strong perspective.
TILTED = np.array([[0.9, 0.2, 40.0], [-0.1, 1.1, 25.0], [0.0008, 0.0005, 1.0]])
#: From the renderer's axes (y up, z towards the camera) to the camera's (y down, z away from it).
AXES = np.diag([1.0, -1.0, -1.0])


@pytest.fixture(scope="module")
def head() -> tuple[Film, np.ndarray, list[np.ndarray]]:
    """A head that turns, its landmarks in its own axes, and its exact rotations."""
    a = np.linspace(0, 6, 12)
    angles = np.stack([25 * np.sin(a), 12 * np.cos(a), 8 * np.sin(2 * a)], axis=-1)
    return *turning_head(angles), [turn(z=r) @ turn(x=p) @ turn(y=y) for y, p, r in angles.tolist()]


def test_the_projection_of_a_film_is_its_camera(head: tuple[Film, np.ndarray, list[np.ndarray]]) -> None:
    clip = head[0]
    for i in (0, 5):
        points = np.column_stack([clip.points[i], np.ones(68)]) @ clip.projection(i).T
        np.testing.assert_allclose(points[:, :2] / points[:, 2:], clip.xy[i], atol=1e-9)
        away = np.array([0, 0, clip.cameras[i].distance])
        seen = (clip.points[i] @ AXES + away) @ clip.camera_matrix(i).T
        np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], clip.xy[i], atol=1e-9)


def test_the_pose_of_a_head_is_recovered(head: tuple[Film, np.ndarray, list[np.ndarray]]) -> None:
    """Exactly without errors; with 1 px on 68 landmarks (a head of 200 px) to half a degree on average."""
    clip, model, turns = head
    camera = clip.camera_matrix(0)
    rng, errors = np.random.default_rng(0), []
    for i, exact in enumerate(turns):
        pose = overlay.camera_pose(model, clip.xy[i], camera)
        assert pose is not None
        np.testing.assert_allclose(AXES @ pose.rotation, exact, atol=1e-5)
        np.testing.assert_allclose(pose.translation, [0, 0, clip.cameras[0].distance], atol=1e-3)
        np.testing.assert_allclose(pose.project(model), clip.xy[i], atol=1e-3)
        noisy = overlay.camera_pose(model, clip.xy[i] + rng.standard_normal((68, 2)), camera)
        assert noisy is not None
        assert 1.0 < noisy.error < 1.8  # sqrt(2) less six fitted parameters
        errors.append(np.rad2deg(np.linalg.norm(cv2.Rodrigues(noisy.rotation.T @ pose.rotation)[0])))
    assert np.mean(errors) < 0.7


def test_outliers_and_missing_keypoints_do_not_move_the_pose(head: tuple[Film, np.ndarray, list[np.ndarray]]) -> None:
    clip, model, _ = head
    camera, rng = clip.camera_matrix(0), np.random.default_rng(1)
    xy = clip.xy[2] + 0.3 * rng.standard_normal((68, 2))
    xy[::6] += rng.uniform(30, 60, (12, 2))
    xy[1::10] = np.nan
    pose = overlay.camera_pose(model, xy, camera, tolerance=3.0)
    assert pose is not None
    assert np.abs(pose.project(model) - clip.xy[2]).max() < 1.0
    xy[3:] = np.nan
    assert overlay.camera_pose(model, xy, camera) is None
    with pytest.raises(DataError, match="same order"):
        overlay.camera_pose(model[:5], xy, camera)


def test_points_behind_the_camera_have_no_pixels() -> None:
    pose = overlay.CameraPose(np.eye(3), np.array([0.0, 0, 5]), overlay.camera_matrix((640, 480)), 0.0)
    shown = pose.project(np.array([[0.0, 0, 0], [0, 0, -6]]))
    np.testing.assert_allclose(shown[0], [320, 240])
    assert np.isnan(shown[1]).all()
    # a field of view of 60 degrees: the point at 30 degrees is at the edge
    np.testing.assert_allclose(pose.project(np.array([np.tan(np.pi / 6) * 5, 0, 0])), [640, 240])


def test_a_homography_is_recovered_in_spite_of_outliers() -> None:
    rng = np.random.default_rng(0)
    plane = rng.uniform(0, 200, (40, 2))
    xy = overlay.apply(TILTED, plane)
    xy[:10] = rng.uniform(0, 200, (10, 2))
    xy[10:14] = np.nan
    found = overlay.homography(plane, xy)
    np.testing.assert_allclose(overlay.apply(found, plane), overlay.apply(TILTED, plane), atol=1e-6)
    assert np.isnan(overlay.homography(plane[:3], xy[:3])).all()


@pytest.mark.parametrize("count", [9, 100])
def test_random_matches_give_no_homography(count: int) -> None:
    """Nor do matches of which many lead to one point, as those of a repeated texture do: a collapsed map fits them."""
    rng = np.random.default_rng(2)
    plane, xy = rng.uniform(0, 700, (2, count, 2))
    xy[: count // 2] = xy[0] + rng.uniform(-0.5, 0.5, (count // 2, 2))
    assert np.isnan(overlay.homography(plane, xy)).all()


def test_a_homography_maps_as_opencv_does() -> None:
    plane = np.random.default_rng(0).uniform(0, 200, (40, 2))
    np.testing.assert_allclose(overlay.apply(TILTED, plane)[0], cv2.perspectiveTransform(plane[None, :1], TILTED)[0, 0])


def test_a_pasted_pixel_lands_where_its_centre_is_mapped() -> None:
    """To a tenth of a pixel: a bright block of a black picture, and the centroid of what is drawn."""
    picture = np.zeros((120, 160, 3), dtype=np.uint8)
    picture[50:55, 70:75] = 255
    drawn = overlay.paste(np.zeros((240, 320, 3), dtype=np.uint8), picture, TILTED)[..., 0].astype(float)
    y, x = np.mgrid[:240, :320] + 0.5
    centre = np.array([(drawn * x).sum(), (drawn * y).sum()]) / drawn.sum()
    np.testing.assert_allclose(centre, overlay.apply(TILTED, np.array([72.5, 52.5])), atol=0.1)
    image = np.full((240, 320, 3), 9, dtype=np.uint8)
    np.testing.assert_array_equal(overlay.paste(image, picture, np.full((3, 3), np.nan)), image)
    half = overlay.paste(np.full((240, 320, 3), 100, dtype=np.uint8), picture, TILTED, opacity=0.5)
    assert half.min() == 50


def test_jitter_of_independent_errors_is_their_deviation_times_sqrt_12() -> None:
    rng, t = np.random.default_rng(0), np.arange(20_000.0)
    steady = np.stack([3 * t, 100 - 0.5 * t], axis=-1)[:, None]
    assert overlay.jitter(steady) == pytest.approx(0, abs=1e-9)
    assert overlay.jitter(steady + 0.7 * rng.standard_normal(steady.shape)) == pytest.approx(
        0.7 * np.sqrt(12), rel=0.02
    )
    steady[::5] = np.nan
    assert np.isfinite(overlay.jitter(steady))
    assert np.isnan(overlay.jitter(np.full((4, 2, 2), np.nan)))


def one_euro(times: np.ndarray, xy: np.ndarray, cutoff: float = 2.0, beta: float = 0.2) -> np.ndarray:
    """The filter of Casiez, Roussel and Vogel (CHI 2012), written down in its shortest form."""
    out, speed = xy.copy(), np.zeros_like(xy[0])
    alpha = lambda f, hz: 1 / (1 + hz / (2 * np.pi * f))  # noqa: E731
    for t in range(1, len(xy)):
        hz = 1 / (times[t] - times[t - 1])
        speed += alpha(1.0, hz) * ((xy[t] - out[t - 1]) * hz - speed)
        out[t] = out[t - 1] + alpha(cutoff + beta * np.abs(speed), hz) * (xy[t] - out[t - 1])
    return out


def test_smoothing_of_keypoints_lowers_the_jitter_of_the_overlay() -> None:
    """A head that turns slowly, with 1 px errors: jitter falls to a half at least, and the error does not grow."""
    t = np.arange(0, 4, 0.04)
    clip, model = turning_head(np.stack([20 * np.sin(t), 5 * np.cos(t), 0 * t], axis=-1))
    camera = clip.camera_matrix(0)
    noisy = clip.xy + np.random.default_rng(0).standard_normal(clip.xy.shape)
    corners, _ = overlay.box_corners(model.min(0), model.max(0))
    found = {}
    for name, xy in {"true": clip.xy, "raw": noisy, "smooth": one_euro(t, noisy)}.items():
        seen = [overlay.camera_pose(model, frame, camera) for frame in xy]
        found[name] = np.array([pose.project(corners) for pose in seen if pose is not None])
    raw, smooth, true = (overlay.jitter(found[name]) for name in ("raw", "smooth", "true"))
    assert true < 0.1 < smooth < raw / 2
    error = {name: np.linalg.norm(found[name] - found["true"], axis=-1).mean() for name in ("raw", "smooth")}
    assert error["smooth"] < error["raw"]


def test_sift_matches_find_the_published_homographies(real_data: Path) -> None:
    """Graffiti 1 to 3, by 30 degrees: the corners of the wall within 3 px of where the published homography maps them.

    From 1 to 6, by 60 degrees, nearly all matches are wrong, and none is found.
    """
    folder = real_data / "oxford_graf"
    if not folder.is_dir():
        pytest.skip("needs oxford_graf in KPLAB_DATA")
    sift = cv2.SIFT_create(2000)
    described = [sift.detectAndCompute(cv2.imread(str(folder / f"img{k}.png"), 0), None) for k in (1, 3, 6)]
    corners = np.array([[100.0, 100], [700, 100], [700, 540], [100, 540]])
    for k, (others, theirs) in zip((3, 6), described[1:], strict=True):
        points, words = described[0]
        pairs = cv2.BFMatcher().knnMatch(words, theirs, k=2)
        good = [a for a, b in pairs if a.distance < 0.75 * b.distance]
        plane = np.array([points[m.queryIdx].pt for m in good]) + 0.5
        xy = np.array([others[m.trainIdx].pt for m in good]) + 0.5
        found = overlay.homography(plane, xy)
        if k == 6:
            assert np.isnan(found).all()
            continue
        # the published map is of pixel indices
        true = overlay.apply(np.loadtxt(folder / f"H1to{k}p"), corners - 0.5) + 0.5
        assert np.linalg.norm(overlay.apply(found, corners) - true, axis=-1).max() < 3.0
