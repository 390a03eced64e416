"""Descriptors of the appearance of poses: the features of a network's backbone at their keypoints."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kplab.errors import ModelError
from kplab.models.pose_model import predicting
from kplab.ops import affine
from kplab.structures.frames import Frame
from kplab.structures.predictor import Predictor


class BackboneFeatures:
    """A function from a frame to (N, D) descriptors of its poses. It runs the backbone once more on the whole frame.

    The features of each scale are sampled at the keypoints of a pose, and averaged over them; each scale has length 1.

    Args:
        model: a network; of a cascade, the backbone of its detector is used.

    Raises:
        ModelError: the model is no network, such as an exemplar-based one.
    """

    def __init__(self, model: Predictor) -> None:
        network = next(iter(getattr(model, "networks", {}).values()), None)
        if network is None:
            raise ModelError(
                f"{type(model).__name__} has no backbone whose features describe appearance. Use "
                "tracker.appearance_weight=0."
            )
        self.network: Any = network

    def __call__(self, frame: Frame) -> np.ndarray:
        """The descriptors of the poses of a frame, which has its image.

        Raises:
            ValueError: the frame has no image.
        """
        if frame.image is None:
            raise ValueError(f"{frame.name} has no image: the stream must keep images where appearance is used")
        height, width = frame.image.shape[:2]
        size = self.network.size
        view = affine.fit_box(np.array([0.0, 0.0, width, height]), size)
        pixels = torch.from_numpy(affine.warp(frame.image, view, size)).permute(2, 0, 1)[None]
        xy = torch.from_numpy(affine.apply(view, frame.poses.xy)).float()
        with predicting(self.network):
            # samples at -1 and 1 are the outer edges of the view
            places = (2 * xy / torch.tensor(size) - 1).nan_to_num(-2.0).to(self.network.device)
            found = [self._at(features, places) for features in self._maps(pixels.to(self.network.device))]
        known = torch.from_numpy(frame.poses.labelled)[..., None].to(self.network.device)
        means = [(f * known).sum(1) / known.sum(1).clamp_min(1) for f in found]
        return torch.cat([F.normalize(m, dim=1) for m in means], dim=1).double().cpu().numpy()

    def _maps(self, pixels: Tensor) -> list[Tensor]:
        network = self.network
        scaled = pixels.to(torch.float32, memory_format=network.layout) / 255
        return network.backbone((scaled - network.mean) / network.std)

    def _at(self, features: Tensor, places: Tensor) -> Tensor:
        """(N, K, C) features at places, of a map (1, C, h, w)."""
        return F.grid_sample(features.float(), places[None], align_corners=False)[0].permute(1, 2, 0)
