"""Models from configs: backbone → neck → head, a cascade of two of these, or an exemplar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kplab import config as configs
from kplab.errors import ConfigError, ModelError
from kplab.models.heads.base import HeadInputs
from kplab.structures.predictor import Model, Predictor
from kplab.tasks.wiring.datasets import skeleton_of
from kplab.tasks.wiring.nodes import build_node


def build_model(config: DictConfig, pretrained: bool = True) -> Model:
    """The model of a run's config: ``model`` with the parts that the config has beside it.

    Args:
        pretrained: False where a checkpoint is loaded next, so that no weights are downloaded or read needlessly.

    Raises:
        ModelError: parts are incompatible, or the file of ``weights`` doesn't fit them.
    """
    skeleton, size = skeleton_of(config.dataset), sides(config.size)
    from_start = pretrained and config.get("resume") is None
    given = config.get("weights") if from_start else None
    unloaded: dict[str, Any] = {} if from_start and not given else {"pretrained": False, "checkpoint": None}

    def parts(node: DictConfig, view: tuple[int, int], auxiliary: Any = None, turns: Any = ()) -> dict[str, Any]:
        """Backbone, neck, head and auxiliary heatmaps for views of a size, in the order in which their weights are drawn."""
        backbone = build_node(node.backbone, "backbone", size=view, **unloaded)
        neck = build_node(node.neck, "neck", in_channels=backbone.channels, strides=backbone.strides)
        inputs = HeadInputs(neck.channels, neck.strides, view, skeleton)
        head = build_node(node.head, "head", inputs=inputs)
        made = {"backbone": backbone, "neck": neck, "head": head, "size": view, "turns": turns}
        # a head of any number of poses may have the option max_poses=1, which does not mean that a view has one subject
        return made | {"auxiliary": build_auxiliary(auxiliary, inputs, type(head).max_poses == 1)}

    options = configs.plain(config.model)
    own = {"auxiliary": options.pop("auxiliary", None), "turns": options.pop("turns", ())}  # of the pose model
    if config.get("detector") is not None:
        from kplab.models.pose_model import PoseModel

        crop = sides(options.pop("crop"))
        detector = PoseModel(**parts(config.detector, sides(config.detector.size)))
        subject = PoseModel(**parts(config, crop, **own))
        objects = {"detector": detector, "subject": subject, "size": size, "padding": config.padding}
    elif config.get("head") is not None:
        objects = parts(config, size, **own)
    else:
        objects = {"size": size, "skeleton": skeleton}
    model: Model = build_node(DictConfig(options), "model", **objects)
    check_window(config, model)
    if given:
        from kplab.models.weights import load_model_weights

        load_model_weights(model, Path(str(given)))
    return model


def build_auxiliary(options: Any, inputs: HeadInputs, one_pose: bool) -> Any:
    """The heatmaps of ``model.auxiliary``, or None.

    Args:
        options: keywords of ``AuxiliaryHeatmaps``, or None.
        inputs: the feature maps, the view and the skeleton.
        one_pose: whether a view has one subject.

    Raises:
        ConfigError: the options are no group of keys, or one of them is unknown or of a wrong type.
        ModelError: an option is out of range.
    """
    if options is None:
        return None
    if not isinstance(options, dict):
        raise ConfigError(f"model.auxiliary is {options!r}. Use null, or a group of keys such as {{weight: 0.5}}.")
    node = {**options, "_target_": "kplab.models.auxiliary.AuxiliaryHeatmaps"}
    return build_node(DictConfig(node), "model.auxiliary", inputs=inputs, one_pose=one_pose)


def backbone_weights(model: Model) -> dict[str, dict[str, Any]]:
    """The files of weights that the backbones of a model were filled from, for the record of a run.

    Returns:
        name of the backbone, such as ``detector.backbone``, to source, file and SHA-256; nothing for random weights.
    """
    found = ((name, getattr(part, "started_from", None)) for name, part in model.named_modules())
    return {name: weights.record() for name, weights in found if weights is not None}


def sides(size: Sequence[int]) -> tuple[int, int]:
    """(width, height) of a config's list."""
    return int(size[0]), int(size[1])


def check_window(config: DictConfig, model: Model) -> None:
    """Refuse windows for models that work with views of one size only.

    Raises:
        ModelError: names the head.
    """
    if model.fixed_size and config.get("window") is not None and sides(config.window) != model.size:
        part = getattr(model, "head", model)
        raise ModelError(
            f"'{type(part).__name__}' works with views of one size only, but window is {list(config.window)} and size is "
            f"{list(config.size)}. Use window=null, or a convolutional head such as heatmap."
        )


def check_flip_test(model: Predictor, flip_test: bool) -> None:
    """Refuse a flip test for models without one.

    Raises:
        ConfigError: names the parts without one.
    """
    if flip_test and not model.flips:
        parts = ", ".join(getattr(model, "without_flip", [])) or type(model).__name__
        raise ConfigError(f"flip_test is true, but {parts} has no flip test. Use flip_test=false.")
