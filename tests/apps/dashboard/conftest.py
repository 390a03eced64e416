"""A folder of runs that kplab's own functions wrote without training, a server of it, and a browser."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from kplab.apps.dashboard.server import Server, Service, application
from kplab.runs.records import write_record
from kplab.runs.run import Run
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions, card_path
from kplab.tasks import compose
from kplab.tasks.evaluation.scoring import evaluate_run
from kplab.tasks.wiring.datasets import read_splits

NAMES = ["nose", "left_hand", "right_hand", "tail"]
#: Text that would run a script if it were taken for HTML.
EVIL = "<img src=x onerror=window.broken=1><script>window.broken=1</script>"
YAML = """
name: dots
skeleton:
  name: dots
  keypoints: [nose, left_hand, right_hand, tail]
  edges: [[nose, left_hand], [nose, right_hand], [nose, tail]]
  flip_pairs: by_name
  sigmas: [0.1, 0.1, 0.1, 0.1]
  sigma_source: made up for tests
sources:
  all: {{_target_: kplab.data.formats.coco.read, annotations: {data}/annotations.json, images: {data}/images, group: folder}}
split: {{manifest: {data}/split.json, fractions: {{train: 0.2, test: 0.8}}, by: image}}
evaluation: {{pck_normalizer: pixels, pck_thresholds: [2, 5], auc_range: [0, 10]}}
"""


def make_images(folder: Path, images: int = 90, size: tuple[int, int] = (96, 72)) -> None:
    """Images of noise with one or two subjects of four coloured dots each, in three folders, in COCO's layout."""
    rng = np.random.default_rng(0)
    shape = np.array([[0, -12], [-14, 0], [14, 0], [0, 13]])
    colours = ((40, 40, 230), (40, 220, 40), (235, 60, 60), (0, 220, 230))
    records, annotations = [], []
    for i in range(1, images + 1):
        name = f"video{i % 3}/{i:03d}.png"
        picture = rng.integers(40, 110, (size[1], size[0], 3)).astype(np.uint8)
        for subject in range(1 + (i % 4 == 0)):
            middle = rng.uniform([30, 25], [size[0] - 30, size[1] - 25])
            xy = (middle + shape + rng.normal(0, 3, (4, 2))).clip(2, [94, 70])
            for (x, y), colour in zip(xy, colours, strict=True):
                cv2.circle(picture, (round(x), round(y)), 3, colour, -1)
            visible = np.where(rng.random(4) < 0.2, 1, 2)
            visible[3] = 0 if i % 8 == 5 else visible[3]
            low, high = xy.min(0) - 4, xy.max(0) + 4
            points = (np.concatenate([xy - 0.5, visible[:, None]], axis=1) * (visible > 0)[:, None]).ravel()
            annotations.append(
                {
                    "id": 2 * i + subject, "image_id": i, "category_id": 1, "iscrowd": 0, "num_keypoints": 4,
                    "area": float(np.prod(high - low) * 0.5), "bbox": [*map(float, low), *map(float, high - low)],
                    "keypoints": [float(v) for v in points],
                }
            )  # fmt: skip
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture)
        records.append({"id": i, "file_name": name, "width": size[0], "height": size[1]})
    category = {"id": 1, "name": "dots", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3], [1, 4]]}
    document = {"images": records, "annotations": annotations, "categories": [category]}
    (folder / "annotations.json").write_text(json.dumps(document))


def predict(labels: Labels, noise: float, seed: int) -> dict[int, Poses]:
    """Truth with noise; every ninth image lacks its first subject, and every seventh has one too many."""
    rng = np.random.default_rng(seed)
    found = {}
    for i, image_id in enumerate(labels.image_id.tolist()):
        true = labels.poses_of(i)
        xy = true.xy + rng.normal(0, noise, true.xy.shape) * (1 + (i % 5 == 0) * 3)
        score = rng.uniform(0.4, 1, len(true))
        keep = slice(1, None) if image_id % 9 == 0 else slice(None)
        poses = Poses.make(xy, score=score, keypoint_score=rng.uniform(0.2, 1, xy.shape[:2]), box=true.box)[keep]
        if image_id % 7 == 0:
            extra = Poses.make(rng.uniform(5, 65, (1, 4, 2)), score=np.array([0.3]), box=np.array([[5.0, 5, 60, 60]]))
            poses = Poses.concat([poses, extra])
        found[image_id] = poses
    return found


@dataclass
class Made:
    """The folder of runs, and the names of what is in it."""

    runs_dir: Path
    data: Path
    a: str
    b: str
    seeds: list[str]
    other_card: str
    failed: str
    running: str
    broken: str


def make_run(root: Path, config: DictConfig, name: str, **more: object) -> Run:
    """A run with curves that is still running."""
    config = OmegaConf.merge(config, {"name": name, "seed": more.get("seed", 0)})  # type: ignore[assignment]
    run = Run.create(
        root, name, OmegaConf.to_yaml(config), root, parameters=1_200_000, dataset={"name": "dots"}, **more
    )
    rows = ["epoch,lr,step,train/loss_epoch,val/AP,val/mean_px"]
    rows += [f"{e},0.001,{9 * e},{2.0 / (e + 1):.4f},{0.1 * e:.2f},{9 - e}" for e in range(6)]
    (run.folder / "curves.csv").write_text("\n".join(rows) + "\n")
    return run


def finish(run: Run, labels: Labels, noise: float, seed: int, settings: dict[str, object] | None = None) -> Run:
    """Predictions with their card and record, and scores of them."""
    path = run.folder / "predictions" / "dots-test.json"
    files = {int(i): str(n) for i, n in zip(labels.image_id, labels.names, strict=True)}
    card = {"run": run.name, "boxes": "annotated", "flip_test": False, "images_per_s": 100.0 / noise}
    Predictions(labels.skeleton, predict(labels, noise, seed), card, files).write(path)
    made_from = {"config": run.folder / "config.yaml", "truth": labels.digest()}
    write_record(path, run.folder, made_from, [card_path(path)], run=run.name, split="test")
    evaluate_run(run, "test", labels=labels, settings=settings, quiet=True)
    run.close("finished")
    return run


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Runs of all kinds: finished, with another card, failed, running, and a broken one."""
    folder = tmp_path_factory.mktemp("dashboard")
    data, runs_dir = folder / "data", folder / "runs"
    make_images(data)
    (folder / "conf" / "dataset").mkdir(parents=True)
    (folder / "conf" / "dataset" / "dots.yaml").write_text(YAML.format(data=data))
    config = compose(
        "train",
        [f"hydra.searchpath=[file://{folder}/conf]", "dataset=dots", "backbone=resnet10_half", "trainer.max_epochs=12"],
    )
    labels = read_splits(config.dataset)["test"]
    runs_dir.mkdir()
    a = finish(make_run(runs_dir, config, "alpha"), labels, 1.5, 1)
    b = finish(make_run(runs_dir, config, "beta"), labels, 4.0, 2)
    seeds = [finish(make_run(runs_dir, config, "gamma", seed=s), labels, 2.0 + 0.1 * s, 10 + s).name for s in range(3)]
    other = finish(make_run(runs_dir, config, "delta"), labels, 2.0, 5, {"max_dets": 1})
    failed = make_run(runs_dir, config, "epsilon")
    failed.update(experiment=EVIL)
    failed.close("failed", f"loss is NaN {EVIL}")
    running = make_run(runs_dir, config, "zeta")
    broken = runs_dir / "2026-01-01_000000_broken_0000"
    broken.mkdir()
    (broken / "run.json").write_text('{"status": "finis')
    return Made(runs_dir, data, a.name, b.name, seeds, other.name, failed.name, running.name, broken.name)


@pytest.fixture(scope="session")
def service(made: Made) -> Iterator[Service]:
    """The service of these runs, without a socket."""
    found = Service(made.runs_dir)
    yield found
    found.close()


@dataclass
class Served:
    """A server that listens."""

    url: str
    service: Service


@pytest.fixture(scope="session")
def served(service: Service) -> Iterator[Served]:
    """The service on a port of this machine."""
    import uvicorn

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    options = uvicorn.Config(application(service), log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
    server = Server(options, service)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.started
    yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}/", service)
    service.stopping = server.should_exit = True
    thread.join(10)
