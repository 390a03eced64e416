"""``kplab.annotate`` in JupyterLab itself: clicks and keys in a cell's output become the saved file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright
from tests.apps.lab import run_first_cell

pytestmark = pytest.mark.slow
TIMEOUT = 90_000
SPOTS = [(40.5, 30.5), (80.5, 30.5), (120.5, 60.5), (80.5, 90.5), (30.5, 100.5)]


@pytest.fixture
def lab(files, jupyterlab: Callable[[str], str]) -> str:
    """The address of a notebook whose only cell shows the annotator."""
    files.config()
    search = f"hydra.searchpath=[file://{files.labels.parent}/conf]"
    return jupyterlab(f"import kplab\nkplab.annotate('bugs', [{search!r}])")


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
        run_first_cell(page)
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
