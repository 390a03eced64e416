"""Images in memory, and the source of whatever names images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kplab.data.images import find_images
from kplab.data.sources.files import UprightFiles
from kplab.data.sources.video import VideoSource, is_video
from kplab.errors import DataError
from kplab.structures.image_source import ImageSource


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

    Files are turned upright as their EXIF orientation or a video's rotation states.

    Args:
        images: an array, an image of PIL or the path of a file; or many: a folder, a glob, a video, a list of arrays, of
            images of PIL or of paths, or an ImageSource.

    Raises:
        DataError: there is no image, or an array has another shape or type.
    """
    if isinstance(images, np.ndarray | Image.Image):
        return ArraySource([as_array(images)]), True
    if isinstance(images, str | Path):
        if is_video(images) and not Path(images).is_dir():
            return VideoSource(images), False
        return UprightFiles.of(find_images(str(images))[0]), Path(images).is_file()
    if isinstance(images, ImageSource):
        return images, False
    items = list(images)
    if items and all(isinstance(item, str | Path) for item in items):
        return UprightFiles.of([Path(item) for item in items]), False
    if items and all(isinstance(item, np.ndarray | Image.Image) for item in items):
        return ArraySource([as_array(item) for item in items]), False
    raise DataError(
        f"a list of {len(items)} images has types {sorted({type(item).__name__ for item in items})}. "
        "Give one image or more, all of them arrays or PIL images, or all of them paths."
    )


def as_array(image: np.ndarray | Image.Image) -> np.ndarray:
    """An array as it is, and an image of PIL as an (H, W, 3) uint8 RGB array."""
    return image if isinstance(image, np.ndarray) else np.asarray(image.convert("RGB"))
