"""A run can start from the weights of another run, and predict with them without training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig

from kplab.errors import ModelError
from kplab.structures.predictions import Predictions
from kplab.tasks.training.train import train
from kplab.tasks.wiring.datasets import skeleton_of
from kplab.tasks.wiring.nodes import load_config


def test_a_run_of_no_epochs_predicts_with_the_weights_it_was_given(config: Callable[..., DictConfig]) -> None:
    first = train(config("flip_test=false"))
    assert first is not None
    weights = first.folder / "checkpoints" / "best.ckpt"  # what it predicted with
    second = train(config("flip_test=false", f"weights={weights}", "seed=5", "trainer.max_epochs=0", "ema=null"))
    assert second is not None
    assert second.record["weights"]["file"] == str(weights)
    assert len(second.record["weights"]["sha256"]) == 64
    skeleton = skeleton_of(load_config(first).dataset)
    a, b = (Predictions.read(r.folder / "predictions" / "dots-test.json", skeleton).poses for r in (first, second))
    for image in a:
        np.testing.assert_allclose(a[image].xy, b[image].xy)
        np.testing.assert_allclose(a[image].score, b[image].score)


def test_weights_that_do_not_fit_stop_a_training_before_it_begins(
    config: Callable[..., DictConfig], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="there is no file"):
        train(config(f"weights={tmp_path}/none.ckpt"))
    assert not (tmp_path / "runs").exists()
