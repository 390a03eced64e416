"""Reading image files: any common format to 8-bit RGB."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image

from kplab.errors import DataError

ROTATION_TAG = 0x0112
BITS_TAG = 258
FEW_BITS = 14
"""Cameras of 10, 12 or 14 bits often write them into the lower bits of a 16-bit image, which then looks black."""
TIFF_SUFFIXES = (".tif", ".tiff")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


_REDUCED = (
    (8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
    (4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    (2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
)
"""Reductions of an image while it is decoded, with the flag of OpenCV."""


class ImageTooLarge(DataError):
    """An image has more pixels than are read."""


def find_images(pattern: str) -> tuple[list[Path], list[Path]]:
    """Image files of a folder (with its subfolders), a glob, or one file, sorted by name; and the other files there.

    Raises:
        DataError: there is none.
    """
    path = Path(pattern)
    every = list(path.rglob("*")) if path.is_dir() else [Path(p) for p in glob.glob(pattern, recursive=True)]
    files = sorted(p for p in every if p.is_file())
    found = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
    strange = [p for p in found if not is_file_name(str(p))]
    if strange:
        listed = ", ".join(repr(str(p)) for p in strange[:10])
        raise DataError(
            f"{pattern}: {len(strange)} images have a name that is not UTF-8: {listed}. Tables and JSON can't hold such "
            "names: rename them, e.g. with convmv."
        )
    if not found:
        raise DataError(
            f"{pattern}: no image found. Give a folder, a file or a quoted glob; known: {' '.join(IMAGE_SUFFIXES)}."
        )
    return found, [p for p in files if p.suffix.lower() not in IMAGE_SUFFIXES]


def read_image(path: Path | str, upright: bool = False) -> np.ndarray:
    """Read an image as it is stored.

    EXIF orientation is ignored, as COCO's own tools do: labels are on the stored pixels, and ``data.check`` warns of
    files with an orientation. Grey images are repeated over the three channels, an alpha channel is dropped, and
    16-bit values are divided by 257, which maps their whole range to 0..255 (``few_bits`` finds those that use less).

    Args:
        path: of the file.
        upright: turn the image as its EXIF orientation states, as viewers show it: for images without labels.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: the file is missing, is not an image, is truncated, or holds floating-point pixels.
    """
    path = Path(path)
    if upright:
        return turned(read_image(path), read_header(path)[1])
    return decode_image(_bytes(path), str(path))


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decode the bytes of an image file; see ``read_image``.

    Args:
        data: the whole file.
        name: of the image, for messages.

    Returns:
        (H, W, 3) uint8 RGB, as stored: EXIF orientation is ignored.

    Raises:
        DataError: it is not an image, is truncated, or holds floating-point pixels.
    """
    problem = truncation(data, len(data))
    if problem:
        raise _truncated(name, problem)
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    except cv2.error as error:
        raise DataError(f"{name}: OpenCV cannot decode it ({error}). Convert it to PNG or JPEG.") from error
    if image is None:
        raise DataError(f"{name}: not an image that OpenCV can decode ({len(data)} bytes). Convert it to PNG or JPEG.")
    if image.dtype == np.uint16:
        image = np.round(image / 257.0).astype(np.uint8)
    if image.dtype != np.uint8:
        raise DataError(f"{name}: pixels are {image.dtype}, expected 8 or 16-bit integers. Convert it to PNG.")
    if image.ndim == 2 or image.shape[2] == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    if image.shape[2] == 2:
        return cv2.cvtColor(np.ascontiguousarray(image[..., 0]), cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """A stored image as its EXIF orientation (1 to 8) shows it."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def few_bits(path: Path) -> int | None:
    """How many bits the values of a 16-bit image use, if at most ``FEW_BITS``: it appears dark; None for all others."""
    if path.suffix.lower() not in (".png", *TIFF_SUFFIXES):
        return None
    try:
        with Image.open(path) as image:
            tag = getattr(image, "tag_v2", {}).get(BITS_TAG, (8,))
            depth = max(tag) if isinstance(tag, tuple) else tag
            if image.format == "PNG":
                with path.open("rb") as file:
                    depth = file.read(25)[24]  # of the header chunk, which is always the first
        if depth != 16:
            return None
        pixels = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except Exception:
        # a damaged file, which read_image reports
        return None
    bits = 0 if pixels is None or pixels.dtype != np.uint16 else int(pixels.max(initial=0)).bit_length()
    return bits if 8 < bits <= FEW_BITS else None


def check_ending(path: Path) -> None:
    """Refuse a truncated JPEG or PNG, without decoding it or holding it in memory.

    It is read backwards from its end, in blocks, up to the last marker, which lies in the last block of a complete file.

    Raises:
        DataError: the file is missing, can't be read, or is truncated.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(8)
            problem = truncation(_tail(file, start), file.seek(0, os.SEEK_END))
    except FileNotFoundError:
        raise _missing(path) from None
    except OSError as error:
        raise _unreadable(path, error) from error
    if problem:
        raise _truncated(path, problem)


def read_header(file: Path | str | BinaryIO, name: str | None = None) -> tuple[tuple[int, int], int]:
    """Size and EXIF orientation of an image, without decoding its pixels.

    Args:
        file: the path, or an open file at its start.
        name: of an open file, for messages.

    Returns:
        (width, height) in stored pixels, and the orientation tag (1 where there is none: upright).

    Raises:
        ImageTooLarge: it has more pixels than kplab reads.
        DataError: the file is missing or is not an image.
    """
    name = str(file) if name is None else name
    try:
        with Image.open(file) as image:
            return image.size, _orientation(image)
    except FileNotFoundError:
        raise _missing(name) from None
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(
            f"{name}: too large: {error} kplab reads images of up to {most_pixels()} pixels: cut it into tiles, or scale "
            "it down."
        ) from error
    except Exception as error:
        # PIL raises many kinds about damaged headers: OSError, SyntaxError, ValueError, struct.error, …
        raise DataError(f"{name}: it has no image header ({error}). Fetch the file again.") from error


def most_pixels() -> int:
    """The largest number of pixels of an image that is read."""
    return 2 * (Image.MAX_IMAGE_PIXELS or 0)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, or none that can be read.

    Of a TIFF file too: its orientation is part of the format, and both PIL and OpenCV read it upright.
    """
    if image.format == "TIFF":
        return 1
    try:
        # of a PNG, PIL decodes all pixels to get to what follows them
        plain = image.format == "PNG" and not _texts_after_data(image)
        value = (Image.Image.getexif(image) if plain else image.getexif()).get(ROTATION_TAG, 1)
    except Exception:
        # the pixels of an image with damaged EXIF data are good
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _texts_after_data(image: Any) -> bool:
    """Whether an open PNG has chunks behind its pixels that may hold EXIF data; the position of its file stays."""
    file = image.fp
    place, behind = file.tell(), False
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
            if behind and head[4:] in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            behind |= head[4:] == b"IDAT"
            file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
        return False
    finally:
        file.seek(place)


def is_file_name(name: str) -> bool:
    """Whether a file can have this name and it can be written into tables: UTF-8 without NUL."""
    try:
        return "\x00" not in name and bool(name.encode())
    except UnicodeEncodeError:
        return False


#: By kind of file: its first bytes, the marker that ends it, the marker of its last data, and the message for a missing end.
ENDINGS = (
    (b"\xff\xd8", b"\xff\xd9", b"\xff\xda", "the JPEG is truncated: no end marker"),
    (b"\x89PNG", b"IEND", b"IDAT", "the PNG is truncated: no end chunk"),
)


def truncation(data: bytes, length: int) -> str | None:
    """A message where a JPEG or PNG is truncated, which decoders accept and fill with grey; None where it is complete.

    The end marker of a JPEG must come after its last scan: an embedded thumbnail has one of its own.

    Args:
        data: the file, or its first 8 bytes and what follows from its last marker on.
        length: of the file, bytes.
    """
    for start, end, last, problem in ENDINGS:
        if data.startswith(start) and data.rfind(end) < max(data.rfind(last), len(start)):
            return f"{problem} after {length} bytes"
    return None


def _tail(file: BinaryIO, start: bytes, block: int = 1 << 16) -> bytes:
    """The start of a file and its end from a block that holds a marker on."""
    markers = next(((end, last) for first, end, last, _ in ENDINGS if start.startswith(first)), None)
    tail, at = b"", file.seek(0, os.SEEK_END)
    while markers and at > len(start) and not any(m in tail for m in markers):
        low = max(len(start), at - block)
        file.seek(low)
        # the overlap keeps a marker whole that two blocks share
        tail, at = file.read(at - low) + tail[:4], low
    return start + tail


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise _missing(path) from None
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error}). Check that it is a file and may be read.")


def _truncated(path: Path | str, problem: str) -> DataError:
    return DataError(f"{path}: {problem}. Fetch the file again, or leave the image out of the dataset.")


def _missing(path: Path | str) -> DataError:
    return DataError(f"{path}: no such image. Check the dataset's image folder, or fetch the file again.")


def read_small(path: Path, least: int = 64) -> np.ndarray:
    """Read a reduced grey copy of an image, for comparisons; of a JPEG, only a part of the data is decoded.

    Args:
        path: of the file.
        least: smallest length of the shorter side that is allowed, pixels, where the image has as many.

    Returns:
        (h, w) uint8: the image reduced by 1, 2, 4 or 8; EXIF orientation is ignored.

    Raises:
        DataError: as ``read_image``.
    """
    side = min(read_header(path)[0])
    flag = next((f for by, f in _REDUCED if side >= by * least), cv2.IMREAD_GRAYSCALE)
    image = cv2.imdecode(np.frombuffer(_bytes(path), dtype=np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    return cv2.cvtColor(read_image(path), cv2.COLOR_RGB2GRAY) if image is None else image
