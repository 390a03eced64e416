"""The poses of the service: those of images whose truth is known, and those of ``kplab predict``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from kplab.runs.run import Run
from kplab.tasks.inference.loading import LoadedRun
from kplab.tasks.inference.predict_source import predict_source
from kplab.tasks.inference.writers.pictures import Drawing

from .conftest import Centroids, Client, dots, encoded, points_of, served, until

#: Pixels: 8-bit colours move the centroid of a blurred dot by less, also where it is resampled to another size.
CLOSE = 0.1


@pytest.mark.parametrize(("kind", "content"), [(".png", "image/png"), (".jpg", "image/jpeg"), (".webp", "image/webp")])
def test_an_image_is_answered_in_pixel_indices(client: Client, kind: str, content: str) -> None:
    """Of an image twice as large as the view, so that an error of the pixel convention is half a pixel or more."""
    image = dots((40, 30), (90, 70), size=(128, 96))
    answer = client.post(encoded(image, kind), content, "?name=a.png").json
    assert answer["run"] == "known"
    (found,) = answer["images"]
    assert (found["name"], found["width"], found["height"]) == ("a.png", 128, 96)
    (pose,) = found["poses"]
    assert pose["score"] == 0.75
    assert pose["track"] is None
    assert [(k["name"], k["score"]) for k in pose["keypoints"]] == [("red", 0.5), ("green", 0.25)]
    np.testing.assert_allclose(points_of(answer), [(40, 30), (90, 70)], atol=CLOSE)
    # without a box of its own, a pose has the hull of its keypoints, continuous
    np.testing.assert_allclose(pose["box"], [40.5, 30.5, 90.5, 70.5], atol=CLOSE)


def test_several_images_keep_their_order_and_names(client: Client) -> None:
    truth = [[(10 + 2 * i, 20), (50, 12 + 3 * i)] for i in range(10)]
    answer = client.form(*((f"ü {i}.png", encoded(dots(*t))) for i, t in enumerate(truth))).json
    assert [image["name"] for image in answer["images"]] == [f"ü {i}.png" for i in range(10)]
    for i, t in enumerate(truth):
        np.testing.assert_allclose(points_of(answer, i), t, atol=CLOSE)


def with_orientation(image: np.ndarray, orientation: int) -> bytes:
    """A PNG file that states an EXIF orientation."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(image).save(file, "PNG", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(client: Client, orientation: int) -> None:
    """As PIL's exif_transpose shows them."""
    points, wanted = ((20, 12), (44, 30)), []
    for x, y in points:
        mark = np.zeros((40, 64), np.uint8)
        mark[y, x] = 255
        upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(with_orientation(mark, orientation)))))
        wanted.append(np.argwhere(upright == 255)[0][::-1])
    answer = client.post(with_orientation(dots(*points, size=(64, 40)), orientation)).json
    assert (answer["images"][0]["width"], answer["images"][0]["height"]) == upright.shape[::-1]
    np.testing.assert_allclose(points_of(answer), wanted, atol=CLOSE)


def test_boxes_select_subjects(client: Client) -> None:
    """Two subjects in one image: each box shows one of them; null is the whole image."""
    image = np.concatenate([dots((20, 30), (40, 20)), dots((30, 44), (14, 34))], axis=1)
    boxes = [[[8, 8, 56, 56], [72, 8, 120, 56]], None, []]
    files = [("a", encoded(image)), ("b", encoded(dots((20, 30), (40, 20)))), ("c", encoded(image))]
    answer = client.form(*files, boxes=json.dumps(boxes)).json
    assert [len(i["poses"]) for i in answer["images"]] == [2, 1, 0]
    np.testing.assert_allclose(points_of(answer, 0, 0), [(20, 30), (40, 20)], atol=CLOSE)
    np.testing.assert_allclose(points_of(answer, 0, 1), [(94, 44), (78, 34)], atol=CLOSE)
    np.testing.assert_allclose(points_of(answer, 1), [(20, 30), (40, 20)], atol=CLOSE)
    assert answer["images"][0]["poses"][1]["box"] == [72, 8, 120, 56]


def test_requests_that_arrive_together_share_batches(client: Client, model: Centroids) -> None:
    """Thirteen requests, of which the first waits in the network; each is answered with the points of its own image."""
    model.batches.clear()
    model.gate.clear()
    truth = [[(8 + 3 * i, 10), (32, 28 + 2 * i)] for i in range(13)]
    with ThreadPoolExecutor(13) as pool:
        first = pool.submit(client.post, encoded(dots(*truth[0])))
        until(lambda: model.batches == [1])
        rest = [pool.submit(client.post, encoded(dots(*t))) for t in truth[1:]]
        until(lambda: len(client.service.batcher) == 12)
        model.gate.set()
        answers = [f.result() for f in (first, *rest)]
    assert [a.status for a in answers] == [200] * 13
    for answer, t in zip(answers, truth, strict=True):
        np.testing.assert_allclose(points_of(answer.json), t, atol=CLOSE)
    assert model.batches == [1, 8, 4]


RUNS = {
    "heatmap": ["experiment=heatmap_small", "backbone=resnet10_half", "neck.channels=32"],
    "yolo": ["experiment=centernet_small", "head=yolo", "backbone=resnet10_half", "neck.channels=32", "head.max_poses=6"],
    "cascade": ["experiment=poseted_small", "backbone=resnet10_half", "neck.channels=32", "model.min_score=0",
        "detector.head.max_poses=6",
    ],
    "detected": [
        "experiment=heatmap_small", "backbone=resnet10_half", "neck.channels=32", "dataset=synthetic_person",
        "regions=detected", "rescore=0.0", "oks_nms=0.999",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_answers_are_those_of_kplab_predict(
    name: str, untrained: Callable[..., Run], runs_dir: Path, tmp_path: Path
) -> None:
    """To the rounding of the files (1e-6 px): one image at a time, so that both batches have the same size."""
    if name == "detected":
        detector = untrained("yolo", *RUNS["yolo"])
        run = untrained(name, *RUNS[name], f"detector_run={detector.name}")
    else:
        run = untrained(name, *RUNS[name])
    rng = np.random.default_rng(3)
    images = tmp_path / "images"
    images.mkdir()
    for i, size in enumerate([(90, 120), (200, 150)]):
        rough = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(rough).resize(size).save(images / f"{i}.png")
    predict_source(run, images, tmp_path / "out", batch_size=1, drawing=Drawing("none"))
    with (tmp_path / "out" / "keypoints.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({(r["file"], r["instance"]) for r in rows}) >= 2
    assert len({(r["x_pixel_index"], r["y_pixel_index"]) for r in rows}) > len(rows) / 10, "the points differ"
    loaded = LoadedRun.load(run)
    with served(loaded, batch_size=1) as client:
        for path in sorted(images.iterdir()):
            (found,) = client.post(path.read_bytes()).json["images"]
            wanted: dict[str, list[list[float]]] = {}
            for r in rows:
                if r["file"] == path.name:
                    point = [
                        float(r[c]) for c in ("x_pixel_index", "y_pixel_index", "keypoint_score", "instance_score")
                    ]
                    wanted.setdefault(r["instance"], []).append(point)
            given = [[[k["x"], k["y"], k["score"], p["score"]] for k in p["keypoints"]] for p in found["poses"]]
            assert len(given) == len(wanted)
            for pose, points in zip(given, wanted.values(), strict=True):
                np.testing.assert_allclose(pose, points, rtol=0, atol=1e-6)
        # and in batches: sums of 32-bit floats in another order
        client.service.batcher.batch_size = 8
        alone = [client.post(p.read_bytes()).json["images"][0] for p in sorted(images.iterdir())]
        together = client.form(*((p.name, p.read_bytes()) for p in sorted(images.iterdir()))).json["images"]
        for one, other in zip(alone, together, strict=True):
            assert len(one["poses"]) == len(other["poses"])
            given, wanted = (
                np.array([[[k["x"], k["y"]] for k in p["keypoints"]] for p in image["poses"]]) for image in (other, one)
            )
            np.testing.assert_allclose(given, wanted, rtol=0, atol=1e-3)


def test_boxes_are_refused_by_runs_that_find_subjects(untrained: Callable[..., Run]) -> None:
    run = untrained("yolo", *RUNS["yolo"])
    with served(LoadedRun.load(run)) as client:
        answer = client.post(encoded(dots((20, 20), (30, 30))), query="?boxes=[[[0,0,9,9]]]")
        assert answer.status == 422
        assert "Leave boxes out" in answer.json["error"]
        assert client.get("/model").json["takes_boxes"] is False
