"""Train the model that SLEAP-NN chooses for a given time and predict a folder of images, in an environment that has SLEAP-NN.

    python bench/peers/train_sleap_nn.py WORK TEST_IMAGES SECONDS SEED

WORK holds ``train.slp``; the predictions are written to ``WORK/predictions.slp`` and what was done to ``WORK/made.json``. The
configuration is that of ``sleap-nn config --auto``; of two stages (top-down) each has half of the time. The time is the
``max_time`` of Lightning. Where it ends within the first epoch, its last weights are used.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

import sleap_io as sio
from lightning.pytorch.callbacks import Timer
from omegaconf import DictConfig
from sleap_nn.config_generator import ConfigGenerator
from sleap_nn.inference import predict
from sleap_nn.training.model_trainer import ModelTrainer


def fit(config: DictConfig, folder: Path, seconds: float) -> tuple[float, int]:
    """Train one model into a folder; returns the seconds and the epochs that it took."""
    config.trainer_config.ckpt_dir, config.trainer_config.run_name = str(folder.parent), folder.name
    config.trainer_config.save_ckpt = True
    config.trainer_config.enable_progress_bar = False
    # SLEAP-NN has no key for it; Lightning reads defaults of its Trainer from the environment
    os.environ["PL_TRAINER_MAX_TIME"] = repr({"milliseconds": round(1000 * seconds)})
    made = ModelTrainer.get_model_trainer_from_config(config)
    made.train()
    (timer,) = (callback for callback in made.trainer.callbacks if isinstance(callback, Timer))
    if not (folder / "best.ckpt").is_file():
        made.trainer.save_checkpoint(folder / "best.ckpt")
    return timer.time_elapsed(), made.trainer.current_epoch


def main(work: Path, images: Path, seconds: float, seed: int) -> None:
    """Train, predict, and write what was done."""
    chosen = ConfigGenerator.from_slp(str(work / "train.slp")).auto()
    if chosen.is_topdown:
        stages = {"centroid": chosen.build_centroid(), "centered_instance": chosen.build_centered_instance()}
    else:
        stages = {"model": chosen.build()}
    took, epochs = 0.0, []
    for name, config in stages.items():
        config.trainer_config.seed = seed
        spent, count = fit(config, work / "models" / name, seconds / len(stages))
        took += spent
        epochs.append(count)
    video = sio.Video.from_filename([str(path) for path in sorted(images.glob("*.png"))])
    # images of different sizes can't be stacked
    predict(
        video,
        model_paths=[str(work / "models" / name) for name in stages],
        output_path=str(work / "predictions.slp"),
        batch_size=1,
    )
    made = {
        "model": f"{chosen._pipeline}, {chosen._backbone}",
        "weights": "random",
        "train_seconds": round(took, 1),
        "epochs": max(epochs),
        "versions": {name: version(name) for name in ("sleap-nn", "sleap-io")},
    }
    (work / "made.json").write_text(json.dumps(made, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), float(sys.argv[3]), int(sys.argv[4]))
