"""The JSON of the service, as types that its OpenAPI description is made from."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from kplab.apps.serve.service import Result, Service
from kplab.apps.serve.uploads import BOXES, IMAGES
from kplab.structures.predictions import PIXEL_CONVENTION, pixel_indices
from kplab.structures.skeleton import Skeleton

DESCRIPTION = f"""Keypoints of images, predicted by one trained run of kplab.

Pixels: {PIXEL_CONVENTION}. Both are those of the upright image: the EXIF orientation of a file is applied, as by
`kplab predict`.
"""


class Keypoint(BaseModel):
    """A keypoint of a subject; x and y are null where it was not found."""

    name: str
    x: float | None = Field(description="column, pixel index: the centre of the first pixel is 0")
    y: float | None = Field(description="row, pixel index: the centre of the first pixel is 0")
    score: float = Field(description="confidence")


class Pose(BaseModel):
    """A subject of an image."""

    score: float = Field(description="confidence")
    box: tuple[float, float, float, float] | None = Field(
        description="x0, y0, x1, y1 in pixels, continuous: the corner of the image is (0, 0)"
    )
    track: int | None = Field(description="number of the subject in a video; null, as each image is predicted alone")
    keypoints: list[Keypoint] = Field(description="in the order of the skeleton")


class ImageAnswer(BaseModel):
    """The subjects of an image."""

    name: str = Field(description="as the client calls the file")
    width: int = Field(description="of the upright image, pixels")
    height: int = Field(description="of the upright image, pixels")
    poses: list[Pose] = Field(description="one for each given box, in their order; else as the model finds them")


class Answer(BaseModel):
    """The poses of all images of a request, in its order."""

    run: str
    images: list[ImageAnswer]


class Fault(BaseModel):
    """Why a request was refused."""

    error: str


class Health(BaseModel):
    """That the service answers."""

    status: str
    run: str
    device: str


class SkeletonAnswer(BaseModel):
    """The keypoints of a run."""

    name: str
    keypoints: list[str]
    edges: list[tuple[int, int]] = Field(description="pairs of indices of keypoints that are drawn as lines")


class ModelAnswer(BaseModel):
    """The run, and what requests may ask for."""

    run: str
    checkpoint: str
    device: str
    flip_test: bool
    size: tuple[int, int] = Field(description="width and height of the views that the network is given, pixels")
    skeleton: SkeletonAnswer
    regions: str = Field(
        description="what the run is trained on: image (whole images), annotated (boxes of subjects), detected (boxes of "
        "another run, which finds them here too)"
    )
    takes_boxes: bool = Field(description="whether a request may give boxes of subjects")
    max_bytes: int
    max_pixels: int
    queue: int
    timeout: float


FAULTS: dict[int | str, dict[str, Any]] = {
    status: {"model": Fault, "description": text}
    for status, text in {
        400: "The request can't be read.",
        403: "The token is missing, or a page of another site asks.",
        408: "The request did not arrive in time.",
        413: "The request has too many bytes or images, or an image too many pixels.",
        415: "The body is neither a form nor an image, or a file is not a JPEG, PNG, BMP, TIFF or WebP.",
        422: "An image can't be decoded, or a field is invalid; names it.",
        429: "The queue is full. Retry-After has the seconds to wait.",
        503: "The answer took too long. Retry-After has the seconds to wait.",
    }.items()
}
BINARY = {"schema": {"type": "string", "format": "binary"}}
#: Of POST /predict; the body is read by ``uploads``.
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [IMAGES],
                    "properties": {
                        IMAGES: {"type": "array", "items": {"type": "string", "format": "binary"}},
                        BOXES: {
                            "type": "string",
                            "description": "JSON: of each image a list of boxes [x0, y0, x1, y1] of subjects, or null for "
                            "the whole image. Only for runs that take boxes; see GET /model.",
                        },
                    },
                }
            },
            "image/jpeg": BINARY,
            "image/png": BINARY,
            "image/webp": BINARY,
            "image/bmp": BINARY,
            "image/tiff": BINARY,
        },
    },
    "parameters": [
        {
            "name": name,
            "in": "query",
            "required": False,
            "schema": {"type": "string"},
            "description": f"{text}, where the body is an image",
        }
        for name, text in (("name", "name of the image in the answer"), (BOXES, "as the field of the form"))
    ],
}


def image_answer(result: Result, skeleton: Skeleton) -> ImageAnswer:
    """The JSON of one image."""
    poses = result.poses
    index = pixel_indices(poses.xy)
    found = []
    for n in range(len(poses)):
        keypoints = [
            Keypoint(
                name=name,
                x=float(index[n, k, 0]) if poses.labelled[n, k] else None,
                y=float(index[n, k, 1]) if poses.labelled[n, k] else None,
                score=float(poses.keypoint_score[n, k]),
            )
            for k, name in enumerate(skeleton.keypoints)
        ]
        box = tuple(float(v) for v in poses.box[n].round(4)) if np.isfinite(poses.box[n]).all() else None
        track = int(poses.track[n]) if poses.track[n] >= 0 else None
        found.append(Pose(score=float(poses.score[n]), box=box, track=track, keypoints=keypoints))  # type: ignore[arg-type]
    width, height = result.size
    return ImageAnswer(name=result.name, width=width, height=height, poses=found)


def health_answer(service: Service) -> Health:
    """The JSON of GET /health."""
    return Health(status="ready", run=service.loaded.run.name, device=str(service.loaded.model.device))


def model_answer(service: Service) -> ModelAnswer:
    """The JSON of GET /model."""
    loaded, limits = service.loaded, service.limits
    skeleton = SkeletonAnswer(
        name=loaded.skeleton.name, keypoints=list(loaded.skeleton.keypoints), edges=list(loaded.skeleton.edges)
    )
    return ModelAnswer(
        run=loaded.run.name,
        checkpoint=loaded.checkpoint.name,
        device=str(loaded.model.device),
        flip_test=loaded.flip_test,
        size=loaded.model.size,
        skeleton=skeleton,
        regions=str(loaded.config.regions),
        takes_boxes=service.boxed is not None,
        max_bytes=limits.bytes,
        max_pixels=limits.pixels,
        queue=limits.queue,
        timeout=limits.seconds,
    )
