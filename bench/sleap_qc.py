"""SLEAP's label QC on the labels of ``bench/measure_linter.py export FOLDER``, in an environment that has SLEAP.

    python bench/sleap_qc.py FOLDER

It needs sleap 1.6, sleap-io, networkx and scikit-learn, and not kplab. The detector has its default settings, is fitted to the
labels with the faults in them, and flags what scores 0.7 or more; pairs that it takes for duplicates count as flagged.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import sleap_io as sio
from sleap.qc import LabelQCDetector


def labels_of(content: dict[str, np.ndarray]) -> sio.Labels:
    """Labels of SLEAP with one frame an image."""
    names = [str(n) for n in content["names"]]
    nodes = [sio.Node(n) for n in names]
    pairs = [(i, int(j)) for i, j in enumerate(content["flip"]) if i < j]
    skeleton = sio.Skeleton(
        nodes=nodes,
        edges=[sio.Edge(nodes[a], nodes[b]) for a, b in content["edges"]],
        symmetries=[sio.Symmetry([nodes[a], nodes[b]]) for a, b in pairs],
    )
    video = sio.Video(filename="none.mp4", open_backend=False)
    frames = []
    for image in np.unique(content["image"]):
        members = [sio.Instance.from_numpy(xy, skeleton=skeleton) for xy in content["xy"][content["image"] == image]]
        frames.append(sio.LabeledFrame(video=video, frame_idx=int(image), instances=members))
    return sio.Labels(labeled_frames=frames, videos=[video], skeletons=[skeleton])


def flagged(content: dict[str, np.ndarray]) -> set[int]:
    """Rows of the instances that are flagged."""
    labels = labels_of(content)
    results = LabelQCDetector().fit(labels).score(labels)
    first = {int(image): int(np.flatnonzero(content["image"] == image)[0]) for image in np.unique(content["image"])}
    rows = {first[f.frame_idx] + f.instance_idx for f in results.get_flagged(0.7)}
    for key, frame in results.frame_results.items():
        rows |= {first[key.frame_idx] + i for pair in frame.duplicate_pairs for i in pair}
    return rows


def main(folder: Path) -> None:
    """Print recall and the share of other subjects that are flagged, by dataset and kind."""
    table: dict[tuple[str, str, float], list[tuple[int, int, int, int]]] = defaultdict(list)
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            content = dict(file)
        places = {int(i) for i in content["planted"]}
        found = flagged(content)
        key = (str(content["dataset"]), str(content["kind"]), float(content["share"]))
        table[key].append((len(places), len(places & found), len(found - places), len(content["xy"]) - len(places)))
    for (dataset, kind, share), rows in sorted(table.items()):
        planted, hits, false, clean = (sum(column) for column in zip(*rows, strict=True))
        row = {"dataset": dataset, "kind": kind, "share": share, "planted": planted, "found": hits}
        print(json.dumps({**row, "flagged_others": round(false / clean, 4)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
