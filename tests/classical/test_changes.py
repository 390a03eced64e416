"""The pixels of changed images agree with their homographies."""

from __future__ import annotations

import numpy as np
import pytest

from kplab.classical.changes import CHANGES, perspective
from kplab.errors import ConfigError
from kplab.metrics.repeatability import project

GEOMETRIC = [("rotation", s) for s in (10, 90, -135)] + [("scale", s) for s in (0.35, 0.5, 1.3, 2)]
GEOMETRIC += [("perspective", s) for s in (15, 50, -40)]


@pytest.mark.parametrize(("name", "strength"), GEOMETRIC)
def test_a_bright_spot_moves_by_the_homography(name: str, strength: float) -> None:
    """Its centre of mass is that of the spot evaluated at every changed pixel's place of origin, to 0.03 px."""
    rows, columns = np.mgrid[:150, :200] + 0.5
    for at in ((90.3, 60.8), (120.0, 85.0)):

        def spot(x: np.ndarray, y: np.ndarray, at: tuple[float, float] = at) -> np.ndarray:
            return 250 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * 4.0**2))

        changed, matrix = CHANGES[name][0](np.round(spot(columns, rows)).astype(np.uint8), strength)
        y, x = np.mgrid[: changed.shape[0], : changed.shape[1]] + 0.5
        origin = project(np.linalg.inv(matrix), np.column_stack([x.ravel(), y.ravel()]))
        wanted = spot(origin[:, 0], origin[:, 1]).reshape(x.shape)
        # beyond the border is the mirror image, including the spot
        inner = ((origin >= 0) & (origin <= [200, 150])).all(1).reshape(x.shape)
        changed, wanted = changed * inner, wanted * inner
        centres = [np.array([(x * w).sum(), (y * w).sum()]) / w.sum() for w in (changed.astype(float), wanted)]
        np.testing.assert_allclose(centres[0], centres[1], atol=0.03)
        # foreshortening weighs the near side more, by less than half a pixel
        np.testing.assert_allclose(centres[0], project(matrix, np.array([at]))[0], atol=0.5)


def test_perspective_rotates_the_right_side_away() -> None:
    """At 60 degrees the right edge is further away and shorter; the middle does not move."""
    _, matrix = perspective(np.zeros((100, 100), np.uint8), 60)
    corners = project(matrix, np.array([[0, 0], [0, 100], [100, 0], [100, 100], [50, 50]], dtype=float))
    left, right = corners[1, 1] - corners[0, 1], corners[3, 1] - corners[2, 1]
    # seen from the distance of an image's width, its ends are at 1 -+ sin(60) / 2
    assert left == pytest.approx(100 / (1 - np.sin(np.pi / 3) / 2))
    assert right == pytest.approx(100 / (1 + np.sin(np.pi / 3) / 2))
    np.testing.assert_allclose(corners[4], 50)


def test_light_and_noise_have_the_requested_strength() -> None:
    """Without a wrap at 0 and 255; noise of the same seed is the same."""
    image = np.full((200, 200, 3), 100, np.uint8)
    assert CHANGES["gain"][0](image, 0.5)[0].mean() == 50
    assert CHANGES["gain"][0](image, 4)[0].mean() == 255
    assert CHANGES["bias"][0](image, -120)[0].mean() == 0
    noisy = CHANGES["noise"][0](image, 10)[0]
    assert noisy.std() == pytest.approx(10, rel=0.02)
    assert (noisy == CHANGES["noise"][0](image, 10)[0]).all()
    for name in ("blur", "noise", "gain", "bias", "jpeg"):
        changed, matrix = CHANGES[name][0](image, 3)
        assert changed.shape == image.shape
        assert changed.dtype == np.uint8
        assert (matrix == np.eye(3)).all()


def test_the_error_grows_as_jpeg_quality_falls() -> None:
    """Mean error against the unchanged image."""
    image = np.random.default_rng(1).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    errors = [np.abs(CHANGES["jpeg"][0](image, q)[0].astype(int) - image).mean() for q in (95, 50, 10)]
    assert errors == sorted(errors)
    assert errors[0] < errors[-1]


@pytest.mark.parametrize(("name", "strength"), [("perspective", 90), ("jpeg", 0)])
def test_impossible_strengths_are_refused(name: str, strength: float) -> None:
    """The message gives the valid range."""
    with pytest.raises(ConfigError, match="Use "):
        CHANGES[name][0](np.zeros((8, 8), np.uint8), strength)
