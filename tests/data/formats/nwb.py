"""Example of NWB, written by sleap-io from labels of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.formats._spots import PET, SUBJECTS, write_images

from kplab.data.formats import nwb
from kplab.structures.labels import Labels


def make(folder: Path) -> dict[str, Any]:
    """Write the example, and return the arguments that read it."""
    sio = pytest.importorskip("sleap_io")
    names = ("a/0.png", "a/1.png", "2.png")
    write_images(folder, names)
    skeleton = sio.Skeleton(["right_ear", "nose", "left_ear"], name="pet")
    video = sio.Video([str(folder / name) for name in names])
    frames = []
    for number, subjects in enumerate(SUBJECTS):
        points = [np.array([s[k] or (np.nan, np.nan) for k in (2, 0, 1)], dtype=float) for s in subjects]
        instances = [sio.Instance.from_numpy(one, skeleton) for one in points]
        frames.append(sio.LabeledFrame(video=video, frame_idx=number, instances=instances))
    labels = sio.Labels(frames, videos=[video], skeletons=[skeleton])
    sio.save_nwb(labels, str(folder / "labels.nwb"), nwb_format="annotations")
    return {"labels": folder / "labels.nwb", "skeleton": PET, "frames_to": folder / "frames"}


def rewrite(labels: Labels, folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Write labels that were read with ``arguments``, and return the arguments that read what was written."""
    shutil.rmtree(folder, ignore_errors=True)
    path = nwb.write(labels, folder / "again.nwb", copy=True)
    return {"labels": path, "skeleton": arguments["skeleton"], "frames_to": folder}
