"""From a config to samples: crowds and unlabelled people are ignored, and mosaics end before the last epochs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig

from kplab.structures.predictions import Predictions
from kplab.tasks import compose
from kplab.tasks.evaluation.scoring import score_labels, settings_of
from kplab.tasks.training.train import train
from kplab.tasks.wiring.datasets import read_splits, training_data
from kplab.tasks.wiring.nodes import load_config

Config = Callable[..., DictConfig]


@pytest.mark.parametrize("size", [(256, 192), (192, 256)])
def test_crowds_and_unlabelled_people_are_ignored_instances(real_data: Path, size: tuple[int, int]) -> None:
    """Each annotation of COCO without a keypoint is an ignored instance of its sample, its box in view pixels."""
    config = compose("train", ["dataset=coco_mini", "regions=image", f"size=[{size[0]},{size[1]}]", "augment=none"])
    data = training_data(config, None)
    for split, dataset in (("train", data.train), ("val", data.val)):
        assert dataset is not None
        document = json.loads((real_data / f"coco_mini/annotations/person_keypoints_{split}2017.json").read_text())
        unlabelled = [a for a in document["annotations"] if a["iscrowd"] or not any(a["keypoints"][2::3])]
        crowds = [a for a in unlabelled if a["iscrowd"]]
        assert crowds
        assert len(unlabelled) > len(crowds)
        note = f"{split}: {len(unlabelled)} crowds or unlabelled subjects are neither trained on nor scored"
        assert note in data.notes
        seen = 0
        sides = {i["id"]: np.array([i["width"], i["height"]]) for i in document["images"]}
        with_some = {a["image_id"] for a in unlabelled}
        for index in np.flatnonzero(np.isin(dataset.labels.image_id, list(with_some))):
            sample = dataset[int(index)]
            source = sides[sample.image_id]
            scale = min(np.array(size) / source)
            margin = (size - scale * source) / 2
            own = np.array([a["bbox"] for a in unlabelled if a["image_id"] == sample.image_id])
            box = np.concatenate([own[:, :2], own[:, :2] + own[:, 2:]], axis=1) * scale + np.tile(margin, 2)
            box = np.clip(box, 0, np.tile(size, 2))  # some boxes end beyond the picture
            box = box[(box[:, 2:] - box[:, :2] >= 2).all(1)]
            ignored = sample.poses[sample.poses.ignore]
            assert not ignored.labelled.any()
            np.testing.assert_allclose(ignored.box, box, atol=1e-9)
            seen += len(box)
        assert seen > 0.8 * len(unlabelled), "few are too small for these views"


def test_no_mosaics_in_the_last_epochs_of_the_trainer(config: Config) -> None:
    """The trainer's number of epochs reaches the dataset; a note reports that a training is too short for any."""
    mosaic = ("augment=mosaic", "augment.mosaic_off=3")
    data = training_data(config(*mosaic, "trainer.max_epochs=8"), None)
    assert data.train.mosaic_until == 5
    assert data.notes == []
    assert data.val is not None
    assert data.val.mosaic == 0
    short = training_data(config(*mosaic, "trainer.max_epochs=3"), None)
    assert "no mosaics: augment.mosaic_off=3 of 3 epochs are without them" in short.notes
    endless = training_data(config(*mosaic, "trainer.max_epochs=-1"), None)
    assert endless.train.mosaic_until == np.inf


def test_validations_of_a_part_of_the_images(config: Config) -> None:
    """The first, the last and those between at equal distances; what is scored after the training is whole."""
    whole = training_data(config(), None)
    assert whole.val is not None
    ids = whole.val.labels.image_id.tolist()
    assert len(ids) == 4
    for most, expected in ((1, ids[:1]), (2, [ids[0], ids[3]]), (4, ids), (9, ids)):
        data = training_data(config(f"validate_images={most}"), None)
        assert data.val is not None
        assert (data.val.labels.image_id.tolist(), len(data.val)) == (expected, len(expected))
        assert data.splits["val"].image_id.tolist() == ids
        note = f"val: validated on {most} of 4 images, evenly spaced (validate_images)"
        assert data.notes == ([note] if most < 4 else [])


@pytest.mark.slow
def test_a_training_is_validated_on_a_part_and_scored_on_all(config: Config) -> None:
    """The curve has the scores of two images, and the score card those of the split, with the same weights."""
    run = train(config("validate_images=2", "test_on=[val]", "trainer.max_epochs=1", "flip_test=false", "ema=null"))
    assert run is not None
    stored = load_config(run)
    labels = read_splits(stored.dataset)["val"]
    written = Predictions.read(run.folder / "predictions" / "dots-val.json", labels.skeleton)
    assert len(written.poses) == 4
    part = labels.select([0, 3])
    few = Predictions(labels.skeleton, {int(i): written.poses[int(i)] for i in part.image_id})
    settings = settings_of(stored.dataset)
    curve = pd.read_csv(run.folder / "curves.csv")["val/mean_px"].dropna().tolist()
    assert curve == pytest.approx([score_labels(few, part, settings, "part").summary["mean_px"]], rel=1e-3)
    assert curve[0] != pytest.approx(score_labels(written, labels, settings, "all").summary["mean_px"], rel=1e-2)


@pytest.mark.parametrize(("workers", "kept"), [(0, 3_000_000), (1, 3_000_000), (2, 1_500_000)])
def test_loader_processes_share_the_memory_of_decoded_images(config: Config, workers: int, kept: int) -> None:
    data = training_data(config("cache=3", f"workers={workers}"), None)
    assert data.val is not None
    assert (data.train.images.left, data.val.images.left) == (kept, kept)
