"""Differences between the poses of a model and those of its exported file, in pixels of the images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from kplab.structures.poses import Poses

#: Largest median and largest difference of a keypoint, pixels of the image.
MEDIAN, WORST = 0.1, 1.0


@dataclass(frozen=True)
class ImageParity:
    """One image.

    Args:
        name: of the image.
        poses: number of each side.
        keypoints: number of each side.
        distances: of the keypoints that both sides have, pixels.
        score: largest difference of the scores of a pose or a keypoint.
    """

    name: str
    poses: tuple[int, int]
    keypoints: tuple[int, int]
    distances: tuple[float, ...]
    score: float

    @property
    def counts_differ(self) -> bool:
        """Whether one side has more poses or keypoints than the other."""
        return self.poses[0] != self.poses[1] or self.keypoints[0] != self.keypoints[1]

    @property
    def worst(self) -> float:
        """Largest distance; 0 where there are no keypoints."""
        return max(self.distances, default=0.0)

    @classmethod
    def of(cls, name: str, poses: Poses, others: Poses) -> ImageParity:
        """Compare the poses of an image; of unequal numbers the nearest ones are paired."""
        both = poses.labelled[:, None] & others.labelled[None]
        apart = np.linalg.norm(poses.xy[:, None] - others.xy[None], axis=-1)
        apart = np.where(both, np.nan_to_num(apart), 0.0)
        # a keypoint that only one side has costs more than any distance
        missing = poses.labelled[:, None] != others.labelled[None]
        # of poses at the same place, those of the same score
        unequal = np.abs(poses.score[:, None] - others.score[None])
        rows, columns = linear_sum_assignment(apart.sum(-1) + unequal + 1e6 * missing.sum(-1))
        shared = both[rows, columns]
        scores = [
            np.abs(poses.score[rows] - others.score[columns]),
            np.abs(poses.keypoint_score[rows] - others.keypoint_score[columns])[shared],
        ]
        return cls(
            name,
            (len(poses), len(others)),
            (int(poses.labelled.sum()), int(others.labelled.sum())),
            tuple(apart[rows, columns][shared].tolist()),
            float(max((s.max(initial=0.0) for s in scores), default=0.0)),
        )


@dataclass(frozen=True)
class Parity:
    """The images of a comparison.

    Args:
        sides: names of both sides: the model's, the file's.
        images: each image.
        path: what the file was given: images, or views that OpenCV has resampled.
    """

    sides: tuple[str, str]
    path: str
    images: Sequence[ImageParity] = field(default_factory=list)

    @property
    def distances(self) -> np.ndarray:
        """Of all keypoints of all images, pixels."""
        return np.array([d for image in self.images for d in image.distances])

    @property
    def median(self) -> float:
        """Of the distances; NaN without keypoints."""
        return float(np.median(self.distances)) if len(self.distances) else math.nan

    @property
    def worst(self) -> float:
        """The largest distance; NaN without keypoints."""
        return float(self.distances.max()) if len(self.distances) else math.nan

    @property
    def worst_image(self) -> ImageParity | None:
        """The image that differs most: in counts, else in distance."""
        return max(self.images, key=lambda image: (image.counts_differ, image.worst), default=None)

    def faults(self) -> list[str]:
        """Why the comparison fails; empty where it passes."""
        model, file = self.sides
        out = []
        if not len(self.distances):
            out.append(
                f"neither {model} nor {file} finds a keypoint that the other finds in {len(self.images)} images, so that "
                "nothing is compared"
            )
        for image in self.images:
            for what, (a, b) in (("poses", image.poses), ("keypoints", image.keypoints)):
                if a != b:
                    out.append(f"{image.name}: {model} finds {a} {what}, {file} {b}")
        if self.median > MEDIAN:
            out.append(f"the median difference of {model} and {file} is {self.median:.3f} px, and may be {MEDIAN:g}")
        if self.worst > WORST:
            found = max(self.images, key=lambda image: image.worst)
            out.append(f"{found.name}: {model} and {file} differ by {self.worst:.3f} px, and may by {WORST:g}")
        return out

    def text(self) -> str:
        """One line, and the faults."""
        poses = [sum(image.poses[side] for image in self.images) for side in (0, 1)]
        score = max((image.score for image in self.images), default=0.0)
        line = (
            f"{self.path}: {len(self.images)} images, {len(self.distances)} keypoints; poses {self.sides[0]} {poses[0]}, "
            f"{self.sides[1]} {poses[1]}; median {self.median:.2g} px, worst {self.worst:.2g} px, scores {score:.2g}"
        )
        return "\n".join([line, *(f"  FAILED: {fault}" for fault in self.faults())])

    def content(self) -> Mapping[str, Any]:
        """For JSON; distances of images are summarised."""
        return {
            "path": self.path,
            "sides": list(self.sides),
            "tolerance_px": {"median": MEDIAN, "worst": WORST},
            "keypoints": len(self.distances),
            "median_px": None if math.isnan(self.median) else self.median,
            "worst_px": None if math.isnan(self.worst) else self.worst,
            "faults": self.faults(),
            "images": [
                {
                    "name": image.name,
                    "poses": list(image.poses),
                    "keypoints": list(image.keypoints),
                    "median_px": float(np.median(image.distances)) if image.distances else None,
                    "worst_px": image.worst if image.distances else None,
                    "score": image.score,
                }
                for image in self.images
            ],
        }
