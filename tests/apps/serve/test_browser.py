"""The page in a real browser: files are chosen and dropped, and the keypoints appear where the truth is."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from .conftest import Centroids, Client, dots, encoded, known, served

TIMEOUT = 30_000
#: A warning that reading the canvas causes, which only these tests do.
OWN = "willReadFrequently"
expect.set_options(timeout=TIMEOUT)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser, client: Client) -> Iterator[Page]:
    """The page; at its end there must be no message of the console and no request to another host."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, base_url=client.url)
    found = context.new_page()
    found.set_default_timeout(TIMEOUT)
    faults: list[str] = []
    found.on(
        "console", lambda m: faults.append(m.text) if m.type in ("error", "warning") and OWN not in m.text else None
    )
    found.on("pageerror", lambda e: faults.append(str(e)))
    own = urlsplit(client.url).netloc
    found.on(
        "request",
        lambda r: faults.append(r.url) if urlsplit(r.url).netloc != own and not r.url.startswith("blob:") else None,
    )
    found.expected = faults  # type: ignore[attr-defined]
    found.goto("/")
    yield found
    context.close()
    assert not faults, faults


#: The colour of the overlay at a point of the image, in continuous pixels; four zeros where nothing is drawn.
DRAWN = """([x, y]) => {
  const [canvas, image] = [document.querySelector('.pose-view canvas'), document.querySelector('.pose-view img')];
  const [a, b] = [canvas.getBoundingClientRect(), image.getBoundingClientRect()];
  const scale = canvas.width / a.width;
  const at = [(b.left - a.left + x * b.width / image.naturalWidth) * scale, (b.top - a.top + y * b.height / image.naturalHeight) * scale];
  return [...canvas.getContext('2d').getImageData(Math.round(at[0]), Math.round(at[1]), 1, 1).data];
}"""
ORANGE = [0xE6, 0x9F, 0x00, 255]


def test_a_chosen_file_shows_its_keypoints(page: Page, tmp_path: Path) -> None:
    expect(page.locator("header")).to_contain_text("known on cpu, 2 keypoints")
    path = tmp_path / "a <b>x.png"
    path.write_bytes(encoded(dots((40, 30), (90, 70), size=(128, 96))))
    page.get_by_label("images").set_input_files(path)
    expect(page.get_by_role("status")).to_contain_text("1 image in")
    expect(page.get_by_role("heading", name="a <b>x.png: 1 pose")).to_be_visible()
    assert page.locator("tbody tr").all_inner_texts() == ["red\t40.0\t30.0\t0.50", "green\t90.0\t70.0\t0.25"]
    # continuous pixels: the centre of the pixel with index 40 is 40.5
    for point in ((40.5, 30.5), (90.5, 70.5)):
        page.wait_for_function(
            f"point => JSON.stringify(({DRAWN})(point)) === '{str(ORANGE).replace(' ', '')}'", arg=point
        )
    assert page.evaluate(DRAWN, (20, 80)) == [0, 0, 0, 0], "nothing is drawn elsewhere"
    page.get_by_label("lowest score").fill("0.4")
    page.wait_for_function(f"point => ({DRAWN})(point)[3] === 0", arg=(90.5, 70.5))
    assert page.evaluate(DRAWN, (40.5, 30.5)) == ORANGE
    page.get_by_text("JSON", exact=True).click()
    expect(page.locator("details pre")).to_contain_text('"name": "a <b>x.png"')


def test_dropped_files_are_listed(page: Page) -> None:
    files = [["1.png", [[20, 30], [40, 50]]], ["2.png", [[50, 10], [12, 60]]]]
    content = [[name, base64.b64encode(encoded(dots(*points))).decode()] for name, points in files]
    page.evaluate(
        """files => {
          const data = new DataTransfer();
          for (const [name, text] of files) {
            data.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name, { type: 'image/png' }));
          }
          const event = new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true });
          document.querySelector('.drop').dispatchEvent(event);
        }""",
        content,
    )
    expect(page.get_by_role("status")).to_contain_text("2 images in")
    page.get_by_role("button", name="2.png").click()
    expect(page.get_by_role("button", name="2.png")).to_have_attribute("aria-pressed", "true")
    page.wait_for_function(
        f"point => JSON.stringify(({DRAWN})(point)) === '{str(ORANGE).replace(' ', '')}'", arg=(50.5, 10.5)
    )


def test_a_box_is_drawn_around_a_subject(page: Page, tmp_path: Path) -> None:
    """Two subjects side by side; boxes around them, one after the other, give a pose each."""
    path = tmp_path / "two.png"
    path.write_bytes(encoded(np.concatenate([dots((20, 30), (40, 20)), dots((30, 44), (14, 34))], axis=1)))
    page.get_by_label("images").set_input_files(path)
    expect(page.get_by_role("heading", name="two.png: 1 pose")).to_be_visible()
    for count, x in ((1, 4), (2, 68)):
        page.get_by_role("button", name="draw a box").click()
        found = page.locator("img.pixels").first.bounding_box()
        assert found is not None
        scale = found["width"] / 128
        page.mouse.move(found["x"] + x * scale, found["y"] + 4 * scale)
        page.mouse.down()
        page.mouse.move(found["x"] + (x + 56) * scale, found["y"] + 60 * scale)
        page.mouse.up()
        expect(page.locator("main[aria-busy]")).to_have_count(0)
        expect(page.get_by_role("heading", name="two.png: ")).to_contain_text(f"{count} pose")
        expect(page.locator("table.data")).to_have_count(count)
    rows = [row.split("\t") for row in page.locator("tbody tr").all_inner_texts()]
    points = [[float(x), float(y)] for _, x, y, _ in rows]
    np.testing.assert_allclose(points, [(20, 30), (40, 20), (94, 44), (78, 34)], atol=0.2)
    page.get_by_role("button", name="remove the boxes").click()
    expect(page.locator("table.data")).to_have_count(1)


def test_a_file_that_is_no_image_is_explained(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("no image")
    page.get_by_label("images").set_input_files(path)
    expect(page.get_by_role("alert")).to_contain_text("notes.png: not a JPEG, PNG, BMP, TIFF or WebP image")
    page.expected[:] = [f for f in page.expected if "415" not in f]  # type: ignore[attr-defined]


def test_the_theme_is_kept_and_a_token_opens_the_page(browser: Browser) -> None:
    with served(known(Centroids()), token="a-token-of-some-length") as client:
        context = browser.new_context(color_scheme="light")
        page = context.new_page()
        page.goto(f"{client.url}?token=a-token-of-some-length")
        assert "token" not in page.url
        expect(page.locator("header")).to_contain_text("known on cpu")
        background = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(background)
        page.get_by_role("button", name="theme: auto").click()
        page.get_by_role("button", name="theme: light").click()
        dark = page.evaluate(background)
        assert light != dark
        page.reload()
        expect(page.get_by_role("button", name="theme: dark")).to_be_visible()
        assert page.evaluate(background) == dark
        context.close()
