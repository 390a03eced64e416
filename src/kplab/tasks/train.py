"""``kplab train``: train a model, then score it on its test split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kplab.tasks import compose

EXAMPLE = "kplab train experiment=heatmap_mouse"


@dataclass
class Options:
    """Types of the top-level keys of ``conf/train.yaml``, which states their defaults; groups are typed by their constructors."""

    dataset: dict[str, Any]
    model: dict[str, Any]
    backbone: dict[str, Any] | None
    neck: dict[str, Any] | None
    head: dict[str, Any] | None
    detector: dict[str, Any] | None
    augment: dict[str, Any]
    optimizer: dict[str, Any]
    trainer: dict[str, Any]
    logger: dict[str, Any]
    name: str
    seed: int
    size: list[int]
    window: list[int] | None
    window_anywhere: float
    regions: str
    detector_run: str | None
    padding: float
    batch_size: int
    workers: int | None
    cache: float
    ema: float | None
    monitor: str | None
    patience: int | None
    validate_every: int
    validate_images: int | None
    flip_test: bool
    rescore: float | None
    oks_nms: float | None
    oks_nms_soft: bool
    test_on: list[str]
    weights: str | None
    resume: str | None
    parent: str | None
    duration: float | None
    budget: str | None
    family: str
    folds: int | None
    runs_dir: str


def check(config: DictConfig) -> list[str]:
    """Contradictions in a training config, as messages."""
    faults = []
    if len(config.size) != 2 or min(config.size) < 32:
        faults.append(f"size is {list(config.size)}, but must be [width, height] in pixels, 32 or more each.")
    if config.window is not None and (len(config.window) != 2 or min(config.window) < 32):
        faults.append(
            f"window is {list(config.window)}, but must be [width, height] in pixels, 32 or more each, or null."
        )
    if config.regions not in ("image", "annotated", "detected"):
        faults.append(f"regions is '{config.regions}'. Use image, annotated or detected.")
    if (config.regions == "detected") != (config.detector_run is not None):
        faults.append(
            f"regions is '{config.regions}' and detector_run is {config.detector_run}. Boxes of an earlier run need both "
            "regions=detected and detector_run=RUN."
        )
    if config.get("detector") is not None:
        if config.regions != "image":
            faults.append(f"a detector takes whole images, but regions is '{config.regions}'. Use regions=image.")
        if config.window is not None:
            faults.append("a cascade is trained on whole views. Use window=null.")
    for key in ("rescore", "oks_nms"):
        if config[key] is not None and not 0 <= config[key] <= 1:
            faults.append(f"{key} is {config[key]}, but must lie between 0 and 1, or be null.")
    for key, low in (
        ("batch_size", 1),
        ("padding", 1e-6),
        ("validate_every", 1),
        ("validate_images", 1),
        ("workers", 0),
        ("patience", 1),
        ("cache", 0),
    ):
        if config[key] is not None and config[key] < low:
            faults.append(f"{key} is {config[key]}, but must be at least {low}.")
    epochs = config.trainer.get("max_epochs")
    # 0 epochs are a model with the weights that are given
    if epochs is not None and (not isinstance(epochs, int) or (epochs == 0 and config.weights is None)):
        faults.append(f"trainer.max_epochs is {epochs}, but must be a whole number, 1 or more; -1 for any number.")
    if config.duration is not None:
        if not isinstance(config.duration, int | float) or config.duration <= 0:
            faults.append(f"duration is {config.duration}, but must be a number of seconds, or null.")
        if not isinstance(epochs, int) or epochs < 1:
            faults.append("duration needs trainer.max_epochs, a first estimate of the number of epochs: 1 or more.")
        if config.augment.get("mosaic") and config.augment.get("mosaic_off"):
            faults.append("with duration the last epochs are not known beforehand. Use augment.mosaic_off=0.")
    if (
        config.folds is not None
        and config.resume is None
        and (config.folds < 2 or config.duration is None or config.budget is None)
    ):
        faults.append(
            f"folds is {config.folds}, but must be 2 or more, with a budget=TIME and without trainer.max_epochs, or null."
        )
    if config.monitor is not None:
        faults += check_monitor(str(config.monitor))
    elif config.patience is not None:
        faults.append(
            f"patience is {config.patience}, but monitor is null. Name the metric, such as monitor=val/mean_px."
        )
    if not 0 <= config.window_anywhere <= 1:
        faults.append(f"window_anywhere is {config.window_anywhere}, but must lie between 0 and 1.")
    if config.ema is not None and not 0 < config.ema < 1:
        faults.append(f"ema is {config.ema}, but must lie between 0 and 1, or be null.")
    skeleton = config.dataset.get("skeleton") or {}
    if not skeleton.get("keypoints"):
        faults.append(
            f"dataset '{config.dataset.get('name')}' has no skeleton. Name one in its defaults: /skeleton@skeleton: NAME."
        )
    return faults


def check_monitor(name: str) -> list[str]:
    """Check that a validation logs a metric of this name; whether its threshold is scored is checked with the dataset."""
    from kplab.metrics.metric import rows_of

    rows = rows_of("validation")
    if name.partition("@")[0] in ("val/loss", *(f"val/{row.name}" for row in rows)):
        return []
    known = ["val/loss", *(f"val/{row.name}{'@THRESHOLD' if row.each else ''}" for row in rows)]
    return [f"monitor is '{name}'. Use one of: {', '.join(known)}."]


def rebase(overrides: list[str]) -> tuple[DictConfig | None, list[str]]:
    """With ``resume=RUN``, the config of that run; with ``budget=TIME``, the experiment that is planned for it."""
    if any(override.startswith("budget=") and override != "budget=null" for override in overrides):
        from kplab.tasks.planning.command import planned

        return None, planned(overrides)
    if not any("resume" in override for override in overrides):
        return None, overrides
    from kplab.tasks.training.resume import stored_config

    return stored_config(overrides)


def complete(config: DictConfig, choices: dict[str, str]) -> None:
    """Name the run after its experiment, else after its dataset and head."""
    if OmegaConf.is_missing(config, "name"):
        model = choices.get("head") or choices.get("model")
        config.name = choices.get("experiment") or f"{choices.get('dataset')}_{model}"


def main(args: list[str]) -> None:
    """Train one run, or one for each combination of values with --multirun."""
    if "--multirun" in args or "-m" in args:
        from kplab.tasks.training.sweep import sweep

        sweep([a for a in args if a not in ("--multirun", "-m")])
        return
    config = compose("train", args)  # before torch is imported: a mistake in the command is reported at once
    from kplab.tasks.training.train import train

    if config.folds is not None and config.resume is None:
        from kplab.tasks.planning.folds import cross_validated

        config = cross_validated(config)
    train(config)
