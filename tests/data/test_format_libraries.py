"""Independent libraries read what is written, and what they write is read: sleap-io, pycocotools, pandas, SciPy, netCDF."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
from pycocotools.coco import COCO
from tests.data.formats._spots import PET, SUBJECTS, write_images

from kplab.data.formats import (
    coco,
    dlc,
    fiftyone,
    labelstudio,
    lightning_pose,
    lsp,
    movement,
    mpii,
    nwb,
    plain_csv,
    sleap,
    yolo,
)
from kplab.data.holds import reduced
from kplab.data.sources.files import FileSource
from kplab.errors import DataError
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

sio = pytest.importorskip("sleap_io")
NAMES = ("0.png", "1.png", "2.png")


@pytest.fixture
def labels(tmp_path: Path) -> Labels:
    """The subjects of the examples, with tracks."""
    write_images(tmp_path / "images", NAMES)
    xy = [[p or (np.nan, np.nan) for p in subject] for subjects in SUBJECTS for subject in subjects]
    image_of = np.array([i for i, subjects in enumerate(SUBJECTS) for _ in subjects])
    poses = Poses.make(np.array(xy, dtype=float) + 0.5, track=np.array([1, 0, 1, 0]))
    box = np.array([[1.0, 1, 23, 15]] * 4)
    source = FileSource(tmp_path / "images", NAMES)
    ids, size = np.arange(1, 4), np.array([[24, 16]] * 3)
    skeleton = replace(PET, edges=((0, 1), (0, 2)))
    made = make_labels(
        skeleton, source, ids, size, None, replace(poses, box=box, area=np.full(4, 99.0)), image_of, np.arange(1, 5),
        box_source="annotation", area_source="annotation",
    )  # fmt: skip
    return made


def instances(frames: Any, node_names: list[str]) -> list[np.ndarray]:
    """(K, 2) pixel indices of the instances of sleap-io's frames, in the order of PET."""
    order = [node_names.index(name) for name in PET.keypoints]
    ordered = sorted(frames, key=lambda frame: frame.frame_idx)
    return [instance.numpy()[order, :2] for frame in ordered for instance in frame.instances]


def indices() -> np.ndarray:
    """(N, K, 2) pixel indices of SUBJECTS."""
    return np.array([[p or (np.nan, np.nan) for p in s] for subjects in SUBJECTS for s in subjects], dtype=float)


def test_sleap_io_reads_our_slp(labels: Labels, tmp_path: Path) -> None:
    found = sio.load_slp(str(sleap.write(labels, tmp_path / "out" / "a.slp")))
    assert [str(Path(name).name) for name in found.videos[0].filename] == list(NAMES)
    np.testing.assert_array_equal(instances(found.labeled_frames, found.skeleton.node_names), indices())
    assert found.skeleton.edge_inds == [(0, 1), (0, 2)]
    ordered = sorted(found.labeled_frames, key=lambda frame: frame.frame_idx)
    tracks = [one.track.name for frame in ordered for one in frame.instances]
    assert tracks == ["track1", "track0", "track1", "track0"]
    assert found.videos[0][0].shape[:2] == (16, 24)


def test_what_sleap_io_writes_is_read(labels: Labels, tmp_path: Path) -> None:
    """A list of images, and symmetric edges, which are no edges of the body."""
    skeleton = sio.Skeleton(
        ["right_ear", "nose", "left_ear"], edges=[("nose", "left_ear")], symmetries=[("left_ear", "right_ear")]
    )
    video = sio.Video([str(tmp_path / "images" / name) for name in NAMES])
    frames = [
        sio.LabeledFrame(
            video=video, frame_idx=i, instances=[sio.Instance.from_numpy(points[[2, 0, 1]], skeleton) for points in one]
        )
        for i, one in enumerate([indices()[:2], indices()[2:3], indices()[3:]])
    ]
    sio.save_slp(sio.Labels(frames), str(tmp_path / "b.slp"))
    assert sleap.names(tmp_path / "b.slp").edges == ((1, 2),)
    found = sleap.read(tmp_path / "b.slp", PET, tmp_path / "frames")
    np.testing.assert_array_equal(found.poses.xy, indices() + 0.5)
    assert list(found.names) == [f"images/{name}" for name in NAMES]


def test_pycocotools_reads_our_coco(labels: Labels, tmp_path: Path) -> None:
    found = COCO(str(coco.write(labels, tmp_path / "a.json")))
    written = [a for image in found.getImgIds() for a in found.loadAnns(found.getAnnIds(image))]
    triplets = np.array([a["keypoints"] for a in written], dtype=float).reshape(-1, 3, 3)
    np.testing.assert_array_equal(np.where(triplets[..., 2:] > 0, triplets[..., :2], np.nan), indices())
    assert [a["num_keypoints"] for a in written] == [3, 2, 2, 3]


def test_whole_bodies_are_written_in_fields_of_their_own(tmp_path: Path) -> None:
    from kplab.data.formats._coco_parts import PARTS

    names = ("nose", *PARTS["foot"].names, *PARTS["left_hand"].names)
    skeleton = Skeleton("whole", names, (), tuple(range(len(names))), (0.1,) * len(names), "made up")
    xy = np.arange(2.0 * len(names)).reshape(1, -1, 2) + 0.5
    xy[0, 3] = np.nan
    write_images(tmp_path, ("0.png",), SUBJECTS[:1])
    size, poses = np.array([[90, 90]]), Poses.make(xy, box=np.array([[0, 0, 80, 80.0]]), area=np.array([5.0]))
    one = make_labels(
        skeleton, FileSource(tmp_path, ["0.png"]), np.array([1]), size, None, poses, np.array([0]), np.array([1]),
        box_source="annotation", area_source="annotation",
    )  # fmt: skip
    path = coco.write(one, tmp_path / "a.json", parts=True)
    (annotation,) = COCO(str(path)).loadAnns([1])
    assert annotation["keypoints"] == [0, 1, 2]
    assert annotation["foot_kpts"][:9] == [2, 3, 2, 4, 5, 2, 0, 0, 0]
    assert annotation["lefthand_valid"] is True
    found = coco.read(path, tmp_path, skeleton, parts=["body", "foot", "left_hand"])
    np.testing.assert_array_equal(found.poses.xy, xy)
    hand = Skeleton("hand", PARTS["left_hand"].names, (), tuple(range(21)), (0.1,) * 21, "made up")
    np.testing.assert_array_equal(coco.read(path, tmp_path, hand, parts=["left_hand"]).poses.xy, xy[:, 7:])


def test_sleap_io_reads_our_label_studio(labels: Labels, tmp_path: Path) -> None:
    path = labelstudio.write(labels, tmp_path / "images" / "a.json")[0]
    tasks = json.loads(path.read_text())
    for number, task in enumerate(tasks):
        task["meta"] = {"video": {"filename": "film.mp4", "frame_idx": number, "shape": [3, 16, 24, 1]}}
    path.write_text(json.dumps(tasks))
    found = sio.load_labelstudio(str(path), skeleton=sio.Skeleton(list(PET.keypoints)))
    known = [p[np.isfinite(p).all(1)] for p in instances(found.labeled_frames, list(PET.keypoints))]
    # sleap-io takes percent of the image for pixel indices, half a pixel from kplab's reading
    expected = [p[np.isfinite(p).all(1)] + 0.5 for p in indices()]
    assert sorted(p.tolist() for p in map(np.round, known, [6] * 4)) == sorted(p.tolist() for p in expected)


def test_sleap_io_reads_our_yolo(labels: Labels, tmp_path: Path) -> None:
    config = yolo.write(labels, tmp_path / "set", copy=True)[0]
    config.write_text(config.read_text().replace("train: images", "train: ./images"))  # sleap-io replaces "/images"
    found = sio.load_ultralytics(str(tmp_path / "set"), split="train", skeleton=sio.Skeleton(list(PET.keypoints)))
    by_image = sorted(found.labeled_frames, key=lambda f: str(f.video.filename))
    points = [i.numpy() for f in by_image for i in f.instances]
    # pixels are fractions times the size, so half a pixel from pixel indices
    np.testing.assert_allclose(np.array(points), indices() + 0.5, atol=1e-5)


def test_pandas_reads_our_tables(labels: Labels, tmp_path: Path) -> None:
    dlc.write(labels, tmp_path / "project", kinds=("csv",), columns=False)
    table = pd.read_csv(next((tmp_path / "project").rglob("*.csv")), header=[0, 1, 2, 3], index_col=0)
    assert table[("kplab", "individual2", "right_ear", "x")].tolist()[0] == 15
    first = reduced(labels, lightning_pose.HOLDS)
    lightning_pose.write(first, tmp_path / "lp.csv")
    table = pd.read_csv(tmp_path / "lp.csv", header=[0, 1, 2], index_col=0)
    assert table.columns.names == ["scorer", "bodyparts", "coords"]
    np.testing.assert_array_equal(table.to_numpy().reshape(3, 3, 2), indices()[[0, 2, 3]])
    plain_csv.write(labels, tmp_path / "plain.csv")
    table = pd.read_csv(tmp_path / "plain.csv")
    np.testing.assert_array_equal(
        table[[f"{n}_{c}" for n in PET.keypoints for c in "xy"]].to_numpy().reshape(-1, 3, 2), indices()
    )
    assert table["track"].tolist() == [1, 0, 1, 0]


def test_scipy_reads_our_mat(tmp_path: Path) -> None:
    """MPII's structure, as its own tools index it: annolist(i).annorect(j).annopoints.point(k)."""
    skeleton = Skeleton("m", mpii.JOINTS, (), tuple(range(16)), (0.1,) * 16, "made up")
    write_images(tmp_path, ("0.png",), SUBJECTS[:1])
    xy = np.arange(64.0).reshape(2, 16, 2) / 4
    visible = np.full((2, 16), 2)
    visible[0, 3], visible[1, 4] = 1, 0
    one = make_labels(
        skeleton, FileSource(tmp_path, ["0.png"]), np.array([1]), np.array([[24, 16]]), None,
        Poses.make(xy, visible, box=np.array([[0, 0, 9, 9.0]] * 2)), np.array([0, 0]), np.array([1, 2]),
        box_source="annotation", area_source="annotation",
    )  # fmt: skip
    release = scipy.io.loadmat(mpii.write(one, tmp_path / "a.mat"))["RELEASE"]
    image = release["annolist"][0, 0][0, 0]
    assert image["image"][0, 0]["name"][0] == "0.png"
    points = image["annorect"][0, 1]["annopoints"][0, 0]["point"]
    assert points.shape == (1, 15)
    assert points[0, 4]["id"][0, 0] == 5
    assert points[0, 4]["x"][0, 0] == xy[1, 5, 0] + 0.5  # counted from 1
    assert image["annorect"][0, 0]["annopoints"][0, 0]["point"][0, 3]["is_visible"][0, 0] == 0
    own = Skeleton("l", lsp.JOINTS, (), tuple(range(14)), (0.1,) * 14, "made up")
    single = replace(one.select([0]), skeleton=own, poses=Poses.make(xy[:1, :14], visible[:1, :14]))
    single = replace(single, start=np.array([0, 1]), instance_id=np.array([1]), crowd=np.array([False]))
    joints = scipy.io.loadmat(lsp.write(single, tmp_path / "lsp"))["joints"]
    assert joints.shape == (14, 3, 1)
    np.testing.assert_array_equal(joints[:, 0, 0], xy[0, :14, 0] + 0.5)


def test_nwb_refuses_more_images_than_it_can_write(
    labels: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error that HDF5 raised for 25,000 images; nothing is left."""
    sleap_io = pytest.importorskip("sleap_io")

    def full(_: Any, path: str, **options: Any) -> None:
        Path(path).write_bytes(b"begun")
        raise OSError("Unable to create attribute (unable to write attribute 'starting_frame')")

    monkeypatch.setattr(sleap_io, "save_nwb", full)
    with pytest.raises(
        DataError, match=r"a\.nwb: sleap-io can't write \d+ images as NWB .* Write fewer images to a file"
    ):
        nwb.write(labels, tmp_path / "a.nwb")
    assert not (tmp_path / "a.nwb").exists()


def test_nwb_holds_what_ndx_pose_states(labels: Labels, tmp_path: Path) -> None:
    pynwb = pytest.importorskip("pynwb")
    with pynwb.NWBHDF5IO(str(nwb.write(labels, tmp_path / "a.nwb")), "r") as file:
        training = file.read().processing["behavior"]["PoseTraining"]
        frames = sorted(training.training_frames.training_frames.values(), key=lambda f: f.source_video_frame_index)
        points = [
            np.asarray(one.node_locations) for f in frames for one in f.skeleton_instances.skeleton_instances.values()
        ]
    np.testing.assert_array_equal(np.array(points), indices())


def test_movement_is_netcdf(labels: Labels, tmp_path: Path) -> None:
    """Dimension scales are what netCDF-4 adds to HDF5; xarray reads a file by them."""
    with h5py.File(movement.write(labels, tmp_path / "a.nc", fps=25), "r") as file:
        position = file["position"]
        assert [d[0].name for d in position.dims] == ["/time", "/space", "/keypoints", "/individuals"]
        assert [v.decode() for v in file["individuals"]] == ["track0", "track1"]
        np.testing.assert_array_equal(file["time"], [0, 0.04, 0.08])
        np.testing.assert_array_equal(position[0, :, :, 1].T, indices()[0])
        np.testing.assert_array_equal(position[0, :, :, 0].T, indices()[1])
        assert np.isnan(position[1, :, :, 0]).all()
        assert file.attrs["ds_type"] == "poses"


def test_fiftyone_has_fractions_of_the_image(labels: Labels, tmp_path: Path) -> None:
    content = json.loads(fiftyone.write(labels, tmp_path / "a.json", copy=True).read_text())
    first = content["samples"][0]
    assert cv2.imread(first["filepath"]).shape[:2] == (16, 24)
    points = np.array([k["points"] for k in first["keypoints"]["keypoints"]])
    np.testing.assert_allclose(points * [24, 16], indices()[:2] + 0.5, atol=1e-6)
    assert first["boxes"]["detections"][0]["bounding_box"] == pytest.approx([1 / 24, 1 / 16, 22 / 24, 14 / 16])
    assert content["default_skeleton"] == {"labels": list(PET.keypoints), "edges": [[0, 1], [0, 2]]}
