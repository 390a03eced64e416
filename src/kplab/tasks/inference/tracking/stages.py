"""The stages that a config describes: tracker, gap filling and smoothing, in this order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from kplab import config as configs
from kplab.errors import ConfigError
from kplab.structures.frames import Stage
from kplab.structures.skeleton import Skeleton
from kplab.tasks.wiring.nodes import build_node

# `kplab track` imports this module, and does without torch
if TYPE_CHECKING:
    from kplab.structures.predictor import Predictor
    from kplab.tasks.inference.predict_source import Stages

KEYS = ("tracker", "fill", "smooth")


def build_stages(config: DictConfig, skeleton: Skeleton, model: Predictor | None = None) -> list[Stage]:
    """The stages of the keys ``tracker``, ``fill`` and ``smooth`` of a config, as far as they are not null.

    Args:
        config: of a verb that has these keys.
        skeleton: of the poses.
        model: for appearance; None: there is no network, so that appearance can't be used.

    Raises:
        ConfigError: an option is unknown, or out of its range.
        ModelError: appearance is asked for, and the model is no network.
    """
    embed = None
    if needs_images(config) and model is not None:
        from kplab.tasks.inference.tracking.appearance import BackboneFeatures

        embed = BackboneFeatures(model)
    objects = {"tracker": {"skeleton": skeleton, "embed": embed}}
    return [build_node(config[key], key, **objects.get(key, {})) for key in KEYS if config.get(key) is not None]


def configured_stages(config: DictConfig) -> Stages:
    """The stages of ``kplab predict``, built anew for each source.

    Raises:
        ConfigError: an option is wrong, or tracks are to be filled or smoothed and there is no tracker.
    """
    from kplab.tasks.inference.predict_source import Stages

    chosen = {key: configs.plain(config[key]) for key in KEYS if config.get(key) is not None}
    if chosen and "tracker" not in chosen:
        raise ConfigError(f"{' and '.join(chosen)} need tracks. Add a tracker: tracker=oks.")
    return Stages(chosen, lambda loaded: build_stages(config, loaded.skeleton, loaded.model), needs_images(config))


def needs_images(config: DictConfig) -> bool:
    """Whether the frames that are tracked need their images: where appearance is used."""
    return config.get("tracker") is not None and config.tracker.get("appearance_weight", 0) > 0
