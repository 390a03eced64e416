"""One view of an image, and a batch of views."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from kplab.structures.poses import Poses


@dataclass
class Sample:
    """One region of one image, resampled to the network's input.

    Args:
        image: (H, W, 3) uint8 RGB, view frame.
        poses: true poses, view frame; empty where nothing is known.
        view: (3, 3) float64, source pixels to view pixels.
        image_id: id of the image.
        box: (4,) float64 xyxy, the region in source pixels (not padded).
        score: confidence of the region: 1 where it is given.

    A mosaic (training only) shows several images: view, image_id and box are those of the
    sample's own region.
    """

    image: np.ndarray
    poses: Poses
    view: np.ndarray
    image_id: int
    box: np.ndarray
    score: float = 1.0


@dataclass
class Batch:
    """B views of one size.

    Args:
        images: (B, 3, H, W) uint8, in memory channels last; the model scales and normalises them on the device.
        poses: B Poses, view frame.
        view: (B, 3, 3) float64, source pixels to view pixels.
        image_id: (B,) int64.
        box: (B, 4) float64 regions in source pixels.
        score: (B,) float64 confidence of each region.
    """

    images: torch.Tensor
    poses: list[Poses]
    view: np.ndarray
    image_id: np.ndarray
    box: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the views."""
        return int(self.images.shape[-1]), int(self.images.shape[-2])

    def first(self, number: int) -> Batch:
        """The first views."""
        rows = slice(number)
        return Batch(
            self.images[rows], self.poses[rows], self.view[rows], self.image_id[rows], self.box[rows], self.score[rows]
        )

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its images on a device."""
        return replace(self, images=self.images.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """For DataLoader(pin_memory=True)."""
        return replace(self, images=self.images.pin_memory())

    @classmethod
    def collate(cls, samples: list[Sample]) -> Batch:
        """Stack samples of one size."""
        return cls(
            torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2),
            [s.poses for s in samples],
            np.stack([s.view for s in samples]),
            np.array([s.image_id for s in samples], dtype=np.int64),
            np.stack([s.box for s in samples]),
            np.array([s.score for s in samples], dtype=np.float64),
        )
