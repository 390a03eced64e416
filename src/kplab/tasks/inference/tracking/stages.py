"""The stages that a config describes: tracker, gap filling and smoothing, in this order."""

from __future__ import annotations

from omegaconf import DictConfig

from kplab.structures.frames import Stage
from kplab.structures.skeleton import Skeleton
from kplab.tasks.inference.tracking.tracker import Embed
from kplab.tasks.wiring.nodes import build_node

KEYS = ("tracker", "fill", "smooth")


def build_stages(config: DictConfig, skeleton: Skeleton, embed: Embed | None = None) -> list[Stage]:
    """The stages of the keys ``tracker``, ``fill`` and ``smooth`` of a config, as far as they are not null.

    Args:
        config: of a verb that has these keys.
        skeleton: of the poses.
        embed: see ``Tracker``.

    Raises:
        ConfigError: an option is unknown, or out of its range.
    """
    objects = {"tracker": {"skeleton": skeleton, "embed": embed}}
    return [build_node(config[key], key, **objects.get(key, {})) for key in KEYS if config.get(key) is not None]
