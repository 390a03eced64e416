"""A report: one file that opens without a server or a network, with the numbers of its runs."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from kplab.apps.report.build import MODULES, bundle, chosen_runs
from kplab.cli import main as cli
from kplab.errors import ConfigError
from kplab.metrics.score import Scores
from kplab.runs.records import read_record


@pytest.fixture(scope="module")
def report(made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "report.html"
    assert cli(["report", f"runs=[{made.a},{made.b}]", f"runs_dir={made.runs_dir}", f"out={out}", "images=4"]) == 0
    return out


def content(path: Path) -> dict:
    found = re.search(r'<script type="application/json" id="report">(.*?)</script>', path.read_text(), flags=re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_it_has_the_numbers_of_its_runs(report: Path, made) -> None:
    answers = content(report)["answers"]
    (intervals,) = (v for k, v in answers.items() if k.startswith("api/intervals") and "%2C" in k)
    for name, label in ((made.a, "alpha"), (made.b, "beta")):
        summary = Scores.read(made.runs_dir / name / "scores" / "dots-test.json").summary
        values = {v["metric"]: v["value"] for v in intervals["values"] if v["run"] == label}
        assert values
        for metric, value in values.items():
            assert value == pytest.approx(summary[metric], rel=1e-9)
    record = read_record(report)
    assert record["runs"] == [made.a, made.b]
    assert set(record["made_from"]) == {made.a, made.b}


def test_its_pixels_are_embedded(report: Path) -> None:
    found = content(report)
    assert 4 <= len(found["images"]) <= 12
    for value in found["images"].values():
        kind, _, data = value.partition(",")
        assert kind == "data:image/jpeg;base64"
        assert base64.b64decode(data)[:2] == b"\xff\xd8"
    assert not re.search(r"(src|href)=[\"']?(https?:|//)", report.read_text())


def test_the_bundle_has_every_name_once() -> None:
    text = bundle()
    assert not re.search(r"^(import|export)\b", text, flags=re.MULTILINE)
    names = re.findall(r"^(?:async )?(?:function|const|let|class) (\w+)", text, flags=re.MULTILINE)
    assert len(names) > 50
    twice = {n for n in names if names.count(n) > 1}
    assert not twice, f"top-level names of the modules {MODULES} must differ: {twice}"


def test_it_opens_from_a_file_without_a_network(report: Path, chromium: str, made) -> None:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(offline=True)
        page = context.new_page()
        faults: list[str] = []
        page.on("console", lambda m: faults.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: faults.append(str(e)))
        page.on(
            "request", lambda r: faults.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None
        )
        page.goto(report.as_uri())
        expect(page.locator("h1")).to_have_text("Compare 2 runs")
        expect(page.locator(".verdicts")).to_contain_text("beta against alpha")
        expect(page.locator(".chosen")).to_contain_text(made.a)
        expect(page.locator("[data-plot=pck] path").first).to_be_visible()
        with page.expect_download() as saved:
            page.locator("[data-plot=pck]").get_by_role("button", name="SVG").click()
        assert Path(saved.value.path()).read_text().startswith("<svg")
        for link in page.locator("nav a").all_inner_texts():
            page.locator("nav a", has_text=link).click()
            page.wait_for_function("() => !document.querySelector('[aria-busy]')")
            assert page.locator("main .error:not(:empty)").count() == 0, link
        expect(page.locator(".cell")).to_have_count(4)
        page.locator(".cell").first.click()
        expect(page.locator(".stage img").first).to_be_visible()
        page.keyboard.press("n")
        expect(page.get_by_text("image 2 of 4")).to_be_visible()
        page.reload()
        expect(page.get_by_text("image 2 of 4")).to_be_visible()
        browser.close()
    assert not faults, faults


def test_the_runs_of_a_report_without_names(made) -> None:
    newest = sorted([made.a, made.b, *made.seeds, made.other_card])[-2:]
    assert [r.name for r in chosen_runs([], made.runs_dir)] == newest


def test_what_cannot_be_reported(made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="no finished run has scores yet"):
        chosen_runs([], tmp_path)
    assert cli(["report", f"runs=[{made.running}]", f"runs_dir={made.runs_dir}", f"out={tmp_path}/r.html"]) == 2
    assert "share no scores" in capsys.readouterr().err
    assert cli(["report", f"runs_dir={made.runs_dir}", "images=-1"]) == 2
    assert not (tmp_path / "r.html").exists()
