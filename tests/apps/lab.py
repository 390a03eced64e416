"""Steps in JupyterLab that its tests share."""

from __future__ import annotations

from playwright.sync_api import Page


def run_first_cell(page: Page) -> None:
    """Run the first cell of the notebook that is shown.

    JupyterLab ignores a cell that is run before the kernel is connected, so this waits for the kernel.
    """
    page.get_by_role("button", name="| Idle").wait_for()
    page.locator(".jp-Notebook .jp-CodeCell").first.click()
    page.keyboard.press("Shift+Enter")
