"""Figures draw the values they are given at the right places."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Circle
from matplotlib.quiver import Quiver
from scipy import stats

from kplab.structures.skeleton import Skeleton
from kplab.viz import compare, curves, fields, look

SKELETON = Skeleton("two", ("nose", "tail"), (), (0, 1), (0.1, 0.1), "made up")


def pixels(figure: look.Plot) -> np.ndarray:
    """(H, W) grey levels of a rendered figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(np.float64).mean(-1)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 7), (11, 15)])
def test_a_lit_cell_of_a_map_lies_on_its_pixels_of_the_image(row: int, column: int) -> None:
    stride = 4
    image = np.zeros((48, 64, 3), dtype=np.uint8)
    maps = np.zeros((2, 12, 16))
    dark = fields.heatmaps(image, maps, SKELETON.keypoints, stride, top=1.0)
    maps[1, row, column] = 1.0
    lit = fields.heatmaps(image, maps, SKELETON.keypoints, stride, top=1.0)
    # titles state the peaks and differ too: only the inside of the panels is compared
    change = np.abs(pixels(lit) - pixels(dark))
    for panel, expected in zip(lit.axes, (True, False, True), strict=True):
        box = panel.get_window_extent()
        y, x = np.mgrid[: change.shape[0], : change.shape[1]] + 0.5
        y = change.shape[0] - y
        inside = np.where((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1), change, 0.0)
        assert (inside.sum() > 0) == expected
        if expected:
            place = np.array([(inside * x).sum(), (inside * y).sum()]) / inside.sum()
            drawn = panel.transData.inverted().transform(place)
            # one dot of the figure is about a third of a pixel of this image
            np.testing.assert_allclose(drawn, [(column + 0.5) * stride, (row + 0.5) * stride], atol=0.5)


def test_heatmaps_state_their_peaks_and_need_one_map_per_keypoint() -> None:
    maps = np.zeros((2, 12, 16))
    maps[1, 2, 3] = 0.75
    image = np.zeros((48, 64, 3), dtype=np.uint8)
    titles = [panel.get_title(loc="left") for panel in fields.heatmaps(image, maps, SKELETON.keypoints, 4).axes]
    assert titles == ["all 0.75", "nose 0.00", "tail 0.75"]
    with pytest.raises(ValueError, match=r"2 titles, but one title for each map"):
        fields.heatmaps(image, maps[:1], SKELETON.keypoints, 4)


def test_vectors_point_where_the_field_points() -> None:
    """Arrows start at the centre of their cell, and opposite directions have opposite hues."""
    maps = np.zeros((2, 2, 12, 16))
    maps[0, :, 2, 3] = [1.0, 0.0]
    maps[1, :, 5, 6] = [0.0, -0.6]
    plot = fields.vectors(np.zeros((48, 64, 3), dtype=np.uint8), maps, ["right", "up"], 4)
    right, up = (panel.collections[0] for panel in plot.axes)
    assert isinstance(right, Quiver)
    assert isinstance(up, Quiver)
    np.testing.assert_allclose([*right.XY[0], *up.XY[0]], [14, 10, 26, 22])
    np.testing.assert_allclose([right.U[0], right.V[0], up.U[0], up.V[0]], [1, 0, 0, -0.6])
    assert [panel.get_title(loc="left") for panel in plot.axes] == ["right 1.00", "up 0.60"]
    painted = [np.asarray(panel.images[1].get_array()) for panel in plot.axes]
    assert [p[..., 3].astype(bool).sum() for p in painted] == [1, 1]
    assert not np.allclose(painted[0][2, 3, :3], painted[1][5, 6, :3], atol=0.2)
    with pytest.raises(ValueError, match="1 titles"):
        fields.vectors(np.zeros((48, 64, 3), dtype=np.uint8), maps, ["right"], 4)


def test_links_run_from_start_to_end_and_strong_ones_are_plain() -> None:
    """One panel a group; nothing to link is an empty panel, not an error."""
    none = np.zeros((0, 2))
    groups = {
        "limb": (np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 6.0], [7.0, 8.0]]), np.array([0.2, 1.0])),
        "nothing": (none, none, np.zeros(0)),
    }
    plot = fields.links(np.zeros((48, 64, 3), dtype=np.uint8), groups)
    first, second, dots = plot.axes[0].lines
    np.testing.assert_allclose(first.get_xydata(), [[1, 2], [5, 6]])
    np.testing.assert_allclose(second.get_xydata(), [[3, 4], [7, 8]])
    np.testing.assert_allclose(dots.get_xydata(), [[1, 2], [3, 4]])
    assert float(first.get_alpha() or 0) < float(second.get_alpha() or 0)
    assert [panel.get_title(loc="left") for panel in plot.axes] == ["limb (2)", "nothing (0)"]


def test_interest_points_are_circles_and_point_where_they_look() -> None:
    """A quarter turn from x leads down, towards y; a point without a direction has no radius drawn."""
    xy, size = np.array([[10.0, 20.0], [30.0, 15.0]]), np.array([8.0, 4.0])
    plot = fields.points(np.zeros((48, 64, 3), dtype=np.uint8), {"SIFT": (xy, size, np.array([90.0, np.nan]))})
    (panel,) = plot.axes
    circles = [p for p in panel.patches if isinstance(p, Circle)]
    assert [(*c.center, c.radius) for c in circles] == [(10, 20, 4), (30, 15, 2)]
    (radius,) = panel.lines
    np.testing.assert_allclose(radius.get_xydata(), [[10, 20], [10, 24]], atol=1e-9)


def test_training_curves_sort_columns_by_kind_and_average_within_an_epoch() -> None:
    frame = pd.DataFrame(
        {
            "epoch": [1, 1, 2, 2],
            "step": [0, 1, 2, 3],
            "train/loss": [4.0, 2.0, 1.0, 1.0],
            "train/heatmap": [3.0, 1.0, 0.5, 0.5],
            "val/loss": [np.nan, 2.5, np.nan, 1.5],
            "lr-AdamW": [0.1, 0.1, 0.05, 0.05],
            "val/AP": [np.nan, 0.2, np.nan, 0.4],
            "val/mean_px": [np.nan, 9.0, np.nan, 5.0],
            "val/nothing": [np.nan] * 4,
        }
    )
    loss, metric, error, rate = curves.training(frame).axes
    shown = {str(line.get_label()): line.get_ydata().tolist() for p in (loss, metric, error, rate) for line in p.lines}
    assert shown == {
        "train/loss": [3.0, 1.0],
        "train/heatmap": [2.0, 0.5],
        "val/loss": [2.5, 1.5],
        "val/AP": [0.2, 0.4],
        "val/mean_px": [9.0, 5.0],
        "lr-AdamW": [0.1, 0.05],
    }
    # epochs are counted from 1
    assert [line.get_xdata().tolist() for line in metric.lines] == [[1, 2]]
    assert len(loss.lines) == 3
    assert [line.get_label() for line in metric.lines] == ["val/AP"]
    assert [line.get_label() for line in error.lines] == ["val/mean_px"]


def test_training_curves_name_what_is_missing() -> None:
    with pytest.raises(ValueError, match="'epoch' is missing"):
        curves.training(pd.DataFrame({"loss": [1.0]}))
    with pytest.raises(ValueError, match="no numbers besides the epoch"):
        curves.training(pd.DataFrame({"epoch": [1], "step": [1]}))
    with pytest.raises(ValueError, match="count epochs from 0"):
        curves.training(pd.DataFrame({"epoch": [0, 1], "train/loss": [2.0, 1.0]}))


def test_pck_curves_are_drawn_as_given() -> None:
    thresholds = np.linspace(0, 0.5, 6)
    (panel,) = curves.pck([("a", thresholds, thresholds * 2), ("b", thresholds, thresholds)]).axes
    assert [line.get_ydata().tolist() for line in panel.lines] == [(thresholds * 2).tolist(), thresholds.tolist()]
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["a", "b"]


def test_intervals_are_drawn_in_the_row_of_their_run_and_the_panel_of_their_metric() -> None:
    values = np.array([[0.7, 3.0], [0.8, 2.0]])
    plot = compare.intervals(["first", "second"], values, values - 0.1, values + 0.2, ["AP", "px"], reference=0.0)
    for m, panel in enumerate(plot.axes):
        dots = [(line.get_xdata()[0], line.get_ydata()[0]) for line in panel.lines if line.get_marker() == "o"]
        assert dots == [(values[0, m], 0), (values[1, m], 1)]
        whiskers = [segment[:, 0] for c in panel.collections for segment in c.get_segments()]
        np.testing.assert_allclose(whiskers, np.stack([values[:, m] - 0.1, values[:, m] + 0.2], axis=1))
        assert any(set(line.get_xdata()) == {0.0} for line in panel.lines if line.get_marker() != "o")
    assert [t.get_text() for t in plot.axes[0].get_yticklabels()] == ["first", "second"]
    assert plot.axes[0].get_ylim()[0] > plot.axes[0].get_ylim()[1], "the first run is on top"
    with pytest.raises(ValueError, match=r"\(2, 2\) is wanted"):
        compare.intervals(["first", "second"], values[0], values[0], values[0], ["AP", "px"])


def test_errors_by_keypoint_are_drawn_for_each_run() -> None:
    errors = {"a": np.array([1.0, np.nan]), "b": np.array([2.0, 3.0])}
    (panel,) = compare.per_keypoint(SKELETON.keypoints, errors).axes
    np.testing.assert_array_equal([line.get_xdata() for line in panel.lines], list(errors.values()))
    with pytest.raises(ValueError, match="run 'a' has errors of shape"):
        compare.per_keypoint(["nose"], errors)


def test_the_distribution_of_errors_agrees_with_scipy() -> None:
    errors = np.random.default_rng(0).lognormal(size=200)
    (panel,) = compare.error_cdf({"a": np.append(errors, np.nan)}).axes
    (line,) = panel.lines
    oracle = stats.ecdf(errors).cdf
    np.testing.assert_allclose(line.get_xdata(), oracle.quantiles)
    np.testing.assert_allclose(line.get_ydata(), oracle.probabilities)
    assert line.get_label() == f"a (median {np.median(errors):.3g})"


def test_missed_keypoints_count_in_the_distribution() -> None:
    (panel,) = compare.error_cdf({"a": np.array([1.0, 2.0, 3.0, np.inf]), "nothing": np.array([np.nan])}).axes
    (line,) = panel.lines
    assert line.get_ydata().tolist() == [0.25, 0.5, 0.75]
    assert line.get_label() == "a (median 2, 25.0% missed)"


def test_all_figures_of_a_comparison_are_written(tmp_path: Path) -> None:
    values = pd.DataFrame(
        [
            ("b", "px", 2.0, 1.0, 3.0),
            ("a", "AP", 0.7, 0.6, 0.8),
            ("a", "px", 4.0, 3.0, 5.0),
            ("b", "AP", np.nan, np.nan, np.nan),
        ],
        columns=["run", "metric", "value", "low", "high"],
    )
    differences = pd.DataFrame(
        [("a", "b", "px", 2.0, 1.0, 3.0)], columns=["a", "b", "metric", "difference", "low", "high"]
    )
    by_keypoint = pd.DataFrame({"keypoint": ["nose", "tail"], "a": [1.0, 2.0], "b": [3.0, np.nan]})
    keypoints = {run: pd.DataFrame({"visible": [2, 1, 0, 2], "error_px": [1.0, 2.0, 50.0, np.nan]}) for run in "ab"}
    paths = compare.write_all(values, differences, by_keypoint, keypoints, tmp_path)
    assert [p.name for p in paths] == ["intervals.png", "differences.png", "per_keypoint.png", "error_cdf.png"]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in paths)
    assert len(compare.write_all(values, differences[:0], by_keypoint, keypoints, tmp_path)) == 3

    titles = {"AP": "AP", "px": "px ↓"}
    plot = compare._of_table(values, "value", None, titles)
    runs = [t.get_text() for t in plot.axes[0].get_yticklabels()]
    for panel in plot.axes:
        metric = {title: name for name, title in titles.items()}[panel.get_title(loc="left")]
        wanted = values[values["metric"] == metric].set_index("run")["value"].loc[runs]
        np.testing.assert_equal([line.get_xdata()[0] for line in panel.lines], wanted.tolist())


def test_drawing_leaves_pyplot_alone() -> None:
    from matplotlib import _pylab_helpers

    compare.per_keypoint(["nose"], {"a": np.array([1.0])})
    assert not _pylab_helpers.Gcf.figs


def test_the_path_of_a_keypoint_is_drawn_over_time_and_in_the_image() -> None:
    """Both axes by time, the truth beside them; gaps stay gaps, and y points down as in the image."""
    times = np.arange(5) / 10
    xy, true = np.stack([times * 10, 5 - times], axis=1), np.full((5, 2), 3.0)
    xy[2] = np.nan
    plot = curves.path(times, xy, true, "snout")
    x, y, image = plot.axes
    for panel, axis in ((x, 0), (y, 1)):
        truth, found = panel.lines
        assert np.array_equal(found.get_xydata(), np.stack([times, xy[:, axis]], axis=1), equal_nan=True)
        assert np.array_equal(truth.get_ydata(), true[:, axis])
    assert np.array_equal(image.lines[1].get_xydata(), xy, equal_nan=True)
    assert image.yaxis_inverted()
    assert x.get_title(loc="left") == "snout x"
    assert len(curves.path(times, xy).axes[0].lines) == 1


def test_one_heatmap_covers_the_image_and_states_its_peak() -> None:
    values = np.zeros((4, 6))
    values[1, 2] = 0.5
    plot = fields.heatmap(np.zeros((16, 24, 3), dtype=np.uint8), values, "nose", 4)
    (panel,) = plot.axes
    assert panel.get_title(loc="left") == "nose 0.50"
    assert tuple(panel.images[1].get_extent()) == (0, 24, 16, 0)
    assert panel.images[1].get_array()[1, 2] == 0.5  # a low peak is not drawn as a sure one
