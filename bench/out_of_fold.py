"""Two runs for each dataset of bench/measure_linter.py, each trained on half of the images, that predict the other half.

    python bench/out_of_fold.py FOLDER [DATASET…]

FOLDER becomes a workspace: its datasets are halves, its runs are those of ``kplab train dataset=… budget=…`` with nothing chosen
by hand. ``bench/measure_linter.py runs FOLDER`` measures the rules that compare labels with predictions. Runs that are there
already are not trained again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from linter_data import MEASURED

from kplab.config import conf_dir
from kplab.data.formats import coco

#: Time of a training; people in all poses need more than an animal in one video.
BUDGETS = {
    "tiger_pose": "1m", "openfield_mouse": "90s", "face68_youtube": "2m", "coco_mini": "3m", "sleap_flies": "3m",
    "lspet_1000": "6m",
}  # fmt: skip
FOLDS = 2


def prepare(folder: Path, name: str) -> None:
    """Write the largest split of a dataset as COCO, and a dataset config with halves."""
    labels = max(MEASURED[name]().values(), key=len)
    path = labels.path(0)
    assert path is not None
    annotations = coco.write(labels, folder / "data" / f"{name}.json")
    images = path.parents[len(Path(str(labels.names[0])).parts) - 1]
    config = {
        "name": name,
        "skeleton": labels.skeleton.as_config(),
        "sources": {
            "all": {
                "_target_": "kplab.data.formats.coco.read",
                "annotations": str(annotations),
                "images": str(images),
            }
        },
        "split": {
            "manifest": f"${{workspace:}}/data/splits/{name}.json", "fractions": None, "folds": FOLDS, "fold": 0,
            "by": "image", "seed": 0,
        },
        "evaluation": {"pck_normalizer": "pixels", "pck_thresholds": [5, 10, 20]},
    }  # fmt: skip
    (folder / "conf" / "dataset" / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def workspace(folder: Path, names: list[str]) -> None:
    """Make a folder a workspace with halves of datasets."""
    if not (folder / "conf").is_dir():
        shutil.copytree(conf_dir(), folder / "conf")
        (folder / "data").mkdir()
    for name in names:
        if not (folder / "data" / f"{name}.json").is_file():
            prepare(folder, name)


def main(folder: Path, names: list[str]) -> None:
    """Train what is not trained yet."""
    workspace(folder, names)
    for name in names:
        for fold in range(FOLDS):
            if any((folder / "runs").glob(f"*_{name}_{fold}_*/scores/*.json")):
                continue
            command = [
                sys.executable, "-m", "kplab.cli", "train", f"dataset={name}", f"dataset.split.fold={fold}", f"budget={BUDGETS[name]}",
                f"name={name}_{fold}", "logger=csv",
            ]  # fmt: skip
            print(" ".join(command[1:]), flush=True)
            subprocess.run(command, env=os.environ | {"KPLAB_WORKSPACE": str(folder)}, check=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]).resolve(), sys.argv[2:] or list(BUDGETS))
