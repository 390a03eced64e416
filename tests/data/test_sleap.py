"""SLEAP files: frames and points at the places that the file states, the half pixel, and messages of broken files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

from kplab.data.formats import sleap
from kplab.data.images import read_image
from kplab.data.split import split
from kplab.data.video import write_frames
from kplab.errors import DataError
from kplab.structures.labels import Labels
from kplab.structures.skeleton import Skeleton

FRAME = [("frame_id", "<u8"), ("video", "<u4"), ("frame_idx", "<u8")]
FRAME += [("instance_id_start", "<u8"), ("instance_id_end", "<u8")]
INSTANCE = [("instance_id", "<i8"), ("instance_type", "u1"), ("frame_id", "<u8"), ("skeleton", "<u4"), ("track", "<i4")]
INSTANCE += [("from_predicted", "<i8"), ("score", "<f4"), ("point_id_start", "<u8"), ("point_id_end", "<u8")]
POINT = [("x", "<f8"), ("y", "<f8"), ("visible", "?"), ("complete", "?")]
SIZE = (64, 48)
NAN = float("nan")


def free(*names: str) -> Skeleton:
    return Skeleton("free", names, (), tuple(range(len(names))), (0.025,) * len(names), "made up")


def film(path: Path, frames: int = 12, colour: bool = False, codec: str = "MJPG") -> Path:
    """A film whose frame i is grey of level 20 i (which JPEG keeps within 2), with a red patch if it is coloured."""
    out = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, SIZE)
    for i in range(frames):
        image = np.full((SIZE[1], SIZE[0], 3), 20 * i, np.uint8)
        if colour:
            image[:24, :24] = (0, 0, 255)
        out.write(image)
    out.release()
    return path


def slp(
    path: Path,
    frames: list[tuple[int, int, list[dict[str, Any]]]],
    format_id: float | None = 1.2,
    nodes: tuple[str, ...] = ("b", "a"),
    videos: tuple[str, ...] = ("film.avi",),
) -> Path:
    """Write a .slp: frames as (video, number, instances); an instance has points (x, y[, visible]) and options.

    The list of names that skeletons share is in another order than the skeleton's own, as in files of SLEAP.
    """
    shared = sorted(nodes)
    rows: dict[str, list[tuple[Any, ...]]] = {"frames": [], "instances": [], "points": [], "pred_points": []}
    for row, (video, number, instances) in enumerate(frames):
        first = len(rows["instances"])
        rows["frames"].append((row, video, number, first, first + len(instances)))
        for one in instances:
            table = rows["pred_points" if one.get("predicted") else "points"]
            begin = len(table)
            table += [(p[0], p[1], p[2] if len(p) > 2 else True, True) for p in one["points"]]
            rows["instances"].append(
                (len(rows["instances"]), int(one.get("predicted", False)), row, 0, one.get("track", -1),
                 one.get("corrects", -1), one.get("score", NAN), begin, len(table))
            )  # fmt: skip
    graph = {"nodes": [{"id": shared.index(n)} for n in nodes], "links": []}
    header = {"skeletons": [{"nx_graph": graph}], "nodes": [{"name": n, "weight": 1.0} for n in shared]}
    with h5py.File(path, "w") as h5:
        meta = h5.create_group("metadata").attrs
        meta["json"] = np.bytes_(json.dumps(header))
        if format_id is not None:
            meta["format_id"] = format_id
        h5["videos_json"] = [json.dumps({"backend": {"filename": v}}).encode() for v in videos]
        h5["tracks_json"] = [json.dumps([0, name]).encode() for name in ("female", "male")]
        for name, kind in (("frames", FRAME), ("instances", INSTANCE), ("points", POINT), ("pred_points", POINT)):
            h5[name] = np.array(rows[name], dtype=kind)
    return path


def user(*points: tuple[float, ...], **more: Any) -> dict[str, Any]:
    return {"points": points or [(10.0, 20.0), (30.25, 5.0)], **more}


def guess(*points: tuple[float, ...], **more: Any) -> dict[str, Any]:
    return user(*points, predicted=True, **more)


def get(path: Path, **options: Any) -> Labels:
    return sleap.read(path, free("a", "b"), path.parent / "frames", **options)


def levels(labels: Labels) -> list[int]:
    """Numbers of the film's frames, recognised by their grey level."""
    return [round(float(labels.read(i).mean()) / 20) for i in range(len(labels))]


def test_points_are_matched_by_name_and_moved_by_half_a_pixel(tmp_path: Path) -> None:
    film(tmp_path / "film.avi")
    labels = get(slp(tmp_path / "l.slp", [(0, 3, [user((10, 20), (30.25, 5)), user((1, 2), (NAN, NAN), track=1)])]))
    np.testing.assert_allclose(labels.poses.xy, [[[30.75, 5.5], [10.5, 20.5]], [[np.nan] * 2, [1.5, 2.5]]])
    assert labels.poses.visible.tolist() == [[2, 2], [0, 2]]
    assert labels.size.tolist() == [list(SIZE)]
    assert labels.poses.track.tolist() == [-1, 1]
    assert labels.extras.head.tracks == ("female", "male")
    assert labels.notes == []


@pytest.mark.parametrize(("format_id", "shift"), [(None, 0.0), (1.0, 0.0), (1.1, 0.5), (1.2, 0.5), (1.9, 0.5)])
def test_old_user_points_have_the_corner_at_zero_and_predicted_ones_never_had(
    tmp_path: Path, format_id: float | None, shift: float
) -> None:
    film(tmp_path / "film.avi")
    path = slp(tmp_path / "l.slp", [(0, 0, [user((8, 9), (7, 6)), guess((3, 4), (5, 6))])], format_id)
    labels = get(path, predicted=True)
    np.testing.assert_allclose(labels.poses.xy[0, 1], [8 + shift, 9 + shift])
    np.testing.assert_allclose(labels.poses.xy[1, 1], [3.5, 4.5])


def test_boxes_and_areas_are_of_the_points(tmp_path: Path) -> None:
    film(tmp_path / "film.avi")
    labels = get(slp(tmp_path / "l.slp", [(0, 0, [user((10, 10), (30, 20))])]), box_margin=1.5)
    # hull 10.5 .. 30.5 by 10.5 .. 20.5, half as large again about its centre
    np.testing.assert_allclose(labels.poses.box, [[5.5, 8, 35.5, 23]])
    np.testing.assert_allclose(labels.poses.area, [30 * 15])
    assert labels.area_source == "area of the keypoints' padded box (keypoint extent x 1.5)"


def test_user_instances_supersede_predicted_ones(tmp_path: Path) -> None:
    film(tmp_path / "film.avi")
    frame = [
        guess((1, 1), (2, 2)),
        guess((5, 5), (6, 6), track=1),
        guess((9, 9), (8, 8), track=0, score=7.5),
        user((1, 1.5), (2, 2), corrects=0),
        user((5, 5.5), (6, 6), track=1),
    ]
    path = slp(tmp_path / "l.slp", [(0, 0, frame), (0, 1, [guess((4, 4), (3, 3))])])
    plain = get(path)
    assert plain.poses.xy[:, 1].tolist() == [[1.5, 2], [5.5, 6]]
    assert plain.notes == [
        "4 predicted instances are left out",
        "1 of 2 frames are left out: no instance in them is taken for truth",
    ]
    both = get(path, predicted=True)
    assert both.start.tolist() == [0, 3, 4]
    assert both.poses.xy[:, 1].tolist() == [[9.5, 9.5], [1.5, 2], [5.5, 6], [4.5, 4.5]]
    assert both.extras.instance[int(both.instance_id[0])] == 7.5
    assert [n.split(" predicted")[0] for n in both.notes] == ["2", "2"]


def test_missing_points_and_frames_are_noted(tmp_path: Path) -> None:
    film(tmp_path / "film.avi")
    far, hidden, blank = user((99, 1), (2, 2)), user((1, 1), (2, 2, False)), user((NAN, NAN), (NAN, NAN))
    labels = get(slp(tmp_path / "l.slp", [(0, 0, [far, hidden, blank]), (0, 1, []), (0, 2, [blank])]))
    assert labels.poses.visible.tolist() == [[2, 0], [0, 2]]
    assert [n[:40] for n in labels.notes] == [
        "1 points that are marked as not visible ",
        "2 instances without a point are left out",
        "2 of 3 frames are left out: no instance ",
        "1 labelled keypoints of 1 instances lie ",
    ]


def test_frames_are_those_of_the_film(tmp_path: Path) -> None:
    film(tmp_path / "film.avi")
    path = slp(tmp_path / "l.slp", [(0, n, [user((n, 1), (2, 2))]) for n in (7, 2, 11, 4, 9)])
    labels = get(path)
    assert levels(labels) == [2, 4, 7, 9, 11]
    assert labels.poses.xy[:, 1, 0].tolist() == [2.5, 4.5, 7.5, 9.5, 11.5]
    assert levels(get(path, frames=[3, 11, 2])) == [4, 9], "every second labelled frame of 4, 7, 9"


def test_only_frames_asked_for_are_written_and_only_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film(tmp_path / "film.avi")
    path = slp(tmp_path / "l.slp", [(0, n, [user((n, 1), (2, 2))]) for n in range(10)])
    labels = get(path, frames=[0, 10, 5])
    (folder,) = (tmp_path / "frames").iterdir()
    assert sorted(p.name for p in folder.iterdir()) == ["000000.png", "000005.png"]
    assert "2 frames written" in capsys.readouterr().out
    stamps = [p.stat().st_mtime_ns for p in sorted(folder.iterdir())]
    get(path, frames=[0, 10, 5])
    assert [p.stat().st_mtime_ns for p in sorted(folder.iterdir())] == stamps
    assert capsys.readouterr().out == ""
    film(tmp_path / "film.avi", colour=True)
    other = get(path, frames=[0, 10, 5])
    assert other.group[0] != labels.group[0], "another video of the same name has a folder of its own"
    assert levels(labels) == [0, 5]


@pytest.mark.parametrize("colour", [False, True])
def test_frames_are_kept_without_loss_and_grey_as_grey(tmp_path: Path, colour: bool) -> None:
    video = film(tmp_path / "film.avi", colour=colour, codec="FFV1")  # without loss: grey is exactly grey
    capture = cv2.VideoCapture(str(video))
    decoded = [capture.read()[1] for _ in range(6)]
    folder = write_frames(video, [5], tmp_path)
    stored = cv2.imread(str(folder / "000005.png"), cv2.IMREAD_UNCHANGED)
    assert stored.ndim == (3 if colour else 2)
    np.testing.assert_array_equal(read_image(folder / "000005.png"), decoded[5][..., ::-1])


def test_several_videos_are_groups(tmp_path: Path) -> None:
    film(tmp_path / "one.avi", 5)
    film(tmp_path / "two.avi", 9, colour=True)
    names = (r"C:\lab\one.avi", "/lab/two.avi")
    path = slp(tmp_path / "l.slp", [(1, 8, [user()]), (0, 4, [user()]), (1, 0, [user()])], videos=names)
    labels = get(path)
    assert [f.split("-")[0] for f in labels.names] == ["one", "two", "two"]
    assert [f.split("/")[1] for f in labels.names] == ["000004.png", "000000.png", "000008.png"]
    assert len(set(labels.group)) == 2
    with pytest.raises(DataError, match=r"has 2 videos, but video= names 1"):
        get(path, video=tmp_path / "one.avi")
    assert len(get(path, video=[tmp_path / "one.avi", tmp_path / "two.avi"])) == 3
    with pytest.raises(DataError, match="several of its videos are the same file"):
        get(path, video=[tmp_path / "one.avi"] * 2)


def test_the_video_is_looked_for_beside_the_file_then_where_it_says(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    away = film(tmp_path / "there" / "film.avi")
    path = slp(tmp_path / "l.slp", [(0, 1, [user()])], videos=(str(away),))
    assert levels(get(path)) == [1]
    assert levels(get(slp(tmp_path / "l.slp", [(0, 1, [user()])], videos=("there/film.avi",)))) == [1]
    lost = slp(tmp_path / "l.slp", [(0, 1, [user()])], videos=("/gone/film.avi",))
    with pytest.raises(DataError, match=r"'/gone/film\.avi' is neither .* name it with video="):
        get(lost)
    assert levels(get(lost, video=away)) == [1]
    film(tmp_path / "film.avi")
    assert levels(get(lost)) == [1]
    with pytest.raises(DataError, match=r"images inside the \.slp, which kplab does not read"):
        get(slp(tmp_path / "l.slp", [(0, 1, [user()])], videos=(".",)))


def test_a_split_by_time_leaves_a_gap(tmp_path: Path) -> None:
    film(tmp_path / "film.avi")
    labels = get(slp(tmp_path / "l.slp", [(0, n, [user((n, 1), (2, 2))]) for n in range(12)]))
    parts = split(labels, tmp_path / "split.json", {"train": 0.5, "test": 0.5}, by="time", gap=2)
    assert levels(parts["train"]) == [0, 1, 2, 3, 4, 5]
    assert levels(parts["test"]) == [8, 9, 10, 11]
    with pytest.raises(DataError, match="1 groups that can be separated"):
        split(labels, tmp_path / "other.json", {"train": 0.5, "test": 0.5}, by="group")


def test_a_video_that_ends_too_soon_or_is_none(tmp_path: Path) -> None:
    path = slp(tmp_path / "l.slp", [(0, n, [user((n, 1), (2, 2))]) for n in (2, 12, 14)])
    video = film(tmp_path / "film.avi")
    with pytest.raises(DataError, match=r"ends after 12 frames \(its header says 12\), but frames 12, 14 are labelled"):
        get(path)
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with pytest.raises(DataError, match=r"film\.avi: (ends after|OpenCV cannot open)"):
        get(path, frames=[0, 20, 1])
    video.write_bytes(b"no film")
    with pytest.raises(DataError, match=r"film\.avi: OpenCV cannot open the video: it is truncated, not a video"):
        get(path)
    assert not list((tmp_path / "frames").rglob(".*png")), "nothing half written is left"


def test_contradictions_are_named(tmp_path: Path) -> None:
    film(tmp_path / "film.avi")
    path = tmp_path / "l.slp"
    for frames, words in (
        ([(0, 1, [user()]), (0, 1, [user((3, 3), (4, 4))])], "labelled twice: frame 1 of video 0"),
        ([(0, 5, [user(), user()])], "same points: frame 5 of video 0"),
        ([(0, 1, [user((NAN, 3), (4, 4))])], "instances 0 have points that are infinite, or x without y"),
        ([(0, 1, [user((float("inf"), 3), (4, 4))])], "infinite"),
        ([(3, 1, [user()])], "videos that the file does not have: frame 1 of video 3"),
        ([(0, 1, [user((3, 3))])], "instances 0 do not have as many points"),
        ([(0, 1, [guess()])], "no frame has an instance .* predicted=true"),
        ([], "no frame has an instance"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            get(slp(path, frames))
        assert str(path) in str(caught.value)
    with pytest.raises(DataError, match="lacks b, and has unknown c"):
        get(slp(path, [(0, 1, [user()])], nodes=("a", "c")))
    assert len(get(slp(path, [(0, 1, [user()])], nodes=("a", "c")), rename={"c": "b"})) == 1
    with pytest.raises(DataError, match=r"needs \[start, stop, step\]"):
        get(slp(path, [(0, 1, [user()])]), frames=[5, 5, 1])
    with pytest.raises(DataError, match="no frame from 5 to 6"):
        get(slp(path, [(0, 1, [user()])]), frames=[5, 6, 1])


@pytest.mark.parametrize("damage", ["gone", "no hdf5", "cut", "without a table", "without names"])
def test_a_broken_file_is_named(tmp_path: Path, damage: str) -> None:
    path = slp(tmp_path / "l.slp", [(0, 1, [user()])])
    if damage == "gone":
        path.unlink()
    elif damage == "no hdf5":
        path.write_bytes(b"labels")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-300])
    else:
        with h5py.File(path, "a") as h5:
            if damage == "without a table":
                del h5["points"]
            else:
                h5["metadata"].attrs["json"] = np.bytes_(b'{"skeletons": [{"nodes": [{"id": 9}]}], "nodes": []}')
    with pytest.raises(DataError, match=r"l\.slp: (no such|not a whole|its skeleton)"):
        get(path)


CLIP = ("hindlegL4", "wingR", "head", "eyeR", "eyeL", "forelegR4", "abdomen")
CLIP += ("thorax", "midlegL4", "forelegL4", "midlegR4", "hindlegR4", "wingL")


def test_the_clip_of_two_flies(real_data: Path, tmp_path: Path) -> None:
    """Counts of its README; the frames that are written are few, the labels all of them."""
    folder = real_data / "sleap_videos"
    file = sleap.load(folder / "clip.slp")
    frame_of, rows, notes = sleap._instances(file, False)
    xy, visible, _ = sleap._points(file, rows, free(*CLIP), None)
    assert (len(np.unique(frame_of)), len(rows), xy.shape[1], notes) == (1500, 3000, 13, [])
    assert round(1 - (visible > 0).mean(), 3) == 0.016
    labels = sleap.read(folder / "clip.slp", free(*CLIP), tmp_path, frames=[0, 1500, 750])
    assert (len(labels), len(labels.poses), labels.size.tolist()) == (2, 4, [[1024, 1024]] * 2)
    assert [sorted(labels.extras.head.tracks[t] for t in p.track) for p in labels.by_image().values()] == [
        ["female", "male"]
    ] * 2
    # the first point in the file is a head, though the file's list of names begins with a leg
    np.testing.assert_allclose(labels.poses.xy[0, CLIP.index("head")], [335.75, 445.25])
    bright = [labels.read(i) for i in range(2)]
    for i in range(2):
        for x, y in labels.poses_of(i).xy[:, CLIP.index("thorax")]:
            assert bright[i][int(y), int(x)].mean() > 100, "a thorax lies on a fly, which is the brightest thing"


def test_the_other_files_of_sleap(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "sleap_videos"
    guesses = sleap.load(folder / "clip.predictions.slp")
    assert len(sleap._instances(guesses, True)[1]) == 2948
    with pytest.raises(DataError, match="predicted=true"):
        sleap.read(folder / "clip.predictions.slp", free("thorax", "head"), tmp_path)
    few = sleap.read(
        folder / "clip.predictions.slp", free("head", "thorax"), tmp_path, predicted=True, frames=[0, 9, 4]
    )
    assert (len(few), len(few.poses)) == (3, 6)
    two = sleap.read(folder / "clip.2node.slp", free("thorax", "head"), tmp_path, frames=[0, 1, 1])
    np.testing.assert_allclose(two.poses.xy[0], [[302.25, 458.25], [335.75, 445.25]])
    minimal = sleap.read(folder / "minimal_instance.slp", free("A", "B"), tmp_path)
    assert (len(minimal), len(minimal.poses), minimal.size.tolist()) == (1, 2, [[384, 384]])
    np.testing.assert_allclose(minimal.poses.xy[0, 0], [93.15220773, 203.22597774])
    robot = sleap.read(folder / "small_robot_minimal.slp", free("A", "B"), tmp_path)
    assert [f.split("/")[1] for f in robot.names] == ["000000.png", "000079.png"]
    assert robot.read(0).std(axis=2).max() > 10, "colour stays colour"


def test_frames_are_read_without_their_video(tmp_path: Path) -> None:
    """By number, ascending; with nodes that the file lacks unlabelled, and SLEAP's scores of predicted instances."""
    path = slp(
        tmp_path / "a.slp",
        [(0, 7, [user((4.0, 6.0), (14.0, 26.0), track=1)]), (0, 2, [guess((1.0, 2.0), (NAN, NAN), score=0.25)])],
        videos=("missing.mp4",),
    )
    found = sleap.read_frames(path, free("a", "x", "b"), predicted=True)
    assert list(found) == [2, 7]
    assert np.array_equal(found[7].xy[0], [[14.5, 26.5], [NAN, NAN], [4.5, 6.5]], equal_nan=True)
    assert (found[7].track.tolist(), found[7].score.tolist(), found[2].score.tolist()) == ([1], [1.0], [0.25])
    assert found[7].box[0] == pytest.approx([3.5, 4.5, 15.5, 28.5])
    assert found[7].area == pytest.approx([12 * 24])
    assert [len(p) for p in sleap.read_frames(path, free("a", "b")).values()] == [0, 1]
    with pytest.raises(DataError, match=r"skeleton 'free' lacks the nodes a"):
        sleap.read_frames(path, free("b"))
    both = slp(tmp_path / "b.slp", [(0, 0, [user()]), (1, 0, [user()])], videos=("a.mp4", "b.mp4"))
    with pytest.raises(DataError, match="frames of 2 videos, not of one"):
        sleap.read_frames(both, free("a", "b"))
