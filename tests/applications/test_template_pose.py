"""Alignment against SciPy, and advice for rendered people whose joints differ by known angles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial import procrustes as scipy_procrustes

from kplab.applications import joint_angles as ja
from kplab.applications.template_pose import compare, procrustes
from kplab.errors import DataError
from kplab.ops import affine
from kplab.structures.skeleton import Skeleton
from kplab.synthetic import motions
from kplab.synthetic.film import film

Named = Callable[[str], Skeleton]


def residual(xy: np.ndarray, template: np.ndarray, rotate: bool = True) -> float:
    return float(((affine.apply(procrustes(xy, template, rotate), template) - xy) ** 2).sum())


@given(st.integers(0, 10_000), st.floats(-180, 180), st.floats(0.1, 10), st.floats(-500, 500))
def test_a_similarity_is_recovered(seed: int, degrees: float, size: float, shift: float) -> None:
    template = np.random.default_rng(seed).normal(0, 50, (6, 2))
    matrix = affine.translation(shift, -shift) @ affine.rotation(degrees) @ affine.scaling(size, size)
    np.testing.assert_allclose(procrustes(affine.apply(matrix, template), template), matrix, atol=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_the_residual_is_that_of_scipy(seed: int) -> None:
    """SciPy's disparity is the residual over the squared size of the first pattern, where no mirroring is better."""
    rng = np.random.default_rng(seed)
    template = rng.normal(0, 50, (8, 2))
    matrix = affine.translation(5, 9) @ affine.rotation(70) @ affine.scaling(2, 2)
    xy = affine.apply(matrix, template) + rng.normal(0, 8, (8, 2))
    size = ((xy - xy.mean(0)) ** 2).sum()
    assert residual(xy, template) / size == pytest.approx(scipy_procrustes(xy, template)[2], rel=1e-9)


def test_a_mirrored_pose_is_not_mirrored_back_and_no_other_map_is_better() -> None:
    rng = np.random.default_rng(1)
    template = rng.normal(0, 50, (8, 2))
    xy = template * [-1, 1]
    assert np.linalg.det(procrustes(xy, template)[:2, :2]) > 0

    def cost(v: np.ndarray) -> float:
        turned = affine.rotation(v[0]) @ affine.scaling(v[1], v[1])
        return float(((affine.apply(affine.translation(v[2], v[3]) @ turned, template) - xy) ** 2).sum())

    best = min(minimize(cost, [angle, 0.5, 0, 0], method="Nelder-Mead").fun for angle in (0, 90, 180, 270))
    assert residual(xy, template) <= best * (1 + 1e-6)


def test_without_rotation_the_scale_is_the_best_one() -> None:
    template = np.random.default_rng(1).normal(0, 50, (8, 2))
    xy = affine.apply(affine.translation(7, 3) @ affine.rotation(30), template)
    matrix = procrustes(xy, template, rotate=False)
    assert matrix[0, 1] == matrix[1, 0] == 0
    np.testing.assert_allclose(np.diag(matrix), [np.cos(np.deg2rad(30))] * 2 + [1])


def test_the_joint_that_was_changed_is_the_one_to_correct(skeleton: Named) -> None:
    """Three people of other proportions than the template: knee and arm differ by 35 and 40 degrees in space."""
    coco = skeleton("coco17")
    joints = ja.joints_of(coco)
    template = film("person", [motions.warrior()], seed=1).xy[0]
    for seed in (2, 3, 5):
        right, knee, arm = film(
            "person", [motions.warrior(), motions.warrior(50), motions.warrior(85, 50)], seed=seed
        ).xy
        assert not compare(right, template, coco, joints, sigma=1.0).advice()
        found = compare(knee, template, coco, joints, sigma=1.0)
        (advice,) = found.advice()
        assert advice.startswith("bend the left knee by 3")
        at = [j.name for j in joints].index("left_knee")
        assert found.difference[at] == pytest.approx(35, abs=5)
        assert found.wrong().sum() == 1
        (advice,) = compare(arm, template, coco, joints, sigma=1.0).advice()
        assert advice.startswith("raise the right arm by ")
        assert (
            compare(knee, template, coco, joints).mean_distance > compare(right, template, coco, joints).mean_distance
        )


def test_no_advice_beyond_the_uncertainty_and_of_what_was_not_seen(skeleton: Named) -> None:
    coco = skeleton("coco17")
    joints = ja.joints_of(coco)
    template, xy = film("person", [motions.warrior(), motions.warrior(50)], seed=2).xy
    assert compare(xy, template, coco, joints, sigma=1.0).advice()
    assert not compare(xy, template, coco, joints, sigma=8.0).advice()
    assert compare(xy, template, coco, joints).comparable()
    sitting = film("person", [motions.squat(1.0)], seed=2).xy[0]
    assert not compare(sitting[::-1], template, coco, joints).comparable()
    xy[coco.index("left_knee")] = np.nan
    assert not compare(xy, template, coco, joints, sigma=1.0).advice()
    with pytest.raises(DataError, match="0 keypoints in common"):
        compare(np.full_like(xy, np.nan), template, coco, joints)
