"""Hashes of the data of a training, by file: the content of a run's ``data.json``, and what has changed since."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kplab.errors import RunError
from kplab.runs.files import replacing
from kplab.runs.provenance import file_sha256, sha256
from kplab.runs.records import some
from kplab.runs.run import Run
from kplab.structures.labels import Labels

#: Name of the file in a run's folder.
FILE = "data.json"
SCHEMA = 1
#: Hex digits of SHA-256 that are kept: 64 bits show a change, and the hashes of 100,000 images take 6 MB.
DIGITS = 16
#: Files that a message names.
LISTED = 10


@dataclass(frozen=True)
class DataHashes:
    """The first ``DIGITS`` hex digits of the SHA-256 of everything that a training reads of a dataset.

    Args:
        label_files: path of each label file, relative to the folder that holds them all, to its hash.
        manifest: hash of the split's manifest; None without one.
        images: split to image name to the hashes of the image and of its labels.
    """

    label_files: dict[str, str]
    manifest: str | None
    images: dict[str, dict[str, tuple[str, str]]]

    @classmethod
    def of(cls, splits: Mapping[str, Labels], manifest: Path | None = None) -> DataHashes:
        """Hash the files of a dataset, in threads; of images that are no files the pixels.

        Args:
            splits: split name to labels.
            manifest: of the split.
        """
        images = {}
        for name, labels in splits.items():
            with ThreadPoolExecutor() as pool:
                pixels = pool.map(lambda i, labels=labels: image_hash(labels, i), range(len(labels)))
                truth = labels.image_digests()
                hashes = [(image[:DIGITS], label[:DIGITS]) for image, label in zip(pixels, truth, strict=True)]
            images[name] = dict(zip(map(str, labels.names), hashes, strict=True))
        label_files = {name: file_sha256(path)[:DIGITS] for name, path in label_files_of(splits).items()}
        return cls(label_files, file_sha256(manifest)[:DIGITS] if manifest and manifest.is_file() else None, images)

    def image_hashes(self) -> dict[str, list[str]]:
        """Split to the hash of each image, in its order."""
        return {split: [image for image, _ in rows.values()] for split, rows in self.images.items()}

    def text(self) -> str:
        """The content of the file."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, separators=(",", ":"))

    def write(self, folder: Path) -> None:
        """Write ``data.json`` into the folder of a run."""
        with replacing(folder / FILE) as stream:
            stream.write(self.text().encode())


def read_hashes(run: Run) -> DataHashes | None:
    """The hashes of the data of a run; None for a run of an older kplab, which has none.

    Raises:
        RunError: the file is missing, damaged, or not the one that the run's record names.
    """
    stated = run.record.get("data_sha256")
    if stated is None:
        return None
    path = run.folder / FILE
    try:
        text = path.read_bytes()
        if sha256(text) != stated:
            raise ValueError("its hash is not that in run.json")
        content: dict[str, Any] = json.loads(text)
        if content.pop("schema") != SCHEMA:
            raise ValueError("another version of kplab wrote it")
        images = {
            str(split): {str(name): (str(image), str(labels)) for name, (image, labels) in rows.items()}
            for split, rows in content["images"].items()
        }
        label_files = {str(name): str(value) for name, value in content["label_files"].items()}
        return DataHashes(label_files, content["manifest"], images)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(
            f"{path}: can't be read as the hashes of the run's data ({error}). Restore the file; without it the data can't "
            "be checked."
        ) from None


def image_hash(labels: Labels, i: int) -> str:
    """SHA-256 of the file of image i, or of its pixels where it is no file."""
    path = labels.path(i)
    return file_sha256(path) if path is not None else hashlib.sha256(labels.read(i).tobytes()).hexdigest()


def label_files_of(splits: Mapping[str, Labels]) -> dict[str, Path]:
    """The label files of a dataset, by their paths relative to the folder that holds all of them."""
    paths = sorted({path.absolute() for labels in splits.values() for path in labels.files})
    common = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
    return {path.relative_to(common).as_posix(): path for path in paths}


def changes(then: DataHashes, now: DataHashes, splits: Mapping[str, Labels], manifest: Path | None) -> list[str]:
    """What of the data is not as a run's record states, a line for each file; empty where nothing that counts has changed.

    Label files and manifests of other bytes, but with the same labels and splits, are no change.

    Args:
        then: of the run.
        now: of the files.
        splits: the labels that ``now`` was made from.
        manifest: of the split.
    """
    where = {split: {str(name): i for i, name in enumerate(labels.names)} for split, labels in splits.items()}
    in_split = {name: split for split, rows in now.images.items() for name in rows}
    pixels: list[str] = []
    relabelled: list[str] = []
    missing: list[str] = []
    moved: list[str] = []
    for split, rows in then.images.items():
        found = now.images.get(split, {})
        for name, (image, labels) in rows.items():
            if name not in found:
                if name in in_split:
                    moved.append(f"{name} (from {split} to {in_split[name]})")
                else:
                    missing.append(f"{name} ({split})")
                continue
            place = splits[split].where(where[split][name])
            if found[name][0] != image:
                pixels.append(f"{place}: another image (split {split})")
            if found[name][1] != labels:
                relabelled.append(name)
    known = {name for rows in then.images.values() for name in rows}
    added = [f"{name} ({split})" for split, rows in now.images.items() for name in rows if name not in known]
    lines = pixels[:LISTED]
    if len(pixels) > LISTED:
        lines.append(f"and {len(pixels) - LISTED} more images")
    files = label_files_of(splits)
    touched = [str(files[name]) for name, value in now.label_files.items() if then.label_files.get(name) != value]
    if relabelled or missing or added:
        source = some(touched, LISTED) if touched else "labels, whose files are unchanged but are read differently"
        counts = ((relabelled, "with other labels"), (missing, "missing"), (added, "added"))
        told = "; ".join(f"{images_of(names)} {what}: {some(names)}" for names, what in counts if names)
        lines.append(f"{source}: {told}")
    if moved:
        lines.append(f"{manifest or 'split'}: {images_of(moved)} in another split: {some(moved)}")
    return lines


def changed_since(run: Run, splits: Mapping[str, Labels], manifest: Path | None, now: DataHashes) -> list[str]:
    """What of the data has changed since a run, a line for each file; see ``changes``, which has the other arguments."""
    then = read_hashes(run)
    return changed_digests(run, splits) if then is None else changes(then, now, splits, manifest)


def images_of(names: list[str]) -> str:
    """Their number in words."""
    return f"{len(names)} image{'' if len(names) == 1 else 's'}"


def changed_digests(run: Run, splits: Mapping[str, Labels]) -> list[str]:
    """What has changed since a run whose record has one hash of the labels of each split, as older ones have."""
    recorded = run.record.get("dataset")
    recorded = recorded if isinstance(recorded, dict) else {}
    files = some([str(path) for path in label_files_of(splits).values()], LISTED)
    return [
        f"{files}: other labels or other images in split {split} (an older kplab recorded no hashes of files)"
        for split, labels in splits.items()
        if split in recorded and recorded[split] != labels.digest()
    ]
