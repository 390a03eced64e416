"""Score predictions against the truth: AP and pixel errors, with the card of the conditions they hold under."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kplab.errors import ScoreError
from kplab.metrics.average_precision import Matches
from kplab.metrics.coco_ap import coco_ap
from kplab.metrics.matching import match
from kplab.metrics.metric import Evidence, metrics_of, rows_of
from kplab.metrics.pck import by_keypoint, errors_of, macro, with_relative_errors
from kplab.metrics.settings import VISIBILITY, ScoreSettings
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton

NOT_STATED = "not stated"
#: Most keypoints of which a table for the terminal has all, and how many it has of more.
MOST_ROWS, HARDEST = 20, 10
SOURCES = ("dataset", "split", "area_source", "box_source", "truth_hash", "predictions_hash")


@dataclass
class Scores:
    """Scores of one set of predictions: summary, tables down to the keypoint, and what a comparison needs.

    Args:
        name: of the scores in tables.
        summary: every metric of ``metric.METRICS`` (COCO's are -1 where there is nothing to find), and counts.
        per_keypoint: one row per keypoint.
        per_image: one row per image, also without instances: counts, mean_px, oks, pck@t; 'group' where known.
        per_instance: one row per true instance: matched, score, oks, mean_px, max_px.
        keypoints: one row per keypoint of a true instance, see ``matching.Matching`` and ``with_relative_errors``.
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

    def text(self, path: Path | None = None) -> str:
        """Tables for the terminal: metrics of all keypoints in one line, then a line for each keypoint.

        Of more than ``MOST_ROWS`` keypoints only the ``HARDEST`` ones are shown, by mean pixel error.

        Args:
            path: the JSON of these scores, which is named as the place of the other keypoints.
        """
        s, c = self.summary, self.card
        cells = {key: row.text(s[key]) for row in rows_of("score") for key in row.keys(s)}
        figures = pd.DataFrame([cells], index=[self.name])
        table = self.per_keypoint[["keypoint", "n_keypoints", "n_keypoints_missed"]].rename(
            columns={"n_keypoints": "labelled", "n_keypoints_missed": "missed"}
        )
        for row in rows_of("keypoints"):
            for key in row.keys(self.per_keypoint):
                table[key] = [row.text(value) for value in self.per_keypoint[key]]
        cut = []
        if len(table) > MOST_ROWS:
            hardest = self.per_keypoint.sort_values("mean_px", ascending=False, kind="stable").index[:HARDEST]
            where = f"per_keypoint in {path}" if path is not None else "per_keypoint in the file of scores"
            cut = [f"the {HARDEST} hardest of {len(table)} keypoints; all of them: {where}"]
            table = table.loc[hardest]
        made = f"boxes {c['boxes']}; areas: {c['area_source']}; sigmas: {c['sigma_source']}; flip test {c['flip_test']}"
        return "\n".join(
            [
                f"{c['dataset']} {c['split']}: {s['n_images']} images, {s['n_instances']} instances "
                f"({s['n_missed']} missed, {s['n_extra']} extra predictions)",
                figures.to_string(),
                "",
                table.to_string(index=False),
                *cut,
                "",
                f"pixel errors over predicted keypoints; PCK: error <= t x {c['pck_normalizer']}, missed ones wrong",
                made,
            ]
        )

    def write(self, folder: Path, name: str) -> Path:
        """Write ``<name>.json`` and the files of ``tables_of``; all carry the id of this evaluation.

        Returns:
            Path of the JSON, from which ``read`` restores everything.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.json"
        content = _without_nan(
            {
                "name": self.name,
                "summary": self.summary,
                "per_keypoint": self.per_keypoint.to_dict("records"),
                "card": self.card,
            }
        )
        evaluation = self._evaluation_id(content)
        beside = tables_of(path)
        _write_parquet(beside["instances.parquet"], self.per_instance, evaluation)
        _write_parquet(beside["keypoints.parquet"], self.keypoints, evaluation)
        self.per_image.assign(evaluation=evaluation).to_csv(beside["images.csv"], index=False)
        np.savez_compressed(beside["matches.npz"], **vars(self.matches), evaluation=np.array(evaluation))
        path.write_text(json.dumps({"evaluation": evaluation, **content}, indent=1))
        return path

    def _evaluation_id(self, content: dict[str, Any]) -> str:
        """16 hex digits of a hash over all content: equal for equal scores, whenever they are written."""
        digest = hashlib.sha256(json.dumps(content).encode())
        for table in (self.per_instance, self.keypoints, self.per_image):
            digest.update(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes())
        for array in vars(self.matches).values():
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    @classmethod
    def read(cls, path: Path) -> Scores:
        """Read what ``write`` wrote; neither model nor data is needed.

        Raises:
            ScoreError: the JSON or a file beside it is missing, can't be read, or is of another evaluation.
        """
        path = Path(path)
        beside = tables_of(path)
        for file in (path, *beside.values()):
            if not file.exists():
                raise ScoreError(
                    f"scores {path}: {file} is missing. A score is {path.stem}.json with its "
                    f"{', '.join(_FILES)} beside it: evaluate the predictions again."
                )
        try:
            return cls._read(path, beside)
        except ScoreError:
            raise
        except (ValueError, KeyError, TypeError, OSError, zipfile.BadZipFile, EOFError) as error:
            raise ScoreError(
                f"scores {path}: half written or damaged ({error}). Evaluate the predictions again."
            ) from error

    @classmethod
    def _read(cls, path: Path, beside: Mapping[str, Path]) -> Scores:
        content = json.loads(path.read_text())
        instances, keypoints = (pq.read_table(beside[name]) for name in _FILES[:2])
        images = pd.read_csv(
            beside["images.csv"], dtype={"file": str, "group": str, "evaluation": str}, keep_default_na=True
        )
        with np.load(beside["matches.npz"]) as stored:
            arrays = {key: stored[key] for key in stored.files}
        found = {
            "instances.parquet": instances.schema.metadata[b"evaluation"].decode(),
            "keypoints.parquet": keypoints.schema.metadata[b"evaluation"].decode(),
            "images.csv": "/".join(sorted(set(images.pop("evaluation")))),
            "matches.npz": str(arrays.pop("evaluation")),
        }
        for name, evaluation in found.items():
            if evaluation != content["evaluation"]:
                raise ScoreError(
                    f"scores {path}: {beside[name].name} is of evaluation {evaluation}, but {path.name} of "
                    f"{content['evaluation']}. Evaluate the predictions again, or keep the files of one evaluation together."
                )
        per_keypoint = pd.DataFrame(content["per_keypoint"])
        numbers = [c for c in per_keypoint if c != "keypoint"]
        per_keypoint[numbers] = per_keypoint[numbers].apply(pd.to_numeric)
        summary = {key: math.nan if value is None else value for key, value in content["summary"].items()}
        return cls(
            content["name"],
            summary,
            per_keypoint,
            images,
            instances.to_pandas(),
            keypoints.to_pandas(),
            Matches(**arrays),
            content["card"],
        )


_FILES = ("instances.parquet", "keypoints.parquet", "images.csv", "matches.npz")


def tables_of(path: Path) -> dict[str, Path]:
    """The files beside a score's JSON: tables of instances, keypoints and images, and COCO's matches."""
    return {ending: path.with_name(f"{path.stem}.{ending}") for ending in _FILES}


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
    """Compute the scores of predictions of a dataset.

    Args:
        truth: image id to true poses, source pixels (``Labels.by_image()``); all of an image without predictions are missed.
        predictions: predicted poses, source pixels.
        skeleton: names and sigmas.
        files: image id to file name.
        settings: how to score.
        sources: lines of the card that the caller knows: dataset, split, area_source, box_source, truth_hash,
            predictions_hash (else predictions.card['sha256']); others are added.
        name: of the scores in tables.
        groups: image id to video or subject; the bootstrap then draws groups instead of images.
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
    rules = asdict(settings)
    per_keypoint = by_keypoint(table, rules)
    images = matching.images
    if groups is not None:
        images = images.assign(group=[str(groups[i]) for i in images["image_id"]])
    counts = {key: int(images[key].sum()) for key in ("n_instances", "n_matched", "n_missed", "n_extra")}
    evidence = Evidence.of(table, ap.matches.image_id, ap.matches)
    summary = {
        **{m.name: m.compute(evidence) for m in metrics_of(rules) if m.level == "set"},
        **errors_of(table, rules),
        **macro(per_keypoint, rules),
        "n_images": len(images),
        **counts,
    }
    per_instance = _per_instance(table)
    return Scores(
        name,
        summary,
        per_keypoint,
        _per_image(images, table, per_instance, rules),
        per_instance,
        table,
        ap.matches,
        _card(predictions, skeleton, settings, dict(sources or {}), len(images)),
    )


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
        # only predictions of an exported file state it
        **{key: made[key] for key in ("backend", "precision") if key in made},
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
    images: pd.DataFrame, table: pd.DataFrame, per_instance: pd.DataFrame, settings: Mapping[str, Any]
) -> pd.DataFrame:
    labelled = table[table["visible"] > 0]
    by = labelled.groupby("image_id", sort=False)["error_px"]
    parts = {"n_keypoints": by.size(), "mean_px": by.mean(), "max_px": by.max()}
    parts["oks"] = per_instance.groupby("image_id", sort=False)["oks"].mean()
    counted = labelled[labelled["pck_error"].notna()]
    for threshold in settings["pck_thresholds"]:
        hits = counted["pck_error"] <= threshold
        parts[f"pck@{threshold:g}"] = hits.groupby(counted["image_id"], sort=False).mean()
    joined = images.join(pd.DataFrame(parts), on="image_id")
    return joined.assign(n_keypoints=joined["n_keypoints"].fillna(0).astype(np.int64))


def _write_parquet(path: Path, table: pd.DataFrame, evaluation: str) -> None:
    """Write a table with the id of its evaluation in the metadata."""
    content = pa.Table.from_pandas(table, preserve_index=False)
    pq.write_table(content.replace_schema_metadata({**content.schema.metadata, "evaluation": evaluation}), path)


def _without_nan(value: Any) -> Any:
    """Replace NaN, which JSON lacks, by None, and NumPy's numbers by Python's."""
    if isinstance(value, dict):
        return {str(key): _without_nan(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
