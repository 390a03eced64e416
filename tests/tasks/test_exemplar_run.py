"""A run of a model without gradients works with every verb: train, predict, evaluate, compare, runs, resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from kplab.cli import main
from kplab.errors import ConfigError, DataError
from kplab.tasks import compose
from kplab.tasks.training.train import train

Config = Callable[..., DictConfig]
EXEMPLAR = ["model=exemplar", "flip_test=false"]


def test_from_training_to_comparison(
    config: Config, dotted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every verb. Dots on noise are found in the training images; the record is complete."""
    run = train(config(*EXEMPLAR, "test_on=[train,test]", "model.max_poses=1"))
    assert run is not None
    assert run.status == "finished"
    assert run.record["learnt"]["subjects"] == 8
    assert run.record["fit_seconds"] > 0
    assert run.record["images_per_s"] > 0
    summary = json.loads((run.folder / "scores" / "dots-train.json").read_text())["summary"]
    assert summary["mean_px"] < 1
    assert summary["AP"] > 0.95
    again = train(config(*EXEMPLAR, "model.max_poses=1", "test_on=[test]", f"resume={run.name}"))
    assert again is not None
    assert again.record["parent"] == run.name
    memories = [torch.load(r.folder / "checkpoints/last.ckpt", weights_only=False)["state_dict"] for r in (run, again)]
    assert all(torch.equal(v.nan_to_num(0), memories[1][k].nan_to_num(0)) for k, v in memories[0].items())
    predictions = [(r.folder / "predictions/dots-test.json").read_bytes() for r in (run, again)]
    assert predictions[0] == predictions[1]
    images, out = dotted / "images", tmp_path / "new"
    assert main(["predict", f"run={run.folder}", f"source={images}", f"out={out}", f"runs_dir={tmp_path}/runs"]) == 0
    assert len(list((out / "overlays").glob("*.png"))) == 16
    new = {row["image_id"]: row for row in json.loads((out / "predictions.json").read_text())}
    labelled = json.loads((run.folder / "predictions/dots-train.json").read_text())
    assert labelled
    for row in labelled:  # images are numbered alike here
        np.testing.assert_allclose(row["keypoints"], new[row["image_id"]]["keypoints"], atol=1e-6)
    assert main(["evaluate", f"run={run.folder}", "split=test", "pictures=2", f"runs_dir={tmp_path}/runs"]) == 0
    names = f"runs=[{run.folder},{again.folder}]"
    assert main(["compare", names, "split=test", "resamples=50", f"out={tmp_path}/compared"]) == 0
    capsys.readouterr()
    assert main(["runs", f"runs_dir={tmp_path}/runs"]) == 0
    assert run.name in capsys.readouterr().out


def test_unsupported_options_are_refused(config: Config) -> None:
    """A flip test, a detector before it, an unknown option."""
    with pytest.raises(ConfigError, match="model 'Exemplar' has no flip test"):
        train(config("model=exemplar"))
    with pytest.raises(ConfigError, match="'detector' has no place beside"):
        config(*EXEMPLAR, "detector=yolo")
    with pytest.raises(ConfigError, match="conf/model"):
        train(config(*EXEMPLAR, "+model.colour=3"))
    crowd = compose("train", ["experiment=sift_exemplar_flies", "model.max_poses=2"])
    assert crowd.name == "sift_exemplar_flies"


def test_more_subjects_than_max_poses_are_refused(config: Config, dotted: Path) -> None:
    """The message names the model, which has no head."""
    path = dotted / "annotations.json"
    document = json.loads(path.read_text())
    copies = [
        {**a, "id": a["id"] + 100, "keypoints": a["keypoints"][3:] + a["keypoints"][:3]}
        for a in document["annotations"]
    ]
    document["annotations"] += copies
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"model 'Exemplar' holds 1 pose per view, but regions 'image' shows up to 2"):
        train(config(*EXEMPLAR, "model.max_poses=1"))
