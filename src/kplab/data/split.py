"""Splits of a dataset into parts such as train and test, written once to a manifest and checked whenever it is read.

The order is that of SHA-256 of ``"<seed>:<group>"``, so that a split is the same on every machine and every version of
NumPy. Images with identical content, and images of one group, are always in the same part.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kplab.data.reading import some
from kplab.errors import DataError
from kplab.runs.files import check_may_write, replacing_text
from kplab.structures.labels import Labels

BY = ("group", "image", "time")


@dataclass(frozen=True)
class Manifest:
    """The content of a manifest file.

    Args:
        name: the file's name.
        by: "group", "image" or "time".
        seed: seed of the order.
        fractions: share of each part; empty where there are folds.
        folds: number of folds, or None.
        gap: frames dropped between blocks of a split by time.
        parts: part name to image names, sorted.
        dropped: images that are in no part on purpose: the gaps of a split by time.
    """

    name: str
    by: str
    seed: int
    fractions: dict[str, float]
    folds: int | None
    gap: int
    parts: dict[str, list[str]]
    dropped: list[str] = field(default_factory=list)

    def sha256(self) -> str:
        """Hash of everything but the name."""
        content = {k: v for k, v in asdict(self).items() if k != "name"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def split(
    labels: Labels,
    manifest: str | Path,
    fractions: Mapping[str, float] | None = None,
    by: str = "group",
    seed: int = 0,
    folds: int | None = None,
    fold: int | None = None,
    gap: int = 0,
) -> dict[str, Labels]:
    """Parts of a dataset as its manifest states them; where there is no manifest, one is made and written.

    Args:
        labels: the whole dataset.
        manifest: JSON file; one that exists must have been made with the same parameters.
        fractions: part name to share, together 1, e.g. ``{"train": 0.8, "test": 0.2}``; not used with folds.
        by: "group" keeps a group (video, subject) in one part, "image" ignores groups, "time" cuts each group into
            contiguous blocks in the order of its image names.
        seed: another seed is another order; not used by time.
        folds: make parts ``fold0`` … of equal size instead.
        fold: with folds, return ``test`` = this fold and ``train`` = all others.
        gap: with by="time", frames dropped between two blocks, as neighbouring frames are nearly identical.

    Returns:
        Part name to Labels, whose images are in the order of ``labels``.

    Raises:
        DataError: the parameters cannot be met, or the manifest is of another dataset, edited, or made with others.
    """
    path = Path(manifest)
    if by == "group":
        _check_groups(labels)
    if fold is not None and (folds is None or not 0 <= fold < folds):
        raise DataError(f"{path}: fold={fold}, but folds={folds}. Choose fold from 0 to folds - 1.")
    if path.exists():
        found = read_manifest(path, labels)
        asked = {
            "by": by,
            "seed": seed,
            "folds": folds,
            "gap": gap,
            "fractions": {} if folds else dict(fractions or {}),
        }
        differ = [f"{k} is {getattr(found, k)}, asked for {v}" for k, v in asked.items() if getattr(found, k) != v]
        if differ:
            raise DataError(
                f"{path}: made with other parameters: {'; '.join(differ)}. Use the manifest's own, or name another "
                "manifest file."
            )
    else:
        check_may_write(path)
        parts = make_split(labels, fractions, by, seed, folds, gap)
        found = write_manifest(path, labels, parts, fractions, by, seed, folds, gap)
    index = {str(f): i for i, f in enumerate(labels.names)}
    parts = found.parts
    if fold is not None:
        test = f"fold{fold}"
        parts = {"train": [f for name, files in parts.items() if name != test for f in files], "test": parts[test]}
    return {name: labels.select(sorted(index[f] for f in files)) for name, files in parts.items()}


def make_split(
    labels: Labels,
    fractions: Mapping[str, float] | None,
    by: str = "group",
    seed: int = 0,
    folds: int | None = None,
    gap: int = 0,
) -> dict[str, list[str]]:
    """Image names of each part; the arguments are those of ``split``. Images are read to find copies.

    Raises:
        DataError: as ``split``, or an image is missing.
    """
    shares = _shares(fractions, by, folds, gap)
    if not len(labels):
        raise DataError(f"{labels.source}: no images to split. Check what the dataset reads.")
    if by == "group":
        _check_groups(labels)
    copies = _copies(labels)
    if by == "time":
        return _cut_by_time(labels, shares, copies, gap)
    keys = labels.group if by == "group" else labels.names
    units = _joined([str(k) for k in keys], copies)
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
    ordered = sorted(units, key=lambda unit: (hashlib.sha256(f"{seed}:{unit}".encode()).hexdigest(), unit))
    parts = _assigned([units[unit] for unit in ordered], shares)
    return {name: sorted(str(labels.names[i]) for i in rows) for name, rows in parts.items()}


def _check_groups(labels: Labels) -> None:
    """Refuse a split by groups of a dataset without groups: frames of one video would be in several parts."""
    if len(labels) > 1 and all(str(group) == str(name) for group, name in zip(labels.group, labels.names, strict=True)):
        raise DataError(
            f"{labels.source}: by=group, but no image names a group (video or subject), so that each would be a group of "
            "its own. Use by=image if the images are independent; else name the groups: video_id in the images of a COCO "
            "file, or its reader's key group: folder, or group: REGEX for a part of the file name."
        )


def _shares(fractions: Mapping[str, float] | None, by: str, folds: int | None, gap: int) -> dict[str, float]:
    if by not in BY:
        raise DataError(f"by='{by}' is unknown. Use by=group, by=image or by=time.")
    if gap < 0 or (gap and by != "time"):
        raise DataError(f"gap={gap} with by={by}: a gap is 0 or more frames between blocks of by=time. Set gap=0.")
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


def _joined(keys: list[str], copies: list[list[int]]) -> dict[str, list[int]]:
    """Image indices of each unit that must stay together: images of one key, and keys that share a copied image."""
    parent = {key: key for key in keys}

    def root(key: str) -> str:
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for same in copies:
        for i in same[1:]:
            a, b = sorted((root(keys[same[0]]), root(keys[i])))
            parent[b] = a
    units: dict[str, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        units[root(key)].append(i)
    return dict(units)


def _copies(labels: Labels) -> list[list[int]]:
    """Images with identical content: identical files, or identical pixels where images are not files.

    Of files, only those of equal length and equal beginning are read completely.
    """
    files = [labels.path(i) for i in range(len(labels))]

    def of_files(test: Callable[[Path], object]) -> Callable[[int], object]:
        return lambda i: None if (path := files[i]) is None else test(path)

    def pixels(i: int) -> object:
        return None if files[i] is not None else hashlib.sha256(labels.read(i).tobytes()).digest()

    sets = [list(range(len(labels)))]
    with ThreadPoolExecutor() as pool:
        for test in (of_files(_length), of_files(_beginning), of_files(_whole), pixels):
            rows = [i for same in sets for i in same]
            values = dict(zip(rows, pool.map(test, rows), strict=True))
            sets = [same for group in sets for same in _equal(group, values)]
    return sets


def _equal(rows: list[int], values: Mapping[int, object]) -> Iterator[list[int]]:
    found: dict[object, list[int]] = defaultdict(list)
    for i in rows:
        found[values[i]].append(i)
    return (same for same in found.values() if len(same) > 1)


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: no such image, so it cannot be split ({error.strerror}). Fetch it again.") from error


def _beginning(path: Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.sha256(stream.read(65536)).digest()


def _whole(path: Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


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


def write_manifest(
    path: str | Path,
    labels: Labels,
    parts: Mapping[str, list[str]],
    fractions: Mapping[str, float] | None,
    by: str,
    seed: int,
    folds: int | None = None,
    gap: int = 0,
) -> Manifest:
    """Write the parts of ``make_split`` with their parameters.

    Raises:
        DataError: the parts overlap, are empty, or do not cover the dataset.
    """
    path = Path(path)
    covered = {f for files in parts.values() for f in files}
    dropped = sorted(str(f) for f in labels.names if str(f) not in covered) if by == "time" else []
    shares = {} if folds else {str(k): float(v) for k, v in (fractions or {}).items()}
    content = {name: sorted(files) for name, files in parts.items()}
    manifest = Manifest(path.stem, by, seed, shares, folds, gap, content, dropped)
    _check(manifest, path, labels)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_text(path) as stream:
            stream.write(json.dumps({**asdict(manifest), "sha256": manifest.sha256()}, indent=1) + "\n")
    except OSError as error:
        raise DataError(f"{path}: the split cannot be written ({error}). Name another manifest file.") from error
    return manifest


def read_manifest(path: str | Path, labels: Labels) -> Manifest:
    """Read a manifest and check it against the dataset.

    Raises:
        DataError: it is missing, not a manifest, edited by hand, or does not fit the images of ``labels``.
    """
    path = Path(path)
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        stated = content.pop("sha256")
        manifest = Manifest(**content)
    except FileNotFoundError:
        raise DataError(f"{path}: no such split manifest. Make it with split(), or check the path.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: not a split manifest ({error}). Delete it to have it made again.") from error
    if manifest.sha256() != stated:
        raise DataError(
            f"{path}: its content does not match its sha256, so it was edited by hand. Restore it, or delete it to "
            "have it made again; scores on another split cannot be compared."
        )
    _check(manifest, path, labels)
    return manifest


def _check(manifest: Manifest, path: Path, labels: Labels) -> None:
    known = {str(f): str(g) for f, g in zip(labels.names, labels.group, strict=True)}
    part_of: dict[str, str] = {}
    for name, files in (*manifest.parts.items(), ("dropped", manifest.dropped)):
        if not files and name != "dropped":
            raise DataError(f"{path}: part '{name}' is empty. Use other fractions, or by=image.")
        unknown = [f for f in files if f not in known]
        if unknown:
            raise DataError(
                f"{path}: part '{name}' has files that are not in the dataset {labels.source}: {some(unknown)}. "
                "Use the manifest of this dataset, or delete it to have it made again."
            )
        twice = [f for f in files if f in part_of]
        if twice:
            raise DataError(
                f"{path}: files are in two parts: {some(twice)}. Delete the manifest to have it made again."
            )
        part_of.update(dict.fromkeys(files, name))
    missing = [f for f in known if f not in part_of]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} images of the dataset are in no part: {some(missing)}. Images were added since it "
            "was made: take them out of the dataset, or name another manifest file to have a new split made."
        )
    if manifest.by == "group":
        sides: dict[str, set[str]] = defaultdict(set)
        for f, name in part_of.items():
            sides[known[f]].add(name)
        divided = [g for g, names in sides.items() if len(names) > 1]
        if divided:
            raise DataError(
                f"{path}: groups are in several parts: {some(divided)}. The dataset's groups changed since it was made: "
                "name another manifest file to have a new split made."
            )
