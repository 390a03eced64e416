"""Decoded images that stay in memory, since a training reads the same ones in each epoch."""

from __future__ import annotations

import numpy as np

from kplab.structures.labels import Labels


class ImageCache:
    """Reads the images of a split, and keeps those that are read first, as far as they fit.

    None is dropped for another one: images are read in random order, of which any share is as good as another. Each process
    that reads has a cache of its own.

    Args:
        labels: whose images are read.
        limit: bytes that are kept at most; 0 keeps none.
    """

    def __init__(self, labels: Labels, limit: int = 0) -> None:
        self.labels, self.left = labels, limit
        self.kept: dict[int, np.ndarray] = {}

    def read(self, i: int) -> np.ndarray:
        """Image i, (H, W, 3) uint8 RGB; it can't be written to.

        Raises:
            DataError: it is missing or damaged.
        """
        image = self.kept.get(i)
        if image is None:
            image = self.labels.read(i).view()
            image.flags.writeable = False
            if image.nbytes <= self.left:
                self.left -= image.nbytes
                self.kept[i] = image
        return image
