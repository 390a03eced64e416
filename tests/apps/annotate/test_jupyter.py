"""``kplab.annotate`` in JupyterLab itself: clicks and keys in a cell's output become the saved file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

pytestmark = pytest.mark.slow
TIMEOUT = 90_000
SPOTS = [(40.5, 30.5), (80.5, 30.5), (120.5, 60.5), (80.5, 90.5), (30.5, 100.5)]


@pytest.fixture
def lab(files, tmp_path: Path) -> Iterator[str]:
    """The address of a notebook whose only cell shows the annotator, in a JupyterLab without any other extension's state."""
    files.config()
    search = f"hydra.searchpath=[file://{files.labels.parent}/conf]"
    source = f"import kplab\nkplab.annotate('bugs', [{search!r}])"
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "execution_count": None, "outputs": [], "source": source}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": [cell]}
    (tmp_path / "label.ipynb").write_text(json.dumps(book))
    states = {name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    settings = {"root_dir": tmp_path, "token": "test", "allow_root": True, "port": 0, "open_browser": False}
    options = [f"--ServerApp.{key}={value}" for key, value in settings.items()]
    command = [sys.executable, "-m", "jupyter", "lab", "--LabApp.news_url=None", *options]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **states}, cwd=tmp_path)
    try:
        yield f"{address_of(tmp_path)}lab/tree/label.ipynb?token=test&reset"
    finally:
        server.terminate()
        server.wait(30)


def address_of(folder: Path) -> str:
    """The address that the server writes into its runtime folder."""
    for _ in range(600):
        for path in (folder / "JUPYTER_RUNTIME_DIR").glob("jpserver-*.json"):
            try:
                return str(json.loads(path.read_text())["url"])
            except ValueError:
                pass
        time.sleep(0.1)
    raise AssertionError((folder / "log").read_text())


def click(page: Page, x: float, y: float) -> None:
    """Click a point of the image, which is shown as large as fits, in the middle of the stage."""
    box = page.locator(".kplab-annotator .stage").bounding_box()
    assert box is not None
    scale = min(box["width"] / 160, box["height"] / 120)
    left, top = box["x"] + (box["width"] - 160 * scale) / 2, box["y"] + (box["height"] - 120 * scale) / 2
    page.mouse.click(left + x * scale, top + y * scale)


def test_labelling_in_jupyterlab(lab: str, chromium: str, files, tmp_path: Path) -> None:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(TIMEOUT)
        page.goto(lab)
        page.locator(".jp-Notebook .jp-CodeCell").click()
        page.keyboard.press("Shift+Enter")
        expect(page.locator(".kplab-annotator .title")).to_have_text("frame0.png", timeout=TIMEOUT)
        stage = page.locator(".kplab-annotator .stage")
        cells = page.locator(".jp-Notebook .jp-Cell").count()
        stage.focus()
        for image in (1, 2):
            page.keyboard.press("d")  # twice, "d" would delete the cell
            page.wait_for_function("(i) => document.querySelector('.stage').dataset.image === String(i)", arg=image)
        for x, y in SPOTS:
            click(page, x, y)
        page.keyboard.press("o")
        expect(page.locator(".kplab-annotator .hint")).to_contain_text("select a placed keypoint")
        click(page, *SPOTS[1])
        page.keyboard.press("o")
        page.keyboard.press("x")
        page.keyboard.press("Control+z")
        for key in ("a", "d", "b", "b", "m", "m", "v", "o"):  # of JupyterLab: new cells, Markdown, paste
            page.keyboard.press(key)
        page.wait_for_timeout(300)
        expect(page.locator(".kplab-annotator .saved")).to_have_text("saved")
        assert page.locator(".jp-Notebook .jp-Cell").count() == cells
        page.screenshot(path=tmp_path / "lab.png")
        browser.close()
    (found,) = [a for a in files.read()["annotations"] if a["image_id"] == 12]
    numbers = found["keypoints"]
    assert numbers[2::3] == [2, 1, 2, 2, 2]
    for (x, y), a, b in zip(SPOTS, numbers[::3], numbers[1::3], strict=True):
        assert abs(a + 0.5 - x) <= 0.5
        assert abs(b + 0.5 - y) <= 0.5
