"""Pixel errors and PCK on tables that can be checked by hand, and properties that hold for all."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kplab.metrics import pck as m
from kplab.metrics import statistics

NAMES = ["eye-l", "eye-r", "tail"]


def table(errors: list[list[float]], visible: list[list[int]], gap: list[float]) -> pd.DataFrame:
    """Instances of three keypoints whose first two are ``gap`` apart, in boxes of 30 x 40."""
    n = len(errors)
    x = np.array([[0.0, g, 5.0] for g in gap])
    x[np.array(visible) == 0] = np.nan
    error = np.where(np.array(visible) > 0, np.array(errors, dtype=float), np.nan)
    return pd.DataFrame(
        {
            "image_id": np.repeat(np.arange(n), 3),
            "instance": 0,
            "keypoint": pd.Categorical.from_codes(np.tile([0, 1, 2], n), NAMES),
            "visible": np.ravel(visible),
            "true_x": x.ravel(),
            "true_y": np.where(np.isnan(x), np.nan, 0.0).ravel(),
            "error_px": error.ravel(),
            "box_diagonal": 50.0,
            "box_longer_side": 40.0,
        }
    )


TABLE = table(
    errors=[[1.0, 2.0, 4.0], [3.0, 8.0, np.nan], [np.nan, np.nan, np.nan]],
    visible=[[2, 2, 1], [2, 0, 2], [2, 2, 2]],
    gap=[10.0, 20.0, 40.0],
)


def test_pixel_errors_by_hand():
    settings = {"pck_thresholds": [0.05, 0.1], "auc_range": (0.0, 0.2), "nme_pair": "eye-l-eye-r"}
    got = m.errors_of(m.with_relative_errors(TABLE, "box_longer_side", "eye-l-eye-r"), settings)
    # labelled: 1, 2, 4, 3, three of the missed instance, and the tail that instance 1 was predicted without
    assert (got["n_keypoints"], got["n_keypoints_missed"]) == (8, 4)
    assert got["mean_px"] == 2.5
    assert got["median_px"] == 2.5
    assert got["rmse_px"] == pytest.approx(np.sqrt(30 / 4))
    assert got["nme_box_diagonal"] == pytest.approx(2.5 / 50)
    assert got["pck@0.05"] == 2 / 8, "error 2 of 40 is 0.05 exactly, and counts"
    assert got["pck@0.1"] == 4 / 8
    assert got["auc"] == pytest.approx((4 * 0.2 - (1 + 2 + 3 + 4) / 40) / 0.2 / 8)
    assert got["nme"] == pytest.approx((1 + 2 + 4) / 10 / 3), "the pair of instance 1 is not labelled"
    assert (got["nme_left_out"], got["pck_left_out"]) == (1, 0)


def test_pooled_and_macro_differ_and_are_named():
    full = m.with_relative_errors(TABLE, "pixels")
    settings = {"pck_thresholds": [2.0], "auc_range": (0.0, 10.0)}
    per_keypoint = m.by_keypoint(full, settings)
    assert per_keypoint["keypoint"].tolist() == NAMES
    assert per_keypoint["mean_px"].tolist() == [2.0, 2.0, 4.0]
    assert per_keypoint["pck@2"].tolist() == [1 / 3, 1 / 2, 0]
    macro = m.macro(per_keypoint, settings)
    assert macro["mean_px_macro"] == pytest.approx(8 / 3)
    assert macro["pck@2_macro"] == pytest.approx(5 / 18)
    assert m.errors_of(full, settings)["pck@2"] == pytest.approx(2 / 8)


def test_keypoint_pair_as_normalizer():
    assert m.keypoint_pair("eye-l-eye-r", NAMES) == ("eye-l", "eye-r")
    relative = m.relative_error(TABLE, "eye-l-eye-r")
    np.testing.assert_allclose(relative[:3], [0.1, 0.2, 0.4])
    assert np.isnan(relative[3:6]).all()
    assert np.isinf(relative[6:]).all()
    settings = {"pck_thresholds": [0.1], "auc_range": (0, 1)}
    left_out = m.errors_of(m.with_relative_errors(TABLE, "eye-l-eye-r"), settings)["pck_left_out"]
    assert left_out == 2


@pytest.mark.parametrize("name", ["torso", "eye-l-nose", "tail-tail", ""])
def test_unknown_normalizer_is_refused(name: str):
    with pytest.raises(ValueError, match=r"is not a pair of keypoints.*eye-l, eye-r, tail.*box_longer_side"):
        m.normalizer(TABLE, name)


def test_no_box_leaves_out_and_counts():
    without = TABLE.assign(box_longer_side=np.nan)
    settings = {"pck_thresholds": [0.1], "auc_range": (0.0, 0.2)}
    got = m.errors_of(m.with_relative_errors(without, "box_longer_side"), settings)
    assert np.isnan(got["pck@0.1"])
    assert got["pck_left_out"] == 8
    assert got["mean_px"] == 2.5


errors = arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 2) | st.just(np.inf) | st.just(np.nan))


@given(errors, st.floats(0, 1), st.floats(0, 1))
def test_pck_grows_with_the_threshold(relative: np.ndarray, a: float, b: float):
    low, high = statistics.pck(relative, min(a, b)), statistics.pck(relative, max(a, b))
    assert np.isnan(relative).all() or 0 <= low <= high <= 1


@given(errors, st.floats(0, 0.5), st.floats(0.01, 1))
def test_auc_is_the_area_under_pck(relative: np.ndarray, low: float, width: float):
    if np.isnan(relative).all():
        assert np.isnan(statistics.auc(relative, low, low + width))
        return
    counted = relative[~np.isnan(relative)]
    edges = np.unique(np.clip(np.concatenate([[low, low + width], counted]), low, low + width))
    steps = sum(statistics.pck(relative, a) * (b - a) for a, b in pairwise(edges))
    assert statistics.auc(relative, low, low + width) == pytest.approx(steps / (edges[-1] - edges[0]), abs=1e-9)


def test_auc_needs_a_range():
    with pytest.raises(ValueError, match=r"\(0.2, 0.2\)"):
        statistics.auc(np.zeros(1), 0.2, 0.2)
