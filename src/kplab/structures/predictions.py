"""Predictions: image id to predicted poses in source pixels, with the card of how they were made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kplab.errors import DataError
from kplab.ops import affine
from kplab.runs.files import replacing_text
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

PIXEL_CONVENTION = "keypoints: pixel indices, the centre of the first pixel is (0, 0); boxes: its corner is (0, 0)"
"""Of results JSON, as in COCO's format; stated in its card."""

LIMIT = 1e9
"""Numbers of results are below it: no image has such pixels."""


@dataclass
class Predictions:
    """The poses that a model predicted in a set of images.

    Args:
        skeleton: names of the keypoints.
        poses: image id to Poses, source pixels (continuous); images without any prediction have an empty Poses.
        card: how they were made: run, checkpoint, boxes given or detected, flip test, view size.
        files: image id to file name, where known.
    """

    skeleton: Skeleton
    poses: dict[int, Poses]
    card: dict[str, Any] = field(default_factory=dict)
    files: dict[int, str] = field(default_factory=dict)

    def write(self, path: Path) -> Path:
        """Write COCO results JSON, and the card beside it as ``<name>.card.json``.

        Keypoints become pixel indices, as in COCO; boxes are continuous there and stay. The third number of a keypoint
        is its confidence. ``track_id`` is written where an instance has a track.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [row for image_id in sorted(self.poses) for row in result_rows(image_id, self.poses[image_id])]
        path.write_text(json.dumps(rows))
        write_card(path, self.card, self.skeleton, ((i, self.files.get(i, "")) for i in sorted(self.poses)))
        return path

    @classmethod
    def read(cls, path: Path, skeleton: Skeleton) -> Predictions:
        """Read COCO results JSON; the card is optional, so that other systems' results can be scored too.

        Raises:
            DataError: not a results file, or of other keypoints, or with values that are not finite numbers.
        """
        rows = _json(Path(path), list, "a list of results")
        card = _json(card_path(path), dict, "a card") if card_path(path).exists() else {}
        names, listed = _card_content(path, card)
        if names is not None and tuple(names) != skeleton.keypoints:
            raise DataError(
                f"{path}: made for keypoints {', '.join(names)}, but skeleton '{skeleton.name}' has "
                f"{', '.join(skeleton.keypoints)}. Score it against the dataset it was made for."
            )
        found: dict[int, list[dict[str, Any]]] = {i: [] for i in listed}
        k = len(skeleton)
        for number, row in enumerate(rows):
            fault = _fault(row, skeleton)
            if fault:
                raise DataError(f"{path}: result {number} {fault}")
            found.setdefault(row["image_id"], []).append(row)
        poses = {}
        for image_id, members in found.items():
            t = np.array([row["keypoints"] for row in members], dtype=np.float64).reshape(-1, k, 3)
            box = np.array([row.get("bbox", [np.nan] * 4) for row in members], dtype=np.float64).reshape(-1, 4)
            box[:, 2:] += box[:, :2]
            score = np.array([row["score"] for row in members], dtype=np.float64)
            tracks = (row.get("track_id") for row in members)
            track = np.array([-1 if t is None else max(t, -1) for t in tracks], dtype=np.int64)
            # three zeros are a keypoint that was not found
            visible = np.where((t == 0).all(-1), 0, 2)
            poses[image_id] = Poses.make(
                affine.from_pixel_index(t[..., :2]), visible, score, t[..., 2], box, track=track
            )
        return cls(skeleton, poses, card, listed)


def pixel_indices(xy: np.ndarray) -> np.ndarray:
    """Continuous pixels as they are written: pixel indices, rounded to a millionth."""
    return np.round(affine.to_pixel_index(xy), 6)


def result_rows(image_id: int, poses: Poses) -> list[dict[str, Any]]:
    """COCO results of one image, one a pose.

    Args:
        poses: source pixels, continuous; see ``Predictions.write`` for COCO's.
    """
    rows = []
    for i in range(len(poses)):
        index = pixel_indices(np.nan_to_num(poses.xy[i]))
        triplets = np.concatenate([index, poses.keypoint_score[i][:, None]], axis=1)
        triplets[~poses.labelled[i]] = 0.0
        row: dict[str, Any] = {
            "image_id": int(image_id),
            "category_id": 1,
            "keypoints": [round(float(v), 6) for v in triplets.ravel()],
            "score": float(poses.score[i]),
        }
        if np.isfinite(poses.box[i]).all():
            x0, y0, x1, y1 = (float(v) for v in poses.box[i])
            row["bbox"] = [round(v, 4) for v in (x0, y0, x1 - x0, y1 - y0)]
        if poses.track[i] >= 0:
            row["track_id"] = int(poses.track[i])
        rows.append(row)
    return rows


def write_card(
    path: Path,
    card: Mapping[str, Any],
    skeleton: Skeleton,
    files: Iterable[tuple[int, str]],
    times: Iterable[tuple[int, float]] = (),
) -> None:
    """Write the card of a results file beside it, without all names in memory.

    Args:
        path: the results file, complete.
        card: how the predictions were made.
        files: image id and file name of every image that was predicted, in the order of ids.
        times: image id and time of every frame of a video, seconds, in the same order; empty for images.
    """
    content = {
        **card,
        "skeleton": skeleton.name,
        "keypoints": list(skeleton.keypoints),
        "pixel_convention": PIXEL_CONVENTION,
        "sha256": file_hash(path),
    }
    with replacing_text(card_path(path)) as file:
        file.write(json.dumps(content, indent=1).removesuffix("\n}"))
        for name, entries in (("images", files), ("times", times)):
            separator = f',\n "{name}": {{\n'
            for image_id, value in entries:
                file.write(f'{separator}  "{image_id}": {json.dumps(value)}')
                separator = ",\n"
            if separator == ",\n":
                file.write("\n }")
            elif name == "images":
                file.write(',\n "images": {}')
        file.write("\n}")


def _json(path: Path, kind: type, what: str) -> Any:
    try:
        content = json.loads(path.read_text())
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}). Predict again, or fetch it again.") from None
    if not isinstance(content, kind):
        raise DataError(
            f"{path}: expected {what}, as in COCO's results format, but this is {type(content).__name__}. "
            "Is it an annotation file?"
        )
    return content


def _card_content(path: Path, card: dict[str, Any]) -> tuple[list[str] | None, dict[int, str]]:
    """The keypoints that a card names, and image id to file name."""
    names, images = card.get("keypoints"), card.get("images", {})
    if not isinstance(names, list | None) or not all(isinstance(name, str) for name in names or ()):
        raise DataError(f"{card_path(path)}: 'keypoints' is not a list of names. Predict again, or fetch it again.")
    try:
        listed = {int(i): name for i, name in images.items()}
        if all(isinstance(name, str) for name in listed.values()) and all(abs(i) < 2**63 for i in listed):
            return names, listed
    except (AttributeError, ValueError):
        pass
    raise DataError(f"{card_path(path)}: 'images' does not map ids to file names. Predict again, or fetch it again.")


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number, of a size that coordinates and scores can have."""
    return type(value) in (int, float) and -LIMIT < value < LIMIT


def _fault(row: Any, skeleton: Skeleton) -> str | None:
    """What is wrong with one result, and what to do; None where nothing is."""
    lacking = [key for key in ("image_id", "keypoints", "score") if not isinstance(row, dict) or key not in row]
    if lacking:
        return f"lacks {', '.join(lacking)}. Each result needs image_id, keypoints and score."
    if type(row["image_id"]) is not int or abs(row["image_id"]) >= 2**63:
        return f"has image_id {row['image_id']!r}. Write the integer id of the annotation file."
    where, k = f"(image {row['image_id']})", len(skeleton)
    if not isinstance(row["keypoints"], list) or len(row["keypoints"]) != 3 * k:
        count = len(row["keypoints"]) if isinstance(row["keypoints"], list) else "no list of"
        return (
            f"{where} has {count} keypoint numbers, but skeleton '{skeleton.name}' needs {3 * k} "
            f"(x, y, score for each of {k} keypoints)."
        )
    for key, values in (("keypoints", row["keypoints"]), ("score", [row["score"]]), ("bbox", row.get("bbox", []))):
        if not isinstance(values, list) or not all(map(_is_number, values)):
            return (
                f"{where}: {key} holds a value that is not a finite number below {LIMIT:g}. A keypoint that was not found "
                "is 0, 0, 0."
            )
    if "bbox" in row and len(row["bbox"]) != 4:
        return f"{where}: bbox has {len(row['bbox'])} numbers. It needs x, y, width, height."
    if "bbox" in row and min(row["bbox"][2:]) < 0:
        return f"{where}: bbox has a negative side: {row['bbox']}. It needs x, y, width, height."
    if row.get("track_id") is not None and (type(row["track_id"]) is not int or row["track_id"] >= 2**63):
        return f"{where}: track_id is {row['track_id']!r}. Write an integer of 0 or more, or leave it out."
    return None


def card_path(path: Path) -> Path:
    """Path of the card of a predictions file."""
    return Path(path).with_suffix(".card.json")


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
