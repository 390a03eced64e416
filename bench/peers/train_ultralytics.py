"""Train YOLO11n-pose of Ultralytics for a given time and predict a folder of images, in an environment that has Ultralytics.

    python bench/peers/train_ultralytics.py WORK TEST_IMAGES SECONDS SEED

WORK holds ``data.yaml``, ``images/`` and ``labels/`` of the training split, a tenth of which validates. The predictions of every
image are written to ``WORK/predictions/NAME.txt`` (``class cx cy w h x y score … score``, fractions of the image) and what was done
to ``WORK/made.json``. All settings are the defaults, but for random weights (``yolo11n-pose.yaml``) and ``time``.

Ultralytics is licensed under AGPL-3.0. It is run here as a separate program in an environment of its own: kplab neither imports
nor ships it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ultralytics import YOLO, __version__

MODEL = "yolo11n-pose.yaml"


def main(work: Path, images: Path, seconds: float, seed: int) -> None:
    """Train, predict, and write what was done."""
    model = YOLO(MODEL)
    data, hours = str(work / "data.yaml"), seconds / 3600
    model.train(data=data, time=hours, seed=seed, project=str(work), name="run", exist_ok=True)
    trainer = model.trainer
    best = YOLO(trainer.best)
    # the lowest score as in its own evaluation: all systems state their best guesses, and the evaluator takes the best of them
    for result in best.predict(str(images), stream=True, verbose=False, conf=0.001):
        path = work / "predictions" / f"{Path(result.path).stem}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
        result.save_txt(path, save_conf=True)
    made = {
        "model": "YOLO11n-pose, best epoch",
        "weights": "random",
        # up to the end of the last epoch: the validation of the best weights that follows is not part of the training
        "train_seconds": round(trainer.epoch_time_start - trainer.train_time_start, 1),
        "epochs": trainer.epoch + 1,
        "versions": {"ultralytics": __version__},
    }
    (work / "made.json").write_text(json.dumps(made, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), float(sys.argv[3]), int(sys.argv[4]))
