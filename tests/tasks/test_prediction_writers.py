"""Predictions in other programs' formats: each file is opened by that program's own library, and compared number by number."""

from __future__ import annotations

import json
import tracemalloc
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from kplab.data import formats
from kplab.data.formats import labelstudio
from kplab.errors import ConfigError
from kplab.structures.frames import Frame
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton
from kplab.tasks.inference.journal import Journal, pack, unpack
from kplab.tasks.inference.writers import WRITERS, check_names, writing
from kplab.tasks.inference.writers.about import About
from kplab.viz.video import write_video

SKELETON = Skeleton(
    "mouse", ("snout", "left_ear", "right_ear", "tail"), ((0, 1), (0, 2), (0, 3)), (0, 2, 1, 3), (0.1,) * 4, "test"
)
SIZE = (96, 64)


def frames_of(count: int, tracked: bool = True, most: int = 3, step: int = 2) -> Iterator[Frame]:
    """Frames with none to ``most`` instances, of which points are missing and some have no track."""
    rng = np.random.default_rng(0)
    for i in range(count):
        n = int(rng.integers(0, most + 1))
        xy = rng.uniform(0, 1, (n, 4, 2)) * SIZE
        xy[rng.random((n, 4)) < 0.2] = np.nan
        corner = rng.uniform(0, 30, (n, 2))
        track = rng.permutation(4)[:n] - 1 if tracked else np.full(n, -1)
        poses = Poses.make(
            xy,
            score=rng.random(n),
            keypoint_score=rng.random((n, 4)),
            box=np.hstack([corner, corner + 20]),
            track=track,
        )
        yield Frame(step * i, f"clip.mp4#{step * i:06d}", i * 0.08, poses, size=SIZE)


@pytest.fixture
def about(tmp_path: Path) -> About:
    """Of a video that exists."""
    clip = write_video(tmp_path / "clip.mp4", [np.zeros((64, 96, 3), dtype=np.uint8)] * 3)
    return About(SKELETON, "clip.mp4", True, clip)


def written(name: str, about: About, frames: Iterator[Frame], folder: Path) -> Path:
    """The file of a format."""
    with writing(folder, [name], about) as add:
        for frame in frames:
            add(frame)
    return folder / WRITERS[name][1]


def test_sleap_io_reads_the_same(about: About, tmp_path: Path) -> None:
    """Frames, points as pixel indices, scores, tracks, and the skeleton with edges and symmetries."""
    sleap_io = pytest.importorskip("sleap_io")
    labels = sleap_io.load_slp(str(written("slp", about, frames_of(40), tmp_path)))
    (skeleton,) = labels.skeletons
    assert skeleton.node_names == list(SKELETON.keypoints)
    assert skeleton.edge_names == [("snout", "left_ear"), ("snout", "right_ear"), ("snout", "tail")]
    assert [set(s) for s in skeleton.symmetry_names] == [{"left_ear", "right_ear"}]
    assert Path(labels.video.filename) == about.video
    wanted = [frame for frame in frames_of(40) if len(frame.poses)]
    assert [found.frame_idx for found in labels.labeled_frames] == [frame.index for frame in wanted]
    for found, frame in zip(labels.labeled_frames, wanted, strict=True):
        assert len(found.predicted_instances) == len(frame.poses)
        for n, instance in enumerate(found.predicted_instances):
            np.testing.assert_allclose(instance.numpy(), frame.poses.xy[n] - 0.5, rtol=0, atol=1e-12)
            there = frame.poses.labelled[n]
            np.testing.assert_allclose(instance.points["score"][there], frame.poses.keypoint_score[n][there])
            assert instance.score == pytest.approx(frame.poses.score[n], abs=1e-7)  # SLEAP's is float32
            track = frame.poses.track[n]
            assert (instance.track.name if instance.track else None) == (f"track_{track}" if track >= 0 else None)


def test_sleap_io_reads_images(tmp_path: Path) -> None:
    sleap_io = pytest.importorskip("sleap_io")
    images = [tmp_path / f"{i}.png" for i in range(3)]
    labels = sleap_io.load_slp(
        str(written("slp", About(SKELETON, images=images), frames_of(3, step=1), tmp_path)), open_videos=False
    )
    assert [Path(name) for name in labels.video.filename] == images
    with pytest.raises(ConfigError, match="write=slp needs a video or images"):
        written("slp", About(SKELETON, "camera:0"), frames_of(3), tmp_path)


@pytest.mark.parametrize(("tracked", "most"), [(True, 3), (False, 3), (False, 1)])
@pytest.mark.parametrize("kind", ["dlc_h5", "dlc_csv"])
def test_pandas_reads_deeplabcuts_layout(kind: str, tracked: bool, most: int, about: About, tmp_path: Path) -> None:
    """As DeepLabCut opens its own files: rows are frames, columns scorer, individuals, bodyparts and coords."""
    path = written(kind, about, frames_of(250, tracked, most), tmp_path)
    header = [0, 1, 2] if most == 1 else [0, 1, 2, 3]
    table = pd.read_hdf(path, "df_with_missing") if kind == "dlc_h5" else pd.read_csv(path, header=header, index_col=0)
    levels = ["scorer", "individuals", "bodyparts", "coords"]
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns.names) == [level for level in levels if most > 1 or level != "individuals"]
    wanted = list(frames_of(250, tracked, most))
    assert table.index.tolist() == [frame.index for frame in wanted]
    cells = table.to_numpy().reshape(250, -1, 4, 3)
    people = list(table.columns.get_level_values("individuals").unique()) if most > 1 else ["individual1"]
    count = 0
    for row, frame in zip(cells, wanted, strict=True):
        others = iter(range(1, 9))
        for n, track in enumerate(frame.poses.track.tolist()):
            place = people.index(f"track{track}" if track >= 0 else f"individual{next(others)}")
            there = frame.poses.labelled[n]
            np.testing.assert_allclose(row[place, there, :2], frame.poses.xy[n, there] - 0.5, rtol=0, atol=1e-12)
            np.testing.assert_allclose(row[place, there, 2], frame.poses.keypoint_score[n, there])
            count += int(there.sum())
    assert np.isfinite(cells).all(-1).sum() == count


def test_ultralytics_labels(about: About, tmp_path: Path) -> None:
    """By sleap-io's reader of the format; keypoints outside the image and those that were not found have v = 0."""
    pytest.importorskip("sleap_io")
    import sleap_io
    from sleap_io.io.ultralytics import parse_label_file

    folder = written("yolo", about, frames_of(30), tmp_path)
    skeleton = sleap_io.Skeleton(list(SKELETON.keypoints))
    for frame in frames_of(30):
        path = folder / f"clip_{frame.index:06d}.txt"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            instances, _, _ = parse_label_file(path, skeleton, SIZE[::-1])
        assert len(instances) == len(frame.poses)
        for n, instance in enumerate(instances):
            np.testing.assert_allclose(instance.numpy(), frame.poses.xy[n], atol=1e-4)
        rows = np.array([line.split() for line in path.read_text().splitlines()], dtype=float).reshape(-1, 5 + 12)
        sides = np.tile(SIZE, 2)
        box = np.hstack([rows[:, 1:3] - rows[:, 3:5] / 2, rows[:, 1:3] + rows[:, 3:5] / 2]) * sides
        np.testing.assert_allclose(box, np.clip(frame.poses.box, 0, sides), atol=1e-4)
    (folder / "notes.md").write_text("mine")
    with pytest.raises(ConfigError, match=r"notes.md: is no label file"):
        written("yolo", about, frames_of(3), tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> About:
    """Of images that exist, of which one has a name that an address must quote."""
    names = ["0.png", "day 1/a&b#50%.png", *(f"{i}.png" for i in range(2, 30))]
    for name in names:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE).save(tmp_path / "photos" / name)
    return About(SKELETON, "photos", False, images=[tmp_path / "photos" / name for name in names], run="mouse_run")


def photographed(about: About) -> list[Frame]:
    """Frames of images; some keypoints and boxes extend beyond them."""
    names = [
        str(p.relative_to(p.parents[1 if p.parent.name == "photos" else 2] / "photos")) for p in about.images or ()
    ]
    return [replace(f, name=name) for f, name in zip(frames_of(30, step=1), names, strict=True)]


def test_label_studio_tasks_are_read_again(photos: About, tmp_path: Path) -> None:
    """By kplab's reader of exports: images, boxes clipped to them, and keypoints inside them."""
    frames = photographed(photos)
    path = written("label_studio", photos, iter(frames), tmp_path)
    labels = labelstudio.read(path, tmp_path / "photos", SKELETON, predicted=True)
    assert [str(name) for name in labels.names] == [frame.name for frame in frames]
    wanted = Poses.concat([f.poses for f in frames if len(f.poses)])
    np.testing.assert_allclose(labels.poses.box, np.clip(wanted.box, 0, np.tile(SIZE, 2)), atol=1e-9)
    np.testing.assert_allclose(labels.poses.xy, wanted.xy, atol=1e-9)
    assert labels.poses.visible.tolist() == np.where(wanted.labelled, 2, 0).tolist()
    assert np.bincount(labels.image_of(), minlength=30).tolist() == [len(f.poses) for f in frames]
    unread = labelstudio.read(path, tmp_path / "photos", SKELETON)
    assert not len(unread.poses)
    assert "30 tasks have no annotation: their predictions are not read (predicted: true reads them)" in unread.notes
    assert formats.recognised(path) == ["labelstudio"]


def test_label_studio_tasks_fit_their_configuration(photos: About, tmp_path: Path) -> None:
    """What Label Studio checks at import: names and labels of the configuration, percent within 0 to 100, unique ids."""
    frames = photographed(photos)
    outside = Poses.make(
        [[[-1, 5], [5, 5], [np.nan] * 2, [200, 5]]], box=np.array([[-9, -9, 200, 30]]), score=np.array([1.5])
    )
    frames[3] = replace(frames[3], poses=outside)
    tasks = json.loads(written("label_studio", replace(photos, images_at="mice"), iter(frames), tmp_path).read_text())
    view = ElementTree.parse(tmp_path / "label_studio.xml").getroot()
    controls = {tag.get("name"): [label.get("value") for label in tag] for tag in view if tag.get("toName") == "image"}
    assert controls["keypointlabels"] == list(SKELETON.keypoints)
    assert tasks[0]["data"] == {"image": "/data/local-files/?d=mice/0.png"}
    assert tasks[1]["data"] == {"image": "/data/local-files/?d=mice/day%201/a%26b%2350%25.png"}
    ids = []
    for task, frame in zip(tasks, frames, strict=True):
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == "mouse_run"
        mean = frame.poses.score.mean() if len(frame.poses) else 0.0
        assert prediction["score"] == pytest.approx(min(mean, 1.0))
        regions = [region for region in prediction["result"] if region["type"] != "relation"]
        ids += [region["id"] for region in regions]
        for region in regions:
            assert region["from_name"] == region["type"]
            assert set(region["value"][region["type"]]) <= set(controls[region["type"]])
            assert all(0 <= region["value"][key] <= 100 for key in ("x", "y", "width"))
            assert 0 <= region["score"] <= 1
            assert region.get("parentID", regions[0]["id"]) in {r["id"] for r in regions}
        for region in prediction["result"]:
            if region["type"] == "relation":
                assert {region["from_id"], region["to_id"]} <= {r["id"] for r in regions}
    assert len(set(ids)) == len(ids)
    box, point = (r for r in tasks[3]["predictions"][0]["result"] if r["type"] != "relation")
    assert (box["value"]["x"], box["value"]["y"], box["value"]["width"]) == (0, 0, 100)
    assert point["value"]["keypointlabels"] == ["left_ear"]
    with pytest.raises(ConfigError, match="write=label_studio needs images"):
        written("label_studio", About(SKELETON, "clip.mp4"), iter(frames), tmp_path)


def test_parquet_has_the_rows_of_csv(about: About, tmp_path: Path) -> None:
    """Over several groups of rows, and with frames without an instance."""
    parquet = pq.read_table(written("parquet", about, frames_of(1200), tmp_path)).to_pandas()
    csv = pd.read_csv(written("csv", about, frames_of(1200), tmp_path))
    assert len(csv) > 4 * 1200
    pd.testing.assert_frame_equal(parquet, csv, check_dtype=False, check_exact=True)
    assert not len(pq.read_table(written("parquet", about, iter(()), tmp_path)))


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_that_fails_leaves_the_earlier_file(name: str, about: About, photos: About, tmp_path: Path) -> None:
    about = photos if name == "label_studio" else about
    path = written(name, about, frames_of(5), tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def broken() -> Iterator[Frame]:
        yield from frames_of(3)
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        written(name, about, broken(), tmp_path)
    assert path.exists()
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("name", ["parquet", "slp", "dlc_h5"])
def test_writers_hold_few_frames(name: str, about: About, tmp_path: Path) -> None:
    """The peak of Python's memory is that of their buffers, whether 600 or 1,800 frames are written.

    A frame that is kept takes 1,700 bytes.
    """
    written(name, about, frames_of(10), tmp_path)  # what is imported at the first use
    peaks = []
    for count in (600, 1800):
        tracemalloc.start()
        written(name, about, frames_of(count), tmp_path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 300 * 1200


def test_formats_that_are_unknown() -> None:
    with pytest.raises(
        ConfigError, match=r"write=hdf is unknown. Use csv, parquet, slp, dlc_h5, dlc_csv, yolo, label_studio"
    ):
        check_names(["csv", "hdf"])


def test_a_line_of_the_journal_is_exact(tmp_path: Path) -> None:
    """Every field of every frame, bit by bit; what is cut off is not read."""
    every = list(frames_of(20))
    for frame in every:
        again = unpack(pack(frame), 4)
        assert (again.index, again.name, again.time, again.size) == (frame.index, frame.name, frame.time, SIZE)
        for name, value in vars(frame.poses).items():
            found = getattr(again.poses, name)
            assert found.dtype == value.dtype, name
            np.testing.assert_array_equal(found, value)
    path = tmp_path / "j"
    with Journal(path, {"a": 1}, 4, 8) as journal:
        journal.append(every)
    for lost, left in ((0, 16), (1, 8), (3000, 0)):
        path.write_bytes(path.read_bytes()[: len(path.read_bytes()) - lost])
        with Journal(path, {"a": 1}, 4, 8) as journal:
            assert [frame.index for frame in journal.frames()] == [frame.index for frame in every[:left]]
    assert json.loads(path.read_text().splitlines()[0])["made_from"] == {"a": 1}
