"""Reading image files: any common format to 8-bit RGB."""

from __future__ import annotations

import glob
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from kplab.errors import DataError

ROTATION_TAG = 0x0112
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def find_images(pattern: str) -> tuple[list[Path], list[Path]]:
    """Image files of a folder (with its subfolders), a glob, or one file, sorted by name; and the other files there.

    Raises:
        DataError: there is none.
    """
    path = Path(pattern)
    every = list(path.rglob("*")) if path.is_dir() else [Path(p) for p in glob.glob(pattern, recursive=True)]
    files = sorted(p for p in every if p.is_file())
    found = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise DataError(
            f"{pattern}: no image found. Give a folder, a file or a quoted glob; known: {' '.join(IMAGE_SUFFIXES)}."
        )
    return found, [p for p in files if p.suffix.lower() not in IMAGE_SUFFIXES]


def read_image(path: Path | str) -> np.ndarray:
    """Read an image as it is stored.

    EXIF orientation is ignored, as COCO's own tools do: labels are on the stored pixels, and ``data.check`` warns of
    files with an orientation. Grey images are repeated over the three channels, an alpha channel is dropped, and
    16-bit values are divided by 257, which maps their whole range to 0..255.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: the file is missing, is not an image, is truncated, or holds floating-point pixels.
    """
    path = Path(path)
    data = check_whole(path)
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    except cv2.error as error:
        raise DataError(f"{path}: OpenCV cannot decode it ({error}). Convert it to PNG or JPEG.") from error
    if image is None:
        raise DataError(f"{path}: not an image that OpenCV can decode ({len(data)} bytes). Convert it to PNG or JPEG.")
    if image.dtype == np.uint16:
        image = np.round(image / 257.0).astype(np.uint8)
    if image.dtype != np.uint8:
        raise DataError(f"{path}: pixels are {image.dtype}, expected 8 or 16-bit integers. Convert it to PNG.")
    if image.ndim == 2 or image.shape[2] == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    if image.shape[2] == 2:
        return cv2.cvtColor(np.ascontiguousarray(image[..., 0]), cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def check_whole(path: Path) -> bytes:
    """The bytes of a file that is not truncated; much faster than decoding it.

    Raises:
        DataError: the file is missing, or is a truncated JPEG or PNG.
    """
    data = _bytes(path)
    problem = truncation(data)
    if problem:
        raise DataError(f"{path}: {problem}. Fetch the file again, or leave the image out of the dataset.")
    return data


def read_header(path: Path | str) -> tuple[tuple[int, int], int]:
    """Size and EXIF orientation of an image, without decoding its pixels.

    Returns:
        (width, height) in stored pixels, and the orientation tag (1 where there is none: upright).

    Raises:
        DataError: the file is missing or is not an image.
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            return image.size, int(image.getexif().get(ROTATION_TAG, 1) or 1)
    except FileNotFoundError:
        raise _missing(path) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: it has no image header ({error}). Fetch the file again.") from error


def truncation(data: bytes) -> str | None:
    """A message where a JPEG or PNG is truncated, which decoders accept and fill with grey; None where it is complete.

    The end marker of a JPEG must come after its last scan: an embedded thumbnail has one of its own.
    """
    if data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < max(data.rfind(b"\xff\xda"), 2):
        return f"the JPEG is truncated: no end marker after {len(data)} bytes"
    if data.startswith(b"\x89PNG") and data.rfind(b"IEND") < max(data.rfind(b"IDAT"), 8):
        return f"the PNG is truncated: no end chunk after {len(data)} bytes"
    return None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise _missing(path) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}). Check that it is a file and may be read.") from error


def _missing(path: Path) -> DataError:
    return DataError(f"{path}: no such image. Check the dataset's image folder, or fetch the file again.")
