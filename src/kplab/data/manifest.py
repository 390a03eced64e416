"""Manifests of splits: the parts of a dataset, with the parameters that made them, written once and checked when read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kplab.data.reading import some
from kplab.data.units import GROUPED, keys_of
from kplab.errors import DataError
from kplab.runs.files import replacing_text
from kplab.structures.labels import Labels


@dataclass(frozen=True)
class Manifest:
    """The content of a manifest file.

    Args:
        name: the file's name.
        by: "group", "video", "subject", "image", "time" or "lists".
        seed: seed of the order.
        fractions: share of each part; empty where there are folds.
        folds: number of folds, or None.
        gap: frames dropped between blocks of a split by time.
        parts: part name to image names, sorted.
        dropped: images that are in no part on purpose: the gaps of a split by time, and what no list names.
        pattern: regular expression of groups in the names of images.
        stratify: what the parts are stratified by.
        lists: of a split by lists, part name to its file or patterns.
        unlisted: of a split by lists, what happens to other images.
    """

    name: str
    by: str
    seed: int
    fractions: dict[str, float]
    folds: int | None
    gap: int
    parts: dict[str, list[str]]
    dropped: list[str] = field(default_factory=list)
    pattern: str | None = None
    stratify: list[str] = field(default_factory=list)
    lists: dict[str, Any] = field(default_factory=dict)
    unlisted: str = "error"

    def sha256(self) -> str:
        """Hash of everything but the name."""
        content = {k: v for k, v in self.content().items() if k != "name"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def content(self) -> dict[str, Any]:
        """What is written: options that older manifests lack only where they are not the default."""
        plain: dict[str, Any] = {"pattern": None, "stratify": [], "lists": {}, "unlisted": "error"}
        return {key: value for key, value in asdict(self).items() if key not in plain or value != plain[key]}


def parameters(
    fractions: Mapping[str, float] | None,
    by: str,
    seed: int,
    folds: int | None,
    gap: int,
    pattern: str | None,
    stratify: Sequence[str],
    lists: Mapping[str, Any] | None,
    unlisted: str,
) -> dict[str, Any]:
    """The parameters of a split as a manifest holds them."""
    return {
        "by": by,
        "seed": seed,
        "fractions": {} if folds else {str(k): float(v) for k, v in (fractions or {}).items()},
        "folds": folds,
        "gap": gap,
        "pattern": pattern,
        "stratify": list(stratify),
        "lists": {str(k): v if isinstance(v, str) else list(v) for k, v in (lists or {}).items()},
        "unlisted": unlisted,
    }


def write_manifest(
    path: str | Path,
    labels: Labels,
    parts: Mapping[str, list[str]],
    fractions: Mapping[str, float] | None,
    by: str,
    seed: int,
    folds: int | None = None,
    gap: int = 0,
    pattern: str | None = None,
    stratify: Sequence[str] = (),
    lists: Mapping[str, Any] | None = None,
    unlisted: str = "error",
) -> Manifest:
    """Write the parts of ``make_split`` with their parameters.

    Raises:
        DataError: the parts overlap, are empty, or do not cover the dataset.
    """
    path = Path(path)
    covered = {f for files in parts.values() for f in files}
    dropped = sorted(str(f) for f in labels.names if str(f) not in covered)
    if by != "time" and unlisted != "drop":
        dropped = []
    asked = parameters(fractions, by, seed, folds, gap, pattern, stratify, lists, unlisted)
    content = {name: sorted(files) for name, files in parts.items()}
    manifest = Manifest(name=path.stem, parts=content, dropped=dropped, **asked)
    _check(manifest, path, labels)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_text(path) as stream:
            stream.write(json.dumps({**manifest.content(), "sha256": manifest.sha256()}, indent=1) + "\n")
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
    known = dict.fromkeys(map(str, labels.names))
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
    if manifest.by in GROUPED:
        sides: dict[str, set[str]] = {}
        for name, keys in zip(labels.names, keys_of(labels, manifest.by, manifest.pattern), strict=True):
            for key in keys:
                sides.setdefault(key, set()).add(part_of[str(name)])
        divided = [key for key, parts in sides.items() if len(parts) > 1]
        if divided:
            raise DataError(
                f"{path}: groups are in several parts: {some(divided)}. The dataset's groups changed since it was made: "
                "name another manifest file to have a new split made."
            )
