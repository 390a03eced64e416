"""Writes rendered datasets: images, COCO annotations, and a note of how they were made."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kplab.errors import ConfigError
from kplab.synthetic.scene import find_subject, render

VERSION = 1
"""Raised whenever the same parameters would give other pixels or labels."""

CARD = "generated.json"


def generate(
    folder: Path, subject: str, images: int, size: tuple[int, int] = (256, 256), seed: int = 0, max_subjects: int = 3,
    workers: int = 2,
) -> Path:  # fmt: skip
    """Make a dataset, unless the folder holds just this one already.

    Image i depends on (seed, i) and the other parameters only, so neither the number of images nor of workers matters
    to it. Everything is made beside the folder and moved there at the end: a folder is whole or absent.

    Args:
        folder: where to put ``images/000001.jpg``…, ``annotations.json`` (COCO keypoints) and ``generated.json``.
        subject: one of ``subjects()``.
        images: how many.
        size: (width, height), pixels.
        seed: of all random numbers, 0 or more.
        max_subjects: at most so many an image; 1 gives exactly one.
        workers: processes.

    Returns:
        The folder.

    Raises:
        ConfigError: a parameter makes no sense.
        FileExistsError: the folder holds something else.
    """
    find_subject(subject)
    if images < 1 or seed < 0 or workers < 1:
        raise ConfigError(
            f"{folder}: got images={images}, seed={seed}, workers={workers}, but wanted images >= 1, seed >= 0 and "
            "workers >= 1."
        )
    folder = Path(folder)
    card: dict[str, Any] = {
        "renderer": VERSION, "subject": subject, "images": images, "size": list(size), "seed": seed,
        "max_subjects": max_subjects,
    }  # fmt: skip
    if _holds(folder, card):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".generating-", dir=folder.parent) as scratch:
        made = Path(scratch) / "set"
        (made / "images").mkdir(parents=True)
        draw = partial(_draw, made / "images", subject, seed, size, max_subjects)
        if workers == 1 or images < 32:
            drawn = [draw(i) for i in range(images)]
        else:
            # spawned, not forked: the caller may run threads (torch, OpenCV), which do not survive a fork
            with multiprocessing.get_context("spawn").Pool(workers, _one_thread) as pool:
                drawn = pool.map(draw, range(images), chunksize=8)
        (made / "annotations.json").write_text(json.dumps(_coco(subject, size, drawn)))
        (made / CARD).write_text(json.dumps(card, indent=1) + "\n")
        try:
            os.replace(made, folder)
        except OSError:
            # another process was quicker
            if not _holds(folder, card):
                raise
    return folder


def _holds(folder: Path, card: dict[str, Any]) -> bool:
    """Whether the folder is this dataset; False where there is nothing yet.

    Raises:
        FileExistsError: it is another one.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    note = folder / CARD
    if not note.is_file():
        raise FileExistsError(
            f"{folder}: wanted to put a synthetic dataset there, but it holds something else (it has no {CARD}). "
            "Choose another folder."
        )
    found = json.loads(note.read_text())
    if found == card:
        return True
    differ = [f"{k}={found.get(k)!r} there but {v!r} wanted" for k, v in card.items() if found.get(k) != v]
    raise FileExistsError(
        f"{folder}: holds another synthetic dataset ({'; '.join(differ)}). Delete that folder to make it anew, or "
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
    if not cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92]):
        raise OSError(f"{path}: could not be written. Is there space left on the disk?")
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
    """COCO keypoints JSON: positions count from pixel centres, boxes and polygons from the image's corner."""
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
