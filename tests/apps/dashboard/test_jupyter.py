"""``kplab.show`` in JupyterLab itself: the view is drawn, zoomed by a key, and changed by a control of the notebook."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright
from tests.apps.lab import run_first_cell

pytestmark = pytest.mark.slow
TIMEOUT = 90_000


@pytest.fixture
def lab(made, jupyterlab: Callable[[str], str]) -> str:
    """The address of a notebook that shows two runs."""
    return jupyterlab(f"import kplab\nkplab.show({made.a!r}, {made.b!r}, runs_dir={str(made.runs_dir)!r})")


def test_the_view_in_jupyterlab(lab: str, chromium: str, tmp_path: Path) -> None:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1100})
        page.set_default_timeout(TIMEOUT)
        page.goto(lab)
        run_first_cell(page)
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
