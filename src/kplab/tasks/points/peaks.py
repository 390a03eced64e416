"""A trained heatmap model as a detector of interest points: the peaks of its maps."""

from __future__ import annotations

import numpy as np
import torch

from kplab.classical.detectors import SIFTDescriptor
from kplab.classical.points import Points, peaks
from kplab.errors import ConfigError
from kplab.ops import affine
from kplab.runs.run import Run
from kplab.tasks.inference.loading import load_model


class HeatmapPeaks:
    """Detects peaks of the maximum over all keypoints' heatmaps. The whole image is resized to the model's view.

    The peaks have no descriptor of their own: they are described by SIFT at ``size``, in the direction of the brightness
    centroid.

    Args:
        run: trained with head=heatmap.
        quality: peaks below this fraction of a Gaussian's full height are discarded.
        size: diameter of all peaks, pixels of the image.

    Raises:
        ConfigError: the run's model has no heatmaps.
    """

    def __init__(
        self, run: Run, checkpoint: str = "auto", device: str = "auto", quality: float = 0.02, size: float = 8.0
    ) -> None:
        model, _ = load_model(run, checkpoint, device)
        if model.heatmap_stride is None:
            raise ConfigError(f"run {run.name} has no heatmaps. Use runs trained with head=heatmap.")
        self.model, self.stride = model, model.heatmap_stride
        self.quality, self.size = quality, size
        self.descriptor = f"SIFT at {size:g} px"
        self.describe = SIFTDescriptor()

    def detect(self, image: np.ndarray) -> Points:
        """Peaks of an (H, W) grey or (H, W, 3) RGB uint8 image."""
        colour = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
        height, width = image.shape[:2]
        view = affine.fit_box(np.array([0, 0, width, height]), self.model.size)
        seen = torch.from_numpy(affine.warp(colour, view, self.model.size).transpose(2, 0, 1)[None].copy())
        maps = self.model.heatmaps(seen)
        uv, score = peaks(maps[0].amax(0).float().cpu().numpy(), self.quality)
        xy = affine.apply(np.linalg.inv(view), uv * self.stride)
        inside = ((xy >= 0) & (xy <= [width, height])).all(1)
        return Points.make(xy[inside], score[inside], np.full(int(inside.sum()), self.size))
