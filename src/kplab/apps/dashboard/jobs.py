"""What takes long or needs much memory, as functions from names to JSON. ``worker`` calls them in another process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kplab.apps.dashboard.images import Pictures
from kplab.errors import KplabError
from kplab.metrics.compare import Comparison, compare
from kplab.metrics.metric import row_of
from kplab.metrics.score import Scores
from kplab.runs.run import Run
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton
from kplab.tasks.evaluation import figures
from kplab.tasks.evaluation.files import check_current, read_predictions, read_scores, score_files
from kplab.tasks.wiring.datasets import skeleton_of
from kplab.tasks.wiring.nodes import load_config
from kplab.viz import chart
from kplab.viz.plot import numbers
from kplab.viz.poses import LEFT, MIDDLE, RIGHT, sides

#: Resamples of the intervals, and their seed: those of ``kplab compare``.
RESAMPLES, SEED = 2000, 0


def read(folder: str, name: str) -> tuple[Run, Scores]:
    """A run, and the scores of this name, checked against their record."""
    run = Run.open(Path(folder))
    if name in score_files(run):
        check_current(run, name)
    return run, read_scores(run.folder / "scores" / f"{name}.json")


def labelled(folders: Mapping[str, str], name: str) -> dict[str, tuple[Run, Scores]]:
    """Label of each run to the run and its scores."""
    return {label: read(folder, name) for label, folder in folders.items()}


def analysis(folders: Mapping[str, str], name: str) -> dict[str, Any]:
    """Charts of scores, the table of keypoints, and the skeleton with a typical true pose.

    Args:
        folders: label of each run to its folder.
        name: of the scores.
    """
    found = labelled(folders, name)
    scores = {label: s for label, (_, s) in found.items()}
    plots = figures.score_plots(scores)
    if len(found) > 1:
        plots += figures.pareto_plots([figures.point_of(run, label, s) for label, (run, s) in found.items()])
    run, first = next(iter(found.values()))
    return {
        "plots": [p.as_dict() for p in plots],
        "skeleton": skeleton_json(run, first),
        "pose": typical_pose(first.keypoints),
        "metrics": metrics_json(first),
        "per_keypoint": [clean(row) for row in first.per_keypoint.to_dict("records")],
    }


def intervals(folders: Mapping[str, str], name: str) -> dict[str, Any]:
    """Metrics with 95 % intervals, paired differences with a verdict each, and their charts.

    Returns:
        as ``comparison_json``; of runs that can't be compared {"refused": why}.
    """
    scores = {label: s for label, (_, s) in labelled(folders, name).items()}
    try:
        return comparison_json(compare(scores, RESAMPLES, SEED))
    except KplabError as error:
        if len(scores) == 1:
            raise
        return {"refused": str(error)}


def comparison_json(result: Comparison) -> dict[str, Any]:
    """A comparison as JSON can state it; differences are b - a, with the verdict in words."""
    differences = []
    for d in result.differences.itertuples(index=False):
        row = row_of(d.metric)
        assert row is not None
        differences.append(
            clean(
                {
                    "a": d.a, "b": d.b, "metric": d.metric, "label": figures.label_of(d.metric), "digits": row.digits,
                    "difference": -d.difference, "low": -d.high, "high": -d.low, "zero_inside": bool(d.zero_inside),
                    "verdict": verdict(d.a, d.b, -d.difference, bool(d.zero_inside), row.higher_is_better),
                }
            )
        )  # fmt: skip
    values = [
        clean({**v, "label": figures.label_of(v["metric"]), **described(v["metric"])})
        for v in result.values.to_dict("records")
    ]
    return {
        "values": values,
        "differences": differences,
        "per_keypoint": [clean(row) for row in result.per_keypoint.to_dict("records")],
        "plots": [p.as_dict() for p in figures.comparison_plots(result)],
        "resamples": result.resamples,
        "seed": result.seed,
        "unit": result.unit,
    }


def verdict(a: str, b: str, difference: float, zero_inside: bool, higher_is_better: bool) -> str:
    """What a difference b - a and its interval mean."""
    if np.isnan(difference):
        return "unknown"
    if zero_inside:
        return "no difference shown"
    return f"{b if (difference > 0) == higher_is_better else a} is better"


def described(metric: str) -> dict[str, Any]:
    """Digits and direction of a metric."""
    row = row_of(metric)
    return {} if row is None else {"digits": row.digits, "higher_is_better": row.higher_is_better}


def metrics_json(scores: Scores) -> list[dict[str, Any]]:
    """The metrics that a score shows: name, label, value, digits, direction."""
    return [
        clean({"name": m.name, "label": m.label, "value": scores.summary.get(m.name), **described(m.name)})
        for m in figures.metrics_shown(scores)
    ]


def skeleton_json(run: Run, scores: Scores) -> dict[str, Any]:
    """Names, edges and colours of keypoints; edges are those of the run's dataset, if it has these keypoints."""
    names = [str(n) for n in scores.card["keypoints"]]
    try:
        skeleton = skeleton_of(load_config(run).dataset)
    except KplabError:
        skeleton = None
    if skeleton is None or list(skeleton.keypoints) != names:
        return {"keypoints": names, "edges": [], "colours": [_hex(MIDDLE)] * len(names)}
    return {
        "keypoints": names,
        "edges": [list(e) for e in skeleton.edges],
        "colours": [{"left": _hex(LEFT), "right": _hex(RIGHT)}.get(side, _hex(MIDDLE)) for side in sides(skeleton)],
    }


def _hex(rgb: tuple[int, int, int]) -> str:
    return "#{:02X}{:02X}{:02X}".format(*rgb)


def typical_pose(table: pd.DataFrame) -> list[list[float] | None]:
    """(x, y) of each keypoint of the true instance with most labelled keypoints, of these the largest; in its box, 0 to 1."""
    if not len(table):
        return []
    k = len(table["keypoint"].cat.categories)
    xy = table[["true_x", "true_y"]].to_numpy(dtype=np.float64).reshape(-1, k, 2)
    area = table["area"].to_numpy(dtype=np.float64).reshape(-1, k)[:, 0]
    best = xy[np.lexsort((-area, -np.isfinite(xy[..., 0]).sum(1)))[0]]
    low, high = np.nanmin(best, 0), np.nanmax(best, 0)
    inside = (best - low) / max(float((high - low).max()), 1e-9)
    return [numbers(p, 4) if np.isfinite(p).all() else None for p in inside]  # type: ignore[misc]


def clean(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a table as JSON can state it: NaN is null."""
    out: dict[str, Any] = {}
    for key, value in row.items():
        plain = value.item() if isinstance(value, np.generic) else value
        out[str(key)] = None if isinstance(plain, float) and not np.isfinite(plain) else plain
    return out


def image_table(folder: str, name: str, out: str) -> dict[str, Any]:
    """Write what the image view needs of a run's predictions as arrays, see ``images.ImageTable``; returns the skeleton."""
    run, scores = read(folder, name)
    images, points, instances = scores.per_image, scores.keypoints, scores.per_instance
    k = len(scores.card["keypoints"])

    def grid(*columns: str) -> np.ndarray:
        return np.stack([points[c].to_numpy(dtype=np.float32).reshape(-1, k) for c in columns], -1)

    ids = images["image_id"].to_numpy(dtype=np.int64)
    order = {int(i): row for row, i in enumerate(ids)}
    of_instance = np.array([order[int(i)] for i in points["image_id"].to_numpy()[::k]], dtype=np.int64)
    extra_image, extra_xy, extra_score = extras(run, name, scores, points, k, order)
    first = points.iloc[::k]
    assert len(first) >= len(instances)
    arrays = {
        "image_id": ids,
        "names": images["file"].fillna("").to_numpy(dtype=str),
        "group": (images["group"] if "group" in images else pd.Series([""] * len(images)))
        .fillna("")
        .to_numpy(dtype=str),
        **{c: images[c].to_numpy(dtype=np.int32) for c in ("n_instances", "n_missed", "n_extra")},
        "mean_px": images["mean_px"].to_numpy(dtype=np.float32),
        "image": of_instance,
        "area": first["area"].to_numpy(dtype=np.float32),
        "score": first["score"].to_numpy(dtype=np.float32),
        "oks": first["oks"].to_numpy(dtype=np.float32),
        "matched": first["matched"].to_numpy(dtype=bool),
        "true": grid("true_x", "true_y"),
        "visible": grid("visible")[..., 0].astype(np.uint8),
        "xy": grid("x", "y"),
        "error": grid("error_px")[..., 0],
        "keypoint_score": grid("keypoint_score")[..., 0],
        "extra_image": extra_image,
        "extra_xy": extra_xy,
        "extra_score": extra_score,
    }
    with Path(out).open("wb") as stream:
        np.savez(stream, **arrays)
    return {"skeleton": skeleton_json(run, scores), "card": clean(scores.card)}


def extras(
    run: Run, name: str, scores: Scores, points: pd.DataFrame, k: int, order: Mapping[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions without a true instance: index of their image (E,), points (E, K, 2) and score (E,).

    They are those of the results file that was scored; empty where it is missing or has changed since.
    """
    images, xy, score = [], [], []
    having = scores.per_image.loc[scores.per_image["n_extra"] > 0, "image_id"].tolist()
    card = scores.card
    try:
        names = tuple(str(n) for n in card["keypoints"])
        skeleton = Skeleton(str(card["skeleton"]), names, (), tuple(range(k)), (1.0,) * k, "none")
        found = read_predictions(run.folder / "predictions" / f"{name}.json", skeleton) if having else None
    except KplabError:
        found = None
    if found is not None:
        taken = points.groupby("image_id", sort=False)
        for image in having:
            poses = found.poses.get(int(image), Poses.empty(k))
            if card.get("min_score") is not None:
                poses = poses[poses.score >= card["min_score"]]
            poses = poses[np.argsort(-poses.score, kind="stable")[: card["max_dets"]]]
            own = np.zeros((0, k, 2))
            if image in taken.groups:
                own = taken.get_group(image)[["x", "y"]].to_numpy(dtype=np.float64).reshape(-1, k, 2)
            used = {np.nan_to_num(p, nan=-1).round(3).tobytes() for p in own}
            for p, s in zip(poses.xy, poses.score, strict=True):
                if np.nan_to_num(p, nan=-1).round(3).tobytes() not in used:
                    images.append(order[int(image)])
                    xy.append(p)
                    score.append(s)
    return (
        np.array(images, dtype=np.int64),
        np.array(xy, dtype=np.float32).reshape(-1, k, 2),
        np.array(score, dtype=np.float32),
    )


def figure(
    folders: Mapping[str, str], name: str | None, plot: str, kind: str, width: float, out: str
) -> dict[str, Any]:
    """Write one chart of runs to a file."""
    runs = [Run.open(Path(folder)) for folder in folders.values()]
    (chosen,) = figures.choose(figures.plots_of(runs, name, [plot]), [plot])
    Path(out).write_bytes(chart.encoded(chosen, kind, width))
    return {}


def pictures(folder: str, dataset: str, split: str, out: str) -> dict[str, Any]:
    """Open the images of a split, and write where they are: reading labels takes much memory for a while."""
    return {"files": Pictures.open(Run.open(Path(folder)), dataset, split).write(Path(out))}


def heatmaps(folder: str, split: str, image_id: int, keypoint: int | None, out: str) -> dict[str, Any]:
    """Write the heatmaps of one image as a PNG; the model stays loaded for the next call."""
    from kplab.apps.dashboard import maps

    return maps.write(folder, split, image_id, keypoint, Path(out))


JOBS: dict[str, Callable[..., dict[str, Any]]] = {
    job.__name__: job for job in (analysis, intervals, image_table, figure, pictures, heatmaps)
}
