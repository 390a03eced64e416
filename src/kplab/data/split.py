"""Splits of a dataset into parts such as train and test, written once to a manifest and checked whenever it is read.

The order is that of SHA-256 of ``"<seed>:<group>"``, so that a split is the same on every machine and every version of
NumPy. Images with identical content, and images of one group, are always in the same part.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kplab.data.lists import listed_parts
from kplab.data.manifest import Manifest, parameters, read_manifest, write_manifest
from kplab.data.strata import balanced, strata
from kplab.data.units import GROUPED, find_copies, joined, keys_of
from kplab.errors import DataError
from kplab.runs.files import check_may_write
from kplab.structures.labels import Labels

__all__ = ["BY", "Manifest", "frames_in_order", "hold_out", "make_split", "read_manifest", "split", "write_manifest"]

BY = (*GROUPED, "image", "time", "lists")


def split(
    labels: Labels,
    manifest: str | Path,
    fractions: Mapping[str, float] | None = None,
    by: str = "group",
    seed: int = 0,
    folds: int | None = None,
    fold: int | None = None,
    gap: int = 0,
    pattern: str | None = None,
    stratify: Sequence[str] = (),
    lists: Mapping[str, str | Sequence[str]] | None = None,
    unlisted: str = "error",
) -> dict[str, Labels]:
    """Parts of a dataset as its manifest states them; where there is no manifest, one is made and written.

    Args:
        labels: the whole dataset.
        manifest: JSON file; one that exists must have been made with the same parameters.
        fractions: part name to share, together 1, e.g. ``{"train": 0.8, "test": 0.2}``; not used with folds and lists.
        by: "group" and "video" keep the images of a group in one part, "subject" the images of a track; "image" ignores
            groups; "time" cuts each group into contiguous blocks in the order of its image names; "lists" reads official
            lists.
        seed: another seed is another order; not used by time and lists.
        folds: make parts ``fold0`` … of equal size instead.
        fold: with folds, return ``test`` = this fold and ``train`` = all others.
        gap: with by="time", frames dropped between two blocks, as neighbouring frames are nearly identical.
        pattern: with "group", "video" and "subject", regular expression of which the match in an image's name, or its first
            group, is the group.
        stratify: any of "scale" and "visibility": each part gets its share of small and large, and of hidden and visible
            subjects, as far as groups allow; not with time and lists.
        lists: with by="lists", part name to a list file or to patterns of names; see ``data.lists.listed_parts``.
        unlisted: with by="lists", "error" or "drop" for images that no list names.

    Returns:
        Part name to Labels, whose images are in the order of ``labels``.

    Raises:
        DataError: the parameters cannot be met, or the manifest is of another dataset, edited, or made with others.
    """
    path = Path(manifest)
    keys_of(labels, by, pattern)
    if fold is not None and (folds is None or not 0 <= fold < folds):
        raise DataError(f"{path}: fold={fold}, but folds={folds}. Choose fold from 0 to folds - 1.")
    if path.exists():
        found = read_manifest(path, labels)
        asked = parameters(fractions, by, seed, folds, gap, pattern, stratify, lists, unlisted)
        differ = [f"{k} is {getattr(found, k)}, asked for {v}" for k, v in asked.items() if getattr(found, k) != v]
        if differ:
            raise DataError(
                f"{path}: made with other parameters: {'; '.join(differ)}. Use the manifest's own, or name another "
                "manifest file."
            )
    else:
        check_may_write(path)
        parts = make_split(labels, fractions, by, seed, folds, gap, pattern, stratify, lists, unlisted)
        found = write_manifest(path, labels, parts, fractions, by, seed, folds, gap, pattern, stratify, lists, unlisted)
    index = {str(f): i for i, f in enumerate(labels.names)}
    parts = found.parts
    if fold is not None:
        test = f"fold{fold}"
        parts = {"train": [f for name, files in parts.items() if name != test for f in files], "test": parts[test]}
    return {name: labels.select(sorted(index[f] for f in files)) for name, files in parts.items()}


def hold_out(labels: Labels, folds: int, fold: int, by: str | None = None, seed: int = 0) -> dict[str, Labels]:
    """A training split in two parts for cross-validation; no manifest, as the parts follow from the images alone.

    Args:
        labels: the training split.
        folds: number of folds.
        fold: that is held out, from 0.
        by: as of ``split``; None: by group where there are that many groups or more, else by image.
        seed: another seed is another order.

    Returns:
        ``train``: all other folds, and ``held_out``: the fold; images are in the order of ``labels``.

    Raises:
        DataError: there is no such fold, or there are fewer images or groups than folds.
    """
    if not 0 <= fold < folds:
        raise DataError(f"holdout.fold is {fold}, but holdout.folds is {folds}. Choose fold from 0 to folds - 1.")
    groups = len(set(map(str, labels.group)))
    parts = make_split(labels, None, by or ("group" if folds <= groups < len(labels) else "image"), seed, folds)
    held = set(parts[f"fold{fold}"])
    inside = np.array([str(name) in held for name in labels.names])
    return {"train": labels.select(np.flatnonzero(~inside)), "held_out": labels.select(np.flatnonzero(inside))}


def make_split(
    labels: Labels,
    fractions: Mapping[str, float] | None,
    by: str = "group",
    seed: int = 0,
    folds: int | None = None,
    gap: int = 0,
    pattern: str | None = None,
    stratify: Sequence[str] = (),
    lists: Mapping[str, str | Sequence[str]] | None = None,
    unlisted: str = "error",
) -> dict[str, list[str]]:
    """Image names of each part; the arguments are those of ``split``. Images are read to find copies.

    Raises:
        DataError: as ``split``, or an image is missing.
    """
    _check_options(by, gap, pattern, stratify, lists)
    if not len(labels):
        raise DataError(f"{labels.source}: no images to split. Check what the dataset reads.")
    if by == "lists":
        return listed_parts(labels, lists or {}, unlisted)
    shares = _shares(fractions, folds)
    keys = keys_of(labels, by, pattern)
    copies = find_copies(labels)
    if by == "time":
        return _cut_by_time(labels, shares, copies, gap)
    units = joined(keys, copies)
    if len(units) < len(shares):
        remedy = (
            "Use by=time with a gap, or by=image (neighbouring frames of a video are alike, so scores are too good)."
        )
        if by == "image":
            remedy = "Ask for fewer parts; images with identical content count as one."
        raise DataError(
            f"{labels.source}: {len(units)} {by}s that can be separated, but {len(shares)} parts: {', '.join(shares)}. "
            f"{remedy}"
        )
    names = sorted(units, key=lambda unit: (hashlib.sha256(f"{seed}:{unit}".encode()).hexdigest(), unit))
    ordered = [units[unit] for unit in names]
    parts = balanced(ordered, shares, strata(labels, stratify)) if stratify else _assigned(ordered, shares)
    return {name: sorted(str(labels.names[i]) for i in rows) for name, rows in parts.items()}


def _check_options(
    by: str, gap: int, pattern: str | None, stratify: Sequence[str], lists: Mapping[str, object] | None
) -> None:
    """Refuse options that have no effect with ``by``."""
    if by not in BY:
        raise DataError(f"by='{by}' is unknown. Use by={', by='.join(BY[:-1])} or by={BY[-1]}.")
    if gap < 0 or (gap and by != "time"):
        raise DataError(f"gap={gap} with by={by}: a gap is 0 or more frames between blocks of by=time. Set gap=0.")
    if pattern is not None and by not in GROUPED:
        raise DataError(f"pattern='{pattern}' with by={by}: it names groups. Use by=group, or leave it out.")
    if stratify and by in ("time", "lists"):
        raise DataError(f"stratify={list(stratify)} with by={by}: these parts are given. Leave it out.")
    if (by == "lists") != bool(lists):
        raise DataError(f"by={by} with lists={lists}: by=lists and lists belong together. Give both, or neither.")


def _shares(fractions: Mapping[str, float] | None, folds: int | None) -> dict[str, float]:
    if folds is not None:
        if folds < 2:
            raise DataError(f"folds={folds}: expected 2 or more. Leave folds out for a split by fractions.")
        return {f"fold{i}": 1 / folds for i in range(folds)}
    shares = {str(k): float(v) for k, v in (fractions or {}).items()}
    if len(shares) < 2 or min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise DataError(
            f"fractions={shares}: expected two parts or more with positive shares that add up to 1, such as "
            "{train: 0.8, test: 0.2}. Leave a part out rather than giving it 0."
        )
    return shares


def _assigned(units: list[list[int]], shares: Mapping[str, float]) -> dict[str, list[int]]:
    """Assign units in turn to the part that lacks most of its share; the last ones go to parts that have none yet."""
    total = sum(map(len, units))
    parts: dict[str, list[int]] = {name: [] for name in shares}
    for i, unit in enumerate(units):
        empty = [name for name, rows in parts.items() if not rows]
        eligible = empty if len(units) - i <= len(empty) else list(parts)
        lacking = max(eligible, key=lambda name: shares[name] * total - len(parts[name]))
        parts[lacking].extend(unit)
    return parts


def _frames(name: str) -> list[tuple[int, str]]:
    """Sort key by which img2 comes before img10."""
    return [(int(t), "") if t.isdigit() else (-1, t) for t in re.split(r"(\d+)", name) if t]


def frames_in_order(labels: Labels) -> dict[str, list[int]]:
    """Group to the indices of its images, in the natural order of their names."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(labels.group):
        groups[str(group)].append(i)
    return {group: sorted(rows, key=lambda i: _frames(str(labels.names[i]))) for group, rows in sorted(groups.items())}


def _cut_by_time(
    labels: Labels, shares: Mapping[str, float], copies: list[list[int]], gap: int
) -> dict[str, list[str]]:
    """Contiguous blocks of every group; where each image is its own group, of the whole dataset."""
    videos: dict[str, list[int]] = defaultdict(list)
    single = len(set(labels.group)) == len(labels)
    for i, group in enumerate(labels.group):
        videos["" if single else str(group)].append(i)
    parts: dict[str, list[int]] = {name: [] for name in shares}
    for group, members in sorted(videos.items()):
        rows = sorted(members, key=lambda i: _frames(str(labels.names[i])))
        edges = np.round(np.cumsum([0.0, *shares.values()]) * len(rows)).astype(int)
        for k, name in enumerate(shares):
            block = rows[edges[k] + (gap if k else 0) : edges[k + 1]]
            if not block:
                raise DataError(
                    f"{labels.source}: {len(rows)} frames of '{group}' leave none for part '{name}' with gap={gap}. "
                    "Use fewer parts, a smaller gap, or by=group."
                )
            parts[name] += block
    part_of = {i: name for name, rows in parts.items() for i in rows}
    for same in copies:
        held = [i for i in same if i in part_of]
        for i in held[1:]:
            # a copy in another part is dropped, like a frame of the gap
            if part_of[i] != part_of[held[0]]:
                parts[part_of[i]].remove(i)
    empty = [name for name, rows in parts.items() if not rows]
    if empty:
        raise DataError(f"{labels.source}: every frame of part '{empty[0]}' is a copy of another part's. Use by=image.")
    return {name: sorted(str(labels.names[i]) for i in rows) for name, rows in parts.items()}
