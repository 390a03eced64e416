"""A model whose answers are known exactly, runs with random weights, a server of either, and a client."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
import torch
import uvicorn
from omegaconf import OmegaConf

from kplab.apps.listening import listen
from kplab.apps.serve.server import application
from kplab.apps.serve.service import Limits, Service
from kplab.runs.run import Run
from kplab.structures.poses import Poses
from kplab.structures.predictor import Model
from kplab.structures.sample import Batch
from kplab.structures.skeleton import Skeleton
from kplab.tasks import compose
from kplab.tasks.inference.loading import LoadedRun
from kplab.tasks.wiring.models import build_model

LIMITS = Limits(bytes=2_000_000, pixels=1_000_000, queue=16, seconds=20.0)
RED, GREEN = (255, 0, 0), (0, 255, 0)


class Centroids(Model):
    """Finds the centroids of what is red and of what is green: the truth of images with one dot of each colour."""

    def __init__(self, size: tuple[int, int] = (64, 64)) -> None:
        super().__init__()
        self.size, self.max_poses = size, 1
        self.skeleton = Skeleton.from_config(
            {"name": "dots", "keypoints": ["red", "green"], "edges": [["red", "green"]], "sigmas": "uniform"}
        )
        self.register_buffer("nothing", torch.zeros(1))
        #: closed to let requests wait
        self.gate = threading.Event()
        self.gate.set()
        #: sizes of the batches that have begun
        self.batches: list[int] = []
        self.broken = False

    def predict(self, batch: Batch, flip_test: bool = False) -> list[Poses]:
        """One pose a view."""
        self.batches.append(len(batch))
        self.gate.wait(30)
        if self.broken:
            raise RuntimeError("the model is broken")
        x = torch.arange(self.size[0]) + 0.5
        y = torch.arange(self.size[1]) + 0.5
        found = []
        for image in batch.images.double():
            red, green, _ = image
            points = []
            for difference in (red - green, green - red):
                weight = (difference - 40).clamp(min=0)  # without the artefacts of JPEG
                total = weight.sum().clamp(min=1e-9)
                points.append([float((weight.sum(0) * x).sum() / total), float((weight.sum(1) * y).sum() / total)])
            found.append(Poses.make(np.array([points]), score=np.array([0.75]), keypoint_score=np.array([[0.5, 0.25]])))
        return found


def dots(red: tuple[float, float], green: tuple[float, float], size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """(H, W, 3) RGB image with a dot of each colour, blurred so that it can be resampled; positions are pixel indices."""
    y, x = np.mgrid[: size[1], : size[0]]
    image = np.zeros((size[1], size[0], 3))
    for (cx, cy), colour in ((red, RED), (green, GREEN)):
        image += np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 2.5**2))[..., None] * np.array(colour)
    return image.round().astype(np.uint8)


def encoded(image: np.ndarray, kind: str = ".png") -> bytes:
    """The file of an image."""
    return cv2.imencode(kind, image[..., ::-1])[1].tobytes()


def points_of(answer: dict[str, Any], image: int = 0, pose: int = 0) -> np.ndarray:
    """(K, 2) keypoints of an answer."""
    return np.array([[k["x"], k["y"]] for k in answer["images"][image]["poses"][pose]["keypoints"]])


@dataclass
class Answered:
    """What the server has answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """A server that listens, and requests to it, each on a connection of its own."""

    url: str
    service: Service
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answered:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=40)
        try:
            connection.request(
                method, path, body, {**self.headers, **{k.replace("_", "-"): v for k, v in headers.items()}}
            )
            answer = connection.getresponse()
            return Answered(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answered:
        return self.ask("GET", path, **headers)

    def post(self, data: bytes, kind: str = "image/png", query: str = "", **headers: str) -> Answered:
        return self.ask("POST", f"/predict{query}", data, Content_Type=kind, **headers)

    def form(self, *files: tuple[str, bytes], field: str = "images", **texts: str) -> Answered:
        return self.post(multipart(files, texts, field), "multipart/form-data; boundary=border")


def multipart(files: tuple[tuple[str, bytes], ...], texts: dict[str, str], field: str = "images") -> bytes:
    """The body of a form."""
    parts = [
        f'--border\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode() + data
        for name, data in files
    ] + [f'--border\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}'.encode() for k, v in texts.items()]
    return b"\r\n".join([*parts, b"--border--\r\n"])


@contextmanager
def served(
    loaded: Any, limits: Limits = LIMITS, batch_size: int = 8, wait: float = 0.02, token: str | None = None
) -> Iterator[Client]:
    """A server of a loaded run on a port of this machine."""
    service = Service(loaded, limits, batch_size, wait)
    service.warm()
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(application(service, "127.0.0.1", token), log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    until(lambda: server.started)
    yield Client(f"http://127.0.0.1:{listening.getsockname()[1]}/", service)
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread does."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it has not happened within 20 s"
        time.sleep(0.005)


def known(model: Model, run: str = "known") -> LoadedRun:
    """A loaded run of a model that was not trained, whose answers are known."""
    config = OmegaConf.create(
        {"regions": "annotated", "padding": 1.25, "flip_test": False, "rescore": None, "oks_nms": None}
    )
    return LoadedRun(SimpleNamespace(name=run), config, model, Path("last.ckpt"), False)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model() -> Centroids:
    return Centroids()


@pytest.fixture(scope="module")
def client(model: Centroids) -> Iterator[Client]:
    """A server of the model whose answers are known."""
    with served(known(model)) as found:
        yield found


@pytest.fixture(scope="session")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serve") / "runs"


@pytest.fixture(scope="session")
def untrained(runs_dir: Path) -> Callable[..., Run]:
    """A function from a name and overrides to a finished run with random weights: what it predicts is of no use, but exact."""
    made: dict[str, Run] = {}

    def make(name: str, *overrides: str) -> Run:
        if name not in made:
            config = compose("train", [*overrides, f"name={name}", "trainer=cpu", f"runs_dir={runs_dir}"])
            torch.manual_seed(0)
            weights = build_model(config, pretrained=False).state_dict()
            run = Run.create(runs_dir, name, OmegaConf.to_yaml(config), runs_dir)
            (run.folder / "checkpoints").mkdir(exist_ok=True)
            torch.save(
                {"state_dict": {f"model.{k}": v for k, v in weights.items()}}, run.folder / "checkpoints" / "last.ckpt"
            )
            run.close("finished")
            made[name] = run
        return made[name]

    return make
