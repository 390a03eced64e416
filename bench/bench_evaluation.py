"""Time and memory of AP and AR, and of a whole evaluation, compared with pycocotools on the same instances.

    python bench/bench_evaluation.py [images] [true instances of an image, on average]

Random subjects in 5,000 images with 10 predictions each. pycocotools is timed without its indices (``COCO``, ``loadRes``),
which are in memory before; the ratios are therefore upper bounds. Times are CPU time, the best of repeats that alternate.
The exit status is 1 if figures differ or a requirement is missed.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import yaml
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kplab.config import conf_dir
from kplab.metrics.coco_ap import coco_ap
from kplab.metrics.score import score
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton

IMAGES, PREDICTED, TRUE, REPEATS, SEED = 5_000, 10, 2.2, 5, 0
WANTED = {"AP and AR": 0.1, "whole evaluation": 0.5}


def make_case(images: int, true: float, skeleton: Skeleton) -> tuple[dict[int, Poses], Predictions]:
    """Subjects of three sizes, a tenth of them unlabelled, and predictions near them, in boxes of 400 pixels."""
    rng = np.random.default_rng(SEED)
    k = len(skeleton)
    truth, found = {}, {}
    for image in range(1, images + 1):
        m = int(rng.geometric(1 / true))
        xy = rng.uniform(size=(m, k, 2)) * rng.choice([60.0, 110.0, 300.0], (m, 1, 1)) + rng.uniform(0, 400, (m, 1, 2))
        visible = rng.integers(0, 3, (m, k)) * (rng.uniform(size=(m, 1)) > 0.1)
        box = np.concatenate([xy.min(1), xy.max(1)], axis=1)
        area = 0.6 * (box[:, 2:] - box[:, :2]).prod(1)
        unlabelled = np.asarray(~visible.any(1))
        truth[image] = Poses.make(xy, visible, box=box, area=area, ignore=unlabelled)
        shift = rng.normal(size=(PREDICTED, k, 2)) * rng.choice([1.0, 5.0, 20.0], (PREDICTED, 1, 1))
        found[image] = Poses.make(xy[rng.integers(0, m, PREDICTED)] + shift, score=rng.uniform(size=PREDICTED))
    return truth, Predictions(skeleton, found)


def rows_of(poses: dict[int, Poses]) -> list[dict[str, Any]]:
    """Instances as in COCO's files, with the fields of truth and of results."""
    rows: list[dict[str, Any]] = []
    for image, p in poses.items():
        xy = np.where(p.labelled[..., None], p.xy - 0.5, 0.0)
        keypoints = np.concatenate([xy, p.visible[..., None]], axis=-1).reshape(len(p), -1).tolist()
        for i, values in enumerate(keypoints):
            row = {"id": len(rows) + 1, "image_id": image, "category_id": 1, "keypoints": values, "iscrowd": 0}
            row |= {"score": float(p.score[i]), "area": float(p.area[i]), "num_keypoints": int(p.labelled[i].sum())}
            if np.isfinite(p.box[i]).all():
                row["bbox"] = [*p.box[i, :2].tolist(), *(p.box[i, 2:] - p.box[i, :2]).tolist()]
            rows.append(row)
    return rows


def pycocotools_of(truth: dict[int, Poses], predictions: Predictions) -> Callable[[], np.ndarray]:
    """What evaluates by pycocotools."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": [{"id": i} for i in truth], "categories": [{"id": 1}], "annotations": rows_of(truth)}
        coco.createIndex()
        results = coco.loadRes(rows_of(predictions.poses))

    def run() -> np.ndarray:
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(coco, results, "keypoints")
            evaluation.params.kpt_oks_sigmas = predictions.skeleton.sigma_array
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation.stats

    return run


def peak(run: Callable[[], Any]) -> float:
    """Highest MB that a call has allocated at once."""
    tracemalloc.start()
    run()
    highest = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return highest


def main() -> int:
    """Print times, ratios and memory, and return the exit status."""
    images = int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    true = float(sys.argv[2]) if len(sys.argv) > 2 else TRUE
    skeleton = Skeleton.from_config(yaml.safe_load((conf_dir() / "skeleton" / "coco17.yaml").read_text()))
    truth, predictions = make_case(images, true, skeleton)
    files = {image: f"{image}.jpg" for image in truth}
    runs: dict[str, Callable[[], Any]] = {
        "pycocotools": pycocotools_of(truth, predictions),
        "AP and AR": lambda: coco_ap(truth, predictions, skeleton.sigma_array),
        "whole evaluation": lambda: score(truth, predictions, skeleton, files=files),
    }
    print(f"{images} images, {sum(map(len, truth.values()))} true instances, {PREDICTED * images} predictions")
    theirs, ours = runs["pycocotools"](), list(runs["AP and AR"]().stats.values())
    difference = float(np.abs(theirs - ours).max())
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(REPEATS):
        for name, run in runs.items():
            begun = time.process_time()
            run()
            seconds[name].append(time.process_time() - begun)
    best, memory = {name: min(s) for name, s in seconds.items()}, {name: peak(run) for name, run in runs.items()}
    failed = difference > 1e-12 or memory["AP and AR"] > memory["pycocotools"]
    for name in runs:
        ratio, wanted = best[name] / best["pycocotools"], WANTED.get(name)
        text = "" if wanted is None else f", ratio {ratio:.3f} (required: at most {wanted:g})"
        print(f"{name:<17} {best[name]:6.2f} s, peak {memory[name]:4.0f} MB{text}")
        failed |= wanted is not None and ratio > wanted
    print(f"largest difference of the ten figures: {difference:.1g}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
