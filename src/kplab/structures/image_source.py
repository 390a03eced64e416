"""The protocol of everything that gives images by index, and the selection of some images of a source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class ImageSource(Protocol):
    """Images by index. A source whose images are files also has ``path(i)``; see ``path_of``."""

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


def path_of(source: ImageSource, i: int) -> Path | None:
    """The file of image i; None where the source does not keep each image in a file of its own."""
    path = getattr(source, "path", None)
    return None if path is None else path(i)


@dataclass(frozen=True)
class Subset:
    """Some images of another source, in any order.

    Args:
        source: the other source.
        index: (I,) index of each image in it.
    """

    source: ImageSource
    index: np.ndarray

    @classmethod
    def of(cls, source: ImageSource, index: np.ndarray | Sequence[int]) -> Subset:
        """Select images; a selection of a selection refers to the first source."""
        index = np.asarray(index, dtype=np.int64)
        return cls(source.source, source.index[index]) if isinstance(source, Subset) else cls(source, index)

    def __len__(self) -> int:
        return len(self.index)

    def __str__(self) -> str:
        return str(self.source)

    def read(self, i: int) -> np.ndarray:
        """Image i, (H, W, 3) uint8 RGB."""
        return self.source.read(int(self.index[i]))

    def name(self, i: int) -> str:
        """Name of image i in the other source."""
        return self.source.name(int(self.index[i]))

    def path(self, i: int) -> Path | None:
        """File of image i, where the other source keeps files."""
        return path_of(self.source, int(self.index[i]))
