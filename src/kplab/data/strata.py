"""Strata of a dataset, and parts in which every stratum has its share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kplab.errors import DataError
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses

#: What a split can be stratified by.
STRATIFY = ("scale", "visibility")
#: Strata of each: terciles.
BINS = 3
#: Passes over all units that improve a stratified split; most splits need two.
PASSES = 3


def strata(labels: Labels, by: Sequence[str], edges: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Number of instances of each image in each stratum.

    "scale" is the square root of an instance's area, and "visibility" the share of its keypoints that are visible (COCO's
    visibility 2), of all instances that are neither ignored nor unlabelled.

    Args:
        labels: the dataset.
        by: of ``STRATIFY``.
        edges: of the strata; None: the terciles of this dataset.

    Returns:
        Name of the stratum, such as "scale 1 of 3" (the smallest), to (I,) int64; and "images" to ones.

    Raises:
        DataError: ``by`` has another name.
    """
    edges = strata_edges(labels.poses, by) if edges is None else edges
    counted, values = _values(labels.poses)
    image = labels.image_of()[counted]
    found = {"images": np.ones(len(labels), dtype=np.int64)}
    for name in by:
        level = np.searchsorted(edges[name], values[name])
        for k in range(len(edges[name]) + 1):
            found[f"{name} {k + 1} of {len(edges[name]) + 1}"] = np.bincount(image[level == k], minlength=len(labels))
    return {name: count for name, count in found.items() if count.any()}


def strata_edges(poses: Poses, by: Sequence[str]) -> dict[str, np.ndarray]:
    """Terciles of what is stratified by; fewer where many values are equal.

    Raises:
        DataError: ``by`` has a name that is not in ``STRATIFY``.
    """
    unknown = [name for name in by if name not in STRATIFY]
    if unknown:
        raise DataError(f"stratify={list(by)}: '{unknown[0]}' is unknown. Use {' or '.join(STRATIFY)}.")
    values = _values(poses)[1]
    found = {}
    for name in by:
        value = values[name][np.isfinite(values[name])]
        edges = np.unique(np.quantile(value, np.arange(1, BINS) / BINS)) if len(value) else np.zeros(0)
        found[name] = edges[edges < value.max(initial=-np.inf)]  # the largest value bounds nothing
    return found


def _values(p: Poses) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(N,) which instances count, and their values."""
    counted = p.labelled.any(1) & ~p.ignore
    return counted, {"scale": np.sqrt(p.area[counted]), "visibility": (p.visible[counted] == 2).mean(1)}


def balanced(
    units: list[list[int]], shares: Mapping[str, float], counts: Mapping[str, np.ndarray]
) -> dict[str, list[int]]:
    """Assign units to parts so that every part has its share of every stratum, as far as units allow.

    The measure is the chi-square statistic of the split,

        sum over parts p and strata s of (n_ps - share_p * n_s)**2 / (share_p * n_s).

    Each unit, the large ones first, goes to the part where the statistic increases least; then single units move as long as
    it decreases, in at most ``PASSES`` passes. No part stays or becomes empty.

    Args:
        units: image indices of each unit, in the order in which units of one size are assigned.
        shares: part name to its share.
        counts: of each stratum (I,) its number in each image.

    Returns:
        Part name to image indices.
    """
    table = np.stack(list(counts.values()), axis=1).astype(np.float64)
    ordered = sorted(units, key=len, reverse=True)
    added = np.stack([table[unit].sum(0) for unit in ordered])
    expected = np.array(list(shares.values()))[:, None] * table.sum(0)
    found, size = np.zeros_like(expected), np.zeros(len(expected), dtype=np.int64)
    part_of = np.full(len(ordered), -1)

    def increase(i: int) -> np.ndarray:
        """(P,) by how much the statistic increases if unit i, which is in no part, goes to each part."""
        change: np.ndarray = (added[i] * (2 * (found - expected) + added[i]) / expected).sum(1)
        return change

    def put(i: int, part: int) -> None:
        part_of[i] = part
        found[part] += added[i]
        size[part] += 1

    for i in range(len(ordered)):
        change = increase(i)
        if len(ordered) - i <= (size == 0).sum():
            change[size > 0] = np.inf
        put(i, int(np.argmin(change)))
    for _ in range(PASSES):
        moved = False
        for i, old in enumerate(part_of.tolist()):
            if size[old] == 1:
                continue
            found[old] -= added[i]
            size[old] -= 1
            change = increase(i)
            best = int(np.argmin(change))
            better = change[best] < change[old] - 1e-9
            put(i, best if better else old)
            moved = moved or bool(better)
        if not moved:
            break
    return {name: [i for k in np.flatnonzero(part_of == p) for i in ordered[k]] for p, name in enumerate(shares)}


def balance(parts: Mapping[str, Labels], by: Sequence[str] = STRATIFY) -> list[dict[str, object]]:
    """The share of each stratum that each part has, a row for each stratum, for a table.

    Args:
        parts: part name to its labels, of one skeleton.
        by: of ``STRATIFY``; the terciles are those of all parts together.
    """
    edges = strata_edges(Poses.concat(labels.poses for labels in parts.values()), by)
    counts = {part: strata(labels, by, edges) for part, labels in parts.items()}
    rows = []
    for name in dict.fromkeys(name for found in counts.values() for name in found):
        of = {part: int(found[name].sum()) if name in found else 0 for part, found in counts.items()}
        total = sum(of.values())
        rows.append({"stratum": name, "number": total, **{part: f"{n / total:.1%}" for part, n in of.items()}})
    return rows
