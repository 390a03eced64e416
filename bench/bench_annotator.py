"""Speed of ``kplab annotate`` in a headless Chromium: 1,000 images of 85 keypoints.

Everything is made here, in a temporary folder. Required: the next image within 100 ms, a frame of a drag within 16 ms.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

IMAGES, KEYPOINTS, SIZE = 1_000, 85, (1280, 960)
YAML = """
name: bench
skeleton: {{name: bench, keypoints: {names}, edges: {edges}, flip_pairs: [], sigmas: uniform}}
sources: {{all: {{_target_: kplab.data.formats.coco.read, annotations: {data}/labels.json, images: {data}/images}}}}
split: null
"""


def say(what: str, value: float, unit: str, required: float | None = None) -> None:
    """Print one measurement."""
    limit = "" if required is None else f"   (required: {required:g} {unit})"
    print(f"{what}: {value:.1f} {unit}{limit}", flush=True)


def make_project(root: Path) -> None:
    """Images, labels of the first half, and a config."""
    data, rng = root / "data", np.random.default_rng(0)
    (data / "images").mkdir(parents=True)
    for i in range(20):
        small = rng.integers(0, 255, (60, 80, 3)).astype(np.uint8)
        cv2.imwrite(str(data / f"base{i}.jpg"), cv2.resize(small, SIZE, interpolation=cv2.INTER_CUBIC))
    shape = rng.uniform(-250, 250, (KEYPOINTS, 2))
    images, annotations = [], []
    for i in range(1, IMAGES + 1):
        (data / "images" / f"{i:05d}.jpg").hardlink_to(data / f"base{i % 20}.jpg")
        images.append({"id": i, "file_name": f"{i:05d}.jpg", "width": SIZE[0], "height": SIZE[1]})
        for subject in range(2):
            xy = np.array([400 + 450 * subject, 480]) + shape + rng.normal(0, 8, shape.shape)
            keypoints = np.concatenate([xy, np.full((KEYPOINTS, 1), 2)], 1).round(2).ravel().tolist()
            annotations.append(
                {
                    "id": 2 * i + subject, "image_id": i, "category_id": 1, "iscrowd": 0, "num_keypoints": KEYPOINTS,
                    "keypoints": keypoints, "area": 1e5, "bbox": [*xy.min(0).tolist(), 500.0, 500.0],
                }
            )  # fmt: skip
    names = [f"point{k}" for k in range(KEYPOINTS)]
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "bench", "keypoints": names}],
    }
    (data / "labels.json").write_text(json.dumps(document))
    (root / "conf" / "dataset").mkdir(parents=True)
    edges = [[a, b] for a, b in pairwise(names)]
    (root / "conf" / "dataset" / "bench.yaml").write_text(
        YAML.format(data=data, names=json.dumps(names), edges=json.dumps(edges))
    )


#: Drag a keypoint through 120 frames, and return the milliseconds of drawing each, and those of an empty frame of the same
#: size; reading a pixel waits for the rasterizer.
DRAWN = """
async ([x, y]) => {
  const original = window.requestAnimationFrame;
  const [times, empty] = [[], []];
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [document.querySelector("canvas.points").width, document.querySelector("canvas.points").height];
  for (let i = 0; i < 120; i++) {
    await new Promise((resolve) => original(resolve));
    const begun = performance.now();
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.fillRect(i, i, 9, 9);
    context.getImageData(0, 0, 1, 1);
    empty.push(performance.now() - begun);
  }
  window.requestAnimationFrame = (run) => original((now) => {
    const begun = performance.now();
    run(now);
    document.querySelector("canvas.points").getContext("2d").getImageData(0, 0, 1, 1);
    times.push(performance.now() - begun);
  });
  const stage = document.querySelector(".stage");
  const send = (type, dx, buttons) => stage.dispatchEvent(new PointerEvent(type, {
    clientX: x + dx, clientY: y, movementX: 1, pointerId: 1, button: type === "pointermove" ? -1 : 0, buttons, bubbles: true }));
  send("pointerdown", 0, 1);
  for (let i = 1; i <= 120; i++) {
    send("pointermove", i % 60, 1);
    await new Promise((resolve) => original(resolve));
  }
  send("pointerup", 0, 0);
  window.requestAnimationFrame = original;
  return [times, empty];
}
"""


def measure(address: str) -> None:
    """Times in the browser, from the key or the movement until its result is drawn."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        begun = time.perf_counter()
        page.goto(address)
        page.wait_for_function("() => document.querySelector('.stage')?.dataset.image === '0'")
        say("first image of the page", 1000 * (time.perf_counter() - begun), "ms")
        shown = """(i) => new Promise((resolve) => {
          const begun = performance.now();
          document.querySelector(".stage").dispatchEvent(new KeyboardEvent("keydown", { key: i < 0 ? "End" : "d", bubbles: true }));
          const look = () => requestAnimationFrame(() => document.querySelector(".stage").dataset.image === String(i < 0 ? -i : i)
            ? requestAnimationFrame(() => resolve(performance.now() - begun)) : look());
          look();
        })"""
        looked, hurried = [], []
        for i in range(1, 16):
            page.wait_for_timeout(700)  # the next image is fetched while this one is labelled
            looked.append(page.evaluate(shown, i))
        for i in range(16, 46):
            hurried.append(page.evaluate(shown, i))
        say("next image, after 0.7 s on the last one (median of 15)", statistics.median(looked), "ms", 100)
        say("the slowest of them", max(looked), "ms")
        say("next image, without a pause (median of 30)", statistics.median(hurried), "ms", 100)
        say("far away: the last image", page.evaluate(shown, -(IMAGES - 1)), "ms")
        page.wait_for_timeout(500)
        box = page.locator(".stage").bounding_box()
        assert box is not None
        scale = min(box["width"] / SIZE[0], box["height"] / SIZE[1])
        at = first_point(page)
        point = [
            box["x"] + (box["width"] - SIZE[0] * scale) / 2 + at[0] * scale,
            box["y"] + (box["height"] - SIZE[1] * scale) / 2 + at[1] * scale,
        ]
        drawn, empty = page.evaluate(DRAWN, point)
        say("drawing of a frame of a drag, 2 subjects (median)", statistics.median(drawn), "ms", 16)
        say("the 10th percentile, on a machine with other work", sorted(drawn)[len(drawn) // 10], "ms", 16)
        say("an empty frame of the same size (median)", statistics.median(empty), "ms")
        say("the 10th percentile", sorted(empty)[len(empty) // 10], "ms")
        browser.close()


def first_point(page: object) -> list[float]:
    """The first keypoint of the last image, as the server states it."""
    message = {"kind": "show", "view": "bench", "image": IMAGES - 1}
    answer = page.evaluate(  # type: ignore[attr-defined]
        "async (m) => (await fetch('message', { method: 'POST', body: JSON.stringify(m) })).json()", message
    )
    return list(answer["instances"][0][1]["xyv"][:2])


def main() -> None:
    """Print all measurements."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_project(root)
        search = f"hydra.searchpath=[file://{root}/conf]"
        command = [sys.executable, "-m", "kplab.cli", "annotate", search, "dataset=bench"]
        begun = time.perf_counter()
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        try:
            assert server.stdout is not None
            address = next(line for line in server.stdout if line.startswith("annotator: ")).split()[1]
            say(f"start with {IMAGES} images", time.perf_counter() - begun, "s")
            measure(address)
        finally:
            begun = time.perf_counter()
            server.send_signal(signal.SIGINT)
            server.wait(20)
            say("end, with the last save", time.perf_counter() - begun, "s")


if __name__ == "__main__":
    main()
