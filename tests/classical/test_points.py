"""Sorted points, locations with several orientations, subpixel peaks, directions of the brightness centroid."""

from __future__ import annotations

import numpy as np
import pytest

from kplab.classical.points import Points, centroid_angles, peaks


def test_a_location_with_two_orientations_is_one_point() -> None:
    """Counted once, kept with all its rows, and separate from a location of another size at the same position."""
    xy = np.array([[5, 5], [9, 9], [5, 5], [5, 5], [20, 1]])
    points = Points.make(xy, [0.5, 0.9, 0.5, 0.5, 0.1], [4, 4, 4, 8, 4], [10, 0, 200, 10, 0])
    assert points.score.tolist() == [0.9, 0.5, 0.5, 0.5, 0.1]
    assert points.place.tolist() == [0, 1, 1, 2, 3]
    assert points.distinct().size.tolist() == [4, 4, 8, 4]
    assert points.strongest(2).angle.tolist() == [0, 10, 200]
    assert points.best(3).tolist() == [0, 1, 2, 3]
    assert Points.make(np.zeros((0, 2)), [], []).place.tolist() == []


def test_suppression_is_greedy() -> None:
    """A point suppressed by a stronger one does not suppress a third (on a line: 0, 3, 6 with radius 4)."""
    points = Points.make(np.array([[0, 0], [3, 0], [6, 0], [30, 0]]), [3.0, 2.0, 1.0, 0.5], np.full(4, 8.0))
    assert points.strongest(radius=4).xy[:, 0].tolist() == [0, 6, 30]
    assert points.strongest(count=2, radius=4).xy[:, 0].tolist() == [0, 6]
    assert len(points.strongest()) == 4


def test_peaks_of_a_quadratic_are_exact() -> None:
    """A turned paraboloid is its own quadratic fit: 1e-4 cells is float32 of values near 100."""
    rows, columns = np.mgrid[:40, :60] + 0.5
    for x, y in ((20.5, 17.5), (20.73, 17.31), (20.02, 17.95)):
        dx, dy = columns - x, rows - y
        xy, value = peaks(100 - 1.0 * dx**2 - 0.7 * dy**2 - 0.5 * dx * dy, 0.0)
        np.testing.assert_allclose(xy, [[x, y]], atol=1e-4)
        assert value[0] > 99


def test_equal_cells_are_one_peak_half_way() -> None:
    """Two equal cells side by side; a plateau gives one point, flat ground and the border none."""
    response = np.zeros((9, 9))
    response[4, 4] = response[4, 5] = 1
    assert peaks(response, 0.1)[0].tolist() == [[5.0, 4.5]]
    assert len(peaks(np.ones((9, 9)), 1.0)[0]) == 0
    response = np.zeros((9, 9))
    response[0, 4] = response[4, 8] = 1
    assert len(peaks(response, 0.1)[0]) == 0


@pytest.mark.parametrize("degrees", [0, 37, 90, 200, 315])
def test_the_angle_is_the_direction_of_increasing_brightness(degrees: float) -> None:
    """A ramp's centroid lies up the ramp; half a degree is the rounding to grey levels."""
    rows, columns = np.mgrid[:61, :61] - 30.0
    a = np.deg2rad(degrees)
    ramp = np.round(127 + 2 * (columns * np.cos(a) + rows * np.sin(a))).astype(np.uint8)
    (found,) = centroid_angles(ramp, np.array([[30.5, 30.5]]), 12)
    assert abs((found - degrees + 180) % 360 - 180) < 0.5
