"""Sigmas from repeated annotation with known deviations, and AP under several sigmas."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kplab.data.sources.files import FileSource
from kplab.errors import ConfigError, ScoreError
from kplab.metrics.coco_ap import coco_ap
from kplab.metrics.sigmas import ap_by_sigmas, estimate_sigmas, paired, usual_sigmas
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton
from kplab.tasks.data_actions import sigmas as action

TRUE = np.array([0.025, 0.07, 0.1])
THREE = Skeleton("three", ("a", "b", "c"), (), (0, 1, 2), tuple(TRUE), "made up")


def annotated(rng: np.random.Generator, repeats: int, n: int, missing: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(R, N, K, 2) annotations with E[d**2 / s**2] = TRUE**2, d the distance: each coordinate has half of the variance."""
    area = rng.uniform(100, 10000, n)
    deviation = TRUE[:, None] / np.sqrt(2) * np.sqrt(area)[:, None, None]
    xy = rng.uniform(0, 500, (n, 3, 2)) + rng.normal(0, 1, (repeats, n, 3, 2)) * deviation
    xy[rng.random((repeats, n, 3)) < missing] = np.nan
    return xy, area


@pytest.mark.parametrize(("repeats", "missing"), [(2, 0.0), (3, 0.3), (5, 0.5)])
def test_known_sigmas_are_found(repeats: int, missing: float) -> None:
    """The relative error of n instances with R annotations is about 1 / sqrt(4 n (R - 1)): 1 % here, of which 4 are allowed."""
    found = estimate_sigmas(*annotated(np.random.default_rng(repeats), repeats, 3000, missing))
    np.testing.assert_allclose(found.sigmas, TRUE, rtol=0.04)
    np.testing.assert_allclose(found.robust, TRUE, rtol=0.06)
    assert (found.low < found.sigmas).all()
    assert (found.sigmas < found.high).all()


def test_the_estimate_is_unbiased_and_its_interval_holds_the_truth() -> None:
    """Over 200 small studies of 40 instances: the mean of sigma**2, and the coverage of the 95 % intervals."""
    rng = np.random.default_rng(0)
    every = [estimate_sigmas(*annotated(rng, 2, 40)) for _ in range(200)]
    np.testing.assert_allclose(np.mean([e.sigmas**2 for e in every], 0), TRUE**2, rtol=0.04)
    covered = np.mean([(e.low <= TRUE) & (e.high >= TRUE) for e in every])
    # the bootstrap of 40 skewed values covers a little less than 95 %
    assert 0.87 < covered < 0.98


def test_a_few_exchanged_points_show_in_the_difference_to_the_robust_estimate() -> None:
    xy, area = annotated(np.random.default_rng(1), 2, 2000)
    xy[1, :40, 1] += 300
    found = estimate_sigmas(xy, area)
    assert found.sigmas[1] > 3 * TRUE[1]
    assert found.robust[1] == pytest.approx(TRUE[1], rel=0.06)


def test_keypoints_that_are_annotated_once_have_no_sigma() -> None:
    xy, area = annotated(np.random.default_rng(2), 2, 50)
    xy[1, :, 2] = np.nan
    found = estimate_sigmas(xy, area)
    assert np.isnan(found.sigmas[2])
    assert np.isnan(found.high[2])
    assert found.number.tolist() == [50, 50, 0]
    xy[1] = np.nan
    with pytest.raises(ScoreError, match="no keypoint in common"):
        estimate_sigmas(xy, area)
    with pytest.raises(ScoreError, match="1 annotations"):
        estimate_sigmas(xy[:1], area)


def labels_of(xy: np.ndarray, area: np.ndarray, image_of: np.ndarray, names: list[str]) -> Labels:
    """Labels of images that no test reads."""
    n = len(xy)
    box = np.concatenate([np.nanmin(xy, 1), np.nanmax(xy, 1)], axis=1)
    poses = Poses.make(xy, area=area, box=box)
    ids, size = np.arange(1, len(names) + 1), np.full((len(names), 2), 9)
    how = {"box_source": "none", "area_source": "none"}
    return make_labels(THREE, FileSource("x", names), ids, size, None, poses, image_of, np.arange(1, n + 1), **how)


def test_instances_of_several_annotators_are_paired() -> None:
    """Three in an image, in another order; one that the second annotator has not; and an image that only one has."""
    rng = np.random.default_rng(3)
    xy, area = annotated(rng, 2, 12)
    xy += np.arange(12)[:, None, None] * 1000  # far from each other
    image_of = np.arange(12) // 3
    names = ["a", "b", "c", "d"]
    order = rng.permutation(11)
    one = labels_of(xy[0], area, image_of, names)
    other = labels_of(xy[1][order], area[order], image_of[order], names).select([3, 0, 1, 2])
    side_by_side, areas, alone = paired([one, other])
    assert alone == 1
    np.testing.assert_array_equal(side_by_side, xy[:, :11])
    np.testing.assert_array_equal(areas, area[:11])
    _, _, alone = paired([one, other.select([1, 2])])
    assert alone == 6
    with pytest.raises(ScoreError, match="no image"):
        paired([one, labels_of(xy[1], area, image_of, ["e", "f", "g", "h"])])
    renamed = replace(other, skeleton=replace(THREE, keypoints=("a", "b", "x")))
    with pytest.raises(ScoreError, match="different skeletons"):
        paired([one, renamed])


def test_ap_by_sigmas_is_that_of_the_evaluator() -> None:
    rng = np.random.default_rng(4)
    xy, area = annotated(rng, 2, 60)
    labels = labels_of(xy[0], area, np.arange(60) // 2, [f"{i}" for i in range(30)])
    guess = {i + 1: Poses.make(xy[1][2 * i : 2 * i + 2], area=area[2 * i : 2 * i + 2]) for i in range(30)}
    predictions = Predictions(THREE, guess)
    rows = ap_by_sigmas(labels, predictions, usual_sigmas(TRUE))
    scores = {str(row["sigmas"]): float(str(row["AP"])) for row in rows}
    for name, values in usual_sigmas(TRUE).items():
        assert scores[name] == coco_ap(labels.by_image(), predictions, values).stats["AP"]
    assert scores["own / 2"] < scores["own"] < scores["own x 2"]


def test_the_command_prints_ap_and_refuses_both_forms(real_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = real_data / "cocoeval_reference/example_coco_preds.json"
    action.main(["dataset=cocoeval_reference", f"predictions={results}"])
    said = capsys.readouterr().out
    assert "uniform 0.025" in said
    with pytest.raises(ConfigError, match="others="):
        action.main(["dataset=cocoeval_reference"])
