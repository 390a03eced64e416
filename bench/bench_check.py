"""Time of the linter's rules about labels: linear in the number of subjects, up to those of 100,000 images."""

from __future__ import annotations

import time

import numpy as np

from kplab.data.check import Dataset, check_dataset
from kplab.data.sources.arrays import ArraySource
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

K = 17
GROUPS = ("geometry", "limbs", "identity", "tracks", "schema", "balance")


class NoImages(ArraySource):
    """Names without images."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def name(self, i: int) -> str:
        """Number of the image."""
        return f"{i:06d}.jpg"


def people(count: int) -> Labels:
    """Random subjects with the pairs of coco17, two in every second image."""
    rng = np.random.default_rng(0)
    flip = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
    edges = tuple((i, i + 1) for i in range(K - 1))
    skeleton = Skeleton("people", tuple(f"k{i}" for i in range(K)), edges, flip, (0.05,) * K, "made up")
    image = np.sort(np.concatenate([np.arange(count), np.arange(0, count, 2)]))
    mean = rng.uniform(0, 100, (K, 2))
    xy = mean + rng.normal(0, 5, (len(image), K, 2)) + rng.uniform(100, 300, (len(image), 1, 2))
    box = np.concatenate([xy.min(1) - 5, xy.max(1) + 5], axis=1)
    poses = Poses.make(xy, box=box, area=0.5 * (box[:, 2:] - box[:, :2]).prod(1))
    ids = np.arange(1, count + 1)
    return make_labels(
        skeleton,
        NoImages(count),
        ids,
        np.tile([640, 480], (count, 1)),
        None,
        poses,
        image,
        np.arange(len(image)) + 1,
        box_source="annotation",
        area_source="annotation",
    )


def main() -> None:
    """Print the time of two sizes, and their ratio."""
    seconds = []
    for count in (10_000, 100_000):
        labels = people(count)
        begun = time.perf_counter()
        report = check_dataset(Dataset({"all": labels}, deep=False), GROUPS)
        seconds.append(time.perf_counter() - begun)
        print(f"{count} images, {len(labels.poses)} subjects: {seconds[-1]:.1f} s, {len(report.findings)} findings")
    print(f"ten times the images take {seconds[1] / seconds[0]:.1f} times as long (linear: 10)")


if __name__ == "__main__":
    main()
