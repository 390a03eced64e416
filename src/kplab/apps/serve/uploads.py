"""The images of a request: a multipart form, or one image as the body. Limits are checked while the body is read."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec
import numpy as np
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from kplab.apps.serve.service import Limits, RequestTooLarge, UnknownFormat, Upload
from kplab.errors import DataError, KplabError
from kplab.structures.predictions import LIMIT

#: Field of a form that holds the files.
IMAGES = "images"
#: Field of a form, or argument of an address, that holds the boxes.
BOXES = "boxes"
#: Longest text of the boxes, bytes.
LONGEST = 200_000

Box = tuple[float, float, float, float]


class BadRequest(KplabError):
    """A request that can't be read."""


async def read_uploads(request: Request, limits: Limits) -> list[Upload]:
    """The images of a request, in its order; at least one.

    Raises:
        RequestTooLarge: the body has more bytes, or the form more files, than are allowed.
        UnknownFormat: the body is neither a form nor an image.
        BadRequest: the form is damaged.
        DataError: a field is unknown or invalid, or there is no image.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limits.bytes:
        raise too_large(limits)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("image/") or kind == "application/octet-stream":
        data = b"".join([part async for part in limited(request, limits)])
        given = request.query_params
        return with_boxes([(given.get("name", "image"), data)], given.get(BOXES))
    if kind != "multipart/form-data":
        raise UnknownFormat(
            f"the body is '{kind or 'of no type'}'. Send one image with a Content-Type of image/jpeg, image/png, …, or "
            f"several in the field '{IMAGES}' of a multipart/form-data."
        )
    form = await read_form(request, limits)
    try:
        return await images_of(form)
    finally:
        await form.close()


def too_large(limits: Limits) -> RequestTooLarge:
    """The error of a body that is too long."""
    return RequestTooLarge(f"the request has more than the {limits.bytes} bytes that are allowed.")


async def limited(request: Request, limits: Limits) -> AsyncGenerator[bytes]:
    """The parts of a body; reading ends as soon as they are too many bytes."""
    read = 0
    async for part in request.stream():
        read += len(part)
        if read > limits.bytes:
            raise too_large(limits)
        yield part


async def read_form(request: Request, limits: Limits) -> FormData:
    """The fields of a form, in memory."""
    parser = MultiPartParser(
        request.headers, limited(request, limits), max_files=limits.queue, max_fields=1, max_part_size=LONGEST
    )
    parser.spool_max_size = limits.bytes
    try:
        return await parser.parse()
    except MultiPartException as error:
        kind = RequestTooLarge if error.message.startswith("Too many files") else BadRequest
        raise kind(f"the form can't be read: {error.message}") from None


async def images_of(form: FormData) -> list[Upload]:
    """The images of a form, with their boxes."""
    files: list[tuple[str, bytes]] = []
    boxes: str | None = None
    for field, value in form.multi_items():
        if isinstance(value, UploadFile) and field == IMAGES:
            files.append((value.filename or f"image {len(files)}", await value.read()))
        elif isinstance(value, str) and field == BOXES:
            boxes = value
        else:
            kind = "file" if isinstance(value, UploadFile) else "text"
            raise DataError(
                f"the form has a {kind} in the field '{field[:50]}'. Send files in '{IMAGES}', and text in '{BOXES}' only."
            )
    return with_boxes(files, boxes)


def with_boxes(files: list[tuple[str, bytes]], text: str | None) -> list[Upload]:
    """Images with the boxes that a client gives.

    Args:
        files: name and content of each.
        text: JSON: of each image a list of boxes [x0, y0, x1, y1], or null; None: no image has boxes.

    Raises:
        DataError: there is no image, or the boxes are invalid.
    """
    if not files:
        raise DataError(f"the request has no image. Send files in the field '{IMAGES}'.")
    if text is None:
        return [Upload(name[:200], data) for name, data in files]
    try:
        lists = msgspec.json.decode(text, type=list[list[Box] | None])
    except (msgspec.DecodeError, RecursionError) as error:
        raise DataError(
            f"{BOXES}: {error}. Write a list with an entry for each image: [[[x0, y0, x1, y1], …], …], null for none."
        ) from None
    if len(lists) != len(files):
        raise DataError(f"{BOXES} has {len(lists)} entries, but there are {len(files)} images. Write one for each.")
    uploads = []
    for (name, data), given in zip(files, lists, strict=True):
        boxes = None if given is None else np.array(given, dtype=np.float64).reshape(-1, 4)
        if boxes is not None and not ((np.abs(boxes) < LIMIT).all() and (boxes[:, 2:] > boxes[:, :2]).all()):
            raise DataError(
                f"{name[:200]}: a box is empty or has no finite corners. Give x0 < x1 and y0 < y1, in pixels."
            )
        uploads.append(Upload(name[:200], data, boxes))
    return uploads
