"""The published recipes for people compose and train a few steps on real images of COCO, small and from random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kplab.config import conf_dir
from kplab.tasks import compose
from kplab.tasks.training.train import train

#: What makes a recipe small enough for a processor; everything else is as published.
SMALL = [
    "dataset=coco_mini", "batch_size=2", "workers=0", "trainer=cpu", "trainer.max_epochs=1", "validate_every=1",
    "+trainer.limit_train_batches=2", "+trainer.limit_val_batches=1", "logger=csv", "test_on=[]",
]  # fmt: skip
SIZES = {
    "openpose": ["size=[160,128]", "window=[128,128]", "backbone.pretrained=false"],
    "centernet": ["size=[128,128]", "backbone.pretrained=false"],
    "yolo": ["size=[128,128]", "trainer.accumulate_grad_batches=1"],
    "poseted": ["size=[128,128]", "detector.size=[128,128]", "model.crop=[96,128]", "backbone.pretrained=false"],
    "rcnn": ["size=[192,128]", "backbone.pretrained=false", "trainer.accumulate_grad_batches=1"],
    "topdown": ["size=[96,128]", "backbone.pretrained=false"],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", sorted(p.stem.removesuffix("_people") for p in conf_dir().glob("experiment/*_people.yaml"))
)
def test_recipe_for_people_takes_a_few_steps(family: str, real_data: Path, tmp_path: Path) -> None:
    """Two steps and a validation: every loss is a number, and the weights that are kept can be read."""
    run = train(compose("train", [f"experiment={family}_people", *SMALL, *SIZES[family], f"runs_dir={tmp_path}"]))
    assert run is not None
    assert run.record["steps"] == 2
    losses = pd.read_csv(run.folder / "curves.csv").filter(like="loss")
    assert losses.notna().any().all()
    assert np.isfinite(losses.to_numpy()[losses.notna()]).all()
    assert (run.folder / "checkpoints" / "last.ckpt").is_file()
