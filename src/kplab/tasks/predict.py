"""``kplab predict``: find keypoints in new images and videos, or in a split of a dataset."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from kplab.errors import ConfigError, printable
from kplab.tasks import compose

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from kplab.runs.run import Run

EXAMPLE = "kplab predict run=latest source=clip.mp4"


@dataclass
class Options:
    """Keys of ``kplab predict``."""

    run: str = MISSING
    source: Any = None
    split: str | None = None
    regions: str | None = None
    dataset: dict[str, Any] | None = None
    checkpoint: str = "auto"
    flip_test: bool | None = None
    batch_size: int | None = None
    device: str = "auto"
    backend: str = "torch"
    out: str | None = None
    runs_dir: str = MISSING
    watch: Any = False
    every: int = 1
    start: Any = None
    end: Any = None
    rate: float = 25
    tracker: dict[str, Any] | None = None
    fill: dict[str, Any] | None = None
    smooth: dict[str, Any] | None = None
    min_score: float = 0.0
    write: list[str] = field(default_factory=lambda: ["csv"])
    images_at: str = ""
    draw: str = "auto"
    overlays: int = 50
    sheet: int = 12
    colour: str = "auto"
    trails: int = 0
    captions: list[str] = field(default_factory=lambda: ["track", "score"])
    min_keypoint_score: float = 0.0
    quality: int = 23


def main(args: list[str]) -> int:
    """Predict a source, or a split of a dataset; returns 1 where a source ended early."""
    from kplab.runs.run import Run

    config = compose("predict", args)
    run = Run.find(config.run, Path(config.runs_dir))
    if (config.source is None) == (config.split is None):
        raise ConfigError("kplab predict wants either source=DIR_OR_FILE or split=NAME, and not both.")
    if config.batch_size is not None and config.batch_size < 1:
        raise ConfigError(f"batch_size is {config.batch_size}, but must be at least 1.")
    options = {key: config[key] for key in ("checkpoint", "flip_test", "batch_size", "device", "backend")}
    return _split(run, config, options) if config.source is None else _source(run, config, options)


def _split(run: Run, config: DictConfig, options: dict[str, Any]) -> int:
    from kplab.tasks.inference.predict import predict_split
    from kplab.tasks.wiring.datasets import read_split

    if config.out:
        raise ConfigError("out=DIR is for new images; predictions of a split lie inside the run. Leave it out.")
    labels = read_split(config.dataset, config.split) if config.dataset else None
    path = predict_split(run, config.split, labels=labels, dataset=config.dataset, regions=config.regions, **options)
    print(printable(f"predictions: {path}"))
    return 0


def _source(run: Run, config: DictConfig, options: dict[str, Any]) -> int:
    from omegaconf import OmegaConf

    from kplab.data.sources.frames import Selection
    from kplab.tasks.inference.predict_source import predict_source
    from kplab.tasks.inference.tracking.stages import configured_stages
    from kplab.tasks.inference.writers.pictures import Drawing

    if config.dataset or config.regions:
        ignored = "dataset" if config.dataset else "regions"
        raise ConfigError(f"{ignored}=… is for split=NAME; new images have no labels and no boxes. Leave it out.")
    source = [str(s) for s in config.source] if OmegaConf.is_list(config.source) else str(config.source)
    drawing = Drawing(
        config.draw, config.overlays, config.sheet, config.colour, config.trails, tuple(config.captions),
        config.min_keypoint_score, config.quality,
    )  # fmt: skip
    found = predict_source(
        run,
        source,
        Path(config.out) if config.out else None,
        selection=Selection(config.every, config.start, config.end),
        watch=config.watch,
        rate=config.rate,
        min_score=config.min_score,
        write=list(config.write),
        images_at=config.images_at,
        drawing=drawing,
        stages=configured_stages(config),
        **options,
    )
    for result in found:
        print(printable(f"predictions: {result.path}"))
    early = [result for result in found if result.fault]
    for result in early:
        kept = f"The results of the {result.frames} frames before are complete: {result.path.parent}"
        print(printable(f"kplab predict: {result.fault}\n{kept}"), file=sys.stderr)
    return 1 if early else 0
