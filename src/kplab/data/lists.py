"""Official lists of a dataset's parts: text files with a name in each line, or patterns of names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from kplab.data.reading import some
from kplab.errors import DataError
from kplab.structures.labels import Labels

UNLISTED = ("error", "drop")


def listed_parts(
    labels: Labels, lists: Mapping[str, str | Sequence[str]], unlisted: str = "error"
) -> dict[str, list[str]]:
    """Image names of each part.

    A line of a list file names an image by its name, by the last parts of its path, or by these without the ending, such
    as ``train/0001.jpg``, ``0001.jpg`` or ``0001``. Empty lines and those that begin with # are skipped.

    Args:
        labels: the dataset.
        lists: part name to a list file, or to patterns of names in which ``*`` also matches ``/``.
        unlisted: "error", or "drop" to leave images out that no part names.

    Raises:
        DataError: a file is missing, or a line or pattern matches no image, or several; an image is in no part.
    """
    if unlisted not in UNLISTED:
        raise DataError(f"unlisted='{unlisted}' is unknown. Use unlisted=error or unlisted=drop.")
    if len(lists) < 2:
        raise DataError(f"lists={dict(lists)}: expected two parts or more, such as {{train: FILE, test: FILE}}.")
    names = [str(name) for name in labels.names]
    known = _by_ending(names)
    parts = {}
    for part, source in lists.items():
        if isinstance(source, str):
            parts[str(part)] = _of_file(Path(source), known, labels)
        else:
            parts[str(part)] = _of_patterns(str(part), source, names, labels)
    found = {name for files in parts.values() for name in files}
    left = [name for name in names if name not in found]
    if left and unlisted == "error":
        raise DataError(
            f"{labels.source}: {len(left)} images are in no list: {some(left)}. Correct the lists, or leave such images out "
            "with unlisted: drop."
        )
    return {part: sorted(files) for part, files in parts.items()}


def _by_ending(names: list[str]) -> dict[str, list[str]]:
    """Every ending of a path, with and without its suffix, to the names that have it."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        pieces = PurePosixPath(name).parts
        stem = PurePosixPath(name).stem
        for k in range(len(pieces)):
            for ending in {"/".join(pieces[k:]), "/".join((*pieces[k:-1], stem))}:
                found[ending].append(name)
    return found


def _of_file(path: Path, known: Mapping[str, list[str]], labels: Labels) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read as a list of images ({error}). Check the path of the list.") from None
    wanted = [line for line in lines if line and not line.startswith("#")]
    # a whole name is meant as such, even where another path ends with it
    matches = {line: [line] if line in known.get(line, ()) else known.get(line, []) for line in wanted}
    missing = [line for line, found in matches.items() if not found]
    several = [f"{line} ({some(found)})" for line, found in matches.items() if len(found) > 1]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} lines name no image of {labels.source}: {some(missing)}. Take the list of this dataset."
        )
    if several:
        raise DataError(f"{path}: lines match several images: {some(several)}. Name them with their folders.")
    if not wanted:
        raise DataError(f"{path}: the list is empty. Name an image in each line.")
    return list(dict.fromkeys(matches[line][0] for line in wanted))


def _of_patterns(part: str, patterns: Sequence[str], names: list[str], labels: Labels) -> list[str]:
    found: dict[str, None] = {}
    for pattern in patterns:
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            raise DataError(
                f"{labels.source}: the pattern '{pattern}' of part '{part}' matches no image. Names are like {some(names[:3])}."
            )
        found.update(dict.fromkeys(matching))
    return list(found)
