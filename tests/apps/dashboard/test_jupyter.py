"""``kplab.show`` in JupyterLab itself: the view is drawn, zoomed by a key, and changed by a control of the notebook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

pytestmark = pytest.mark.slow
TIMEOUT = 90_000


@pytest.fixture
def lab(made, tmp_path: Path) -> Iterator[str]:
    """The address of a notebook that shows two runs, in a JupyterLab without any other extension's state."""
    source = f"import kplab\nkplab.show({made.a!r}, {made.b!r}, runs_dir={str(made.runs_dir)!r})"
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "execution_count": None, "outputs": [], "source": source}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": [cell]}
    (tmp_path / "look.ipynb").write_text(json.dumps(book))
    states = {name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    settings = {"root_dir": tmp_path, "token": "test", "allow_root": True, "port": 0, "open_browser": False}
    options = [f"--ServerApp.{key}={value}" for key, value in settings.items()]
    command = [sys.executable, "-m", "jupyter", "lab", "--LabApp.news_url=None", *options]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **states}, cwd=tmp_path)
    try:
        yield f"{address_of(tmp_path)}lab/tree/look.ipynb?token=test&reset"
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


def test_the_view_in_jupyterlab(lab: str, chromium: str, tmp_path: Path) -> None:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1100})
        page.set_default_timeout(TIMEOUT)
        page.goto(lab)
        page.locator(".jp-Notebook .jp-CodeCell").click()
        page.keyboard.press("Shift+Enter")
        stage = page.locator(".pose-view .stage")
        expect(stage).to_be_visible(timeout=TIMEOUT)
        expect(page.locator(".jp-OutputArea [data-mime-type='application/vnd.jupyter.stderr']")).to_have_count(0)
        drawn = "() => document.querySelector('.pose-view canvas').toDataURL()"
        page.wait_for_function("() => document.querySelector('.pose-view img.pixels').naturalWidth === 96")
        before = page.evaluate(drawn)
        stage.focus()
        page.keyboard.press("+")
        page.wait_for_function(f"(before) => ({drawn})() !== before", arg=before)
        zoomed = page.evaluate(drawn)
        page.get_by_label("alpha", exact=True).uncheck()
        page.wait_for_function(f"(before) => ({drawn})() !== before", arg=zoomed)
        page.screenshot(path=tmp_path / "lab.png")
        browser.close()
