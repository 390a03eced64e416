"""Image sources: files, arrays, and the images of a dataset."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kplab.data.images import check_ending, find_images, read_header, read_image
from kplab.errors import DataError
from kplab.structures.image_source import ImageSource
from kplab.structures.labels import Labels

#: Faults that one message lists.
LISTED = 10


class FileSource:
    """Images in files below one folder.

    Args:
        root: the folder.
        names: path of each image relative to it, posix style.
    """

    def __init__(self, root: str | Path, names: Sequence[str]) -> None:
        self.root, self.names = Path(root), names

    @classmethod
    def of(cls, files: Sequence[Path]) -> FileSource:
        """Listed files; the root is the deepest folder that holds all of them."""
        root = Path(os.path.commonpath([path.parent.absolute() for path in files]))
        return cls(root, [path.absolute().relative_to(root).as_posix() for path in files])

    def __len__(self) -> int:
        return len(self.names)

    def path(self, i: int) -> Path:
        """File of image i."""
        return self.root / str(self.names[i])

    def read(self, i: int) -> np.ndarray:
        """Image i, (H, W, 3) uint8 RGB."""
        return read_image(self.path(i))

    def name(self, i: int) -> str:
        """Path of image i relative to the root."""
        return str(self.names[i])


def check_files(source: FileSource) -> None:
    """Read every header and the end of every file, so that a damaged one is reported before work starts.

    Raises:
        DataError: the first damaged files, a line each.
    """
    faults = []
    for i in range(len(source)):
        try:
            check_ending(source.path(i))
            read_header(source.path(i))
        except DataError as error:
            faults.append(str(error))
    if faults:
        more = f"\n… and {len(faults) - LISTED} more" if len(faults) > LISTED else ""
        raise DataError("\n".join(faults[:LISTED]) + more)


class ArraySource:
    """Images in memory.

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


def open_source(images: Any) -> tuple[ImageSource, bool]:
    """The source of whatever names images, and whether it names one image only.

    Args:
        images: an array, an image of PIL or the path of a file; or many: a folder, a glob, a list of arrays, of images of
            PIL or of paths, or an ImageSource.

    Raises:
        DataError: there is no image, or an array has another shape or type.
    """
    if isinstance(images, np.ndarray | Image.Image):
        return ArraySource([as_array(images)]), True
    if isinstance(images, str | Path):
        return FileSource.of(find_images(str(images))[0]), Path(images).is_file()
    if isinstance(images, ImageSource):
        return images, False
    items = list(images)
    if items and all(isinstance(item, str | Path) for item in items):
        return FileSource.of([Path(item) for item in items]), False
    if items and all(isinstance(item, np.ndarray | Image.Image) for item in items):
        return ArraySource([as_array(item) for item in items]), False
    raise DataError(
        f"a list of {len(items)} images has types {sorted({type(item).__name__ for item in items})}. "
        "Give one image or more, all of them arrays or PIL images, or all of them paths."
    )


def as_array(image: np.ndarray | Image.Image) -> np.ndarray:
    """An array as it is, and an image of PIL as an (H, W, 3) uint8 RGB array."""
    return image if isinstance(image, np.ndarray) else np.asarray(image.convert("RGB"))


def source_of(labels: Labels) -> ImageSource:
    """The images of a dataset."""
    return FileSource(labels.root, labels.files)  # type: ignore[arg-type]  # an array of names
