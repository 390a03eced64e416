"""Every head overfits eight crowded pictures of the embedded data, which tests the whole loop of training.

Heads of one pose a view are the second stage of a cascade, and are measured on the boxes that it detects.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

# tests are no package
sys.path.append(str(Path(__file__).resolve().parents[1]))

from contract.cases import heads, make_head, settings_of
from kplab.synthetic import generate
from kplab.tasks import compose
from kplab.tasks.training.train import train

YAML = """
defaults:
  - /skeleton@skeleton: coco17
  - _self_
name: eight
sources:
  train: {{_target_: kplab.data.formats.coco.read, annotations: {data}/annotations.json, images: {data}}}
split: null
evaluation: {{pck_normalizer: box_longer_side}}
"""

#: Heads of one pose a view read the crops of a detector; jitter is small, since nothing but these crops is to be learnt.
CASCADE = "model=cascade detector.size=[192,192] model.crop=[96,128] model.shift=0.02 model.scale=0.05"
#: Of a head whose settings state nothing else.
USUAL = "optimizer.lr=3e-3 trainer.max_epochs=250"


@pytest.mark.slow
@pytest.mark.parametrize("head", heads())
def test_it_overfits_eight_pictures_of_several_people(head: str, tmp_path: Path) -> None:
    data = generate(tmp_path / "data", "person", 8, size=(192, 192), seed=1, max_subjects=3)
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "eight.yaml").write_text(YAML.format(data=data))
    several = make_head(head).max_poses != 1
    config = compose(
        "train",
        [
            f"hydra.searchpath=[file://{tmp_path}/conf]", "dataset=eight", "backbone=resnet10_half", "size=[192,192]",
            "regions=image", "batch_size=8", "workers=0", "augment=none", "logger=csv", "trainer=cpu", "ema=0.9",
            "test_on=[train]", f"runs_dir={tmp_path}/runs", "name=eight", "neck=fpn", "neck.channels=64", f"head={head}",
            # mirrored pictures are never seen, so the flip test would average with noise
            "flip_test=false", *([] if several else CASCADE.split()), *settings_of(head).get("overfit", USUAL).split(),
        ],
    )  # fmt: skip
    run = train(config)
    assert run is not None
    summary = json.loads((run.folder / "scores" / "eight-train.json").read_text())["summary"]
    assert summary["AP"] >= 0.95
