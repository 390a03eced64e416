"""Requests a second of ``kplab serve`` on this machine's own address, with and without batches, and what it refuses.

The server is a process of its own; the clients are threads here, on the same cores. Each answer is compared with that of
the same image sent alone, so that none is lost and none belongs to another image.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

CLIENTS, REQUESTS, IMAGES, QUEUE, ROUNDS = 32, 640, 40, 64, 3
#: Pixels: sums of 32-bit floats differ by the size of the batch.
SAME = 1e-2
#: Largest processor time of a request with batches, as a ratio of that without.
WANTED = 1.0

TRAIN = """
from kplab.tasks import compose
from kplab.tasks.training.train import train
train(compose("train", [
    "dataset=synthetic_hand", "dataset.images=40", "dataset.max_subjects=1", "backbone=resnet10_half", "neck.channels=32",
    "size=[96,96]", "trainer=cpu", "trainer.max_epochs=1", "augment=none", "logger=csv", "test_on=[]", "runs_dir={runs}",
    "dataset.folder={runs}/data", "name=bench", "flip_test=false",
]))
"""


@dataclass
class Answer:
    """Status, points and seconds of a request."""

    image: int
    status: int
    points: np.ndarray | None
    seconds: float


@dataclass
class Server:
    """A server that runs.

    Args:
        host: name and port.
        pid: of its process.
    """

    host: str
    pid: int

    def cpu(self) -> float:
        """Seconds of processor time that it has used, which other processes of the machine hardly change."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def server(runs: Path, *options: str) -> Iterator[Server]:
    """The command while it runs; it must end by itself when it is asked to."""
    command = [sys.executable, "-m", "kplab.cli", "serve", "run=bench", f"runs_dir={runs}", "port=0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    found = re.search(r"http://([^/]+)/", process.stdout.readline())
    assert found is not None, "the server has not started"
    try:
        yield Server(found[1], process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def make_images(count: int) -> list[bytes]:
    """JPEG files of 320 x 240 pixels, all different."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        rough = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        made.append(cv2.imencode(".jpg", cv2.resize(rough, (320, 240), interpolation=cv2.INTER_CUBIC))[1].tobytes())
    return made


def points_of(content: Any) -> np.ndarray:
    """(N, K, 2) keypoints of the only image of an answer."""
    return np.array([[[k["x"], k["y"]] for k in pose["keypoints"]] for pose in content["images"][0]["poses"]])


def ask(connection: http.client.HTTPConnection, image: int, data: bytes) -> Answer:
    """Send an image and read the answer."""
    begun = time.perf_counter()
    connection.request("POST", "/predict", data, {"Content-Type": "image/jpeg"})
    response = connection.getresponse()
    body = response.read()
    seconds = time.perf_counter() - begun
    return Answer(image, response.status, points_of(json.loads(body)) if response.status == 200 else None, seconds)


def load(host: str, images: list[bytes], clients: int, requests: int) -> tuple[list[Answer], float]:
    """Answers to requests of many clients, each on one connection, one request after the other; and the seconds of all."""
    ready = threading.Barrier(clients + 1)

    def client(number: int) -> list[Answer]:
        connection = http.client.HTTPConnection(host, timeout=120)
        connection.connect()
        ready.wait()
        return [ask(connection, i % len(images), images[i % len(images)]) for i in range(number, requests, clients)]

    with ThreadPoolExecutor(clients) as pool:
        asked = [pool.submit(client, number) for number in range(clients)]
        ready.wait()
        begun = time.perf_counter()
        answers = [answer for future in asked for answer in future.result()]
        return answers, time.perf_counter() - begun


def wrong(answers: list[Answer], alone: list[np.ndarray]) -> int:
    """Answers that are not those of their image."""
    return sum(
        a.points is not None
        and (a.points.shape != alone[a.image].shape or np.abs(a.points - alone[a.image]).max() > SAME)
        for a in answers
    )


def report(what: str, answers: list[Answer], seconds: float, alone: list[np.ndarray]) -> float:
    """Print and return the requests a second that were answered."""
    good = sorted(a.seconds for a in answers if a.status == 200)
    rate = len(good) / seconds
    p95 = 1000 * good[int(0.95 * (len(good) - 1))]
    print(
        f"{what}: {rate:.0f} requests/s, latency p50 {1000 * statistics.median(good):.0f} ms, p95 {p95:.0f} ms; "
        f"{len(answers)} answered of {REQUESTS}, statuses {dict(Counter(a.status for a in answers))}, "
        f"{wrong(answers, alone)} with points of another image",
        flush=True,
    )
    return rate


def main() -> None:
    """Print requests a second, latencies, and what was lost, wrong and refused."""
    images = make_images(IMAGES)
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        subprocess.run([sys.executable, "-c", TRAIN.format(runs=runs)], check=True, stdout=subprocess.DEVNULL)
        rates: dict[int, list[float]] = {16: [], 1: []}
        cpu = {16: 0.0, 1: 0.0}
        with server(runs, "batch_size=16") as together, server(runs, "batch_size=1") as single:
            connection = http.client.HTTPConnection(single.host, timeout=60)
            alone = [a.points for i, data in enumerate(images) if (a := ask(connection, i, data)).points is not None]
            nearest = min(np.abs(alone[i] - alone[j]).max() for i in range(len(alone)) for j in range(i))
            assert len(alone) == IMAGES
            assert nearest > 10 * SAME, "the answers of different images are the same"
            for _ in range(ROUNDS):
                for size, chosen in ((16, together), (1, single)):
                    before = chosen.cpu()
                    answers, seconds = load(chosen.host, images, CLIENTS, REQUESTS)
                    cpu[size] += chosen.cpu() - before
                    rates[size].append(report(f"batches of up to {size}, {CLIENTS} clients", answers, seconds, alone))
            answers, seconds = load(together.host, images, 1, 80)
            print(f"one client: {len(answers) / seconds:.0f} requests/s")
            answers, seconds = load(together.host, images, 4 * QUEUE, 8 * QUEUE)
            counts = Counter(a.status for a in answers)
            slowest = 1000 * max((a.seconds for a in answers if a.status == 429), default=0)
            print(
                f"{4 * QUEUE} clients at once, a queue of {QUEUE}: {counts[200]} answered, {counts[429]} refused with 429 "
                f"(after {slowest:.0f} ms at most), {8 * QUEUE - counts[200] - counts[429]} lost, "
                f"{wrong(answers, alone)} with points of another image"
            )
            connection = http.client.HTTPConnection(together.host, timeout=60)
            print(f"a body of 25 MB: {ask(connection, 0, b'x' * 25_000_000).status}")
        print(
            f"processor time of a request: {1000 * cpu[16] / REQUESTS / ROUNDS:.1f} ms with batches, "
            f"{1000 * cpu[1] / REQUESTS / ROUNDS:.1f} ms without; ratio {cpu[16] / cpu[1]:.2f} (wanted: {WANTED} or less)"
        )
        ratio = statistics.median(rates[16]) / statistics.median(rates[1])
        print(f"requests/s with batches, as a ratio of those without (median of {ROUNDS}): {ratio:.2f}")


if __name__ == "__main__":
    main()
