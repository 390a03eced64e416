"""Time to parse confidence maps and part affinity fields into people, on one core."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
import yaml

from kplab.config import conf_dir
from kplab.models.heads.base import HeadInputs
from kplab.models.heads.paf import PafHead
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

SIZE = (512, 512)
STRIDE = 4
TURNS = 15
WANTED = 5.0


def crowd(people: int, keypoints: int) -> Poses:
    """People on a grid, each smaller than its cell."""
    random = np.random.default_rng(0)
    across = int(np.ceil(np.sqrt(people)))
    side = SIZE[0] / across
    corner = np.stack([np.arange(people) % across, np.arange(people) // across], axis=1) * side
    return Poses.make(corner[:, None] + random.uniform(0.1, 0.9, (people, keypoints, 2)) * side)


def main() -> None:
    """Print milliseconds per view for 5, 10, 20 and 40 people of 17 keypoints on maps of 128x128 cells."""
    torch.set_num_threads(1)
    skeleton = Skeleton.from_config(yaml.safe_load((conf_dir() / "skeleton" / "coco17.yaml").read_text()))
    head = PafHead(HeadInputs([8], [STRIDE], SIZE, skeleton), width=8)
    with torch.inference_mode():
        for people in (5, 10, 20, 40):
            outputs = head.ideal(head.encode([crowd(people, len(skeleton))], SIZE))
            seconds = []
            for _ in range(TURNS):
                begun = time.process_time()
                (found,) = head.decode(outputs)
                seconds.append(time.process_time() - begun)
            wanted = f", required: under {WANTED:.0f} ms" if people == 20 else ""
            print(
                f"{people:>3} people: {1000 * statistics.median(seconds):5.1f} ms per view ({len(found)} poses found{wanted})"
            )


if __name__ == "__main__":
    main()
