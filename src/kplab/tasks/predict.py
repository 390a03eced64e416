"""``kplab predict``: find keypoints in new images, or in a split of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from kplab.errors import ConfigError, printable
from kplab.tasks import compose

EXAMPLE = "kplab predict run=latest images=photos/"


@dataclass
class Options:
    """Keys of ``kplab predict``."""

    run: str = MISSING
    images: str | None = None
    split: str | None = None
    regions: str | None = None
    dataset: dict[str, Any] | None = None
    checkpoint: str = "auto"
    flip_test: bool | None = None
    batch_size: int = 32
    device: str = "auto"
    backend: str = "torch"
    overlays: int = 50
    out: str | None = None
    runs_dir: str = MISSING


def main(args: list[str]) -> None:
    """Predict new images, or a split of a dataset."""
    from kplab.runs.run import Run
    from kplab.tasks.inference.predict import predict_images, predict_split
    from kplab.tasks.wiring.datasets import read_split

    config = compose("predict", args)
    run = Run.find(config.run, Path(config.runs_dir))
    options = {
        "checkpoint": config.checkpoint,
        "flip_test": config.flip_test,
        "batch_size": config.batch_size,
        "device": config.device,
        "backend": config.backend,
    }
    if (config.images is None) == (config.split is None):
        raise ConfigError("kplab predict wants either images=DIR_OR_GLOB or split=NAME, and not both.")
    if config.batch_size < 1:
        raise ConfigError(f"batch_size is {config.batch_size}, but must be at least 1.")
    if config.split is not None:
        if config.out:
            raise ConfigError("out=DIR is for new images; predictions of a split lie inside the run. Leave it out.")
        labels = read_split(config.dataset, config.split) if config.dataset else None
        path = predict_split(
            run, config.split, labels=labels, dataset=config.dataset, regions=config.regions, **options
        )
        print(printable(f"predictions: {path}"))
        return
    if config.dataset or config.regions:
        ignored = "dataset" if config.dataset else "regions"
        raise ConfigError(f"{ignored}=… is for split=NAME; new images have no labels and no boxes. Leave it out.")
    out = Path(config.out) if config.out else None
    path = predict_images(run, config.images, out, overlays=config.overlays, **options)
    print(printable(f"predictions: {path}"))
