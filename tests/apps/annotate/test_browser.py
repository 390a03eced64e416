"""A person's work in a real browser: what is clicked, dragged and typed is what the saved file holds."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright

from kplab.apps.annotate.instances import Instance
from kplab.apps.annotate.opening import open_project
from kplab.apps.annotate.server import application
from kplab.apps.annotate.window import Windows

TIMEOUT = 20_000
expect.set_options(timeout=TIMEOUT)
#: Centres of the squares in every image, continuous pixels; see conftest.
SPOTS = [(40.5, 30.5), (80.5, 30.5), (120.5, 60.5), (80.5, 90.5), (30.5, 100.5)]
WIDTH, HEIGHT = 160, 120


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


@contextmanager
def serving(windows: Windows) -> Iterator[str]:
    """The address of a project; its labels are saved at the end."""
    windows.project.start_saving()
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application(windows), log_level="warning", timeout_graceful_shutdown=1))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join(10)
    windows.close()


@pytest.fixture
def served(files) -> Iterator[str]:
    """The address of the project of the test's files."""
    with serving(Windows(open_project(files.config("dataset=bugs")))) as address:
        yield address


@pytest.fixture
def page(browser: Browser, served: str) -> Iterator[Page]:
    """A page; at its end there must be no message of the console and no request to another host."""
    found = open_page(browser, served)
    yield found
    found.context.close()
    assert not found.faults, found.faults  # type: ignore[attr-defined]


def open_page(browser: Browser, address: str, size: tuple[int, int] = (1000, 700)) -> Page:
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, base_url=address)
    page = context.new_page()
    page.set_default_timeout(TIMEOUT)
    faults: list[str] = []
    own = urlsplit(address).netloc
    page.on("console", lambda m: faults.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: faults.append(str(e)))
    page.on("request", lambda r: faults.append(r.url) if urlsplit(r.url).netloc != own else None)
    page.faults = faults  # type: ignore[attr-defined]
    page.goto("/")
    shown(page, 0)
    return page


def shown(page: Page, image: int) -> None:
    """Wait for an image."""
    page.wait_for_function("(i) => document.querySelector('.stage')?.dataset.image === String(i)", arg=image)


def on_screen(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where a point of the image is in the window, while the whole image is shown: as large as fits, in the middle."""
    box = page.locator(".stage").bounding_box()
    assert box is not None
    scale = min(box["width"] / WIDTH, box["height"] / HEIGHT)
    left, top = box["x"] + (box["width"] - WIDTH * scale) / 2, box["y"] + (box["height"] - HEIGHT * scale) / 2
    return left + x * scale, top + y * scale


def click(page: Page, x: float, y: float, **options: object) -> None:
    page.mouse.click(*on_screen(page, x, y), **options)  # type: ignore[arg-type]


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*on_screen(page, *start))
    page.mouse.down()
    page.mouse.move(*on_screen(page, *[(a + b) / 2 for a, b in zip(start, end, strict=True)]), steps=3)
    page.mouse.move(*on_screen(page, *end), steps=3)
    page.mouse.up()


def hint(page: Page, text: str) -> None:
    expect(page.locator(".hint")).to_contain_text(text)


def saved(page: Page) -> None:
    """Wait until all edits are in the file."""
    page.wait_for_timeout(150)
    expect(page.locator(".saved")).to_have_text("saved")


def points(annotation: dict) -> list[tuple[float, float, float]]:
    """Keypoints in continuous pixels."""
    numbers = annotation["keypoints"]
    half = [(0.5 if v else 0) for v in numbers[2::3]]
    return [(x + h, y + h, v) for x, y, v, h in zip(numbers[::3], numbers[1::3], numbers[2::3], half, strict=True)]


def near(found: list[tuple[float, float, float]], expected: list[tuple[float, float, float]], px: float = 0.5) -> None:
    """Each keypoint is within half a pixel of the image, and has its visibility."""
    assert [v for *_, v in found] == [v for *_, v in expected]
    for (x, y, _), (a, b, _) in zip(found, expected, strict=True):
        assert abs(x - a) <= px, (found, expected)
        assert abs(y - b) <= px, (found, expected)


def of_image(files, image: int) -> list[dict]:
    """The annotations of image i, which has id 10 + i."""
    return [a for a in files.read()["annotations"] if a["image_id"] == 10 + image]


def test_a_person_labels_three_images(page: Page, files, tmp_path: Path) -> None:
    names = ["head", "left_wing", "right_wing", "body", "tail"]
    page.keyboard.press("d")
    shown(page, 1)
    page.keyboard.press("d")
    shown(page, 2)
    # the next keypoint is announced; Shift places an occluded one
    for k, (x, y) in enumerate(SPOTS[:4]):
        hint(page, f"click: {names[k]}")
        click(page, x, y) if k != 2 else (page.keyboard.down("Shift"), click(page, x, y), page.keyboard.up("Shift"))
        page.mouse.move(*on_screen(page, 5, 5))
    hint(page, "click: tail")
    saved(page)
    subject = [(*SPOTS[0], 2), (*SPOTS[1], 2), (*SPOTS[2], 1), (*SPOTS[3], 2), (0, 0, 0)]
    near(points(of_image(files, 2)[0]), subject)
    # drag the head, hide the body, place the tail by keys only
    drag(page, SPOTS[0], (60.5, 50.5))
    page.keyboard.press("w")  # from the head backwards: the tail
    hint(page, "click: tail")
    page.keyboard.press("p")
    page.keyboard.press("w")
    hint(page, "selected: tail")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Alt+ArrowDown")
    click(page, *SPOTS[3])
    hint(page, "selected: body")
    page.keyboard.press("o")
    saved(page)
    subject = [(60.5, 50.5, 2), (*SPOTS[1], 2), (*SPOTS[2], 1), (*SPOTS[3], 1), (50, 61.1, 2)]
    near(points(of_image(files, 2)[0]), subject)
    assert points(of_image(files, 2)[0])[4] == pytest.approx((50, 61.1, 2), abs=0.011)
    # a box, a second subject of one keypoint, and a keypoint that is removed by the right button
    page.keyboard.press("b")
    drag(page, (20, 20), (140, 110))
    page.keyboard.press("n")
    hint(page, "click: head")
    click(page, 140, 20)
    click(page, *SPOTS[1], button="right")
    saved(page)
    first, second = of_image(files, 2)
    assert first["bbox"] == pytest.approx([20, 20, 120, 90], abs=0.5)
    near(points(second), [(140, 20, 2)] + [(0, 0, 0)] * 4)
    subject[1] = (0, 0, 0)
    near(points(first), subject)
    # undo goes back through all of it, redo forth again
    for _ in range(20):
        page.keyboard.press("Control+z")
    hint(page, "nothing to undo")
    saved(page)
    assert of_image(files, 2) == []
    for _ in range(20):
        page.keyboard.press("Control+y")
    saved(page)
    near(points(of_image(files, 2)[0]), subject)
    # the next image: a copy, mirrored, its second subject deleted
    page.keyboard.press("d")
    shown(page, 3)
    page.keyboard.press("c")
    hint(page, "copied from frame2.png")
    page.keyboard.press("m")
    page.keyboard.press("]")
    page.keyboard.press("Shift+X")
    saved(page)
    (copied,) = of_image(files, 3)
    near(points(copied), [subject[0], subject[2], subject[1], subject[3], subject[4]])
    assert copied["bbox"] == first["bbox"]
    # undo shows the image that it changes
    page.keyboard.press("a")
    shown(page, 2)
    page.keyboard.press("Control+z")
    shown(page, 3)
    saved(page)
    assert len(of_image(files, 3)) == 2
    expect(page.locator(".count")).to_have_text("3 of 6 labelled")
    page.screenshot(path=tmp_path / "annotator.png")
    # what was there before is as it was
    assert of_image(files, 0)[0]["mood"] == "calm"
    assert points(of_image(files, 0)[0]) == [(x, y, 2) for x, y in SPOTS]


def test_zoom_pan_and_brightness_move_no_point(page: Page, files) -> None:
    page.keyboard.press("End")
    shown(page, 5)
    page.mouse.move(*on_screen(page, *SPOTS[0]))
    page.mouse.wheel(0, -900)  # the point under the pointer stays
    page.wait_for_timeout(50)
    page.mouse.click(*on_screen(page, *SPOTS[0]))
    for key in ("-", "-", "0", ",", ".", ".", "t", "h", "h"):
        page.keyboard.press(key)
    assert "brightness" in page.locator("canvas.pixels").evaluate("(c) => c.style.filter")
    click(page, *SPOTS[1])
    page.keyboard.press("+")
    page.keyboard.press("Control+ArrowRight")
    drag(page, (100, 100), (90, 90))  # of the empty image: pans, and places nothing
    page.keyboard.press("f")
    page.keyboard.press("0")
    click(page, *SPOTS[2])
    saved(page)
    near(points(of_image(files, 5)[0]), [(*p, 2) for p in SPOTS[:3]] + [(0, 0, 0)] * 2)
    exact = points(of_image(files, 5)[0])[0]
    assert exact[:2] == pytest.approx(SPOTS[0], abs=0.1), "zoomed in, a click is more precise"


def test_two_windows_see_each_other(page: Page, browser: Browser, served: str, files) -> None:
    other = open_page(browser, served)
    other.keyboard.press("s")  # a keypoint is selected there
    drag(page, SPOTS[0], (50.5, 40.5))
    # the second window gets the change
    drawn = "() => document.querySelector('canvas.points').toDataURL()"
    before = other.evaluate(drawn)
    saved(page)
    other.wait_for_function(f"(before) => ({drawn})() !== before", arg=before)
    # each moves another keypoint of the same subject before it knows of the other's change: one is refused, none is lost
    gate = threading.Event()

    def edits_only(route) -> None:
        if gate.is_set() or "edit" in route.request.post_data:
            route.continue_()
        else:
            route.abort()

    other.route("**/message", edits_only)
    drag(page, SPOTS[1], (85.5, 35.5))
    saved(page)
    drag(other, SPOTS[2], (110.5, 70.5))
    expect(other.locator(".hint")).to_contain_text("was changed in another window")
    gate.set()
    saved(page)
    near(
        points(of_image(files, 0)[0]),
        [(50.5, 40.5, 2), (85.5, 35.5, 2), (*SPOTS[2], 2), (*SPOTS[3], 2), (*SPOTS[4], 2)],
    )
    drag(other, SPOTS[2], (110.5, 70.5))
    saved(other)
    near(points(of_image(files, 0)[0])[2:3], [(110.5, 70.5, 2)])
    other.context.close()


def test_a_change_of_another_window_during_a_drag_is_kept(page: Page, browser: Browser, served: str, files) -> None:
    other = open_page(browser, served)
    page.mouse.move(*on_screen(page, *SPOTS[0]))
    page.mouse.down()
    page.mouse.move(*on_screen(page, 50.5, 40.5), steps=3)
    drawn = "() => document.querySelector('canvas.points').toDataURL()"
    before = page.evaluate(drawn)
    drag(other, SPOTS[4], (40.5, 90.5))
    saved(other)
    page.wait_for_timeout(600)  # longer than the pause between two questions for news
    page.mouse.up()
    page.wait_for_function(f"(before) => ({drawn})() !== before", arg=before)
    saved(page)
    near(points(of_image(files, 0)[0]), [(50.5, 40.5, 2), *[(*p, 2) for p in SPOTS[1:4]], (40.5, 90.5, 2)])
    other.context.close()


def test_edits_wait_for_the_server(page: Page, files) -> None:
    """Without a connection edits are kept and shown as not stored; nothing is done twice when the answer was lost."""
    page.keyboard.press("End")
    shown(page, 5)
    lost: list[str] = []

    def lose(route) -> None:
        if "edit" in (route.request.post_data or "") and len(lost) < 2:
            lost.append(route.request.post_data)
            if len(lost) == 2:
                route.fetch()  # the server gets it, and its answer does not arrive
            route.abort()
        else:
            route.continue_()

    page.route("**/message", lose)
    click(page, *SPOTS[0])
    expect(page.locator(".saved")).to_contain_text("not stored")
    click(page, *SPOTS[1])
    saved(page)
    near(points(of_image(files, 5)[0]), [(*SPOTS[0], 2), (*SPOTS[1], 2)] + [(0, 0, 0)] * 3)
    assert len(lost) == 2
    page.faults[:] = [f for f in page.faults if "ERR_FAILED" not in f]  # type: ignore[attr-defined]


class Predicted:
    """Stands for the suggestions of a run: two subjects in each image, and an order from the last image to the first."""

    fault, done = None, [0]

    def __init__(self) -> None:
        self.found = {i: self.of(i) for i in range(6)}

    def ask(self, i: int) -> None:
        pass

    def of(self, i: int) -> list[Instance]:
        first = Instance(tuple(v for x, y in SPOTS for v in (x, y, 2.0)))
        return [first, Instance((float(i), 5.0, 2.0) + (0.0,) * 12)]

    def order(self, name: str) -> np.ndarray:
        return np.arange(6) if name == "file name" else np.arange(6)[::-1]

    def close(self) -> None:
        pass


def test_suggestions_become_labels_by_one_key(browser: Browser, files) -> None:
    windows = Windows(open_project(files.config("dataset=bugs")), Predicted())  # type: ignore[arg-type]
    with serving(windows) as address:
        page = open_page(browser, address)
        page.keyboard.press("Enter")
        hint(page, "no suggestion to accept")  # this image has labels
        page.get_by_label("order of the images").select_option("most instructive")
        shown(page, 5)
        hint(page, "Enter accepts")
        assert of_image(files, 5) == [], "nothing is labelled before"
        page.keyboard.press("Enter")
        saved(page)
        first, second = of_image(files, 5)
        assert points(first) == [(x, y, 2) for x, y in SPOTS]
        assert points(second)[0] == (5, 5, 2)
        page.keyboard.press("Control+z")
        saved(page)
        assert of_image(files, 5) == []
        page.keyboard.press("d")
        shown(page, 4)
        page.context.close()
        assert not page.faults  # type: ignore[attr-defined]


def test_search_filter_and_help(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("FRAME4")
    shown(page, 4)
    expect(page.locator(".place")).to_have_text("1 / 1")
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    expect(page.locator(".place")).to_have_text("5 / 6")
    page.keyboard.press("Escape")
    page.get_by_label("which images").select_option("with labels")
    shown(page, 0)
    expect(page.locator(".place")).to_have_text("1 / 1")
    page.keyboard.press("?")
    rows = page.locator("dialog.help tr")
    expect(rows.first).to_be_visible()
    listed = page.locator("dialog.help kbd").all_inner_texts()
    assert len(listed) == len(set(listed)), "a key has one meaning"
    page.keyboard.press("Escape")
    expect(rows.first).to_be_hidden()


@pytest.mark.parametrize("size", [(360, 640), (1000, 700)])
def test_pages_fit_their_window(browser: Browser, served: str, size: tuple[int, int]) -> None:
    page = open_page(browser, served, size)
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate("() => document.documentElement.scrollHeight <= window.innerHeight")
    box = page.locator(".stage").bounding_box()
    assert box is not None
    assert box["height"] > 0.4 * size[1]
    page.context.close()


def test_everything_has_a_name_for_screen_readers(page: Page) -> None:
    nameless: Callable[[], list[str]] = lambda: page.evaluate(  # noqa: E731
        "() => [...document.querySelectorAll('button, input, select, dialog, [role]')]"
        ".filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() || e.getAttribute('role') === 'status')).map(e => e.outerHTML)"
    )
    assert nameless() == []
