"""Every family that holds several poses a view learns eight crowded pictures by heart: the whole loop, on embedded data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kplab.synthetic import generate
from kplab.tasks import compose
from kplab.tasks.training.train import train

ROOT = Path(__file__).resolve().parents[2]

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

#: Stage one of the cascades. To be learnt by heart, crops jitter little.
DETECTOR = "model=cascade detector.size=[192,192] model.crop=[96,128] model.shift=0.02 model.scale=0.05"
#: Overrides of each family; what they share is below.
FAMILIES: dict[str, str] = {
    # with wide Gaussians a peak is hardly higher than the cells beside it, and lands there for another hundred epochs
    "centernet": "head=centernet head.hidden=32 head.radius=corrected neck.levels=[4] optimizer.lr=3e-3 trainer.max_epochs=200",
    "paf": "head=paf head.layout=joint head.stages=[2,2] head.width=48 neck.levels=[8] optimizer.lr=3e-3 trainer.max_epochs=180",
    "rcnn": "head=rcnn head.anchor_sizes=[[32],[64],[128]] head.samples=32 head.box_width=128 head.keypoint_layers=2"
    " head.keypoint_width=64 head.rpn_before=[200,100] head.rpn_after=[100,50] neck.levels=[4,8,16] optimizer.lr=3e-3"
    " trainer.max_epochs=200",
    "yolo": "head=yolo head.distance_weight=20 neck.levels=[8,16,32] optimizer.lr=5e-3 trainer.max_epochs=150",
    # cascades, measured on the boxes that they detect
    "topdown": "head=heatmap neck.levels=[4] optimizer.lr=3e-3 trainer.max_epochs=220 " + DETECTOR,
    "rle": "head=rle neck.levels=[32] optimizer.lr=3e-3 trainer.max_epochs=200 " + DETECTOR,
    "poseted": "head=query head.width=128 head.encoder_layers=2 head.decoder_layers=2 head.feedforward=256 neck.levels=[16] "
    "optimizer.lr=2e-3 trainer.max_epochs=250 " + DETECTOR,
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_it_learns_eight_pictures_of_several_people(family: str, tmp_path: Path) -> None:
    data = generate(tmp_path / "data", "person", 8, size=(192, 192), seed=1, max_subjects=3)
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "eight.yaml").write_text(YAML.format(data=data))
    config = compose(
        "train",
        [
            f"hydra.searchpath=[file://{tmp_path}/conf]", "dataset=eight", "backbone=resnet10_half", "size=[192,192]",
            "regions=image", "batch_size=8", "workers=0", "augment=none", "logger=csv", "trainer=cpu", "ema=0.9",
            "test_on=[train]", f"runs_dir={tmp_path}/runs", "name=eight", "neck=fpn", "neck.channels=64",
            # mirrored pictures are never seen, so the flip test would average with nonsense
            "flip_test=false", *FAMILIES[family].split(),
        ],
    )  # fmt: skip
    run = train(config)
    assert run is not None
    summary = json.loads((run.folder / "scores" / "eight-train.json").read_text())["summary"]
    assert summary["AP"] >= 0.95
