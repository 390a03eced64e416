"""Every head overfits two crowded pictures of the embedded data, which tests the whole loop of training.

A head behind a detector is measured on the boxes that it detects, any other head of one pose a view on annotated ones.
"""

from __future__ import annotations

import json
import shutil
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
name: two
sources:
  train: {{_target_: kplab.data.formats.coco.read, annotations: {train}/annotations.json, images: {train}}}
  test: {{_target_: kplab.data.formats.coco.read, annotations: {test}/annotations.json, images: {test}}}
split: null
evaluation: {{pck_normalizer: box_longer_side}}
"""

#: Copies of the pictures in an epoch: what is done once an epoch takes longer than a step.
COPIES = 20
#: Views of a head of several poses, of a head of one pose, and of one behind a detector; there jitter is small, since nothing
#: but these crops is to be learnt.
WHOLE = "regions=image size=[128,128]"
SINGLE = "regions=annotated size=[96,128]"
CASCADE = f"{WHOLE} model=cascade detector.size=[128,128] model.crop=[96,128] model.shift=0.02 model.scale=0.05"
#: Of a head whose settings state nothing else.
USUAL = "optimizer.lr=3e-3 trainer.max_epochs=7"


def copied(folder: Path, to: Path) -> Path:
    """A dataset whose pictures and annotations are listed several times."""
    one = json.loads((folder / "annotations.json").read_text())
    images, annotations = [], []
    to.mkdir()
    for copy in range(COPIES):
        for image in one["images"]:
            name = f"{copy}_{Path(image['file_name']).name}"
            shutil.copy(folder / image["file_name"], to / name)
            images.append({**image, "id": image["id"] * COPIES + copy, "file_name": name})
        for a in one["annotations"]:
            annotations.append({**a, "id": a["id"] * COPIES + copy, "image_id": a["image_id"] * COPIES + copy})
    (to / "annotations.json").write_text(json.dumps({**one, "images": images, "annotations": annotations}))
    return to


@pytest.mark.slow
@pytest.mark.parametrize("head", heads())
def test_it_overfits_two_pictures_of_several_people(head: str, tmp_path: Path) -> None:
    test = generate(tmp_path / "test", "person", 2, size=(192, 192), seed=1, max_subjects=3)
    train_folder = copied(test, tmp_path / "train")
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "two.yaml").write_text(YAML.format(train=train_folder, test=test))
    stated = settings_of(head)
    views = CASCADE if stated.get("cascade") else SINGLE if make_head(head).max_poses == 1 else WHOLE
    config = compose(
        "train",
        [
            f"hydra.searchpath=[file://{tmp_path}/conf]", "dataset=two", "backbone=resnet10_half", "batch_size=2",
            "workers=0", "augment=none", "logger=csv", "trainer=cpu", "ema=0.9", "test_on=[test]",
            f"runs_dir={tmp_path}/runs", "name=two", "neck=fpn", "neck.channels=32", f"head={head}",
            # mirrored pictures are never seen, so the flip test would average with noise
            "flip_test=false", *views.split(), *stated.get("overfit", USUAL).split(),
        ],
    )  # fmt: skip
    run = train(config)
    assert run is not None
    scores = json.loads((run.folder / "scores" / "two-test.json").read_text())
    assert scores["summary"]["AP"] >= 0.95
