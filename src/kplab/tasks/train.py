"""``kplab train``: train a model, then score it on its test split."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

from kplab.tasks import compose

EXAMPLE = "kplab train experiment=mouse_heatmap"

#: What a validation logs, see ``tasks.training.pose_module``.
MONITORED = ("val/px", "val/AP", "val/loss")


@dataclass
class Options:
    """Top-level keys of ``kplab train``; the groups' own keys are the constructors' arguments."""

    dataset: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    backbone: dict[str, Any] | None = None
    neck: dict[str, Any] | None = None
    head: dict[str, Any] | None = None
    detector: dict[str, Any] | None = None
    augment: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    name: str = MISSING
    seed: int = 0
    size: list[int] = field(default_factory=list)
    window: list[int] | None = None
    window_anywhere: float = 0.0
    regions: str = "annotated"
    detector_run: str | None = None
    padding: float = 1.25
    batch_size: int = 32
    workers: int | None = None
    ema: float | None = 0.999
    monitor: str = "val/px"
    patience: int | None = None
    validate_every: int = 1
    flip_test: bool = True
    rescore: float | None = None
    oks_nms: float | None = None
    oks_nms_soft: bool = False
    test_on: list[str] = field(default_factory=list)
    weights: str | None = None
    resume: str | None = None
    parent: str | None = None
    runs_dir: str = MISSING


def check(config: DictConfig) -> list[str]:
    """Contradictions inside a training config that show without any data."""
    faults = []
    if len(config.size) != 2 or min(config.size) < 32:
        faults.append(f"size is {list(config.size)}, but wants [width, height] in pixels, 32 or more each.")
    if config.window is not None and (len(config.window) != 2 or min(config.window) < 32):
        faults.append(
            f"window is {list(config.window)}, but wants [width, height] in pixels, 32 or more each, or null."
        )
    if config.regions not in ("image", "annotated", "detected"):
        faults.append(f"regions is '{config.regions}'. Use image, annotated or detected.")
    if (config.regions == "detected") != (config.detector_run is not None):
        faults.append(
            f"regions is '{config.regions}' and detector_run is {config.detector_run}. Boxes of an earlier run want both "
            "regions=detected and detector_run=RUN."
        )
    if config.get("detector") is not None:
        if config.regions != "image":
            faults.append(f"a detector looks at whole images, but regions is '{config.regions}'. Use regions=image.")
        if config.window is not None:
            faults.append("a detector's cascade takes whole views in training. Use window=null.")
    for key in ("rescore", "oks_nms"):
        if config[key] is not None and not 0 <= config[key] <= 1:
            faults.append(f"{key} is {config[key]}, but must lie between 0 and 1, or be null.")
    for key, low in (("batch_size", 1), ("padding", 1e-6), ("validate_every", 1), ("workers", 0), ("patience", 1)):
        if config[key] is not None and config[key] < low:
            faults.append(f"{key} is {config[key]}, but must be at least {low}.")
    epochs = config.trainer.get("max_epochs")
    # weights that are given are a model without any epoch
    if epochs is not None and (not isinstance(epochs, int) or (epochs == 0 and config.weights is None)):
        faults.append(f"trainer.max_epochs is {epochs}, but wants a whole number, 1 or more; -1 for any number.")
    if config.monitor not in MONITORED:
        faults.append(f"monitor is '{config.monitor}'. Use one of: {', '.join(MONITORED)}.")
    if not 0 <= config.window_anywhere <= 1:
        faults.append(f"window_anywhere is {config.window_anywhere}, but is a share between 0 and 1.")
    if config.ema is not None and not 0 < config.ema < 1:
        faults.append(f"ema is {config.ema}, but must lie between 0 and 1, or be null.")
    skeleton = config.dataset.get("skeleton") or {}
    if not skeleton.get("keypoints"):
        faults.append(
            f"dataset '{config.dataset.get('name')}' has no skeleton. Name one in its defaults: /skeleton@skeleton: NAME."
        )
    return faults


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

    train(config)
