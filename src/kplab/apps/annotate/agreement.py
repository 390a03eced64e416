"""How far two annotators agree: distances, OKS, and the sigmas that follow from them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from kplab.apps.annotate.opening import plan
from kplab.errors import ConfigError, DataError
from kplab.metrics.matching import match
from kplab.runs.files import replacing_text
from kplab.structures.labels import Labels
from kplab.structures.predictions import Predictions

#: Mean distance of two instances, as a share of the square root of the area, above which they are different subjects.
SAME = 0.5


@dataclass(frozen=True)
class Agreement:
    """Two annotators' labels of the same images.

    Args:
        table: one row per keypoint: ``n`` instances in which both labelled it, ``mean_px``, ``median_px`` and ``p90_px`` of
            the distance, ``sigma``, ``only_first`` and ``only_second`` (labelled by one of them), ``visibility`` (share
            of the n in which both chose the same of visible and occluded).
        images: number of images that both labelled.
        instances: number of instances that both labelled.
        only_first: instances that the first annotator alone labelled, in these images.
        only_second: the same of the second.
        oks: mean OKS of the instances of the second with those of the first, with the skeleton's sigmas.
    """

    table: pd.DataFrame
    images: int
    instances: int
    only_first: int
    only_second: int
    oks: float

    def as_json(self) -> dict[str, Any]:
        """All figures, with the formula of the sigmas."""
        rows = json.loads(self.table.to_json(orient="records", double_precision=6))
        counts = {name: getattr(self, name) for name in ("images", "instances", "only_first", "only_second")}
        return {"schema": 1, **counts, "oks": round(self.oks, 6), "sigma_formula": FORMULA, "keypoints": rows}


FORMULA = "sqrt(mean(d**2 / area) / 2): d is the distance of the two annotators' points, area that of the subject"


def agreement(first: Labels, second: Labels) -> Agreement:
    """Compare the labels of two annotators in the images that both labelled.

    The instances of an image are assigned to each other as predictions are to the truth; pairs that are further apart than
    ``SAME`` are different subjects. The sigma of a keypoint is COCO's, as in ``metrics.sigmas``: the root mean square
    distance of one annotator from the true position, as a share of the square root of the area. The distance of two
    annotators who err alike and independently has twice the mean square:

        sigma_k = sqrt(mean(d_k**2 / area) / 2)

    The area is that of the first annotator's instance.

    Args:
        first: labels of the first annotator.
        second: of the second; images are matched by name.

    Raises:
        DataError: there is no image that both labelled.
    """
    place = {str(name): i for i, name in enumerate(second.names)}
    truth, others = {}, {}
    for i, name in enumerate(first.names):
        j = place.get(str(name))
        if j is None:
            continue
        a, b = first.poses_of(i), second.poses_of(j)
        if (a.labelled.any(1) & ~a.ignore).any() and b.labelled.any():
            image = int(first.image_id[i])
            truth[image], others[image] = a, b[np.flatnonzero(b.labelled.any(1))]
    if not truth:
        raise DataError(
            "there is no image that both annotators labelled. Let the second one label some of the same images."
        )
    found = match(truth, Predictions(first.skeleton, others), first.skeleton, max_dets=10**6)
    points = found.keypoints
    share = points["error_px"] / np.sqrt(points["area"])
    pair = points.groupby(["image_id", "instance"], observed=True)
    same = points["matched"] & (share.groupby([points["image_id"], points["instance"]]).transform("mean") <= SAME)
    instances = int(same[points.groupby(["image_id", "instance"]).cumcount() == 0].sum())
    total_first, total_second = pair.ngroups, sum(len(b) for b in others.values())
    both = points[same].assign(share=share[same], seen=_second_visibility(points[same], others))
    return Agreement(
        _table(both, list(first.skeleton.keypoints)),
        len(truth),
        instances,
        total_first - instances,
        total_second - instances,
        float(both.groupby(["image_id", "instance"])["oks"].first().mean()),
    )


def _second_visibility(points: pd.DataFrame, others: dict[int, Any]) -> np.ndarray:
    """The second annotator's visibility of each row: that of the keypoint at its position."""
    out = np.zeros(len(points), dtype=np.uint8)
    code = points["keypoint"].cat.codes.to_numpy()
    for n, (image, x, y, k) in enumerate(zip(points["image_id"], points["x"], points["y"], code, strict=True)):
        poses = others[image]
        hit = np.flatnonzero((poses.xy[:, k, 0] == x) & (poses.xy[:, k, 1] == y))
        out[n] = poses.visible[hit[0], k] if len(hit) else 0
    return out


def _table(both: pd.DataFrame, keypoints: list[str]) -> pd.DataFrame:
    rows = []
    for name in keypoints:
        one = both[both["keypoint"] == name]
        labelled, seen = one["visible"] > 0, one["seen"] > 0
        shared = one[labelled & seen]
        error = shared["error_px"]
        rows.append(
            {
                "keypoint": name,
                "n": len(shared),
                "mean_px": error.mean(),
                "median_px": error.median(),
                "p90_px": error.quantile(0.9),
                "sigma": float(np.sqrt((shared["share"] ** 2).mean() / 2)) if len(shared) else np.nan,
                "only_first": int((labelled & ~seen).sum()),
                "only_second": int((~labelled & seen).sum()),
                "visibility": float((shared["visible"] == shared["seen"]).mean()) if len(shared) else np.nan,
            }
        )
    return pd.DataFrame(rows)


def report(config: DictConfig) -> str:
    """The agreement of a dataset's labels with those of the annotator ``config.agreement``, as text; writes it as JSON.

    Raises:
        ConfigError: the annotator has no file.
        DataError: there is no image that both labelled.
    """
    if config.annotator is not None or config.dataset is None:
        raise ConfigError(
            "agreement=NAME compares a dataset's labels with NAME's. Give dataset=… and leave annotator out."
        )
    target, read = plan(config)
    other = OmegaConf.merge(config, {"annotator": config.agreement, "agreement": None, "out": None})
    second_target, read_second = plan(other)  # type: ignore[arg-type]
    if not second_target.path.is_file():
        raise ConfigError(f"{second_target.path}: no such file. Label some images first: annotator={config.agreement}.")
    found = agreement(read(), read_second())
    out = second_target.path.with_suffix(".agreement.json")
    with replacing_text(out) as stream:
        json.dump(found.as_json(), stream, indent=1)
    return f"{text_of(found, target.path, second_target.path)}\n{out}"


def text_of(found: Agreement, first: Path, second: Path) -> str:
    """The table and its totals as text."""
    digits = {"mean_px": 2, "median_px": 2, "p90_px": 2, "sigma": 4, "visibility": 2}
    formats = {name: f"{{:.{n}f}}".format for name, n in digits.items()}
    table = found.table.to_string(index=False, formatters=formats, na_rep="–")
    return (
        f"{first.name} and {second.name}: {found.images} images, {found.instances} instances of both, {found.only_first} "
        f"of the first alone, {found.only_second} of the second alone; mean OKS {found.oks:.3f}\n{table}\n"
        f"sigma = {FORMULA}"
    )
