"""Heatmaps of a run's model on one image, in source pixels. Runs in the worker process, which keeps the last model."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from kplab.data.regions import Regions
from kplab.errors import ModelError
from kplab.ops import affine
from kplab.runs.files import reading_only
from kplab.runs.run import Run
from kplab.structures.labels import Labels
from kplab.structures.predictor import Model
from kplab.tasks.inference.loading import load_model
from kplab.tasks.wiring.datasets import read_split, regions_for
from kplab.tasks.wiring.nodes import load_config

#: Longer side of the picture, pixels.
SIDE = 512
#: Colour of the maps: a vermillion that is visible on dark and on bright images.
COLOUR = (213, 94, 0)


@lru_cache(maxsize=1)
def loaded(folder: str, split: str, stamp: float) -> tuple[Model, Labels, Regions]:
    """The part of a run's model that has heatmaps, a split of its dataset, and the regions of the split for this part.

    They are the run's own regions, or annotated boxes for the pose model of a cascade.

    Raises:
        ModelError: no part has heatmaps.
    """
    run = Run.open(Path(folder))
    config = load_config(run)
    model, _ = load_model(run, device="cpu")
    for kind in (str(config.regions), "annotated"):
        part = model.for_regions(kind)
        if part.heatmap_stride is not None:
            with reading_only():
                labels = read_split(config.dataset, split)
            return part, labels, regions_for(config, labels, split, kind)
    raise ModelError("this model has no heatmaps: it predicts coordinates, or maps of another kind.")


@lru_cache(maxsize=4)
def heatmaps(folder: str, split: str, stamp: float, image_id: int) -> np.ndarray:
    """(K, h, w) float32 in [0, 1]: the maps of all regions of an image, in the frame of the image at ``SIDE`` pixels.

    Raises:
        ModelError: the model has no heatmaps, or the split no such image.
    """
    model, labels, regions = loaded(folder, split, stamp)
    stride = model.heatmap_stride
    assert stride is not None
    (found,) = np.nonzero(labels.image_id == image_id)
    if not len(found):
        raise ModelError(f"split '{split}' has no image {image_id}.")
    i = int(found[0])
    image = labels.read(i)
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    whole = np.zeros((len(labels.skeleton), size[1], size[0]), dtype=np.float32)
    for row in np.flatnonzero(regions.image == i):
        view = affine.fit_box(regions.box[row], model.size, regions.padding)
        seen = torch.from_numpy(affine.warp(image, view, model.size).transpose(2, 0, 1)[None].copy())
        maps = model.heatmaps(seen)[0].float().cpu().numpy()
        back = affine.scaling(scale, scale) @ np.linalg.inv(view) @ affine.scaling(stride, stride)
        for k, one in enumerate(maps):
            shown = affine.warp((255 * np.clip(one, 0, 1)).astype(np.uint8), back, size)
            whole[k] = np.maximum(whole[k], shown.astype(np.float32) / 255)
    return whole


def write(folder: str, split: str, image_id: int, keypoint: int | None, out: Path) -> dict[str, Any]:
    """Write the map of a keypoint, or the maximum of all, as PNG whose opacity is the value.

    Returns:
        the largest value, and the kind of the regions that the model was given.
    """
    checkpoints = Path(folder) / "checkpoints"
    stamp = checkpoints.stat().st_mtime if checkpoints.is_dir() else 0.0
    maps = heatmaps(folder, split, stamp, image_id)
    one = maps.max(0) if keypoint is None or not 0 <= keypoint < len(maps) else maps[keypoint]
    picture = np.empty((*one.shape, 4), dtype=np.uint8)
    picture[..., :3] = COLOUR[::-1]
    picture[..., 3] = 230 * np.clip(one / max(float(one.max()), 1e-6), 0, 1)
    out.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    _, _, regions = loaded(folder, split, stamp)
    return {"largest": float(one.max()), "regions": regions.kind}
