"""Every head overfits four crowded pictures of the embedded data, which tests the whole loop of training.

A head behind a detector is measured on the boxes that it detects, any other head of one pose a view on annotated ones.
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
name: four
sources:
  train: {{_target_: kplab.data.formats.coco.read, annotations: {data}/annotations.json, images: {data}}}
split: null
evaluation: {{pck_normalizer: box_longer_side}}
"""

#: Views of a head of several poses, of a head of one pose, and of one behind a detector; there jitter is small, since nothing
#: but these crops is to be learnt.
WHOLE = "regions=image size=[192,192]"
SINGLE = "regions=annotated size=[96,128]"
CASCADE = f"{WHOLE} model=cascade detector.size=[192,192] model.crop=[96,128] model.shift=0.02 model.scale=0.05"
#: Of a head whose settings state nothing else.
USUAL = "optimizer.lr=3e-3 trainer.max_epochs=200"


@pytest.mark.slow
@pytest.mark.parametrize("head", heads())
def test_it_overfits_four_pictures_of_several_people(head: str, tmp_path: Path) -> None:
    data = generate(tmp_path / "data", "person", 4, size=(192, 192), seed=1, max_subjects=3)
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "four.yaml").write_text(YAML.format(data=data))
    stated = settings_of(head)
    views = CASCADE if stated.get("cascade") else SINGLE if make_head(head).max_poses == 1 else WHOLE
    config = compose(
        "train",
        [
            f"hydra.searchpath=[file://{tmp_path}/conf]", "dataset=four", "backbone=resnet10_half", "batch_size=4",
            "workers=0", "augment=none", "logger=csv", "trainer=cpu", "ema=0.9", "test_on=[train]",
            f"runs_dir={tmp_path}/runs", "name=four", "neck=fpn", "neck.channels=64", f"head={head}",
            # mirrored pictures are never seen, so the flip test would average with noise
            "flip_test=false", *views.split(), *stated.get("overfit", USUAL).split(),
        ],
    )  # fmt: skip
    run = train(config)
    assert run is not None
    summary = json.loads((run.folder / "scores" / "four-train.json").read_text())["summary"]
    assert summary["AP"] >= 0.95
