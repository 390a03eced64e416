"""OKS against COCO's figures and pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.cocoeval import COCOeval

from kplab.ops.oks import oks, oks_of_pairs

COCO_SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000


def poses(seed: int, n: int, k: int = 17) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 100, (n, k, 2))


def test_golden_shift_of_ten_pixels():
    """All joints 10 px off at area 1e4: measured with pycocotools 2.0.11; sigma for 2 sigma gives .3311."""
    true = poses(0, 1)
    got = oks(true + np.array([6.0, 8.0]), true, np.full((1, 17), 2), np.array([1e4]), COCO_SIGMAS)
    assert got[0, 0] == pytest.approx(0.6469947651308043, abs=1e-12)


@pytest.mark.parametrize("k", [1, 4, 17, 133])
def test_equals_pycocotools_to_the_last_bit(k: int):
    """Any number of labelled keypoints, none included, where the box counts: a pose inside it, in its margin and outside."""
    rng = np.random.default_rng(k)
    sigmas = rng.uniform(0.02, 0.1, k)
    xy, true = poses(2, 12, k), poses(3, 40, k)
    visible = rng.integers(0, 3, (40, k)) * (rng.uniform(size=(40, k)) < rng.choice([0.0, 0.4, 1.0], (40, 1)))
    area = rng.uniform(500, 2e4, 40)
    box = np.concatenate([rng.uniform(0, 60, (40, 2)), rng.uniform(10, 40, (40, 2))], axis=1)
    evaluation = COCOeval(iouType="keypoints")
    evaluation.params.kpt_oks_sigmas = sigmas
    flat = lambda p, v: np.concatenate([p, v[:, None]], axis=1).ravel().tolist()  # noqa: E731
    evaluation._gts = {
        (1, 1): [
            {"keypoints": flat(p, v), "area": a, "bbox": b}
            for p, v, a, b in zip(true, visible, area, box.tolist(), strict=True)
        ]
    }
    evaluation._dts = {(1, 1): [{"keypoints": flat(p, np.ones(k)), "score": 1.0 - i / 20} for i, p in enumerate(xy)]}
    want = evaluation.computeOks(1, 1)
    i, j = np.indices(want.shape).reshape(2, -1)
    box[:, 2:] += box[:, :2]
    got = oks_of_pairs(xy, true, visible, area, sigmas, i, j, box).reshape(want.shape)
    some = visible.any(1)
    assert 0 < some.sum() < 40
    np.testing.assert_array_equal(got[:, some], want[:, some])
    # the far corner of a box in COCO's files is rounded when ours is made
    np.testing.assert_allclose(got[:, ~some], want[:, ~some], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(oks(xy, true, visible, area, sigmas)[:, some], want[:, some])


def test_distance_for_half_similarity():
    """An ankle has similarity .5 at .210 sqrt(area), from metrics tables of COCO: sqrt(2 ln 2) * 2 sigma."""
    true = np.zeros((1, 1, 2))
    off = np.array([[[np.sqrt(2 * np.log(2)) * 2 * 0.089 * 100, 0.0]]])
    assert off[0, 0, 0] == pytest.approx(21.0, abs=0.05)
    assert oks(off, true, np.array([[1]]), np.array([1e4]), np.array([0.089]))[0, 0] == pytest.approx(0.5, abs=1e-12)


def test_unlabelled_and_missing_points():
    true = poses(4, 2, 3)
    true[0, 1] = np.nan
    visible = np.array([[2, 0, 1], [0, 0, 0]])
    xy = np.where(np.isnan(true), 7.0, true)[:1]
    got = oks(xy, true, visible, np.array([50.0, 50.0]), np.full(3, 0.05))
    assert got[0, 0] == 1.0
    assert np.isnan(got[0, 1])
    xy[0, 2] = np.nan
    assert oks(xy, true, visible, np.array([50.0, 50.0]), np.full(3, 0.05))[0, 0] == 0.5


@given(st.integers(0, 10**6), st.floats(0.1, 50))
def test_scale_and_permutation_do_not_matter(seed: int, scale: float):
    rng = np.random.default_rng(seed)
    xy, true, visible, area = poses(seed, 3), poses(seed + 1, 2), rng.integers(1, 3, (2, 17)), rng.uniform(100, 1e4, 2)
    want = oks(xy, true, visible, area, COCO_SIGMAS)
    np.testing.assert_allclose(oks(xy * scale, true * scale, visible, area * scale**2, COCO_SIGMAS), want, atol=1e-9)
    p = rng.permutation(17)
    np.testing.assert_allclose(oks(xy[:, p], true[:, p], visible[:, p], area, COCO_SIGMAS[p]), want, atol=1e-12)
    np.testing.assert_allclose(np.diag(oks(true, true, visible, area, COCO_SIGMAS)), 1.0)
