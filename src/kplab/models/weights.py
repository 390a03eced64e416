"""Loads the weights of a whole model from a file, completely or not at all."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor, nn

from kplab.errors import ModelError
from kplab.models.heads.rcnn_parts import from_torchvision, is_torchvisions
from kplab.models.pose_model import PoseModel

#: Number of names that an error lists of each kind.
LISTED = 5
#: Parts of torch's messages about a file with objects that are not plain data.
FOREIGN = ("Unsupported global", "unsupported GLOBAL", "allowlisted", "call reduce")


def load_model_weights(model: nn.Module, path: Path) -> None:
    """Load a checkpoint of another run, or a file of torchvision's ``keypointrcnn_resnet50_fpn``.

    Counters of batch normalisation may be missing or left over; nothing else may.

    Raises:
        ModelError: the file can't be read, or its weights don't fit; lists the names.
    """
    if not path.is_file():
        raise ModelError(
            f"weights: there is no file {path}. Give a checkpoint of a run, or torchvision's file: weights=FILE."
        )
    found = read(path)
    foreign = is_torchvisions(found)
    if foreign:
        strides = model.backbone.strides if isinstance(model, PoseModel) else []
        found = from_torchvision(found, strides)
    wanted = model.state_dict()
    lacks = [k for k in wanted if k not in found and not _counts(k)]
    extra = [k for k in found if k not in wanted and not _counts(k)]
    odd = [k for k in wanted if k in found and found[k].shape != wanted[k].shape]
    if lacks or extra or odd:
        shapes = [f"{k} {list(found[k].shape)} instead of {list(wanted[k].shape)}" for k in odd]
        faults = (("it lacks", lacks), ("the model has no", extra), ("of another shape:", shapes))
        told = "; ".join(f"{what} {_some(names)}" for what, names in faults if names)
        remedy = (
            "Torchvision's weights need experiment=torchvision_coco and a skeleton of 17 keypoints, such as coco17."
            if foreign
            else "Give weights of a run with the same backbone, neck, head and skeleton."
        )
        raise ModelError(f"weights: {path} doesn't fit the model: {told}. {remedy}")
    model.load_state_dict({k: v for k, v in found.items() if k in wanted}, strict=False)


def read(path: Path) -> dict[str, Tensor]:
    """Tensors of a PyTorch file by name; of a checkpoint, those of its model.

    Raises:
        ModelError: the file is no such file.
    """
    try:
        held = read_checkpoint(path)
    except ModelError as error:
        raise ModelError(f"weights: {error} Give a checkpoint or a PyTorch state dict.") from None
    if isinstance(held, dict) and isinstance(held.get("state_dict"), dict):
        held = {k.removeprefix("model."): v for k, v in held["state_dict"].items() if k.startswith("model.")}
    if not isinstance(held, dict) or not held or not all(isinstance(v, Tensor) for v in held.values()):
        raise ModelError(f"weights: {path} holds no tensors by name. Give a checkpoint or a PyTorch state dict.")
    return held


def read_checkpoint(path: Path, mapped: bool = False) -> Any:
    """Content of a PyTorch file, on the CPU: tensors, numbers, texts and containers of them.

    Every file of weights is read here. Other objects are refused, because unpickling them can execute code.

    Args:
        path: of the file.
        mapped: leave tensors on the disk until they are used, to read the rest of a large file.

    Raises:
        ModelError: the file is damaged, or holds other objects.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and is_zipfile(path))
    except Exception as error:  # unpickling raises errors of any kind
        text = str(error)
        if isinstance(error, UnpicklingError) and any(sign in text for sign in FOREIGN):
            raise ModelError(
                f"{path}: holds objects other than tensors, numbers and texts. It is not loaded, because loading them "
                "could execute code."
            ) from None
        # torch's text about an unpickling is an advice to load the file without a check
        reason = type(error).__name__ if isinstance(error, UnpicklingError) or not text else text.splitlines()[0][:200]
        raise ModelError(f"{path}: can't be read ({reason}). It is damaged, or no PyTorch file.") from None


def _counts(key: str) -> bool:
    """Whether a tensor is a counter of batch normalisation, which only a cumulative average reads."""
    return key.endswith("num_batches_tracked")


def _some(names: list[str]) -> str:
    """The first names, and the number of the others."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{', '.join(names[:LISTED])}{more}"
