"""Behaviour of two real flies, by their labelled keypoints and identities, against plain sums."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np

from kplab.applications.behaviour import Measures
from kplab.applications.trajectories import Trajectories, times_at
from kplab.applications.zones import Circle
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton


def test_two_flies(real_data: Path) -> None:
    """Distances of all steps, time in a circle and time near each other, of 1,500 frames at 25 a second."""
    with h5py.File(real_data / "sleap_videos" / "clip.slp") as file:
        meta = json.loads(file["metadata"].attrs["json"])
        frames, instances, points = (file[name][:] for name in ("frames", "instances", "points"))
    nodes = [meta["nodes"][node["id"]]["name"] for node in meta["skeletons"][0]["nodes"]]
    named = {"name": "fly", "keypoints": nodes, "flip_pairs": [], "sigmas": "uniform"}
    poses, files, thorax = {}, {}, np.full((2, 1500, 2), np.nan)
    for row in frames:
        number = int(row["frame_idx"])
        here = instances[row["instance_id_start"] : row["instance_id_end"]]
        xy = np.array([[tuple(p)[:2] for p in points[i["point_id_start"] :][:13]] for i in here])
        poses[number + 1] = Poses.make(xy + 0.5, track=here["track"])
        files[number + 1] = f"clip.mp4#{number:06d}"
        thorax[here["track"], number] = xy[:, nodes.index("thorax")] + 0.5
    predictions = Predictions(Skeleton.from_config(named), poses, files=files)
    tracks = Trajectories.of(predictions, times_at(predictions, 25), "thorax", ("abdomen", "head"))
    np.testing.assert_array_equal(tracks.xy, thorax)
    found = Measures([Circle("centre", (512, 512), 250)], near=110.0).measure(tracks)
    lengths = np.linalg.norm(np.diff(thorax, axis=1), axis=-1).sum(1)
    np.testing.assert_allclose(found.identities.distance_px, lengths, rtol=1e-9)
    inside = np.hypot(*(thorax - 512).transpose(2, 0, 1)) <= 250
    weight = np.r_[0.5, np.ones(1498), 0.5] / 25
    np.testing.assert_allclose(found.zones.time_s, inside @ weight, rtol=1e-9)
    near = np.linalg.norm(thorax[0] - thorax[1], axis=-1) < 110
    np.testing.assert_allclose(found.pairs.near_s, near @ weight, rtol=1e-9)
    assert 0 < found.pairs.near_s[0] < 59
