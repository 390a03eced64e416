"""Statistics of a dataset: counts, visibility, scale, spread of poses, co-occurrence of keypoints, balance of left and right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from kplab.errors import DataError
from kplab.structures.labels import Labels

#: Instances whose poses are drawn.
DRAWN = 2000
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class Statistics:
    """Statistics of the instances that are trained on and scored: those that are labelled and not ignored, n of them.

    Args:
        counts: of images, instances and keypoints.
        visibility: (K, 3) share of instances in which each keypoint is not labelled, hidden, and visible; COCO's 0, 1, 2.
        per_image: (I,) int64 instances of each image.
        scale: (n,) square root of the area, pixels.
        relative_scale: (n,) the same over the square root of the image's area.
        centre: (n, 2) centre of the keypoints' extent, as a share of the image's width and height.
        poses: (m, K, 2) keypoints of up to ``DRAWN`` instances, relative to the centre of their extent, in units of scale.
        spread: (K,) root of the mean squared distance of a keypoint from its mean position among ``poses`` of all instances.
        co_occurrence: (K, K) share of the instances with keypoint i in which j is labelled, too; NaN where i never is.
        sides: one entry for each pair of left and right, see ``side_balance``.
    """

    counts: dict[str, int]
    visibility: np.ndarray
    per_image: np.ndarray
    scale: np.ndarray
    relative_scale: np.ndarray
    centre: np.ndarray
    poses: np.ndarray
    spread: np.ndarray
    co_occurrence: np.ndarray
    sides: list[dict[str, Any]]

    def record(self, keypoints: tuple[str, ...]) -> dict[str, Any]:
        """The statistics as JSON: tables by name, and quantiles of the distributions."""
        shares = dict(zip(("unlabelled", "hidden", "visible"), self.visibility.T.round(4).tolist(), strict=True))
        return {
            "counts": self.counts,
            "keypoints": list(keypoints),
            "visibility": shares,
            "spread": [_number(v) for v in self.spread],
            "instances_per_image": _quantiles(self.per_image),
            "scale_pixels": _quantiles(self.scale),
            "scale_relative": _quantiles(self.relative_scale),
            "co_occurrence": [[_number(v) for v in row] for row in self.co_occurrence],
            "sides": self.sides,
        }


def statistics(labels: Labels) -> Statistics:
    """Compute the statistics of a dataset, or of one part of it; no image is read.

    Raises:
        DataError: no instance counts.
    """
    p = labels.poses
    counted = p.labelled.any(1) & ~p.ignore
    if not counted.any():
        raise DataError(f"{labels.source}: no labelled instance among {len(p)}. Check the label file.")
    image, chosen = labels.image_of()[counted], p[counted]
    labelled = chosen.labelled
    n = len(chosen)
    per_image = np.bincount(image, minlength=len(labels))
    size = labels.size[image].astype(np.float64)
    scale = np.sqrt(chosen.area)
    extent = chosen.extent()
    centre = (extent[:, :2] + extent[:, 2:]) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = (chosen.xy - centre[:, None]) / scale[:, None, None]
    together = labelled.astype(np.float64).T @ labelled
    number = np.diag(together)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(number[:, None] > 0, together / number[:, None], np.nan)
    counts = {
        "images": len(labels),
        "images without instances": int((per_image == 0).sum()),
        "groups": len(set(map(str, labels.group))),
        "instances": n,
        "ignored instances": int(p.ignore.sum()),
        "complete instances": int(labelled.all(1).sum()),
        "tracks": len(set(zip(labels.group[image].tolist(), chosen.track.tolist(), strict=True)))
        if (chosen.track >= 0).all()
        else 0,
        "labelled keypoints": int(labelled.sum()),
        "hidden keypoints": int((chosen.visible == 1).sum()),
    }
    return Statistics(
        counts,
        np.stack([(chosen.visible == v).mean(0) for v in range(3)], axis=1),
        per_image,
        scale,
        scale / np.sqrt(size.prod(1)),
        centre / size,
        relative[np.linspace(0, n - 1, min(n, DRAWN)).round().astype(int)],
        _spread(relative, labelled),
        shares,
        side_balance(labels),
    )


def _spread(relative: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """(K,) root of the mean squared distance from the mean position; NaN where a keypoint is never labelled."""
    usable = labelled & np.isfinite(relative).all(2)
    number = usable.sum(0)
    safe = np.where(usable[..., None], relative, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = safe.sum(0) / number[:, None]
        squared = np.where(usable, ((safe - mean) ** 2).sum(2), 0.0).sum(0) / number
        found: np.ndarray = np.sqrt(squared)
    return found


def side_balance(labels: Labels) -> list[dict[str, Any]]:
    """For each pair of the skeleton's flip: how often each side is labelled and visible, and where it lies.

    Returns:
        Of each pair: the names of ``first`` and ``second`` keypoint; the number of instances in which each is labelled; the
        number in which only one of them is; ``p``, the probability of such a difference or a larger one if both were
        equally likely (exact McNemar test); and ``first_on_the_left``, the share of instances with both in which the
        first one lies further left in the image: 0.5 where subjects face both directions equally often.
    """
    p = labels.poses
    counted = p.labelled.any(1) & ~p.ignore
    labelled, x = p.labelled[counted], p.xy[counted, :, 0]
    names = labels.skeleton.keypoints
    found = []
    for a, b in enumerate(labels.skeleton.flip):
        if a >= b:
            continue
        only_a, only_b = int((labelled[:, a] & ~labelled[:, b]).sum()), int((~labelled[:, a] & labelled[:, b]).sum())
        both = labelled[:, a] & labelled[:, b]
        found.append(
            {
                "first": names[a],
                "second": names[b],
                "first_labelled": int(labelled[:, a].sum()),
                "second_labelled": int(labelled[:, b].sum()),
                "only_first": only_a,
                "only_second": only_b,
                "p": float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0,
                "first_on_the_left": _number((x[both, a] < x[both, b]).mean()) if both.any() else None,
            }
        )
    return found


def _quantiles(values: np.ndarray) -> dict[str, float | None]:
    finite = values[np.isfinite(values)]
    return {f"{q:.0%}": _number(np.quantile(finite, q)) if len(finite) else None for q in QUANTILES}


def _number(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
