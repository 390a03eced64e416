"""The families that a plan can choose: model, head and neck, and the values of their keys."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kplab.data.traits import Traits
from kplab.structures.poses import HULL_MARGIN


@dataclass(frozen=True)
class Shown:
    """How subjects are shown to a head.

    Args:
        side: of a subject, pixels.
        size: width and height of a view, or of a crop, pixels.
        scale: pixels of it per pixel of the image.
    """

    side: float
    size: tuple[int, int]
    scale: float


@dataclass(frozen=True)
class Family:
    """A family.

    Args:
        model: config group: pose, or cascade.
        head: of the pose model.
        neck: of the pose model.
        reason: for the values.
        values: keys of the training config, dotted.
        fitted: further values, from the data and how subjects are shown.
        rates: factors on the learning rate of parts of the model.
        single: whether a view has one pose at most.
        windows: whether views of other sizes than in training can be predicted.
        flips: whether the flip test is used where images may be mirrored.
        boxed: whether the head learns boxes, by its key ``boxes``.
    """

    model: str
    head: str
    neck: str
    reason: str
    values: dict[str, Any]
    fitted: Callable[[Traits, Shown], dict[str, Any]] | None = None
    rates: dict[str, float] = field(default_factory=dict)
    single: bool = False
    windows: bool = True
    flips: bool = True
    boxed: bool = False


#: The score of a pose is that of its box times the mean of its keypoints, see ``rules.head``.
RESCORED = {"rescore": 0.0}
#: Maps of stride 4 alone.
FINE = {"neck.channels": 64, "neck.levels": [4]}
#: Gaussians of heatmaps with a standard deviation of 1.5 cells, and the kernel of their decoding; of the head itself 2 and 11.
NARROW = {"head.sigma": 1.5, "head.blur": 9}
#: A transformer for hundreds of images: half of the published width and layers, and heatmaps over the encoder's cells.
TRANSFORMER = {
    "neck.channels": 64,
    "head.width": 128,
    "head.encoder_layers": 3,
    "head.decoder_layers": 3,
    "head.feedforward": 256,
    "head.heatmap_weight": 0.5,
}
#: Heatmaps that are trained beside a head that regresses coordinates: a loss in each cell, where such a head has it in few.
DENSE = {"weight": 0.5, "sigma": 1.5}
#: Most cells of the map that a transformer reads.
CELLS = 600
#: Distance by which a regressed keypoint is moved to the peak of its auxiliary heatmap at most, in sides of a subject.
SNAP = 0.12
#: Factor by which training changes the sizes of boxes, about.
AUGMENTED = 1.2


def query(traits: Traits, shown: Shown) -> dict[str, Any]:
    """The finest map that has not too many cells, and heatmaps of stride 4, to whose peaks regressed keypoints are moved."""
    cells = math.prod(shown.size)
    stride = next((s for s in (8, 16) if cells / s**2 <= CELLS), 32)
    auxiliary = {**DENSE, "snap": round(SNAP * shown.side, 1)}
    return {"neck.levels": [4, stride], "model.auxiliary": auxiliary}


def openpose(traits: Traits, shown: Shown) -> dict[str, Any]:
    """Poses of three keypoints or more: fewer are parts of others."""
    return {"head.min_keypoints": min(3, traits.keypoints)}


def rcnn(traits: Traits, shown: Shown) -> dict[str, Any]:
    """Anchors of the subjects' sizes, and proposals for as many as there are in an image."""
    root = (1 + 2 * HULL_MARGIN) * shown.scale * math.sqrt(min(traits.aspect, 1 / traits.aspect))
    low, high = traits.side_low * root / AUGMENTED, traits.side_high * root * AUGMENTED
    proposals = max(50, 4 * traits.most)
    return {
        "head.anchor_sizes": [[round(low)], [round(math.sqrt(low * high))], [round(high)]],
        "head.rpn_before": [2 * proposals, proposals],
        "head.rpn_after": [2 * proposals, proposals],
    }


#: By the name that ``family=`` has.
FAMILIES = {
    "heatmap": Family("pose", "heatmap", "fpn", "narrow Gaussians are more exact", {**FINE, **NARROW}, single=True),
    "topdown": Family("cascade", "heatmap", "fpn", "narrow Gaussians are more exact", {**FINE, **NARROW, **RESCORED}),
    "poseted": Family(
        *("cascade", "query", "fpn", "a small transformer, for few labels; keypoints move to the peaks of heatmaps"),
        {**TRANSFORMER, **RESCORED},
        query,
        rates={"transformer": 0.5},
    ),
    "centernet": Family(
        *("pose", "centernet", "fpn", "peaks of narrow Gaussians are unique; a subject is learnt in 25 cells"),
        {**FINE, **RESCORED, "head.radius": "corrected", "head.reach": 2},
        boxed=True,
    ),
    "openpose": Family(
        *("pose", "paf", "fpn", "fields and maps together in two short, narrow stages, for few labels"),
        {**FINE, "head.layout": "joint", "head.stages": [2, 2], "head.width": 32},
        openpose,
        flips=False,
    ),
    "yolo": Family(
        *("pose", "yolo", "fpn", "distances have a gradient where OKS has none; heatmaps have a loss in each cell"),
        {"head.distance_weight": 10.0, "model.auxiliary": DENSE, "neck.channels": 64, "neck.levels": [8, 16, 32]},
        flips=False,
        boxed=True,
    ),
    "rcnn": Family(
        *("pose", "rcnn", "fpn", "anchors as large as the subjects, and small layers, for few labels"),
        {
            **RESCORED,
            "neck.channels": 64,
            "neck.levels": [4, 8, 16],
            "head.rpn_samples": 64,
            "head.samples": 32,
            "head.box_width": 256,
            "head.keypoint_layers": 4,
            "head.keypoint_width": 64,
            "head.aligned": True,
        },
        rcnn,
        flips=False,
        boxed=True,
    ),
    "simcc": Family("pose", "simcc", "last", "as the head has them", {}, single=True, windows=False),
    "rle": Family(
        *("pose", "rle", "fpn", "the sum of all maps learns sooner than the coarsest one alone"),
        FINE,
        single=True,
        windows=False,
    ),
    "query": Family(
        *("pose", "query", "fpn", "a small transformer, for few labels; keypoints move to the peaks of heatmaps"),
        TRANSFORMER,
        query,
        rates={"transformer": 0.5},
        single=True,
        windows=False,
    ),
}
