"""Score predictions against the truth: AP and pixel errors side by side, with the card that says what they mean."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kplab.errors import ScoreError
from kplab.metrics.coco_ap import Matches, coco_ap
from kplab.metrics.matching import match
from kplab.metrics.pck import (
    BOX_NORMALIZERS,
    by_keypoint,
    errors_of,
    keypoint_pair,
    macro,
    pck_key,
    with_relative_errors,
)
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton

NOT_STATED = "not stated"
SOURCES = ("dataset", "split", "area_source", "box_source", "truth_hash", "predictions_hash")
VISIBILITY = {"labelled": 1, "visible": 2}


@dataclass(frozen=True)
class ScoreSettings:
    """How to score; every field is a line of the card.

    Args:
        max_dets: predictions an image may have, best scores first, for AP and for pixel errors.
        pck_normalizer: 'box_longer_side', 'box_diagonal', 'pixels', or two keypoints as 'nameA-nameB'.
        pck_thresholds: PCK@t counts errors <= t times the normaliser.
        nme_pair: 'nameA-nameB', whose true distance NME divides by; None = no NME.
        auc_range: ends of the PCK curve whose area is taken, in units of the normaliser.
        min_score: predictions below it do not take part in pixel errors (AP needs them all).
        min_oks: pairs below it are "missed" and not a large error; None = every pair counts.
        visibility: 'labelled' scores keypoints with v > 0, as COCO does; 'visible' those with v == 2 only, in AP too.
    """

    max_dets: int = 20
    pck_normalizer: str = "box_longer_side"
    pck_thresholds: tuple[float, ...] = (0.05, 0.1, 0.2)
    nme_pair: str | None = None
    auc_range: tuple[float, float] = (0.0, 0.2)
    min_score: float | None = None
    min_oks: float | None = None
    visibility: str = "labelled"

    def __post_init__(self) -> None:
        if self.visibility not in VISIBILITY:
            raise ScoreError(f"visibility is '{self.visibility}'. Use one of: {', '.join(VISIBILITY)}.")
        # lists come from config files
        for key in ("pck_thresholds", "auc_range"):
            if not isinstance(getattr(self, key), list | tuple):
                raise ScoreError(f"{key} is {getattr(self, key)}, but wants a list: {key}=[0.1,0.2].")
        object.__setattr__(self, "pck_thresholds", tuple(float(t) for t in self.pck_thresholds))
        object.__setattr__(self, "auc_range", tuple(float(t) for t in self.auc_range))
        if self.max_dets < 1:
            raise ScoreError(f"max_dets is {self.max_dets}, but an image wants 1 prediction or more.")
        if not self.pck_thresholds or not min(self.pck_thresholds) > 0:
            raise ScoreError(f"pck_thresholds are {list(self.pck_thresholds)}. Give one or more, all above 0.")
        if len(self.auc_range) != 2 or not 0 <= self.auc_range[0] < self.auc_range[1]:
            raise ScoreError(f"auc_range is {list(self.auc_range)}, but wants [start, end] with 0 <= start < end.")

    def check_names(self, keypoints: Sequence[str]) -> None:
        """Hold the pairs of keypoints that PCK and NME divide by against a skeleton.

        Raises:
            ScoreError: a pair names other keypoints.
        """
        if self.pck_normalizer not in (*BOX_NORMALIZERS, "pixels"):
            try:
                keypoint_pair(self.pck_normalizer, keypoints)
            except ScoreError as error:
                others = ", ".join((*BOX_NORMALIZERS, "pixels"))
                raise ScoreError(f"pck_normalizer: {error} Or use one of: {others}.") from None
        if self.nme_pair is not None:
            try:
                keypoint_pair(self.nme_pair, keypoints)
            except ScoreError as error:
                raise ScoreError(f"nme_pair: {error}") from None


@dataclass
class Scores:
    """Figures of one set of predictions, down to the keypoint, and all that a comparison needs.

    Args:
        name: what the scores are called in tables.
        summary: AP and AR (COCO's ten, -1 where there is nothing to find), pixel errors, PCK, NME, AUC, counts.
        per_keypoint: one row a keypoint.
        per_image: one row an image, those without instances too: counts, mean_px, oks, pck@t; 'group' where known.
        per_instance: one row a true instance: matched, score, oks, mean_px, max_px.
        keypoints: one row a keypoint of a true instance, see ``matching.Matching`` and ``with_relative_errors``.
        matches: of COCO's evaluation, for the bootstrap of AP.
        card: the conditions under which the figures hold.
    """

    name: str
    summary: dict[str, Any]
    per_keypoint: pd.DataFrame
    per_image: pd.DataFrame
    per_instance: pd.DataFrame
    keypoints: pd.DataFrame
    matches: Matches
    card: dict[str, Any]

    def text(self) -> str:
        """Tables for the terminal: AP and pixel error on one line, then the keypoints."""
        s = self.summary
        columns = ["AP", "AP50", "AP75", "AR", "mean_px", "median_px", "auc"]
        columns[6:6] = [pck_key(t) for t in self.card["pck_thresholds"]] + (["nme"] if "nme" in s else [])
        figures = pd.DataFrame([[shown(s[c]) for c in columns]], columns=columns, index=[self.name])
        keep = ["keypoint", "n_keypoints", "n_keypoints_missed", "mean_px", "median_px"]
        table = self.per_keypoint[keep + [c for c in self.per_keypoint if c.startswith("pck@")]]
        table = table.rename(columns={"n_keypoints": "labelled", "n_keypoints_missed": "missed"})
        c = self.card
        made = f"boxes {c['boxes']}; areas: {c['area_source']}; sigmas: {c['sigma_source']}; flip test {c['flip_test']}"
        return "\n".join(
            [
                f"{c['dataset']} {c['split']}: {s['n_images']} images, {s['n_instances']} instances "
                f"({s['n_missed']} missed, {s['n_extra']} extra predictions)",
                figures.to_string(),
                "",
                table.to_string(index=False, float_format=lambda v: f"{v:.3f}", na_rep="-"),
                "",
                f"pixel errors over predicted keypoints; PCK: error <= t x {c['pck_normalizer']}, missed ones wrong",
                made,
            ]
        )

    def write(self, folder: Path, name: str) -> Path:
        """Write ``<name>.json``, ``.instances.parquet``, ``.keypoints.parquet``, ``.images.csv`` and ``.matches.npz``.

        Returns:
            Path of the JSON, from which ``read`` restores everything.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.per_instance.to_parquet(folder / f"{name}.instances.parquet", index=False)
        self.keypoints.to_parquet(folder / f"{name}.keypoints.parquet", index=False)
        self.per_image.to_csv(folder / f"{name}.images.csv", index=False)
        np.savez_compressed(folder / f"{name}.matches.npz", **vars(self.matches))
        path = folder / f"{name}.json"
        content = {
            "name": self.name,
            "summary": self.summary,
            "per_keypoint": self.per_keypoint.to_dict("records"),
            "card": self.card,
        }
        path.write_text(json.dumps(_without_nan(content), indent=1))
        return path

    @classmethod
    def read(cls, path: Path) -> Scores:
        """Read what ``write`` wrote; neither model nor data is needed.

        Raises:
            ScoreError: the JSON or one of the files beside it is missing, or can't be read.
        """
        path = Path(path)
        beside = {e: path.with_name(f"{path.stem}.{e}") for e in _FILES}
        for file in (path, *beside.values()):
            if not file.exists():
                raise ScoreError(
                    f"scores {path}: {file} is missing. A score is {path.stem}.json with its "
                    f"{', '.join(_FILES)} beside it: evaluate the predictions again."
                )
        try:
            return cls._read(path, beside)
        except (ValueError, KeyError, OSError, zipfile.BadZipFile, EOFError) as error:
            raise ScoreError(
                f"scores {path}: half written or damaged ({error}). Evaluate the predictions again."
            ) from error

    @classmethod
    def _read(cls, path: Path, beside: Mapping[str, Path]) -> Scores:
        content = json.loads(path.read_text())
        with np.load(beside["matches.npz"]) as arrays:
            matches = Matches(**{key: arrays[key] for key in arrays.files})
        per_keypoint = pd.DataFrame(content["per_keypoint"])
        numbers = [c for c in per_keypoint if c != "keypoint"]
        per_keypoint[numbers] = per_keypoint[numbers].apply(pd.to_numeric)
        summary = {key: math.nan if value is None else value for key, value in content["summary"].items()}
        return cls(
            content["name"],
            summary,
            per_keypoint,
            pd.read_csv(beside["images.csv"], dtype={"file": str, "group": str}, keep_default_na=True),
            pd.read_parquet(beside["instances.parquet"]),
            pd.read_parquet(beside["keypoints.parquet"]),
            matches,
            content["card"],
        )


_FILES = ("instances.parquet", "keypoints.parquet", "images.csv", "matches.npz")


def score(
    truth: Mapping[int, Poses],
    predictions: Predictions,
    skeleton: Skeleton,
    *,
    files: Mapping[int, str],
    settings: ScoreSettings | None = None,
    sources: Mapping[str, Any] | None = None,
    name: str = "run",
    groups: Mapping[int, str] | None = None,
    crowd: Mapping[int, np.ndarray] | None = None,
) -> Scores:
    """Score predictions of a dataset.

    Args:
        truth: image id to true poses, source pixels (``Labels.by_image()``); an image without predictions is missed.
        predictions: predicted poses, source pixels.
        skeleton: names and sigmas.
        files: image id to file name.
        settings: how to score.
        sources: lines of the card that only the caller knows: dataset, split, area_source, box_source, truth_hash,
            predictions_hash (else predictions.card['sha256']); others are kept too.
        name: what the scores are called in tables.
        groups: image id to video or subject; the bootstrap then draws groups and not images.
        crowd: image id to (M,) bool, see ``coco_ap``.

    Raises:
        ScoreError: predictions of images that are not in the truth, other keypoints, or instances without area.
    """
    settings = settings or ScoreSettings()
    least = VISIBILITY[settings.visibility]
    truth = {i: p if least == 1 else _only_seen(p) for i, p in truth.items()}
    matching = match(
        truth,
        predictions,
        skeleton,
        files=files,
        max_dets=settings.max_dets,
        min_score=settings.min_score,
        min_oks=settings.min_oks,
    )
    ap = coco_ap(truth, predictions, skeleton.sigma_array, max_dets=settings.max_dets, crowd=crowd)
    table = with_relative_errors(matching.keypoints, settings.pck_normalizer, settings.nme_pair)
    rules = (settings.pck_thresholds, settings.auc_range)
    per_keypoint = by_keypoint(table, *rules)
    images = matching.images
    if groups is not None:
        images = images.assign(group=[str(groups[i]) for i in images["image_id"]])
    counts = {key: int(images[key].sum()) for key in ("n_instances", "n_matched", "n_missed", "n_extra")}
    summary = {
        **ap.stats,
        **errors_of(table, *rules),
        **macro(per_keypoint),
        "n_images": len(images),
        **counts,
    }
    per_instance = _per_instance(table)
    return Scores(
        name,
        summary,
        per_keypoint,
        _per_image(images, table, per_instance, settings.pck_thresholds),
        per_instance,
        table,
        ap.matches,
        _card(predictions, skeleton, settings, dict(sources or {}), len(images)),
    )


def shown(value: float) -> str:
    """A figure for a table; '-' for NaN and for COCO's -1, "nothing to find"."""
    return "-" if value is None or math.isnan(value) or value == -1 else f"{value:.3f}"


def _only_seen(poses: Poses) -> Poses:
    visible = np.where(poses.visible == 2, 2, 0)
    return Poses.make(poses.xy, visible, poses.score, poses.keypoint_score, poses.box, poses.area, poses.ignore)


def _card(
    predictions: Predictions, skeleton: Skeleton, settings: ScoreSettings, sources: dict[str, Any], images: int
) -> dict[str, Any]:
    made = predictions.card
    sources.setdefault("predictions_hash", made.get("sha256", NOT_STATED))
    rules = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(settings).items()}
    return {
        "skeleton": skeleton.name,
        "keypoints": list(skeleton.keypoints),
        "sigmas": list(skeleton.sigmas),
        "sigma_source": skeleton.sigma_source,
        **{key: NOT_STATED for key in SOURCES},
        "boxes": made.get("boxes", NOT_STATED),
        "flip_test": made.get("flip_test", NOT_STATED),
        **rules,
        **sources,
        "n_images": images,
    }


def _per_instance(table: pd.DataFrame) -> pd.DataFrame:
    labelled = table[table["visible"] > 0]
    by = labelled.groupby(["image_id", "instance"], sort=False)
    first = by[["file", "matched", "score", "oks", "area", "box_diagonal", "box_longer_side"]].first()
    error = by["error_px"].agg(n_keypoints="size", mean_px="mean", max_px="max")
    return pd.concat([first, error], axis=1).reset_index()


def _per_image(
    images: pd.DataFrame, table: pd.DataFrame, per_instance: pd.DataFrame, thresholds: tuple[float, ...]
) -> pd.DataFrame:
    labelled = table[table["visible"] > 0]
    by = labelled.groupby("image_id", sort=False)["error_px"]
    parts = {"n_keypoints": by.size(), "mean_px": by.mean(), "max_px": by.max()}
    parts["oks"] = per_instance.groupby("image_id", sort=False)["oks"].mean()
    counted = labelled[labelled["pck_error"].notna()]
    for t in thresholds:
        hits = counted["pck_error"] <= t
        parts[pck_key(t)] = hits.groupby(counted["image_id"], sort=False).mean()
    joined = images.join(pd.DataFrame(parts), on="image_id")
    return joined.assign(n_keypoints=joined["n_keypoints"].fillna(0).astype(np.int64))


def _without_nan(value: Any) -> Any:
    """The same with None for NaN, which JSON does not have, and plain Python numbers."""
    if isinstance(value, dict):
        return {str(key): _without_nan(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
