"""The comparison of two runs: identical, within a tolerance, or different, and what differs first."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton
from kplab.tasks.evaluation.reproduction import (
    DIFFERENT,
    IDENTICAL,
    WITHIN,
    Part,
    Tolerances,
    compare_curves,
    compare_predictions,
    compare_scores,
    compare_weights,
)

USUAL = Tolerances()
NAN = math.nan
SKELETON = Skeleton.from_config(
    {"name": "t", "keypoints": ["nose", "tail"], "edges": [], "flip_pairs": [], "sigmas": "uniform"}
)


def curves() -> pd.DataFrame:
    """Two epochs of two steps, as Lightning writes them: one row for each kind, learning rates without an epoch."""
    rows = []
    for step in range(4):
        epoch = step // 2 + 1
        rows.append({"epoch": NAN, "step": step, "lr": 0.1 / (step + 1)})
        rows.append({"epoch": epoch, "step": step, "train/loss_step": 2.0 - 0.1 * step})
        if step % 2:
            rows.append({"epoch": epoch, "step": step, "val/AP": 0.25 * epoch})
            rows.append({"epoch": epoch, "step": step, "train/loss_epoch": 2.0 / epoch})
    return pd.DataFrame(rows)


def changed(column: str, epoch: int, factor: float) -> pd.DataFrame:
    """The curves with one column of an epoch multiplied."""
    frame = curves()
    frame.loc[frame["epoch"] == epoch, column] *= factor
    return frame


def test_equal_curves_are_identical_also_without_the_first_epochs() -> None:
    """A resumed run has only those since; the reproduction has all."""
    assert compare_curves(curves(), curves(), USUAL) == Part("curves", IDENTICAL)
    assert compare_curves(curves()[lambda f: f["step"] > 1], curves(), USUAL).state == IDENTICAL
    # a column that only an incomplete epoch has, which is left out
    assert compare_curves(curves().assign(rare=NAN), curves(), USUAL).state == IDENTICAL


@pytest.mark.parametrize(
    ("other", "state", "text"),
    [
        (changed("val/AP", 2, 1.1), DIFFERENT, "epoch 2, val/AP: 0.5 and 0.55 (step 3)"),
        (changed("train/loss_step", 1, 1.1), DIFFERENT, "epoch 1, train/loss_step: 2 and 2.2 (step 0)"),
        (changed("train/loss_epoch", 2, 1 + 1e-5), WITHIN, "epoch 2, train/loss_epoch: 1 and 1.00001 (step 3)"),
        (changed("val/AP", 1, NAN), DIFFERENT, "epoch 1, val/AP: 0.25 and nan (step 1)"),
        (curves()[lambda f: f["step"] < 2], DIFFERENT, "epoch 2: the reproduction has no step 2"),
        (curves().drop(columns="lr"), DIFFERENT, "the reproduction has no column lr"),
    ],
)
def test_the_first_epoch_and_column_that_differ_are_named(other: pd.DataFrame, state: str, text: str) -> None:
    assert compare_curves(curves(), other, USUAL) == Part("curves", state, text)


def test_a_difference_within_the_tolerance_is_named_before_one_beyond_it() -> None:
    other = changed("train/loss_epoch", 1, 1 + 1e-5)
    other["val/AP"] = other["val/AP"].replace(0.5, 0.4)
    assert compare_curves(curves(), other, USUAL).text == (
        "epoch 1, train/loss_epoch: 2 and 2.00002 (step 1); beyond the tolerance first in epoch 2, val/AP: 0.5 and 0.4 (step 3)"
    )


def weights(epoch: int | None = 3) -> dict[str, object]:
    """A checkpoint with a counter and with values that are not numbers."""
    state = {
        "model.a": torch.linspace(-2, 2, 12).reshape(3, 4),
        "model.b": torch.tensor([0.5, NAN, math.inf]),
        "model.count": torch.tensor(7),
    }
    return {"epoch": epoch, "state_dict": state}


def test_weights_within_the_tolerance_of_their_largest_value() -> None:
    """One millionth of the largest value is within it, and a percent is not; a counter has no tolerance."""
    assert compare_weights("best.ckpt", weights(), weights(), USUAL) == Part("best.ckpt", IDENTICAL)
    for add, state in ((2e-6, WITHIN), (0.0019, WITHIN), (0.0021, DIFFERENT)):
        other = weights()
        other["state_dict"]["model.a"][1, 1] += add  # type: ignore[index]
        found = compare_weights("best.ckpt", weights(), other, USUAL)
        assert found.state == state
        assert found.text.startswith("model.a: by up to ")
        assert "1 of 3 tensors differ" in found.text
    other = weights()
    other["state_dict"]["model.count"] += 1  # type: ignore[index]
    assert compare_weights("x", weights(), other, USUAL).state == DIFFERENT
    other = weights()
    other["state_dict"]["model.b"][1] = 0.5  # type: ignore[index]
    assert compare_weights("x", weights(), other, USUAL).state == DIFFERENT


def test_the_tensor_that_differs_first_and_the_one_that_differs_most() -> None:
    other = weights()
    other["state_dict"]["model.a"][0, 0] += 0.01  # type: ignore[index]
    other["state_dict"]["model.b"][0] += 0.5  # type: ignore[index]
    assert compare_weights("x", weights(), other, USUAL).text == (
        "model.a: by up to 0.01, values up to 2; 2 of 3 tensors differ, model.b most, by 0.5"
    )


def test_checkpoints_of_other_epochs_or_tensors() -> None:
    """Epochs are counted from 1."""
    assert (
        compare_weights("best.ckpt", weights(), weights(4), USUAL).text
        == "of epoch 4, and of epoch 5 in the reproduction"
    )
    other = weights()
    other["state_dict"]["model.c"] = torch.zeros(1)  # type: ignore[index]
    assert compare_weights("x", weights(), other, USUAL).text == "tensors of other names: model.c"
    other = weights()
    other["state_dict"]["model.a"] = torch.zeros(4, 4)  # type: ignore[index]
    assert compare_weights("x", weights(), other, USUAL).state == DIFFERENT


def predictions(**instances: Poses) -> Predictions:
    """Two images with two instances each."""
    rng = np.random.default_rng(0)
    poses = {
        i: Poses.make(rng.uniform(0, 50, (2, 2, 2)), score=np.array([0.9, 0.8]), box=rng.uniform(0, 50, (2, 4)))
        for i in (1, 2)
    }
    return Predictions(
        SKELETON, {**poses, **{int(k[1:]): v for k, v in instances.items()}}, {}, {1: "a.png", 2: "b.png"}
    )


def test_predictions_name_the_image_and_the_instance() -> None:
    whole = predictions()
    assert compare_predictions("t", whole, predictions(), USUAL) == Part("predictions t", IDENTICAL)
    for add, state in ((0.005, WITHIN), (0.02, DIFFERENT)):
        pose = predictions().poses[2]
        pose.xy[1, 1, 0] += add
        found = compare_predictions("t", whole, predictions(_2=pose), USUAL)
        assert (found.state, found.text) == (
            state,
            f"image b.png: instance 2: keypoint tail is {add:.3g} px apart; 1 of 2 images differ, keypoints by up to {add:.3g} px",
        )
    pose = predictions().poses[1]
    found = compare_predictions("t", whole, predictions(_1=replace(pose, score=pose.score - [0, 0.01])), USUAL)
    assert (found.state, found.text.split(";")[0]) == (DIFFERENT, "image a.png: instance 2: scores differ by 0.01")
    found = compare_predictions("t", whole, predictions(_1=pose[[0]]), USUAL)
    assert found.text.startswith("image a.png: 2 instances, and 1 in the reproduction")
    gone = replace(pose, visible=np.array([[2, 0], [2, 2]], dtype=np.uint8))
    assert compare_predictions("t", whole, predictions(_1=gone), USUAL).state == DIFFERENT


def test_a_difference_beyond_the_tolerance_takes_precedence() -> None:
    first, second = predictions().poses[1], predictions().poses[2]
    first.xy[0] += 0.001
    second.xy[0] += 3
    found = compare_predictions("t", predictions(), predictions(_1=first, _2=second), USUAL)
    assert found.state == DIFFERENT
    assert found.text.startswith("image b.png: instance 1")
    assert "2 of 2 images" in found.text


def test_instances_of_equal_scores_may_change_places() -> None:
    swapped = predictions().poses[1][[1, 0]]
    even = replace(swapped, score=swapped.score[::-1].copy())
    assert compare_predictions("t", predictions(), predictions(_1=even), USUAL).state == DIFFERENT, "by their scores"
    one = predictions(_1=replace(predictions().poses[1], score=np.array([0.9, 0.9])))
    other = predictions(_1=replace(swapped, score=np.array([0.9, 0.9])))
    found = compare_predictions("t", one, other, USUAL)
    assert (found.state, found.text.split(";")[0]) == (WITHIN, "image a.png: instances in another order")


def scores(**summary: float | int | None) -> dict[str, object]:
    """A score file."""
    return {
        "summary": {"AP": 0.5, "mean_px": 3.0, "n_missed": 2, "nme": None, **summary},
        "per_keypoint": [{"keypoint": "nose", "mean_px": 2.0, "pck@0.1": 0.75}],
    }


@pytest.mark.parametrize(
    ("other", "state", "text"),
    [
        ({}, IDENTICAL, ""),
        ({"AP": 0.5009}, WITHIN, "AP: 0.5 and 0.5009; 1 of 6 numbers differ"),
        ({"AP": 0.502}, DIFFERENT, "AP: 0.5 and 0.502; 1 of 6 numbers differ"),
        ({"mean_px": 3.009}, WITHIN, "mean_px: 3 and 3.009; 1 of 6 numbers differ"),
        ({"AP": 0.5009, "mean_px": 3.02}, DIFFERENT, "mean_px: 3 and 3.02; 2 of 6 numbers differ"),
        ({"n_missed": 3}, DIFFERENT, "n_missed: 2 and 3; 1 of 6 numbers differ"),
        ({"nme": 0.1}, DIFFERENT, "nme: none and 0.1; 1 of 6 numbers differ"),
    ],
)
def test_scores_name_the_metric(other: dict[str, float], state: str, text: str) -> None:
    """Pixels have the tolerance of keypoints, counts have none."""
    assert compare_scores("t", scores(), scores(**other), USUAL) == Part("scores t", state, text)
    keypoint = scores()
    keypoint["per_keypoint"] = [{"keypoint": "nose", "mean_px": 2.5, "pck@0.1": 0.75}]
    assert compare_scores("t", scores(), keypoint, USUAL).text == "mean_px of nose: 2 and 2.5; 1 of 6 numbers differ"
    macro = [scores(mean_px_macro=value) for value in (3.0, 3.009)]
    assert compare_scores("t", *macro, USUAL).state == WITHIN, "a mean over keypoints is in pixels, too"
