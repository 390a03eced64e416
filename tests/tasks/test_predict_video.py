"""``kplab predict source=…``: videos, cameras and growing folders, damaged ones, and commands that were interrupted."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pandas as pd
import pytest
import torch

import kplab
from kplab.data.sources import opening
from kplab.data.sources.files import FileSource
from kplab.data.sources.frames import Selection
from kplab.data.sources.video import VideoFrames, VideoSource
from kplab.errors import ConfigError, DataError, RunError
from kplab.runs.records import read_record
from kplab.runs.run import Run
from kplab.structures.frames import Frame
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.sample import Batch
from kplab.structures.skeleton import Skeleton
from kplab.tasks import compose
from kplab.tasks.evaluation.tracks import read_video_poses
from kplab.tasks.inference import predict_source as module
from kplab.tasks.inference.assembly import Assembly
from kplab.tasks.inference.journal import Journal
from kplab.tasks.inference.predict_source import Stages, predict_source
from kplab.tasks.inference.stream import FramePredictor
from kplab.tasks.inference.tracking.stages import configured_stages
from kplab.tasks.inference.writers.pictures import Drawing
from kplab.tasks.predict import main
from kplab.viz.video import TICKS, VideoFile, write_video

SKELETON = Skeleton("spots", ("bright", "dark"), ((0, 1),), (0, 1), (0.1, 0.1), "test")
SIZE, FRAMES = 64, 420
EVERY = ("csv", "parquet", "slp", "dlc_h5", "dlc_csv", "yolo")


class Brightest:
    """A Predictor: the brightest pixel of the view and the darkest."""

    skeleton, size, max_poses, flips, device = SKELETON, (32, 32), 1, False, torch.device("cpu")
    turns = ()

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause

    def predict(self, batch: Batch, flip_test: bool = False) -> list[Poses]:
        time.sleep(self.pause)
        out = []
        for image in batch.images.float().mean(1).numpy():
            at = [np.unravel_index(i, image.shape) for i in (image.argmax(), image.argmin())]
            points = np.array([[(x + 0.5, y + 0.5) for y, x in at]])
            out.append(Poses.make(points, score=np.array([image.max() / 255]), keypoint_score=np.array([[0.75, 0.5]])))
        return out


def spots(number: int) -> np.ndarray:
    """A grey picture with a white spot and a black one, which move on circles; and noise, which no codec keeps for nothing."""
    rng = np.random.default_rng(number)
    image = rng.integers(90, 160, (SIZE, SIZE, 3), dtype=np.uint8)
    for phase, value in ((0.0, 255), (np.pi, 0)):
        x, y = (32 + 20 * np.array([np.cos(number / 30 + phase), np.sin(number / 30 + phase)])).round().astype(int)
        image[y - 3 : y + 3, x - 3 : x + 3] = value
    return image


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video at irregular times, of which some frames are missing."""
    path = tmp_path_factory.mktemp("film") / "spots.mp4"
    gaps = np.where(np.arange(FRAMES) % 50 == 49, 9000, 3600) + np.arange(FRAMES) % 7 * 90
    with VideoFile(path, 25) as video:
        for i, tick in enumerate(np.cumsum(gaps)):
            video.add(spots(i), int(tick))
    return path


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose model finds the spots."""
    return fake_run(tmp_path, monkeypatch, Brightest())


def fake_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Brightest) -> Run:
    """A run with another model in place of its own."""
    folder = tmp_path / "run"
    folder.mkdir(exist_ok=True)
    (folder / "weights").write_text("weights")
    (folder / "config.yaml").write_text("{}")
    loaded = SimpleNamespace(
        run=SimpleNamespace(name="run", folder=folder), skeleton=SKELETON, model=model, checkpoint=folder / "weights",
        flip_test=False, backend="torch", config=SimpleNamespace(regions="image"), made_from=lambda: {"checkpoint": folder / "weights"},
        card=lambda kind: {"run": "run", "boxes": kind},
        frame_predictor=lambda batch_size: FramePredictor(model, Assembly(True), batch_size=batch_size or 32),
    )  # fmt: skip
    monkeypatch.setattr(module.LoadedRun, "load", lambda *_, **__: loaded)
    monkeypatch.setattr(module, "write_record", lambda *_, **__: None)
    return loaded.run  # type: ignore[no-any-return]


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def times_of(path: Path) -> list[float]:
    """Times of the frames of a video, seconds."""
    with av.open(str(path)) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


class Later:
    """A stage that keeps back three frames, and numbers the instances."""

    def __init__(self) -> None:
        self.kept: list[Frame] = []
        self.count = 0

    def push(self, frame: Frame) -> list[Frame]:
        self.count += 1
        poses = replace(frame.poses, track=np.full(len(frame.poses), self.count // 100))
        self.kept.append(replace(frame, poses=poses))
        return [self.kept.pop(0)] if len(self.kept) > 3 else []

    def flush(self) -> list[Frame]:
        return self.kept


OPTIONS: dict[str, Any] = {
    "write": EVERY, "drawing": Drawing(trails=20), "batch_size": 16, "stages": Stages({"tracker": "later"}, lambda loaded: [Later()]),
}  # fmt: skip


def test_numbers_and_times_are_those_of_the_video(run: Run, film: Path, tmp_path: Path) -> None:
    """Oracle: the spots, drawn where they are; times by PyAV. The overlay has the same times, from its first frame on."""
    (found,) = predict_source(run, film, tmp_path / "out", selection=Selection(3, 100, "15s"), min_score=0.5)
    stated = np.array(times_of(film)) - times_of(film)[0]
    taken = [i for i in range(100, FRAMES, 3) if stated[i] < 15]
    table = pd.read_csv(tmp_path / "out" / "keypoints.csv")
    bright = table[table["keypoint"] == "bright"]
    assert bright["frame"].tolist() == taken
    np.testing.assert_allclose(bright["time_s"], stated[taken], atol=1e-6)
    assert bright["file"].tolist() == [f"spots.mp4#{i:06d}" for i in taken]
    phase = np.array(taken) / 30
    truth = 32 + 20 * np.stack([np.cos(phase), np.sin(phase)], axis=1)
    # half a cell of the view, which is half as large, and the rounding of the spot
    assert np.abs(bright[["x_pixel_index", "y_pixel_index"]].to_numpy() - truth).max() < 4.5
    np.testing.assert_allclose(times_of(tmp_path / "out" / "overlay.mp4"), stated[taken] - stated[100], atol=1e-4)
    card = json.loads((tmp_path / "out" / "predictions.card.json").read_text())
    assert card["video"]["frames"] == found.frames == len(taken)
    assert [int(i) - 1 for i in card["images"]] == taken
    assert not [p.name for p in (tmp_path / "out").iterdir() if p.suffix in (".journal", ".parts", ".part")]


def test_a_killed_prediction_goes_on_to_the_same_bytes(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL at several moments, with a stage that keeps frames back; every file of every format, and the video."""
    run = fake_run(tmp_path, monkeypatch, Brightest())
    predict_source(run, film, tmp_path / "whole", **OPTIONS)
    slow = fake_run(tmp_path, monkeypatch, Brightest(pause=0.02))
    out, context = tmp_path / "killed", multiprocessing.get_context("fork")
    for least in (40, 250, 390):
        process = context.Process(target=predict_source, args=(slow, film, out), kwargs=OPTIONS)
        process.start()
        lines = 0
        while lines <= least and process.is_alive():
            time.sleep(0.005)
            lines = (
                (out / "predictions.journal").read_bytes().count(b"\n") if (out / "predictions.journal").exists() else 0
            )
        assert process.is_alive(), "the prediction ended before it could be killed"
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        assert not (out / "predictions.json").exists()
    with (out / "predictions.journal").open("ab") as journal:
        journal.write(b'{"index": 7, "na')
    predict_source(run, film, out, **OPTIONS)
    whole, killed = contents(tmp_path / "whole"), contents(out)
    assert {"overlay.mp4", "predictions.slp", "dlc.h5", "keypoints.parquet", "contact_sheet.png"} < set(whole)
    assert sorted(set(whole) ^ set(killed)) == []
    assert [name for name in whole if whole[name] != killed[name]] == []


def test_an_interrupted_prediction_is_not_mixed_with_another(
    run: Run, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other options, other frames, another process at the same time: each is refused, and the journal stays."""
    out = tmp_path / "out"
    monkeypatch.setattr(module.Job, "_predict", lambda self, *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt, match="0 frames are kept; the same command goes on"):
        predict_source(run, film, out, batch_size=16)
    monkeypatch.undo()
    run = fake_run(tmp_path, monkeypatch, Brightest())
    with pytest.raises(
        RunError, match=r"differs in options.batch_size \(then 16, now 8\); options.every \(then 1, now 2\)"
    ):
        predict_source(run, film, out, batch_size=8, selection=Selection(2))
    (run.folder / "weights").write_text("others")
    with pytest.raises(RunError, match=r"differs in checkpoint.sha256"):
        predict_source(run, film, out, batch_size=16)
    (run.folder / "weights").write_text("weights")
    header = json.loads((out / "predictions.journal").read_text().splitlines()[0])["made_from"]
    with Journal(out / "predictions.journal", header, 2, 16), pytest.raises(RunError, match="another process predicts"):
        predict_source(run, film, out, batch_size=16)
    (out / "predictions.journal").write_text((out / "predictions.journal").read_text() + "{}\n" * 16)
    with pytest.raises(RunError, match=r"predictions.journal: is damaged"):
        predict_source(run, film, out, batch_size=16)


def test_what_a_truncated_video_has_is_kept(
    run: Run, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut in the middle of a frame, with data missing in its middle, with a header that lies: frames, message, status 1."""
    data = film.read_bytes()
    start = data.index(b"mdat")
    middle = start + (len(data) - start) // 2
    for name, content in (("cut", data[:middle]), ("holed", data[:middle] + bytes(3000) + data[middle + 3000 :])):
        (tmp_path / f"{name}.mp4").write_bytes(content)
        (found,) = predict_source(run, tmp_path / f"{name}.mp4", tmp_path / name, drawing=Drawing(sheet=0))
        assert 100 < found.frames < FRAMES - 100
        assert found.fault is not None
        assert f"{found.frames} frames can be decoded" in found.fault
        card = json.loads((tmp_path / name / "predictions.card.json").read_text())
        assert card["incomplete"] == found.fault
        assert len(pd.read_csv(tmp_path / name / "keypoints.csv")) == 2 * found.frames
        assert len(times_of(tmp_path / name / "overlay.mp4")) == found.frames
        assert not (tmp_path / name / "predictions.journal").exists()
    monkey = pytest.MonkeyPatch()
    monkey.setattr(Run, "find", lambda *_: run)
    assert main(["run=x", f"source={tmp_path}/cut.mp4", f"out={tmp_path}/cut", "draw=none"]) == 1
    monkey.undo()
    assert "frames before are complete" in capsys.readouterr().err


def test_a_video_that_changes_its_size_is_kept_up_to_there(run: Run, tmp_path: Path) -> None:
    """Two streams one after the other, as some recorders write them."""
    parts = []
    for number, side in enumerate((64, 96)):
        path = tmp_path / f"{number}.ts"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"bf": "0", "tune": "zerolatency"})
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
            for i in range(20):
                frame = av.VideoFrame.from_ndarray(cv2.resize(spots(i), (side, side)), format="rgb24")
                frame.pts = 20 * number + i
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        parts.append(path.read_bytes())
    (tmp_path / "both.ts").write_bytes(b"".join(parts))
    (found,) = predict_source(run, tmp_path / "both.ts", tmp_path / "out")
    assert found.frames == 20
    assert "frame 20 is 96x96, but those before are 64x64" in (found.fault or "")


def test_videos_without_a_frame_are_refused(run: Run, film: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(DataError, match="the file is empty"):
        predict_source(run, tmp_path / "empty.mp4", tmp_path / "out")
    with pytest.raises(DataError, match="no frame lies between start and end"):
        predict_source(run, film, tmp_path / "out", selection=Selection(1, 9000))
    with pytest.raises(DataError, match="no such video"):
        predict_source(run, tmp_path / "missing.mp4", tmp_path / "out")
    assert not (tmp_path / "out" / "predictions.journal").exists()


def test_a_full_disk_keeps_what_is_done(run: Run, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the journal, in the middle of a line; the same command then goes on."""
    predict_source(run, film, tmp_path / "whole", batch_size=16)
    write, space = os.write, 40_000

    def limited(file: int, data: bytes) -> int:
        nonlocal space
        if not space:
            raise OSError(28, "No space left on device")
        written = write(file, data[:space])
        space -= written
        return written

    monkeypatch.setattr("kplab.tasks.inference.journal.os.write", limited)
    with pytest.raises(RunError, match=r"no space left on the disk. \d+ frames are kept in predictions.journal"):
        predict_source(run, film, tmp_path / "out", batch_size=16)
    assert not (tmp_path / "out" / "predictions.json").exists()
    space = 10**9
    predict_source(run, film, tmp_path / "out", batch_size=16)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


class Camera:
    """A camera that gives pictures, and then none any more."""

    def __init__(self, number: int) -> None:
        self.number, self.given = number, 0

    def isOpened(self) -> bool:
        return self.number == 0

    def get(self, what: int) -> float:
        return 100.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        time.sleep(0.002)
        self.given += 1
        return (True, spots(self.given)[..., ::-1]) if self.given <= 40 else (False, None)

    def release(self) -> None:
        """Nothing."""


def test_a_camera_that_goes_away_leaves_its_results(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that is stopped by Ctrl-C is complete."""
    from kplab.data.sources import live

    monkeypatch.setattr(opening, "Camera", lambda number: live.Camera(number, Camera))
    (found,) = predict_source(run, "camera:0", tmp_path / "out")
    assert found.frames == 40
    assert "camera:0: gives no more pictures after 40" in (found.fault or "")
    table = pd.read_csv(tmp_path / "out" / "keypoints.csv")
    assert table["time_s"].is_monotonic_increasing
    assert len(times_of(tmp_path / "out" / "overlay.mp4")) == 40
    with pytest.raises(DataError, match="camera:1: there is no such camera"):
        predict_source(run, "camera:1", tmp_path / "out")
    with pytest.raises(ConfigError, match="needs a video or images"):
        predict_source(run, "camera:0", tmp_path / "slp", write=["slp"])

    class Endless(Camera):
        def read(self) -> tuple[bool, np.ndarray | None]:
            self.given = 0
            if time.monotonic() > begun + 0.3:
                os.kill(os.getpid(), signal.SIGINT)
            return super().read()

    begun = time.monotonic()
    monkeypatch.setattr(opening, "Camera", lambda number: live.Camera(number, Endless))
    (found,) = predict_source(run, "camera:0", tmp_path / "stopped")
    assert found.fault is None
    assert found.frames > 5


def test_a_folder_that_grows_is_predicted_as_it_grows(run: Run, tmp_path: Path) -> None:
    """An image that is still written is awaited; a damaged one is reported; a later command goes on with new ones only."""
    folder = tmp_path / "growing"
    folder.mkdir()
    whole = cv2.imencode(".png", spots(0))[1].tobytes()
    (folder / "0.png").write_bytes(whole)
    (folder / "1.png").write_bytes(whole[:-20])

    def grow() -> None:
        time.sleep(1.2)
        (folder / "2.png").write_bytes(whole)

    process = multiprocessing.get_context("fork").Process(target=grow)
    process.start()
    (found,) = predict_source(run, folder, tmp_path / "out", watch=1.5)
    process.join()
    assert pd.read_csv(tmp_path / "out" / "keypoints.csv")["file"].unique().tolist() == ["0.png", "2.png"]
    assert found.fault is None


def test_sources_of_several_kinds(run: Run, film: Path, tmp_path: Path) -> None:
    """The images of a folder or a list are one prediction, and each video is one of its own."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for i in range(3):
        cv2.imwrite(str(folder / f"{i}.png"), spots(i)[..., ::-1])
    write_video(folder / "a.mp4", [spots(i) for i in range(5)])
    write_video(folder / "b.mkv", [spots(i) for i in range(7)])
    found = predict_source(run, folder, tmp_path / "out")
    assert [(p.path.parent.name, p.frames) for p in found] == [("mixed", 3), ("a", 5), ("b", 7)]
    assert sorted(p.name for p in (tmp_path / "out" / "mixed" / "overlays").iterdir()) == ["0.png", "1.png", "2.png"]
    found = predict_source(run, [folder / "1.png", folder / "2.png"], tmp_path / "list")
    assert [p.frames for p in found] == [2]
    with pytest.raises(ConfigError, match=r"write=json is unknown. Use csv, parquet"):
        predict_source(run, folder, tmp_path / "out", write=["json"])
    (folder / "a.avi").write_bytes((folder / "a.mp4").read_bytes())
    with pytest.raises(DataError, match="videos of equal names"):
        predict_source(run, folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"every": 0}, "every is 0"),
        ({"start": "abc"}, "start is 'abc'. Give the number of a frame"),
        ({"start": -3}, "start is -3"),
        ({"start": 5, "end": 5}, "leave no frame"),
    ],
)
def test_selections_that_are_impossible(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Selection(**wrong)


def test_the_number_of_selected_frames_is_foreseen(film: Path) -> None:
    source = VideoFrames(film)
    for selection in (Selection(), Selection(7), Selection(3, 10, 50), Selection(1, None, 40), Selection(4, 400)):
        assert selection.count(FRAMES, 25.0) == len(list(selection.of(source.frames())))
    assert Selection(end="2s").count(None, 25.0) == 50
    assert Selection().count(None, 25.0) is None


@pytest.mark.slow
def test_a_trained_run_predicts_a_video_as_its_images(finished: Callable[..., Run], tmp_path: Path) -> None:
    """The same poses as of the frames as images, on the command line and from Python."""
    run = finished()
    images = FileSource.find(str(tmp_path / "dots" / "images"))
    pictures = [images.read(i) for i in range(len(images))] * 3  # more than a batch
    clip = write_video(tmp_path / "clip.mp4", pictures, rate=20, quality=0)
    out = tmp_path / "found"
    assert (
        main([f"run={run.folder}", f"source={clip}", f"out={out}", "draw=pictures", "overlays=2", "batch_size=16"]) == 0
    )
    names = [f"clip.mp4#{i:06d}" for i in range(len(pictures))]
    table = pd.read_csv(out / "keypoints.csv")
    assert table["file"].drop_duplicates().tolist() == names
    assert table.groupby("file")["time_s"].first().to_numpy() == pytest.approx(np.arange(len(pictures)) / 20, abs=1e-4)
    assert sorted(path.name for path in (out / "overlays").iterdir()) == [f"{name}.png" for name in names[:2]]
    read_record(out / "predictions.json")
    trained = kplab.load(run)
    found = Predictions.read(out / "predictions.json", trained.skeleton).poses
    for i, (name, poses) in enumerate(trained.predict(clip)):
        assert name == names[i]
        assert np.allclose(found[i + 1].xy, poses.xy, atol=0.02)  # batches of another size round differently
    frames = list(trained.predict_video(clip, every=10, start="1s", images=True))
    assert [f.index for f in frames] == [20, 30, 40]
    for frame in frames:
        assert np.allclose(found[frame.index + 1].xy, frame.poses.xy, atol=0.02)
        assert frame.image is not None
        assert np.array_equal(frame.image, VideoSource(clip).read(frame.index))


def test_early_end_of_a_stream_stops_its_thread(film: Path) -> None:
    """A consumer that breaks off does not leave a thread that decodes on."""
    import threading

    predictor = FramePredictor(Brightest(), Assembly(True), batch_size=4)
    stream: Iterator[list[Frame]] = predictor.predict(VideoFrames(film).frames())
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert "frames" not in {thread.name for thread in threading.enumerate()}


def test_the_overlay_starts_at_once_in_browsers(run: Run, film: Path, tmp_path: Path) -> None:
    """H.264 in YUV 4:2:0, with its index before its data; TICKS is the unit of its times."""
    predict_source(run, film, tmp_path / "out", selection=Selection(end=30))
    data = (tmp_path / "out" / "overlay.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(tmp_path / "out" / "overlay.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.time_base.denominator == TICKS


def test_tracks_by_the_options_of_the_command(run: Run, film: Path, tmp_path: Path) -> None:
    """Identities are in all outputs; the card has the options and the times of the frames, from which kplab track works."""
    chosen = ["run=x", "source=y", "tracker=oks", "tracker.min_hits=2", "smooth=one_euro", "fill=linear"]
    stages = configured_stages(compose("predict", chosen))
    (plain,) = predict_source(run, film, tmp_path / "plain", selection=Selection(every=2, end=60))
    (found,) = predict_source(run, film, tmp_path / "out", selection=Selection(every=2, end=60), stages=stages)
    before, after = (Predictions.read(p.path, SKELETON) for p in (plain, found))
    table = pd.read_csv(tmp_path / "out" / "keypoints.csv")
    assert table["track"].notna().mean() > 0.95
    assert set(table["track"].dropna()) == {0}
    assert after.card["tracker"]["min_hits"] == 2
    assert after.card["smooth"]["beta"] == 0.5
    assert before.card["times"] == after.card["times"]
    assert list(after.card["times"].values()) == pytest.approx(np.array(times_of(film))[:60:2] - times_of(film)[0])
    moved = [np.abs(after.poses[i].xy - before.poses[i].xy).max() for i in list(before.poses)[1:]]
    assert max(moved) > 0.1, "smoothed"
    with pytest.raises(ConfigError, match=r"fill and smooth need tracks. Add a tracker"):
        configured_stages(compose("predict", ["run=x", "source=y", "fill=linear", "smooth=one_euro"]))
    video = read_video_poses(plain.path, SKELETON)
    assert list(video.times.values()) == pytest.approx(list(after.card["times"].values()))
