"""Image sources: files, arrays, and the images of a dataset."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kplab.data.images import check_ending, read_header, read_image
from kplab.errors import DataError
from kplab.structures.image_source import ImageSource
from kplab.structures.labels import Labels

#: Faults that one message lists.
LISTED = 10


class ImageFiles:
    """Image files as an ImageSource.

    Args:
        root: folder that names are relative to.
        names: of the files, posix style.
    """

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root, self.names = Path(root), names

    @classmethod
    def of(cls, paths: Sequence[Path]) -> ImageFiles:
        """Files named relative to the deepest folder that holds them all."""
        root = Path(os.path.commonpath([p.parent.absolute() for p in paths]))
        return cls(root, [p.absolute().relative_to(root).as_posix() for p in paths])

    def __len__(self) -> int:
        return len(self.names)

    def path(self, i: int) -> Path:
        """The file of image i."""
        return self.root / str(self.names[i])

    def read(self, i: int) -> np.ndarray:
        """Image i, (H, W, 3) uint8 RGB."""
        return read_image(self.path(i))

    def name(self, i: int) -> str:
        """The path of image i relative to ``root``."""
        return str(self.names[i])

    def check(self) -> None:
        """Read every header and the end of every file, so that a damaged one is reported before work starts.

        Raises:
            DataError: the first damaged files, a line each.
        """
        faults = []
        for i in range(len(self)):
            try:
                check_ending(self.path(i))
                read_header(self.path(i))
            except DataError as error:
                faults.append(str(error))
        if faults:
            more = f"\n… and {len(faults) - LISTED} more" if len(faults) > LISTED else ""
            raise DataError("\n".join(faults[:LISTED]) + more)


class ImageArrays:
    """Images in memory as an ImageSource.

    Args:
        images: (H, W, 3) uint8 RGB each.

    Raises:
        DataError: an array has another shape or type.
    """

    def __init__(self, images: Sequence[np.ndarray]) -> None:
        for i, image in enumerate(images):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise DataError(
                    f"image {i} is an array of shape {image.shape} and type {image.dtype}, but wanted (H, W, 3) uint8 RGB. "
                    "Convert it, e.g. by PIL's image.convert('RGB')."
                )
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def read(self, i: int) -> np.ndarray:
        """Image i, (H, W, 3) uint8 RGB."""
        return self.images[i]

    def name(self, i: int) -> str:
        """The index of image i."""
        return str(i)


def source_of(labels: Labels) -> ImageSource:
    """The images of a dataset."""
    return ImageFiles(labels.root, labels.files)  # type: ignore[arg-type]  # an array of names
