"""Writes rendered datasets: images, COCO annotations, and a record of the parameters."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import platform
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kplab.errors import ConfigError, DataError
from kplab.runs.files import check_may_write
from kplab.synthetic.scene import find_subject, render

VERSION = 1
"""Incremented whenever the same parameters would give different pixels or labels."""

CARD = "generated.json"

SCRATCH = ".generating-"
"""Start of the names of folders that are being written; the machine, and the process with its start time, follow."""


def generate(
    folder: Path, subject: str, images: int, size: tuple[int, int] = (256, 256), seed: int = 0, max_subjects: int = 3,
    workers: int = 2,
) -> Path:  # fmt: skip
    """Make a dataset, unless the folder contains this dataset already.

    Image i depends on (seed, i) and the other parameters only, not on the number of images or workers. The dataset is
    written beside the folder and moved there at the end, so that a folder is complete or absent.

    Args:
        folder: where to put ``images/000001.jpg``…, ``annotations.json`` (COCO keypoints) and ``generated.json``.
        subject: one of ``subjects()``.
        images: number of images.
        size: (width, height), pixels.
        seed: of all random numbers, 0 or more.
        max_subjects: largest number of subjects of an image; 1 gives exactly one.
        workers: number of processes.

    Returns:
        The folder.

    Raises:
        ConfigError: a parameter is invalid.
        DataError: the folder contains something else.
    """
    find_subject(subject)
    if images < 1 or seed < 0 or workers < 1:
        raise ConfigError(
            f"{folder}: got images={images}, seed={seed}, workers={workers}, but images >= 1, seed >= 0 and workers >= 1 "
            "are needed."
        )
    folder = Path(folder)
    card: dict[str, Any] = {
        "renderer": VERSION, "subject": subject, "images": images, "size": list(size), "seed": seed,
        "max_subjects": max_subjects,
    }  # fmt: skip
    if _holds(folder, card):
        return folder
    check_may_write(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder.parent)
    with tempfile.TemporaryDirectory(prefix=f"{SCRATCH}{_this_process()}-", dir=folder.parent) as scratch:
        made = Path(scratch) / "set"
        (made / "images").mkdir(parents=True)
        draw = partial(_draw, made / "images", subject, seed, size, max_subjects)
        if workers == 1 or images < 32:
            drawn = [draw(i) for i in range(images)]
        else:
            # spawned, not forked: threads of the caller (torch, OpenCV) do not survive a fork
            with multiprocessing.get_context("spawn").Pool(workers, _one_thread) as pool:
                drawn = pool.map(draw, range(images), chunksize=8)
        (made / "annotations.json").write_text(json.dumps(_coco(subject, size, drawn)))
        (made / CARD).write_text(json.dumps(card, indent=1) + "\n")
        try:
            os.replace(made, folder)
        except OSError:
            # another process finished first
            if not _holds(folder, card):
                raise
    return folder


def _this_process() -> str:
    return f"{_machine()}-{os.getpid()}-{_start_time(os.getpid())}"


def _machine() -> str:
    """A short hash of the machine's name: a shared disk may hold the folders of processes elsewhere."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _start_time(pid: int) -> str:
    """Start time of a process, which tells it from an earlier one of the same number; 0 where the system has no /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "0"


def _remove_abandoned(parent: Path) -> None:
    """Remove the scratch folders of processes of this machine that were killed."""
    for path in parent.glob(f"{SCRATCH}*"):
        parts = path.name.removeprefix(SCRATCH).split("-")
        if len(parts) == 4 and parts[0] == _machine() and parts[1].isdigit() and not _alive(int(parts[1]), parts[2]):
            shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int, started: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        return True
    return _start_time(pid) == started


def _holds(folder: Path, card: dict[str, Any]) -> bool:
    """Whether the folder contains this dataset; False where it is missing or empty.

    Raises:
        DataError: it contains something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    record = folder / CARD
    if not record.is_file():
        raise DataError(
            f"{folder}: can't write a synthetic dataset there, because the folder contains something else (it has no {CARD}). "
            "Choose another folder."
        )
    try:
        found = dict(json.loads(record.read_text()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"{record}: cannot be read ({error}). Delete {folder} to have the dataset made again."
        ) from error
    if found == card:
        return True
    differ = [f"{k} is {found.get(k)!r} there, not {v!r}" for k, v in card.items() if found.get(k) != v]
    raise DataError(
        f"{folder}: contains another synthetic dataset ({'; '.join(differ)}). Delete that folder to make it again, or "
        "choose another one."
    )


def _one_thread() -> None:
    cv2.setNumThreads(1)


def _draw(
    folder: Path, subject: str, seed: int, size: tuple[int, int], max_subjects: int, i: int
) -> list[dict[str, Any]]:
    """Write image i, and return its annotations without their ids."""
    image, poses, polygons = render(subject, np.random.default_rng([seed, i]), size, max_subjects)
    path = folder / f"{i + 1:06d}.jpg"
    path.write_bytes(cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
    rows = []
    for n in range(len(poses)):
        triplets = np.column_stack([np.nan_to_num(poses.xy[n] - 0.5), poses.visible[n]])
        x0, y0, x1, y1 = poses.box[n].tolist()
        rows.append(
            {
                "image_id": i + 1,
                "category_id": 1,
                "keypoints": [round(v, 3) for v in triplets.ravel().tolist()],
                "num_keypoints": int((poses.visible[n] > 0).sum()),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": float(poses.area[n]),
                "segmentation": [[round(v, 2) for v in p.ravel().tolist()] for p in polygons[n]],
                "iscrowd": 0,
            }
        )
    return rows


def _coco(subject: str, size: tuple[int, int], drawn: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """COCO keypoints JSON: positions relative to pixel centres, boxes and polygons relative to the image's corner."""
    what = find_subject(subject)
    annotations = [row for rows in drawn for row in rows]
    return {
        "info": {"description": f"kplab synthetic {subject}, renderer {VERSION}"},
        "images": [
            {"id": i + 1, "file_name": f"images/{i + 1:06d}.jpg", "width": size[0], "height": size[1]}
            for i in range(len(drawn))
        ],
        "annotations": [{"id": n + 1, **row} for n, row in enumerate(annotations)],
        "categories": [
            {
                "id": 1,
                "name": subject,
                "keypoints": list(what.keypoints),
                "skeleton": [[a + 1, b + 1] for a, b in what.edges],
            }
        ],
    }
