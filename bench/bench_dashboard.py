"""Speed and memory of ``kplab dashboard``: 10,000 runs, and images of two runs with 5,000 images of 85 keypoints each.

Everything is made here, in a temporary folder. The pages are measured in a headless Chromium.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kplab.apps.dashboard.index import Index, Watcher
from kplab.runs.records import write_record
from kplab.runs.run import Run
from kplab.structures.predictions import Predictions, card_path
from kplab.tasks import compose
from kplab.tasks.evaluation.scoring import evaluate_run
from kplab.tasks.wiring.datasets import read_split

RUNS, IMAGES, KEYPOINTS, SIZE = 10_000, 5_000, 85, (640, 480)
METRICS = [f"metric_{i}" for i in range(24)]
YAML = """
name: bench
skeleton: {{name: bench, keypoints: {names}, edges: [], flip_pairs: [], sigmas: uniform}}
sources:
  test: {{_target_: kplab.data.formats.coco.read, annotations: {data}/annotations.json, images: {data}/images}}
split: null
"""


def say(what: str, value: float, unit: str, limit: float) -> None:
    """Print a measured value beside what is required."""
    print(
        f"{what}: {value:.3g} {unit} (required: {limit:g} or less){'' if value <= limit else '  TOO MUCH'}", flush=True
    )


def make_many(runs_dir: Path) -> None:
    """Runs with a record, a config of a real training and scores of 30 metrics, but no tables."""
    config = compose("train", ["experiment=heatmap_small"])
    from omegaconf import OmegaConf

    text = OmegaConf.to_yaml(config)
    rng = np.random.default_rng(0)
    for i in range(RUNS):
        folder = runs_dir / f"2026-{1 + i // 900 % 12:02d}-{1 + i // 30 % 28:02d}_{i:06d}_exp{i % 40}_{i:04x}"
        (folder / "scores").mkdir(parents=True)
        own = text.replace("seed: 0\n", f"seed: {i % 5}\n").replace("lr: 0.002", f"lr: {rng.uniform(1e-4, 1e-2):.6f}")
        (folder / "config.yaml").write_text(own)
        record = {
            "schema": 1, "status": "finished" if i % 17 else "failed", "experiment": f"exp{i % 40}", "command": ["kplab", "train"],
            "started": folder.name[:10], "seconds": float(rng.uniform(10, 1e4)), "seed": i % 5,
            "parameters": int(rng.integers(10**6, 10**8)),
            "error": None if i % 17 else "loss is NaN",
        }  # fmt: skip
        (folder / "run.json").write_text(json.dumps(record))
        values = {
            "AP": rng.random(),
            "AR": rng.random(),
            "mean_px": rng.uniform(1, 20),
            "median_px": rng.uniform(1, 20),
        }
        summary = {**values, **{m: rng.random() for m in METRICS}, "n_images": 100, "n_missed": 3}
        (folder / "scores" / "bench-test.json").write_text(
            json.dumps({"evaluation": "0", "summary": summary, "card": {}})
        )
        (folder / "scores" / "bench-test.record.json").write_text(json.dumps({"artefact": "bench-test.json"}))


def make_pair(root: Path, runs_dir: Path) -> list[str]:
    """Two runs with predictions and scores of many images; their names."""
    data, rng = root / "data", np.random.default_rng(1)
    (data / "images").mkdir(parents=True)
    for i in range(50):
        small = rng.integers(0, 255, (24, 32, 3)).astype(np.uint8)
        cv2.imwrite(str(data / "images" / f"base{i}.jpg"), cv2.resize(small, SIZE, interpolation=cv2.INTER_CUBIC))
    records, annotations = [], []
    shape = rng.normal(0, 60, (KEYPOINTS, 2))
    for i in range(1, IMAGES + 1):
        (data / "images" / f"{i:05d}.jpg").hardlink_to(data / "images" / f"base{i % 50}.jpg")
        xy = (np.array(SIZE) / 2 + rng.normal(0, 40, 2) + shape + rng.normal(0, 5, shape.shape)).clip(
            1, np.array(SIZE) - 1
        )
        low, high = xy.min(0), xy.max(0)
        keypoints = np.concatenate([xy, np.full((KEYPOINTS, 1), 2)], 1).round(2).ravel().tolist()
        records.append({"id": i, "file_name": f"{i:05d}.jpg", "width": SIZE[0], "height": SIZE[1]})
        annotations.append(
            {
                "id": i, "image_id": i, "category_id": 1, "iscrowd": 0, "num_keypoints": KEYPOINTS, "keypoints": keypoints,
                "area": float(np.prod(high - low) / 2), "bbox": [*low.tolist(), *(high - low).tolist()],
            }
        )  # fmt: skip
    names = [f"point{k}" for k in range(KEYPOINTS)]
    category = {"id": 1, "name": "bench", "keypoints": names, "skeleton": []}
    document = {"images": records, "annotations": annotations, "categories": [category]}
    (data / "annotations.json").write_text(json.dumps(document))
    (root / "conf" / "dataset").mkdir(parents=True)
    (root / "conf" / "dataset" / "bench.yaml").write_text(YAML.format(data=data, names=json.dumps(names)))
    config = compose("train", [f"hydra.searchpath=[file://{root}/conf]", "dataset=bench", "backbone=resnet10_half"])
    from omegaconf import OmegaConf

    labels, found = read_split(config.dataset, "test"), []
    for seed in (2, 3):
        rng = np.random.default_rng(seed)
        run = Run.create(runs_dir, f"pair{seed}", OmegaConf.to_yaml(config), root)
        path = run.folder / "predictions" / "bench-test.json"
        poses = {}
        for i, image_id in enumerate(labels.image_id.tolist()):
            true = labels.poses_of(i)
            true.xy = true.xy + rng.normal(0, seed, true.xy.shape)
            true.keypoint_score = rng.random(true.keypoint_score.shape)
            poses[image_id] = true
        files = {int(i): str(n) for i, n in zip(labels.image_id, labels.names, strict=True)}
        Predictions(labels.skeleton, poses, {"run": run.name, "boxes": "annotated", "flip_test": False}, files).write(
            path
        )
        made_from = {"config": run.folder / "config.yaml"}
        write_record(path, root, made_from, [card_path(path)], run=run.name)
        evaluate_run(run, "test", labels=labels, quiet=True)
        run.close("finished")
        found.append(run.name)
    return found


def memory(pid: int) -> float:
    """Peak memory of a process that runs, MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def measure_index(runs_dir: Path, root: Path) -> None:
    """Making the index, and one new run."""
    index = Index(runs_dir, root / "index.sqlite")
    begun = time.perf_counter()
    index.update()
    say(f"index of {RUNS} runs", time.perf_counter() - begun, "s", 30)
    seconds = []
    for i in range(5):
        first = next(p for p in runs_dir.iterdir() if not p.name.startswith("."))
        new = runs_dir / f"2027-01-01_00000{i}_new_{i:04x}"
        shutil.copytree(first, new)
        begun = time.perf_counter()
        assert index.update() == [new.name]
        seconds.append(time.perf_counter() - begun)
    say("index, one new run (median of 5)", statistics.median(seconds), "s", 0.3)
    watcher = Watcher(index)
    begun = time.perf_counter()
    watcher.check(force=True)
    print(f"index, nothing new: {time.perf_counter() - begun:.3f} s")
    index.close()
    print(f"size of the index: {(root / 'index.sqlite').stat().st_size / 2**20:.0f} MB")


def measure_pages(address: str, pair: list[str]) -> None:
    """Times in the browser, from the action until its result is drawn."""
    from playwright.sync_api import Page, sync_playwright

    def timed(page: Page, action: Callable[[], Any], done: str, argument: Any = None) -> float:
        begun = time.perf_counter()
        action()
        page.wait_for_function(done, arg=argument, polling="raf")
        return 1000 * (time.perf_counter() - begun)

    def sorted_by(page: Page, heading: str) -> float:
        before = page.locator("tbody").inner_text()
        done = "before => { const b = document.querySelector('tbody'); return b && b.innerText !== before; }"
        return timed(page, lambda: page.get_by_role("button", name=heading, exact=False).first.click(), done, before)

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        rows = "() => document.querySelectorAll('tbody tr').length === 100"
        say("first view", timed(page, lambda: page.goto(address), rows), "ms", 2000)
        times = [sorted_by(page, h) for h in ("AP", "mean px", "time", "median px", "AP", "status", "family")]
        say("sort (median of 7)", statistics.median(times), "ms", 300)
        times = []
        for text in ("exp7", "AP>0.5", "seed=3 mean_px<5", "optimizer.lr<0.005 status=finished", "exp1 AP>0.9"):
            search = page.get_by_role("searchbox", name="filter")
            counter = page.locator(".bar [role=status]").inner_text()
            done = "before => document.querySelector('.bar [role=status]').innerText !== before"
            times.append(timed(page, lambda search=search, text=text: search.fill(text), done, counter))  # type: ignore[misc]
        say("filter (median of 5, with the 120 ms that typing waits)", statistics.median(times), "ms", 300)
        page.goto(address)
        page.wait_for_function(rows)
        times = []
        for number in range(2, 8):
            done = "n => document.querySelector('.pager span')?.innerText.startsWith(`page ${n} `)"
            times.append(timed(page, lambda: page.get_by_role("button", name="next").click(), done, number))
        say("page (median of 6)", statistics.median(times), "ms", 300)
        by = timed(
            page,
            lambda: page.goto(address + "#/runs?by=experiment"),
            "() => document.querySelector('tbody')?.innerText.includes('±')",
        )
        print(f"group by experiment, 8 columns: {by:.0f} ms")

        drawn = (
            "n => document.querySelector('.pager span')?.innerText.startsWith(`page ${n} `) && "
            "document.querySelector('.grid')?.dataset.drawn && "
            "[...document.querySelectorAll('.cell img')].every(i => i.complete && i.naturalWidth > 0)"
        )
        first = timed(page, lambda: page.goto(f"{address}#/images?runs={','.join(pair)}"), drawn, 1)
        print(f"first grid of images (predictions are read and kept): {first / 1000:.1f} s")
        times = []
        for number in range(2, 9):
            time.sleep(2.5)  # someone looks at the page; the next one is fetched meanwhile
            times.append(timed(page, lambda: page.get_by_role("button", name="next").click(), drawn, number))
        say(f"grid of 60 images x {KEYPOINTS} keypoints x 3 layers (median of 7)", statistics.median(times), "ms", 300)
        page.get_by_label("order").select_option("changed")
        page.wait_for_function("() => location.hash.includes('order=changed')")
        page.wait_for_function(drawn, arg=1)
        again = timed(
            page,
            lambda: page.get_by_label("order").select_option("best"),
            "() => document.querySelector('.grid') && location.hash.includes('order=best') && !document.querySelector('[aria-busy]')",
        )
        print(f"another order of {IMAGES} images, before their pixels are there: {again:.0f} ms")
        busy = "() => document.querySelector('.verdicts')"
        begun = timed(page, lambda: page.goto(f"{address}#/compare?runs={','.join(pair)}"), busy)
        print(f"comparison of two runs with {IMAGES} images, 2000 resamples: {begun / 1000:.1f} s")
        browser.close()


def main() -> None:
    """Print all measurements."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        runs_dir = root / "runs"
        make_many(runs_dir)
        pair = make_pair(root, runs_dir)
        measure_index(runs_dir, root)
        command = [sys.executable, "-m", "kplab.cli", "dashboard", f"runs_dir={runs_dir}"]
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[1]
            measure_pages(address, pair)
            say("memory of the server, at most", memory(server.pid), "MB", 300)
            print(f"memory of its worker while it compared: {[round(memory(p)) for p in children(server.pid)]} MB")
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(20)
    print(f"(this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB)")


if __name__ == "__main__":
    main()
