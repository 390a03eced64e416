"""The stream from images to poses, over every kind of Predictor, and what it leaves on disk."""

from __future__ import annotations

import csv
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.text import Text

from kplab.data import images as reading
from kplab.data.regions import Regions, image_regions, predicted_regions
from kplab.data.sources.arrays import ArraySource
from kplab.data.sources.files import FileSource, check_files
from kplab.data.sources.frames import SourceFrame
from kplab.errors import ConfigError, DataError
from kplab.runs.files import replacing_text
from kplab.structures.frames import Frame
from kplab.structures.image_source import ImageSource
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.predictor import Predictor
from kplab.structures.sample import Batch
from kplab.structures.skeleton import Skeleton
from kplab.tasks.inference.assembly import Assembly
from kplab.tasks.inference.progress import WIDTH, bar, track_images, working
from kplab.tasks.inference.stream import FramePredictor, stream_poses, write_behind
from kplab.tasks.inference.writers.coco import ResultsFile
from kplab.tasks.inference.writers.tables import KeypointTable
from kplab.tasks.training.one_pass import fit_one_pass
from kplab.tasks.wiring.datasets import read_split, training_data
from kplab.tasks.wiring.models import build_model

Config = Callable[..., DictConfig]
SKELETON = Skeleton("s", ("a", "b"), (), (0, 1), (0.1, 0.1), "test")


class Brightest:
    """A Predictor of ten lines: keypoint a is the brightest pixel of the view, b the darkest."""

    skeleton, size, max_poses, flips, device = SKELETON, (32, 32), 1, False, torch.device("cpu")

    def predict(self, batch: Batch, flip_test: bool = False) -> list[Poses]:
        out = []
        for image in batch.images.float().mean(1).numpy():
            at = [np.unravel_index(i, image.shape) for i in (image.argmax(), image.argmin())]
            out.append(Poses.make(np.array([[(x + 0.5, y + 0.5) for y, x in at]])))
        return out


def lit(count: int, size: int = 64) -> tuple[ArraySource, np.ndarray]:
    """Grey images with one white and one black spot of 2 x 2 pixels; and the (count, 2, 2) centres."""
    rng = np.random.default_rng(0)
    images = np.full((count, size, size, 3), 128, dtype=np.uint8)
    cells = np.stack([rng.permutation(30)[:2] for _ in range(2 * count)]).reshape(count, 2, 2).transpose(0, 2, 1)
    for image, ((x0, y0), (x1, y1)) in zip(images, 2 * cells, strict=True):
        image[y0 : y0 + 2, x0 : x0 + 2], image[y1 : y1 + 2, x1 : x1 + 2] = 255, 0
    return ArraySource(list(images)), 2.0 * cells + 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_lit_spot_is_found_where_it_is(workers: int) -> None:
    """In source pixels, image by image, with and without loader processes, over several batches."""
    source, spots = lit(7)
    found = list(stream_poses(Brightest(), source, batch_size=3, workers=workers))
    assert [i for i, _ in found] == list(range(7))
    np.testing.assert_allclose(np.concatenate([p.xy for _, p in found]), spots, atol=0.51)


@pytest.mark.parametrize("model", ["fake", "pose", "cascade", "exemplar"])
def test_every_predictor_goes_through_one_stream(model: str, config: Config, tmp_path: Path) -> None:
    """The protocol holds, and batches of any size give the poses of the model's own ``predict``."""
    more = {
        "pose": [],
        "exemplar": ["model=exemplar", "flip_test=false", "model.max_poses=1"],
        "cascade": ["model=cascade", "detector.size=[64,64]", "model.crop=[32,32]", "model.min_score=0.0"],
    }
    predictor: Predictor
    if model == "fake":
        predictor, (source, _) = Brightest(), lit(5)
    else:
        composed = config(*more[model])
        built = build_model(composed, pretrained=False).eval()
        data = training_data(composed, None)
        if built.one_pass:
            fit_one_pass(composed, built, data, tmp_path, _Silent(), None)  # type: ignore[arg-type]
        predictor, source = built, data.splits["test"].source
    assert isinstance(predictor, Predictor)
    streamed = dict(stream_poses(predictor, source, batch_size=3, workers=0))
    assert list(streamed) == list(range(len(source)))
    for i, poses in streamed.items():
        ((_, alone),) = stream_poses(predictor, ArraySource([source.read(i)]), workers=0)
        np.testing.assert_allclose(poses.xy, alone.xy, atol=0.01)


class _Silent:
    """A record that is not written."""

    def update(self, **entries: object) -> None:
        """Nothing."""


class Counting:
    """Images that count how many were read before the consumer asked for them."""

    def __init__(self, count: int) -> None:
        self.count, self.reads = count, 0

    def __len__(self) -> int:
        return self.count

    def read(self, i: int) -> np.ndarray:
        self.reads += 1
        return np.full((8, 8, 3), i, dtype=np.uint8)

    def name(self, i: int) -> str:
        return f"frame {i}"


def test_images_come_as_they_are_predicted() -> None:
    """The first is there after two batches, the one that follows it and no more; and no size is asked for."""
    source = Counting(1000)
    assert isinstance(source, ImageSource)
    stream = stream_poses(Brightest(), source, batch_size=4, workers=0)
    next(stream)
    assert source.reads <= 8


def test_regions_of_an_image_that_lie_in_several_batches_are_one_image() -> None:
    """Image 1 has five regions in three batches, images 0 and 3 none; OKS-NMS sees all five at once."""
    source, spots = lit(4)
    box = np.array([[0.0, 0, 64, 64]])
    image = np.array([1, 1, 1, 1, 1, 2])
    score = np.array([0.5, 0.9, 0.3, 0.4, 0.2, 0.7])
    regions = Regions(image, np.repeat(box, 6, 0), np.full(6, -1), score, 1.0, "detected")
    every = dict(stream_poses(Brightest(), source, regions, batch_size=2, workers=0))
    assert [len(every[i]) for i in range(4)] == [0, 5, 1, 0]
    np.testing.assert_array_equal(every[1].score, score[:5])
    best = dict(stream_poses(Brightest(), source, regions, assembly=Assembly(oks_nms=0.5), batch_size=2, workers=0))
    assert [len(best[i]) for i in range(4)] == [0, 1, 1, 0]
    assert best[1].score == [0.9]
    np.testing.assert_allclose(best[2].xy[0], spots[2], atol=0.51)


class Twice(Brightest):
    """A detector: for each bright spot in a view two boxes, and none in views whose first pixel is dark."""

    def predict(self, batch: Batch, flip_test: bool = False) -> list[Poses]:
        out = []
        for image, poses in zip(batch.images.float().mean(1).numpy(), super().predict(batch), strict=True):
            centre = np.repeat(poses.xy[:, 0], 2, axis=0)
            half = np.array([[9.0], [6.0]])
            box = np.hstack([centre - half, centre + half])
            found = Poses.make(np.repeat(poses.xy, 2, axis=0), score=np.array([0.9, 0.6]), box=box)
            out.append(found if image[0, 0] > 64 else found[:0])
        return out


@pytest.mark.parametrize("detected", [True, False])
def test_a_stream_of_frames_gives_the_poses_of_images(detected: bool) -> None:
    """Oracle: the stream of images by index, with the boxes of a detector and without, over batches of other sizes."""
    source, _ = lit(11)
    source.images[4][:8, :8] = 0
    detector = Twice() if detected else None
    regions = None
    if detector is not None:
        regions = predicted_regions((poses for _, poses in stream_poses(detector, source, workers=0)), 1.25)
    wanted = dict(stream_poses(Brightest(), source, regions, batch_size=4, workers=0))
    predictor = FramePredictor(Brightest(), Assembly(not detected), detector, 1.25, batch_size=3)
    shots = [SourceFrame(2 * i, str(i), i / 10, partial(source.read, i)) for i in range(11)]
    batches = list(predictor.predict(shots))
    assert [len(batch) for batch in batches] == [3, 3, 3, 2]
    frames = [frame for batch in batches for frame in batch]
    assert [(f.index, f.name, f.time, f.size) for f in frames] == [(2 * i, str(i), i / 10, (64, 64)) for i in range(11)]
    for i, frame in enumerate(frames):
        for field in ("xy", "score", "box"):
            np.testing.assert_array_equal(getattr(frame.poses, field), getattr(wanted[i], field))
        assert frame.image is source.read(i)
    assert sum(len(frame.poses) for frame in frames) == (20 if detected else 11)


def test_regions_out_of_order_are_refused() -> None:
    """An image that comes twice would otherwise be emitted without its later regions."""
    one = Poses.empty(2)
    with pytest.raises(ValueError, match="image 0 come after"):
        list(Assembly().by_image([(0, one), (1, one), (0, one)], [0, 1], SKELETON))


def test_whole_images_need_no_sizes(config: Config) -> None:
    """Without regions the views are those of ``image_regions``."""
    labels = read_split(config().dataset, "test")
    model = Brightest()
    for plain, given in zip(
        stream_poses(model, labels.source),
        stream_poses(model, labels.source, image_regions(labels)),
        strict=True,
    ):
        np.testing.assert_array_equal(plain[1].xy, given[1].xy)
        np.testing.assert_array_equal(plain[1].box, given[1].box)


def test_a_flip_test_that_is_impossible_is_refused() -> None:
    with pytest.raises(ConfigError, match="Brightest has no flip test"):
        next(stream_poses(Brightest(), lit(1)[0], flip_test=True))


def results(count: int) -> dict[int, Poses]:
    """Poses of some images, none of others, with missing points and boxes, under ids out of order."""
    rng = np.random.default_rng(1)
    out = {}
    for image_id in rng.permutation(count).tolist():
        n = int(rng.integers(0, 4))
        xy = rng.uniform(0, 100, (n, 2, 2))
        xy[rng.random((n, 2)) < 0.3] = np.nan
        box = rng.uniform(0, 100, (n, 4))
        box[rng.random(n) < 0.3] = np.nan
        out[image_id + 1] = Poses.make(xy, score=rng.random(n), keypoint_score=rng.random((n, 2)), box=box)
    return out


def test_results_written_one_by_one_are_those_written_at_once(tmp_path: Path) -> None:
    """JSON and card, byte by byte; nothing else is left beside them."""
    every = results(20)
    files = {i: f"{i}.png" for i in every}
    whole = Predictions(SKELETON, every, {"run": "r"}, files).write(tmp_path / "whole" / "p.json")
    with ResultsFile(tmp_path / "parts" / "p.json", SKELETON) as parts:
        for image_id, poses in every.items():
            parts.add(image_id, poses, files[image_id])
        assert parts.finish({"run": "r"}).read_bytes() == whole.read_bytes()
    assert parts.poses == sum(map(len, every.values()))
    names = {p.name for p in (tmp_path / "parts").iterdir()}
    assert names == {"p.json", "p.card.json"}
    assert (tmp_path / "parts" / "p.card.json").read_bytes() == whole.with_suffix(".card.json").read_bytes()
    with ResultsFile(tmp_path / "none.json", SKELETON) as none:
        assert json.loads(none.finish({}).read_text()) == []


def test_a_prediction_that_fails_leaves_the_earlier_one(tmp_path: Path) -> None:
    path, table = tmp_path / "p.json", tmp_path / "t.csv"
    path.write_text("earlier")
    table.write_text("earlier")

    def fail() -> None:
        with ResultsFile(path, SKELETON) as parts, replacing_text(table) as file:
            parts.add(1, results(5)[1])
            file.write("half")
            raise DataError("damaged")

    with pytest.raises(DataError, match="damaged"):
        fail()
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"p.json": "earlier", "t.csv": "earlier"}


def test_the_table_is_the_one_that_pandas_writes() -> None:
    """Oracle: DataFrame.to_csv of all rows at once; a name with a comma is quoted."""
    every = results(10)
    text, rows = io.StringIO(), []
    table = KeypointTable(text, SKELETON)
    for i, p in every.items():
        name = f"{i}, a.png"
        table.add(Frame(i, name, 0.25 * i, p))
        for n in range(len(p)):
            for k, keypoint in enumerate(SKELETON.keypoints):
                rows.append(
                    (
                        name,
                        n,
                        keypoint,
                        *(p.xy[n, k] - 0.5).round(6),
                        p.keypoint_score[n, k],
                        p.score[n],
                        None,
                        i,
                        0.25 * i,
                    )
                )
    frame = pd.DataFrame(rows, columns=next(csv.reader([text.getvalue().splitlines()[0]])))
    assert frame["x_pixel_index"].isna().any()
    assert text.getvalue() == frame.to_csv(index=False)


def test_writing_overlaps_with_predicting() -> None:
    """A writer that takes 20 ms and a network that takes 20 ms need little more than either, and the order is kept."""
    written: list[int] = []
    threads = set()

    def write(i: int, poses: Poses) -> None:
        time.sleep(0.02)
        threads.add(threading.get_ident())
        written.append(i)

    def predict() -> Iterator[tuple[int, Poses]]:
        for i in range(20):
            time.sleep(0.02)
            yield i, Poses.empty(2)

    begun = time.perf_counter()
    write_behind(predict(), write)
    assert time.perf_counter() - begun < 0.7
    assert written == list(range(20))
    assert threads != {threading.get_ident()}
    assert len(threads) == 1


def test_a_slow_writer_holds_prediction_back() -> None:
    """No more results wait than ``ahead``: a writer that is slower than the network costs no memory."""
    written: list[int] = []
    most = 0

    def predict() -> Iterator[tuple[int, Poses]]:
        nonlocal most
        for i in range(40):
            most = max(most, i - len(written))
            yield i, Poses.empty(2)

    def write(i: int, poses: Poses) -> None:
        time.sleep(0.002)
        written.append(i)

    write_behind(predict(), write, ahead=5)
    assert len(written) == 40
    assert most <= 7


def test_a_writer_that_fails_ends_the_prediction() -> None:
    def write(i: int, poses: Poses) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_behind(((i, Poses.empty(2)) for i in range(1000)), write)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("block", [7, 64, 1 << 16])
def test_a_file_is_whole_or_cut_as_all_its_bytes_say(
    suffix: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: ``truncation`` of all bytes. Cut everywhere, with bytes after the end, and by blocks that split markers."""
    monkeypatch.setattr(reading._tail, "__defaults__", (block,))
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    data = cv2.imencode(suffix, noise)[1].tobytes()
    path = tmp_path / f"a{suffix}"
    both = set()
    for content in [data[:n] for n in (*range(12), *range(12, len(data), 41), *range(len(data) - 14, len(data)))] + [
        data, data + b"\0" * 100, data + data[:40], data[:-2] + b"\0" * 100,
    ]:  # fmt: skip
        path.write_bytes(content)
        wanted = reading.truncation(content, len(content))
        both.add(wanted is None)
        if wanted is None:
            reading.check_ending(path)
        else:
            with pytest.raises(DataError, match=wanted):
                reading.check_ending(path)
    assert both == {True, False}


def test_every_damaged_file_is_listed(tmp_path: Path) -> None:
    """Ten lines, and how many more; a missing file is one of them."""
    for i in range(12):
        (tmp_path / f"{i:02d}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    source = FileSource(tmp_path, [f"{i:02d}.png" for i in range(12)] + ["gone.png"])
    with pytest.raises(DataError, match="and 3 more") as caught:
        check_files(source)
    assert len(str(caught.value).splitlines()) == 11
    with pytest.raises(DataError, match="no such image"):
        check_files(FileSource(tmp_path, ["gone.png"]))


def test_progress_is_a_bar_of_80_columns_or_one_line() -> None:
    """On a terminal of any width; elsewhere the line alone, not wrapped."""
    pipe = Console(file=io.StringIO(), force_terminal=False, soft_wrap=True)
    assert list(track_images(iter("abc"), 3, "predicting [x]" + "y" * 90, pipe)) == ["a", "b", "c"]
    with working("scoring", pipe):
        pass
    first, second = pipe.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert first.startswith("predicting [x]yyy")
    assert "3 images in" in first
    assert second.startswith("scoring: ")
    for width in (WIDTH, 60):
        terminal = Console(file=io.StringIO(), force_terminal=True, width=width)
        with bar(terminal) as shown:
            shown.add_task("predicting a_dataset_with_a_long_name-test", total=100_000, completed=50_000)
            with terminal.capture() as drawn:
                terminal.print(shown.get_renderable())
        lines = Text.from_ansi(drawn.get()).plain.splitlines()
        assert any("50000/100000" in line for line in lines)
        assert max(map(len, lines)) <= width
