"""Feedback is drawn where it belongs."""

from __future__ import annotations

import numpy as np
import pytest

from kplab.viz import feedback

GREY = np.full((200, 200, 3), 128, dtype=np.uint8)
RED = (255, 0, 0)


@pytest.mark.parametrize("turn", [0.0, 100.0, 200.0, 300.0])
def test_a_sector_fills_the_angle_and_nothing_else(turn: float) -> None:
    """Between the limbs, in any direction: the bisector is coloured, the opposite side and the outside of it are not."""
    towards = lambda degrees, r: 100 + r * np.array([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))])  # noqa: E731
    xy = np.array([[towards(turn, 60), [100.0, 100.0], towards(turn + 80, 60)]])
    drawn = feedback.arcs(GREY, xy, [""], [RED], radius=20)
    changed = lambda degrees, r: (drawn[tuple(towards(degrees, r)[::-1].astype(int))] != 128).any()  # noqa: E731
    assert changed(turn + 40, 12)
    assert changed(turn + 10, 15)
    assert not changed(turn + 40, 26)
    assert not changed(turn + 220, 12)
    assert not changed(turn - 20, 15)
    assert not changed(turn + 100, 15)


def test_an_angle_that_was_not_seen_is_not_drawn() -> None:
    xy = np.full((1, 3, 2), 50.0)
    xy[0, 2] = np.nan
    np.testing.assert_array_equal(feedback.arcs(GREY, xy, ["90°"], [RED]), GREY)


def test_lines_are_on_a_dark_strip_that_fits_the_picture() -> None:
    """The mark of each line has its colour; a line that is too long is cut at the edge, and the rest is unchanged."""
    drawn = feedback.captioned(GREY, [("one", RED), ("two " * 40, (0, 255, 0))], size=16)
    assert drawn.shape == GREY.shape
    assert tuple(drawn[16, 12]) == RED
    assert tuple(drawn[40, 12]) == (0, 255, 0)
    assert (drawn[80:] == 128).all()
    np.testing.assert_array_equal(feedback.captioned(GREY, []), GREY)
    assert (GREY == 128).all()


def test_a_signal_has_its_band_thresholds_and_stretches() -> None:
    t = np.linspace(0, 1, 20)
    plot = feedback.signal(t, {"a": (t, 0 * t + 1)}, true=t, lines=(0.2, 0.8), spans=[(0.1, 0.3)], reference="wanted")
    (panel,) = plot.axes
    assert [line.get_label() for line in panel.lines[:2]] == ["wanted", "a"]
    assert len(panel.lines) == 4
    band = panel.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (-2, 3)
