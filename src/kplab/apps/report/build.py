"""The file of a report: the pages of the dashboard with the answers of its server embedded, for some runs."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from kplab import config as configs
from kplab.apps.dashboard.index import cache_folder
from kplab.apps.dashboard.results import Results
from kplab.apps.dashboard.server import STATIC
from kplab.apps.dashboard.views import shared_sets
from kplab.errors import ConfigError, KplabError
from kplab.runs.files import replacing
from kplab.runs.records import make_folder, write_record
from kplab.runs.run import Run
from kplab.runs.table import rows

#: The modules of the pages; each comes after those that it imports.
MODULES = ("dom.js", "chart.js", "pose_view.js", "runs.js", "run.js", "compare.js", "images.js", "app.js")
STYLES = ("style.css", "pose_view.css")
#: Images of a page of the dashboard: part of the address that a page asks for.
PAGE = 60


def chosen_runs(names: Sequence[str], runs_dir: Path) -> list[Run]:
    """The runs of a report.

    Args:
        names: of runs; empty: the newest finished one that has scores, and the next one that has the same scores.

    Raises:
        RunError: a run does not exist.
        ConfigError: no run has scores, or they are in several folders.
    """
    if names:
        runs = [Run.find(name, runs_dir) for name in names]
        if len({run.folder.resolve().parent for run in runs}) > 1:
            raise ConfigError("these runs are in several folders. A report has the runs of one folder: runs_dir=DIR.")
        return runs
    scored = [row for row in rows(runs_dir) if row["status"] == "finished" and row["scores"]]
    if not scored:
        raise ConfigError(f"{runs_dir}: no finished run has scores yet. Train one, or name runs: runs=[A,B].")
    first = scored[0]
    second = next((row for row in scored[1:] if set(row["scores"]) & set(first["scores"])), None)
    return [Run.open(runs_dir / row["run"]) for row in (second, first) if row is not None]


def write_report(runs: Sequence[Run], split: str | None, out: Path, images: int, width: int) -> Path:
    """Write the file and its record; returns its path.

    Args:
        runs: one or more, of one folder, in the order of their colours.
        split: a split or the name of scores; None is the first that all runs have.
        out: of the file.
        images: how many of each choice.
        width: of the images at most, pixels.
    """
    names = shared_sets(runs)
    fits = [name for name in names if split is None or split == name or name.endswith(f"-{split}")]
    if not fits:
        raise ConfigError(
            f"these runs share no scores{f' of split {split}' if split else ''}; they share {', '.join(names) or 'none'}. "
            "Run kplab evaluate with the same split for each."
        )
    make_folder(out.parent)
    runs_dir = runs[0].folder.parent
    results = Results(runs_dir, cache_folder(runs_dir))
    try:
        content = collect(results, runs, fits[0], images, width)
    finally:
        results.close()
    with replacing(out) as stream:
        stream.write(page(content).encode())
    made_from = {run.name: run.folder / "scores" / f"{fits[0]}.json" for run in runs}
    write_record(out, configs.workspace(), made_from, runs=[run.name for run in runs], scores=fits[0])
    return out


def address(path: str, args: dict[str, Any]) -> str:
    """The address of data, as ``dom.js`` writes it."""
    return f"{path}?{urlencode(sorted((k, v) for k, v in args.items() if v not in ('', None)))}"


def collect(results: Results, runs: Sequence[Run], name: str, images: int, width: int) -> dict[str, Any]:
    """What the pages ask for: their answers, the pixels of the images, and the pages that there are."""
    together = {"runs": ",".join(run.name for run in runs), "set": name}
    answers: dict[str, Any] = {}
    asked: list[tuple[str, dict[str, str]]] = []
    pages = []
    if len(runs) > 1:
        asked += [(path, together) for path in ("compare", "analysis", "intervals")]
        asked += [("curves", {"runs": together["runs"]})]
        pages.append(["Compare", "#/" + address("compare", together)])
    for run, label in zip(runs, results.labels(runs), strict=True):
        own = {"runs": run.name, "set": name}
        asked += [("run", {"name": run.name}), ("analysis", own), ("intervals", own), ("curves", {"runs": run.name})]
        pages.append([label, "#/" + address("run", {"name": run.name, "set": name})])
    for path, args in asked:
        answers[address(f"api/{path}", args)] = getattr(results, path)(args)
    pixels: dict[str, str] = {}
    orders = {"worst": "Worst", "best": "Best"} | ({"changed": "Most changed"} if len(runs) > 1 else {})
    for order, title in orders.items() if images else ():
        args = {**together, "order": order}
        found = results.images({**args, "limit": str(images)})
        # what is not in the report is not counted as if it were
        found["total"] = len(found["items"])
        pages.append([title, "#/" + address("images", args)])
        answers[address("api/images", {**args, "offset": 0, "limit": PAGE})] = found
        if order == "worst":
            answers[address("api/images", {**together, "offset": 0, "limit": PAGE})] = found
        for at, item in enumerate(found["items"]):
            near = found["items"][max(0, at - 1) : at + 2]
            answers[address("api/images", {**args, "id": item["id"]})] = {**found, "at": at, "items": near}
            if order == "worst":
                answers[address("api/images", {**together, "id": item["id"]})] = {**found, "at": at, "items": near}
            key = f"{name}/{item['id']}"
            if key not in pixels and item.get("version"):
                pixels[key] = pixels_of(results, runs[0], name, item["id"], width)
    return {
        "answers": answers,
        "images": {key: value for key, value in pixels.items() if value},
        "pages": pages,
    }


def pixels_of(results: Results, run: Run, name: str, image_id: int, width: int) -> str:
    """An image as a data URL; empty where it can't be read."""
    try:
        answer = results.image({"run": run.name, "set": name, "id": str(image_id), "w": str(width)})
    except KplabError:
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(bytes(answer.body)).decode()


def bundle() -> str:
    """All modules of the pages as one: without their imports and exports. Their top-level names differ."""
    parts = []
    for name in MODULES:
        text = (STATIC / name).read_text()
        text = re.sub(r"^import .*?;\n", "", text, flags=re.MULTILINE | re.DOTALL)
        text = re.sub(r"^export default .*?;\n", "", text, flags=re.MULTILINE)
        parts.append(f"// {name}\n" + re.sub(r"^export ", "", text, flags=re.MULTILINE))
    return "\n".join(parts)


def page(content: dict[str, Any]) -> str:
    """The HTML of a report; its policy allows its own script and style, and images of data only."""
    script, style = bundle(), "".join((STATIC / name).read_text() for name in STYLES)
    data = msgspec.json.encode(content).decode().replace("<", "\\u003c")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>kplab</title>\n'
        f"<style>{style}</style>\n</head>\n<body>\n"
        f'<script type="application/json" id="report">{data}</script>\n<script type="module">{script}</script>\n'
        "</body>\n</html>\n"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
