"""What the linter found, as text, JSON, and a page with a picture of each finding."""

from __future__ import annotations

import base64
import html
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kplab.data.check import Finding, Report
from kplab.data.check.finding import LEVELS
from kplab.errors import DataError, RunError
from kplab.ops import affine
from kplab.runs.run import Run
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses
from kplab.tasks.evaluation.files import read_predictions
from kplab.tasks.wiring.nodes import load_config
from kplab.viz import poses as drawing

CELL = 320
"""Pixels of the longer side of a picture."""

AROUND = 0.35
"""Share of a subject's size that a picture shows around it."""

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#222;max-width:1180px;margin:2em auto;padding:0 1em}
table{border-collapse:collapse}td,th{padding:.2em .8em .2em 0;text-align:left;vertical-align:top}
th{border-bottom:1px solid #999}h2{margin:1.6em 0 .2em}p{margin:.2em 0 .8em}
.error{color:#B2182B}.warning{color:#8A5A00}.info{color:#0072B2}
.grid{display:flex;flex-wrap:wrap;gap:14px}figure{margin:0;width:320px}
figure img{display:block;max-width:320px}figcaption{font-size:12.5px;overflow-wrap:anywhere}
"""


def out_of_training(names: Iterable[str], runs_dir: Path, dataset: str, splits: dict[str, Labels]) -> dict[str, Any]:
    """Predictions of runs in images that they were not trained on, by split and image id.

    Args:
        names: of runs. Those of the folds of a cross-validation together predict every image.
        runs_dir: folder of runs.
        dataset: name of the dataset; predictions in others are left out.
        splits: of the dataset; images are matched by name.

    Raises:
        RunError: a run has no such predictions of this dataset, or was trained on other keypoints.
    """
    where = {str(name): (split, i) for split, labels in splits.items() for i, name in enumerate(labels.names)}
    skeleton = next(iter(splits.values())).skeleton
    out: dict[str, dict[int, Poses]] = defaultdict(dict)
    for name in names:
        run = Run.find(name, runs_dir)
        own = str(load_config(run).dataset.name)
        used = 0
        for path in sorted((run.folder / "predictions").glob(f"{own}-*.json")):
            split_name = path.stem.removeprefix(f"{own}-")
            if path.name.endswith((".card.json", ".record.json")) or split_name == "train":
                continue
            predictions = read_predictions(path, skeleton)
            for image_id, poses in predictions.poses.items():
                if (file := predictions.files.get(image_id)) in where:
                    split, i = where[str(file)]
                    out[split][int(splits[split].image_id[i])] = poses
                    used += 1
        if not used:
            raise RunError(
                f"{run.folder}: it has no predictions of images of dataset '{dataset}' outside its training split. Run: kplab "
                f"predict run={run.name} split=val"
            )
    return dict(out)


def of_file(path: Path, splits: dict[str, Labels]) -> dict[str, dict[int, Poses]]:
    """Predictions of any system in a results file, by split and image id.

    Args:
        path: COCO results JSON. The model must not have been trained on these images.
        splits: of the dataset, whose image ids the file names.

    Raises:
        DataError: the file is no results file, or none of its images is in the dataset.
    """
    found = read_predictions(path, next(iter(splits.values())).skeleton, recorded=False).poses
    out = {name: {int(i): found[int(i)] for i in labels.image_id if int(i) in found} for name, labels in splits.items()}
    if not any(out.values()):
        raise DataError(
            f"{path}: none of the image ids of its {len(found)} images is one of the dataset. Predict its images, or name "
            "the dataset that the file belongs to."
        )
    return out


def as_json(report: Report) -> dict[str, Any]:
    """Findings with the names of their images, ids and keypoints; the rules that were applied; and the counts."""
    return {
        "counts": report.counts,
        "levels": {level: sum(f.level == level for f in report.findings) for level in LEVELS},
        "rules": {
            name: {"level": rule.level, "group": rule.group, "message": rule.message, "remedy": rule.remedy}
            for name, rule in report.rules.items()
        },
        "findings": [_entry(report.labels[f.split], f) for f in report.findings],
    }


def as_page(report: Report, title: str, pictures: int) -> str:
    """An HTML page that needs no other file.

    Args:
        report: of the linter.
        title: of the page.
        pictures: most findings of each rule that have a picture; the page states how many have none.
    """
    groups: dict[str, list[Finding]] = defaultdict(list)
    for finding in report.findings:
        groups[finding.rule].append(finding)
    ordered = sorted(groups, key=lambda name: (LEVELS.index(report.rules[name].level), -len(groups[name])))
    table = "".join(
        f"<tr><td class='{report.rules[n].level}'>{report.rules[n].level}</td><td><a href='#{n}'>{n}</a></td>"
        f"<td>{len(groups[n])}</td><td>{_text(report.rules[n].message)}</td></tr>"
        for n in ordered
    )
    counts = report.counts
    head = ", ".join(
        f"{counts[key]} {key}" for key in ("images", "instances", "labelled instances", "labelled keypoints")
    )
    sections = "".join(_section(report, name, groups[name], pictures) for name in ordered)
    empty = "" if ordered else "<p>No rule found anything.</p>"
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{_text(title)}</title><style>{STYLE}</style><h1>{_text(title)}</h1><p>{_text(head)}; "
        f"{len(report.rules)} rules were applied.</p>{empty}<table><tr><th>level<th>rule<th>findings<th>message</tr>{table}"
        f"</table>{sections}</html>\n"
    )


def picture(labels: Labels, finding: Finding) -> np.ndarray | None:
    """The subject of a finding with its skeleton, and a ring around the keypoint; or the image, where it is about it.

    Returns:
        (H, W, 3) uint8 RGB, ``CELL`` pixels at most; None where the image can't be read or the finding has no image.
    """
    if finding.image is None:
        return None
    try:
        image = labels.read(finding.image)
    except DataError:
        return None
    poses = labels.poses_of(finding.image)
    if finding.instance is None:
        low, high = np.zeros(2), np.array([image.shape[1], image.shape[0]], dtype=np.float64)
    else:
        row = [finding.instance - int(labels.start[finding.image])]
        poses = poses[row]
        corners = np.concatenate([poses.extent().reshape(-1, 2), poses.box.reshape(-1, 2)])
        corners = np.clip(corners[np.isfinite(corners).all(1)], -image.shape[1], 2 * image.shape[1])
        if not len(corners):
            corners = np.array([[0.0, 0.0], [image.shape[1], image.shape[0]]])
        low, high = corners.min(0), corners.max(0)
        margin = AROUND * max(float((high - low).max()), 20.0)
        low, high = low - margin, high + margin
    scale = CELL / float((high - low).max())
    matrix = affine.scaling(scale, scale) @ affine.translation(-low[0], -low[1])
    width, height = (max(1, round(float(v))) for v in (high - low) * scale)
    view = affine.warp(image, matrix, (width, height))
    drawn = drawing.draw(view, poses.transform(matrix), labels.skeleton, boxes=True, mark=3)
    if finding.instance is not None and finding.keypoint is not None:
        xy = affine.apply(matrix, poses.xy[0, finding.keypoint])
        if np.isfinite(xy).all():
            cv2.circle(drawn, (round(float(xy[0])), round(float(xy[1]))), 12, (230, 60, 140), 2, cv2.LINE_AA)
    return drawn


def _section(report: Report, name: str, found: list[Finding], pictures: int) -> str:
    rule = report.rules[name]
    shown = sorted(found, key=lambda f: -abs((f.value or 0) - (f.expected or 0)))[:pictures]
    with ThreadPoolExecutor() as pool:
        drawn = list(pool.map(lambda f: picture(report.labels[f.split], f), shown))
    figures = "".join(
        f"<figure>{_image(image)}<figcaption>{_text(_caption(report, f))}</figcaption></figure>"
        for f, image in zip(shown, drawn, strict=True)
    )
    left = len(found) - len(shown)
    rest = f"<p>{left} more without a picture are in findings.json.</p>" if left else ""
    return (
        f"<h2 id='{name}'><span class='{rule.level}'>{rule.level}</span> {name}: {len(found)} {_text(rule.title)}</h2>"
        f"<p>{_text(rule.message)} {_text(rule.what[:1].upper() + rule.what[1:])}. {_text(rule.remedy)}</p>"
        f"<div class='grid'>{figures}</div>{rest}"
    )


def _caption(report: Report, finding: Finding) -> str:
    labels = report.labels[finding.split]
    if finding.image is None:
        return f"{finding.split}: {report.place(finding)}"
    short = replace(finding, image=None)
    return f"{finding.split}: {labels.names[finding.image]} {report.place(short)}"


def _image(image: np.ndarray | None) -> str:
    if image is None:
        return ""
    data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return f"<img alt='' src='data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}'>"


def _entry(labels: Labels, f: Finding) -> dict[str, Any]:
    return {
        "rule": f.rule,
        "level": f.level,
        "split": f.split,
        "image": None if f.image is None else str(labels.names[f.image]),
        "image_id": None if f.image is None else int(labels.image_id[f.image]),
        "instance_id": None if f.instance is None else int(labels.instance_id[f.instance]),
        "keypoint": None if f.keypoint is None else labels.skeleton.keypoints[f.keypoint],
        "text": f.text,
        "value": None if f.value is None or not np.isfinite(f.value) else f.value,
        "expected": None if f.expected is None or not np.isfinite(f.expected) else f.expected,
        "fix": f.fix,
    }


def _text(text: str) -> str:
    return html.escape(text.encode("utf-8", "backslashreplace").decode())
