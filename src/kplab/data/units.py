"""What must stay in one part of a split: images of one video or subject, and images with identical content."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kplab.data.reading import some
from kplab.errors import DataError
from kplab.structures.labels import Labels

#: ``by`` of a split whose images are joined by names of groups.
GROUPED = ("group", "video", "subject")


def keys_of(labels: Labels, by: str, pattern: str | None = None) -> list[list[str]]:
    """The names, for each image, that it shares with the images of its unit.

    Args:
        labels: the dataset.
        by: "group" or "video": the group that the reader states; "subject": the tracks of its instances, and its own name
            where it has none; anything else: its own name.
        pattern: regular expression, with "group", "video" and "subject": its match in the image's name, or its first
            group, takes the place of what the reader states.

    Raises:
        DataError: there are no such names, the pattern is invalid, or it does not match an image.
    """
    names = [str(name) for name in labels.names]
    if by not in GROUPED:
        return [[name] for name in names]
    if pattern is not None:
        return [[key] for key in _matches(labels, names, pattern)]
    if by == "subject":
        track = labels.poses.track
        if not (track >= 0).any():
            raise DataError(
                f"{labels.source}: by=subject, but no instance has a track. Name the subjects with pattern: REGEX, whose match "
                "in the file name is the subject; or use by=group."
            )
        keys = []
        for i, (name, group) in enumerate(zip(names, labels.group, strict=True)):
            of_image = track[labels.start[i] : labels.start[i + 1]]
            keys.append([f"{group}:{t}" for t in sorted(set(of_image[of_image >= 0].tolist()))] or [name])
        return keys
    groups = [str(group) for group in labels.group]
    if len(labels) > 1 and groups == names:
        raise DataError(
            f"{labels.source}: by={by}, but no image names a group (video or subject), so that each would be a group of "
            "its own. Use by=image if the images are independent; else name the groups: pattern: REGEX in the split, whose "
            "match in the file name is the group; video_id in the images of a COCO file; or its reader's key group: folder, "
            "or group: REGEX for a part of the file name."
        )
    return [[group] for group in groups]


def _matches(labels: Labels, names: list[str], pattern: str) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"pattern='{pattern}': not a regular expression ({error}). Correct it.") from None
    found = [compiled.search(name) for name in names]
    without = [name for name, match in zip(names, found, strict=True) if match is None]
    if without:
        raise DataError(f"{labels.source}: pattern='{pattern}' does not match the names {some(without)}. Correct it.")
    return [(match[1] if compiled.groups else match[0]) or "" for match in found if match is not None]


def joined(keys: list[list[str]], copies: list[list[int]]) -> dict[str, list[int]]:
    """Image indices of each unit, by one of its names: images that share a name, and images with identical content.

    Args:
        keys: names of each image.
        copies: indices of images with identical content.
    """
    parent = {key: key for of_image in keys for key in of_image}

    def root(key: str) -> str:
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    def join(one: str, other: str) -> None:
        a, b = sorted((root(one), root(other)))
        parent[b] = a

    for of_image in keys:
        for key in of_image[1:]:
            join(of_image[0], key)
    for same in copies:
        for i in same[1:]:
            join(keys[same[0]][0], keys[i][0])
    units: dict[str, list[int]] = defaultdict(list)
    for i, of_image in enumerate(keys):
        units[root(of_image[0])].append(i)
    return dict(units)


def find_copies(labels: Labels) -> list[list[int]]:
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


def content_of(labels: Labels) -> list[str]:
    """SHA-256 of the file of each image, or of its pixels where it is no file; read in threads."""

    def one(i: int) -> str:
        path = labels.path(i)
        return _whole(path).hex() if path is not None else hashlib.sha256(labels.read(i).tobytes()).hexdigest()

    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, range(len(labels))))
