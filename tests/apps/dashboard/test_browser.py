"""Every view in a real browser: opened, sorted, filtered, clicked, typed in, and restored from its address."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from kplab.metrics.score import Scores

TIMEOUT = 30_000
expect.set_options(timeout=TIMEOUT)
#: What the tests themselves cause: a request that is refused is an error of the console, too.
OWN = ("willReadFrequently",)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


def is_fault(message: ConsoleMessage) -> bool:
    return message.type in ("error", "warning") and not any(text in message.text for text in OWN)


@pytest.fixture
def page(browser: Browser, served) -> Iterator[Page]:
    """A page; at its end there must be no message of the console and no request to another host."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, base_url=served.url)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    found = context.new_page()
    found.set_default_timeout(TIMEOUT)
    faults: list[str] = []
    found.on("console", lambda m: faults.append(m.text) if is_fault(m) else None)
    found.on("pageerror", lambda e: faults.append(str(e)))
    own = urlsplit(served.url).netloc

    def check(address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme != "blob" and parts.netloc != own:
            faults.append(f"asked {address}")

    found.on("request", lambda r: check(r.url))
    found.expected = faults  # type: ignore[attr-defined]
    yield found
    context.close()
    assert not faults, faults


def ready(page: Page) -> None:
    page.wait_for_function("() => document.querySelector('.view') && !document.querySelector('[aria-busy]')")


def show(page: Page, view: str, **args: str) -> None:
    text = "&".join(f"{key}={value}" for key, value in args.items())
    page.goto(f"/#/{view}?{text}")
    ready(page)


def column(page: Page, label: str) -> list[str]:
    """The cells of a column of the table of runs."""
    labels = [re.sub(r" [▲▼]$", "", t) for t in page.locator("table.data thead th").all_inner_texts()]
    i = labels.index(label)
    return [row.split("\t")[i].strip() for row in page.locator("table.data tbody tr").all_inner_texts()]


def test_runs_are_listed_sorted_and_restored(page: Page, made) -> None:
    show(page, "runs")
    expect(page.locator("tbody tr")).to_have_count(9)
    page.get_by_role("button", name="mean px").click()
    expect(page.locator("th[aria-sort=descending]")).to_contain_text("mean px")
    values = [float(v) for v in column(page, "mean px") if v]
    assert values == sorted(values, reverse=True)
    page.get_by_role("button", name="mean px").click()
    expect(page.locator("th[aria-sort=ascending]")).to_contain_text("mean px")
    assert "sort=mean_px" in page.url
    order = page.locator("tbody tr a").all_inner_texts()
    page.reload()
    ready(page)
    assert page.locator("tbody tr a").all_inner_texts() == order
    page.go_back()
    expect(page.locator("th[aria-sort=descending]")).to_contain_text("mean px")


def test_typing_filters_and_a_mistake_is_explained(page: Page, made) -> None:
    show(page, "runs")
    page.keyboard.press("/")
    page.keyboard.type("gamma seed>=1")
    expect(page.locator("tbody tr")).to_have_count(2)
    assert "q=gamma" in page.url
    page.reload()
    expect(page.get_by_role("searchbox", name="filter")).to_have_value("gamma seed>=1")
    expect(page.locator("tbody tr")).to_have_count(2)
    search = page.get_by_role("searchbox", name="filter")
    search.fill("mean_pxx>1")
    expect(page.get_by_role("alert").first).to_contain_text("Similar: mean_px")
    page.expected[:] = [f for f in page.expected if "400" not in f]  # type: ignore[attr-defined]
    search.fill("")
    expect(page.locator("tbody tr")).to_have_count(9)


def test_columns_are_chosen(page: Page, made) -> None:
    show(page, "runs", q="alpha")
    page.get_by_text("columns", exact=True).click()
    page.get_by_role("searchbox", name="search columns").fill("max_epochs")
    page.get_by_label("trainer.max_epochs").check()
    expect(page.locator("thead")).to_contain_text("trainer.max_epochs")
    assert column(page, "trainer.max_epochs") == ["12"]
    page.reload()
    expect(page.locator("thead")).to_contain_text("trainer.max_epochs")


def test_groups_over_seeds(page: Page, made) -> None:
    show(page, "runs", q="gamma")
    page.get_by_text("group by", exact=True).click()
    page.get_by_label("training", exact=True).check()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text("±")
    page.get_by_role("link", name="compare 3").click()
    ready(page)
    expect(page.locator("h1")).to_have_text("Compare 3 runs")


def test_what_is_running_failed_or_broken_says_so(page: Page, made) -> None:
    show(page, "runs")
    expect(page.locator(".progress")).to_contain_text("epoch 6/12")
    expect(page.locator(".progress")).to_contain_text("loss 0.33")
    expect(page.locator(".progress")).to_contain_text("left")
    expect(page.locator("tr", has_text="epsilon")).to_contain_text("loss is NaN")
    expect(page.locator("tr", has_text="broken_0000")).to_contain_text("half written")
    for name in (made.failed, made.running):
        show(page, "run", name=name)
        expect(page.locator("h1")).to_be_visible()
    expect(page.locator("main")).to_contain_text("no scores yet")
    show(page, "run", name=made.broken)
    expect(page.get_by_role("alert")).to_contain_text("half written")
    page.expected[:] = [f for f in page.expected if "400" not in f]  # type: ignore[attr-defined]


def test_html_in_texts_is_shown_as_text(page: Page, made) -> None:
    for view, args in (("runs", {}), ("run", {"name": made.failed})):
        show(page, view, **args)
        expect(page.locator("main")).to_contain_text("<script>window.broken=1</script>")
        assert page.evaluate("window.broken") is None
        assert page.locator("main img[src=x], main script").count() == 0


def test_a_run_while_it_is_written(page: Page, made) -> None:
    """The table and the page of the run follow its files."""
    folder = made.runs_dir / "2026-01-02_000000_live_0001"
    show(page, "runs", q="live_0001")
    expect(page.locator("tbody tr")).to_have_count(0)
    try:
        shutil.copytree(made.runs_dir / made.running, folder)
        expect(page.locator("tbody tr")).to_have_count(1)
        page.goto(f"/#/run?name={folder.name}")
        ready(page)
        expect(page.locator(".running progress")).to_be_visible()
        with (folder / "curves.csv").open("a") as stream:
            stream.write("6,0.001,60,0.25,0.6,3\n7,0.0")  # the last line is not complete yet
        expect(page.locator("p.running")).to_contain_text("epoch 7/12, loss 0.25")
        record = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps({**record, "status": "finished"}))
        expect(page.locator(".title .status")).to_have_text("finished")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_one_run(page: Page, made) -> None:
    show(page, "run", name=made.a)
    expect(page.locator("[data-plot=pck] svg path").first).to_be_visible()
    plots = page.locator("[data-plot]").evaluate_all("all => all.map(e => e.dataset.plot)")
    assert {"per_keypoint", "pck", "error_cdf", "precision_recall", "curves-loss", "curves-metric"} <= set(plots)
    expect(page.locator("svg.skeleton circle")).to_have_count(4)
    expect(page.locator("main")).to_contain_text("95 % intervals of 2000 resamples of groups")
    expect(page.locator(".chain")).to_contain_text("predictions dots-test")
    page.get_by_role("button", name="copy").nth(0).click()
    command = page.locator("p", has_text="to make this run again")
    command.get_by_role("button").click()
    assert page.evaluate("navigator.clipboard.readText()") == f"kplab reproduce run={made.a}"
    page.locator("summary", has_text="Config").click()
    expect(page.locator("details.text pre").first).to_contain_text("max_epochs: 12")


def test_a_chart_is_saved(page: Page, made) -> None:
    show(page, "run", name=made.a)
    chart = page.locator("[data-plot=pck]")
    for name, start in (("SVG", b"<?xml"), ("PDF", b"%PDF")):
        with page.expect_download() as saved:
            chart.get_by_role("link", name=name).click()
        content = Path(saved.value.path()).read_bytes()
        assert content.startswith(start)
        assert saved.value.suggested_filename == f"pck-alpha.{name.lower()}"


def test_tags_and_a_note_are_kept_in_the_folder(page: Page, made) -> None:
    note = made.runs_dir / made.b / "notes.json"
    show(page, "run", name=made.b)
    page.get_by_label("tags").fill("baseline keep")
    page.get_by_label("note").fill("a <b>note</b>")
    page.get_by_role("button", name="save").click()
    expect(page.get_by_text("saved in the run's folder")).to_be_visible()
    assert json.loads(note.read_text()) == {"tags": ["baseline", "keep"], "note": "a <b>note</b>"}
    show(page, "runs", q="tags~baseline")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text("a <b>note</b>")
    note.unlink()  # the runs are those of all tests


def test_comparison(page: Page, made) -> None:
    show(page, "runs", q="experiment=alpha,beta")
    for box in page.get_by_role("checkbox").all():
        box.check()
    page.get_by_role("button", name="compare 2").click()
    ready(page)
    expect(page.locator("h1")).to_have_text("Compare 2 runs")
    expect(page.locator(".verdicts")).to_contain_text("mean px")
    row = page.locator("tr", has_text="mean px")
    expect(row.locator(".verdict")).to_be_visible()
    expect(page.locator("[data-plot=pareto-speed]")).to_be_visible()
    expect(page.locator("[data-plot='differences-AP']")).to_be_visible()
    table = page.locator("section", has_text="Keypoints").last.locator("tbody tr")
    expect(table).to_have_count(4)
    before = table.all_inner_texts()
    page.get_by_role("button", name="keypoint", exact=True).click()
    assert sorted(table.all_inner_texts()) == sorted(before)
    expect(page.locator("section", has_text="Configs differ in")).to_contain_text("name")
    page.reload()
    ready(page)
    expect(page.locator(".verdicts")).to_contain_text("mean px")


def test_a_comparison_of_different_cards_is_refused_with_the_reason(page: Page, made) -> None:
    show(page, "compare", runs=f"{made.a},{made.other_card}")
    expect(page.get_by_role("alert")).to_contain_text("can't be compared")
    expect(page.get_by_role("alert")).to_contain_text("max_dets: 'alpha' has 20, 'delta' has 1")
    expect(page.locator("[data-plot=error_cdf]")).to_be_visible()


def drawn(page: Page, selector: str) -> int:
    """Number of pixels of a canvas that are not transparent."""
    return page.eval_on_selector(
        selector,
        "c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0; "
        "for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n; }",
    )


def test_a_grid_of_images(page: Page, made) -> None:
    show(page, "images", runs=f"{made.a},{made.b}")
    expect(page.locator(".cell")).to_have_count(60)
    page.wait_for_function("() => [...document.querySelectorAll('.cell img')].every(i => i.complete && i.naturalWidth)")
    assert page.locator("canvas.overlay").count() == 1
    everything = drawn(page, "canvas.overlay")
    assert everything > 1000
    page.keyboard.press("t")
    expect(page.get_by_label("truth")).not_to_be_checked()
    less = drawn(page, "canvas.overlay")
    page.keyboard.press("1")
    page.keyboard.press("2")
    assert everything > less > drawn(page, "canvas.overlay") == 0
    assert "off=t%2C1%2C2" in page.url
    page.reload()
    ready(page)
    expect(page.get_by_label("alpha")).not_to_be_checked()


def test_images_are_ordered_and_filtered(page: Page, made) -> None:
    show(page, "images", runs=f"{made.a},{made.b}")
    for order in ("best", "changed", "improved", "regressed", "lowest score", "file", "worst"):
        page.get_by_label("order").select_option(order)
        page.wait_for_function("o => new URLSearchParams(location.hash.split('?')[1]).get('order') === o", arg=order)
        ready(page)
        expect(page.locator(".cell").first).to_be_visible()
    page.get_by_label("keypoint").select_option(label="tail")
    ready(page)
    page.locator("summary", has_text="filters").click()
    page.get_by_label("with missed subjects").check()
    scores = [Scores.read(made.runs_dir / run / "scores" / "dots-test.json") for run in (made.a, made.b)]
    tails = scores[0].keypoints.query("keypoint == 'tail' and visible > 0")["image_id"]
    lacking = {i for s in scores for i in s.per_image.query("n_missed > 0")["image_id"]}
    missed = len(lacking & set(tails))
    assert 0 < missed < 60
    expect(page.locator(".filters [role=status]")).to_have_text(f"{missed} images")
    page.reload()
    ready(page)
    expect(page.locator(".cell")).to_have_count(missed)
    page.locator("summary", has_text="filters").click()
    page.get_by_role("button", name="clear").click()
    expect(page.locator(".filters [role=status]")).to_have_text("72 images")
    page.get_by_label("group").select_option("video1")
    ready(page)
    for cell in page.locator(".cell").all():
        assert "video1/" in (cell.get_attribute("title") or "")
    page.get_by_label("error from, px").fill("10000")
    page.keyboard.press("Enter")
    expect(page.get_by_text("no image fits these filters")).to_be_visible()


def test_one_image(page: Page, made) -> None:
    show(page, "images", runs=f"{made.a},{made.b}")
    page.locator(".cell").nth(1).click()
    expect(page.locator(".stage")).to_be_visible()
    ready(page)
    expect(page.locator(".filters [role=status]")).to_have_text("image 2 of 72")
    expect(page.locator(".crop")).not_to_have_count(0)
    first = page.url
    page.keyboard.press("n")
    expect(page.get_by_text("image 3 of 72")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_text("image 2 of 72")).to_be_visible()
    assert page.url == first
    page.keyboard.press("k")
    expect(page.get_by_label("names")).to_be_checked()
    page.keyboard.press("e")
    expect(page.get_by_label("lines")).not_to_be_checked()
    stage = page.locator(".stage")
    stage.focus()
    for _ in range(4):
        page.keyboard.press("+")
    page.wait_for_function("() => location.hash.includes('zoom=2.86')")
    width = page.locator("img.pixels").first.evaluate("i => i.getBoundingClientRect().width")
    page.reload()
    ready(page)
    assert page.locator("img.pixels").first.evaluate("i => i.getBoundingClientRect().width") == pytest.approx(
        width, rel=0.01
    )
    stage.focus()
    page.keyboard.press("0")
    page.wait_for_function("() => !location.hash.includes('zoom')")
    page.keyboard.press("z")
    page.wait_for_function("() => location.hash.includes('zoom=')")
    page.keyboard.press("Escape")
    expect(page.locator(".cell")).to_have_count(60)


def test_names_are_shown_on_hover(page: Page, made) -> None:
    show(page, "images", runs=made.a)
    page.locator(".cell").nth(3).click()
    ready(page)
    box = page.locator(".stage").bounding_box()
    assert box is not None
    found = page.evaluate(
        "async () => { const p = new URLSearchParams(location.hash.split('?')[1]); const r = await fetch('api/images?' + p); "
        "const j = await r.json(); return j.items.find(i => String(i.id) === p.get('id')); }"
    )
    width, height = found["size"]
    scale = min(box["width"] / width, box["height"] / height)
    x = box["x"] + (box["width"] - width * scale) / 2 + found["truth"][0]["xy"][0] * scale
    y = box["y"] + (box["height"] - height * scale) / 2 + found["truth"][0]["xy"][1] * scale
    page.mouse.move(x, y)
    expect(page.locator(".pose-tip")).to_contain_text("nose")
    page.mouse.wheel(0, -300)
    page.wait_for_function("() => location.hash.includes('zoom=')")


def test_a_model_without_weights_has_no_heatmaps_and_says_so(page: Page, made) -> None:
    show(page, "images", runs=made.a)
    page.locator(".cell").first.click()
    ready(page)
    page.keyboard.press("h")
    expect(page.get_by_text("has no checkpoint")).to_be_visible()
    page.expected[:] = [f for f in page.expected if "400" not in f]  # type: ignore[attr-defined]


def test_images_that_are_gone_leave_the_points(page: Page, made) -> None:
    hidden = made.data.with_name("moved")
    show(page, "runs")
    made.data.rename(hidden)
    try:
        show(page, "images", runs=made.seeds[0])
        expect(page.get_by_role("alert")).to_contain_text("the images can't be shown")
        assert drawn(page, "canvas.overlay") > 1000
    finally:
        hidden.rename(made.data)


def test_dark_light_and_narrow(browser: Browser, served, made) -> None:
    for scheme, ink in (("light", (255, 255, 255)), ("dark", (22, 25, 29))):
        context = browser.new_context(
            color_scheme=scheme,  # type: ignore[arg-type]
            viewport={"width": 360, "height": 700},
            base_url=served.url,
        )
        page = context.new_page()
        for view, args in (
            ("runs", {}), ("run", {"name": made.a}), ("compare", {"runs": f"{made.a},{made.b}"}),
            ("images", {"runs": f"{made.a},{made.b}"}),
        ):  # fmt: skip
            show(page, view, **args)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= 360, f"{view} is {wide} px wide"
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert colour == f"rgb{ink}"
        page.get_by_role("button", name=re.compile("theme")).click()
        page.get_by_role("button", name="theme: light").click()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 25, 29)"
        context.close()


def test_the_keyboard_reaches_everything(page: Page, made) -> None:
    show(page, "runs", q="alpha")
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate("document.activeElement.textContent + document.activeElement.getAttribute('aria-label')")
        )
    text = " ".join(map(str, seen))
    for part in ("to the content", "Runs", "theme", "filter", "columns", "group by", "choose", "alpha", "mean px"):
        assert part in text, part
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).not_to_be_visible()


def test_an_unknown_view_and_run(page: Page) -> None:
    page.goto("/#/nothing")
    expect(page.locator(".error")).to_contain_text("there is no view 'nothing'")
    show(page, "run", name="2026-01-01_000000_none_0000")
    expect(page.get_by_role("alert")).to_contain_text("no such run")
    page.expected[:] = [f for f in page.expected if "400" not in f]  # type: ignore[attr-defined]
