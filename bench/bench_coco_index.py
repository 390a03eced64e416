"""Time and memory to read an annotation file of the size of COCO, compared with pycocotools.

    python bench/bench_coco_index.py

Makes a file of 118,000 images and 150,000 instances in a temporary folder and reads it in new processes, so that peaks of
memory are independent. The exit status is 1 unless kplab takes under half of the CPU time of pycocotools, and under 2 GiB.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

IMAGES, INSTANCES, SEED = 118_000, 150_000, 0
WANTED_RATIO, WANTED_GIB = 0.5, 2.0

KPLAB = """
import resource, sys, time
from pathlib import Path
import yaml
from kplab.data.formats import coco
from kplab.structures.skeleton import Skeleton
skeleton = Skeleton.from_config(yaml.safe_load(Path(sys.argv[2]).read_text()))
start, cpu = time.perf_counter(), time.process_time()
labels = coco.read(sys.argv[1], Path(sys.argv[1]).parent, skeleton)
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
print(seconds, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, len(labels), len(labels.poses))
"""

PYCOCOTOOLS = """
import contextlib, io, resource, sys, time
from pycocotools.coco import COCO
start, cpu = time.perf_counter(), time.process_time()
with contextlib.redirect_stdout(io.StringIO()):
    index = COCO(sys.argv[1])
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
print(seconds, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, len(index.imgs), len(index.anns))
"""


def make_file(path: Path, skeleton: Path) -> None:
    """Write a file of the size of person_keypoints_train2017.json, with segments of 20 to 150 corners."""
    import numpy as np
    import yaml

    rng = np.random.default_rng(SEED)
    names = yaml.safe_load(skeleton.read_text())["keypoints"]
    images = [
        {
            "license": 3,
            "file_name": f"{i:012d}.jpg",
            "coco_url": f"http://images.cocodataset.org/train2017/{i:012d}.jpg",
            "height": 480,
            "width": 640,
            "date_captured": "2013-11-14 11:18:45",
            "flickr_url": f"http://farm9.staticflickr.com/8186/{i}_z.jpg",
            "id": i,
        }
        for i in range(1, IMAGES + 1)
    ]
    annotations = []
    for i in range(1, INSTANCES + 1):
        points = np.round(rng.uniform(0, 470, (2, rng.integers(20, 150))), 2)
        keypoints = rng.integers(0, 470, (17, 3))
        keypoints[:, 2] = rng.integers(0, 3, 17)
        keypoints[keypoints[:, 2] == 0] = 0
        low, high = points.min(1), points.max(1)
        annotations.append(
            {
                "segmentation": [points.T.ravel().tolist()],
                "num_keypoints": int((keypoints[:, 2] > 0).sum()),
                "area": round(float(np.prod(high - low)) / 2, 4),
                "iscrowd": 0,
                "keypoints": keypoints.ravel().tolist(),
                "image_id": int(rng.integers(1, IMAGES + 1)),
                "bbox": [round(float(v), 2) for v in (*low, *(high - low))],
                "category_id": 1,
                "id": i,
            }
        )
    category = {"supercategory": "person", "id": 1, "name": "person", "keypoints": names, "skeleton": []}
    document = {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": [category]}
    path.write_text(json.dumps(document))


def measure(script: str, *arguments: str) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak GiB of a script in a new process."""
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    seconds, cpu, gib, images, instances = (float(v) for v in done.stdout.split())
    if (images, instances) != (IMAGES, INSTANCES):
        raise SystemExit(f"read {images:g} images and {instances:g} instances, wanted {IMAGES} and {INSTANCES}")
    return seconds, cpu, gib


def main() -> int:
    """Make the file, time both readers three times, print the best of each, and return the exit status."""
    skeleton = Path(__file__).parents[1] / "conf" / "skeleton" / "coco17.yaml"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "person_keypoints.json"
        # a child process inherits its parent's peak, so the file is made in a new process
        subprocess.run([sys.executable, __file__, "make", str(path), str(skeleton)], check=True)
        print(f"{path.stat().st_size / 1e6:.0f} MB, {IMAGES} images, {INSTANCES} instances")
        ours = [measure(KPLAB, str(path), str(skeleton)) for _ in range(3)]
        theirs = [measure(PYCOCOTOOLS, str(path)) for _ in range(3)]
    best = {"kplab": min(ours, key=lambda r: r[1]), "pycocotools": min(theirs, key=lambda r: r[1])}
    peak = {"kplab": max(r[2] for r in ours), "pycocotools": max(r[2] for r in theirs)}
    for name, (seconds, cpu, _) in best.items():
        print(f"{name:<11} {seconds:6.2f} s ({cpu:.2f} s of CPU time)  peak {peak[name]:.2f} GiB")
    # CPU time, because both read in one thread: other processes on the machine have little influence
    ratio = best["kplab"][1] / best["pycocotools"][1]
    print(f"ratio of CPU time {ratio:.2f} (required: under {WANTED_RATIO}), memory required: under {WANTED_GIB:g} GiB")
    return int(ratio > WANTED_RATIO or peak["kplab"] > WANTED_GIB)


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"]:
        make_file(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        sys.exit(main())
