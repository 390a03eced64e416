"""The protocol of everything that gives images by index: files, and later videos, cameras and shards."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class ImageSource(Protocol):
    """Images by index."""

    def __len__(self) -> int: ...

    def read(self, i: int) -> np.ndarray:
        """Image i, (H, W, 3) uint8 RGB.

        Raises:
            DataError: it is missing or damaged; names the file.
        """
        ...

    def name(self, i: int) -> str:
        """What image i is called in tables, manifests and messages: its path relative to the source's folder."""
        ...
