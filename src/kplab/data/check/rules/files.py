"""Image files: missing, unreadable, damaged, copied, turned, or of another size than the labels state."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from kplab.data.check.checked import Checked
from kplab.data.check.finding import Finding, rule
from kplab.data.images import FEW_BITS


@rule(
    "error",
    "missing images",
    "no such file",
    "Check the image folder, or fetch the dataset again.",
    training=True,
)
def missing_image(data: Checked) -> Iterator[Finding]:
    """The file of an image does not exist."""
    for i, look in enumerate(data.looks):
        if look.missing:
            yield Finding(i)


@rule(
    "error",
    "unreadable images",
    "cannot be decoded completely",
    "Fetch these files again, or leave them out of the dataset.",
    training=True,
)
def unreadable_image(data: Checked) -> Iterator[Finding]:
    """A file is not an image, is truncated, or can't be decoded."""
    for i, look in enumerate(data.looks):
        if look.fault and not look.missing:
            yield Finding(i, text=look.fault)


@rule(
    "warning",
    "JPEG images with damaged data",
    "the decoder found a fault, and the image may be wrong from there on",
    "Look at these, and fetch them again or leave them out.",
    training=True,
    pixels=True,
)
def damaged_image(data: Checked) -> Iterator[Finding]:
    """The decoder of a JPEG remarks on damaged data."""
    for i, text in data.damaged.items():
        yield Finding(i, text=text)


@rule(
    "error",
    "images of another size",
    "file and labels (width, height) disagree",
    "The images were resized after labelling: take the originals, or scale the labels with them.",
    training=True,
)
def image_size(data: Checked) -> Iterator[Finding]:
    """An image has another size than the labels state."""
    for i, look in enumerate(data.looks):
        stated = _stated(data, i)
        if look.size is not None and look.size != stated and not _turned(data, i):
            yield Finding(i, text=f"file {look.size}, labels {stated}")


@rule(
    "error",
    "turned images",
    "the labels are for the image as EXIF turns it, but kplab reads pixels as stored",
    "Store the pixels upright without the EXIF tag (e.g. exiftran -ai, or mogrify -auto-orient).",
    training=True,
)
def turned_image(data: Checked) -> Iterator[Finding]:
    """The labels are for an image as its EXIF orientation turns it."""
    for i, look in enumerate(data.looks):
        if _turned(data, i):
            yield Finding(i, text=f"file {look.size}, labels {_stated(data, i)}")


@rule(
    "warning",
    "images with EXIF orientation",
    "kplab ignores the tag, as COCO's tools do",
    "Make sure that the labels are on the stored pixels.",
    training=True,
)
def exif_orientation(data: Checked) -> Iterator[Finding]:
    """An image of the stated size has an EXIF orientation."""
    for i, look in enumerate(data.looks):
        if look.orientation != 1 and look.size == _stated(data, i):
            yield Finding(i, text=f"EXIF orientation {look.orientation}")


@rule(
    "warning",
    "16-bit images that appear dark",
    f"their values use {FEW_BITS} or fewer of the 16 bits",
    "Stretch their values to 16 bits, all by one factor.",
    training=True,
)
def dark_image(data: Checked) -> Iterator[Finding]:
    """A 16-bit image uses few of its bits."""
    for i, look in enumerate(data.looks):
        if look.bits:
            yield Finding(i, text=f"{look.bits} bits", value=look.bits, expected=FEW_BITS)


@rule(
    "warning",
    "copies of images",
    "the file is the same as another one of this split",
    "Keep one of them; if their labels differ, find out which are right.",
    pixels=True,
)
def copied_image(data: Checked) -> Iterator[Finding]:
    """Two images of a split have the same content."""
    first: dict[bytes, int] = {}
    copies: dict[int, list[int]] = defaultdict(list)
    for i, look in enumerate(data.looks):
        if look.digest is not None:
            original = first.setdefault(look.digest, i)
            if original != i:
                copies[original].append(i)
    for original, others in copies.items():
        for i in others:
            yield Finding(i, text=f"same as {data.labels.names[original]}")


def _stated(data: Checked, i: int) -> tuple[int, int]:
    width, height = (int(v) for v in data.labels.size[i])
    return width, height


def _turned(data: Checked, i: int) -> bool:
    look, stated = data.looks[i], _stated(data, i)
    return look.size is not None and look.size != stated and look.orientation >= 5 and look.size[::-1] == stated
