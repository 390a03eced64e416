"""Scores of predictions against the truth. No model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kplab import config as configs
from kplab.errors import ConfigError, DataError, RunError, ScoreError, printable
from kplab.metrics.score import Scores, score, tables_of
from kplab.metrics.settings import ScoreSettings
from kplab.runs.provenance import file_sha256
from kplab.runs.records import check_inside, read_record, write_record
from kplab.runs.run import Run
from kplab.structures.labels import Labels
from kplab.structures.predictions import Predictions
from kplab.tasks.evaluation.files import read_predictions
from kplab.tasks.inference.assembly import files_of, set_name
from kplab.tasks.inference.progress import working
from kplab.tasks.wiring.datasets import read_split, skeleton_of
from kplab.tasks.wiring.nodes import load_config


def settings_of(dataset: DictConfig, overrides: dict[str, Any] | None = None) -> ScoreSettings:
    """Evaluation settings of a dataset.

    Raises:
        ConfigError: a setting is unknown or has an invalid value.
    """
    values = {**configs.plain(dataset.get("evaluation")), **(overrides or {})}
    return make_settings(values, skeleton_of(dataset).keypoints, f" of dataset '{dataset.name}'")


def make_settings(values: Mapping[str, Any], keypoints: Sequence[str], where: str = "") -> ScoreSettings:
    """Evaluation settings for the keypoints of a skeleton.

    Args:
        values: fields of ``ScoreSettings`` that differ from their defaults.
        keypoints: names of the skeleton's.
        where: whose settings they are, for the message.

    Raises:
        ConfigError: a setting is unknown or has an invalid value.
    """
    try:
        settings = ScoreSettings(**values)
        settings.check_names(keypoints)
        return settings
    except (TypeError, ScoreError) as error:
        raise ConfigError(f"evaluation settings{where}: {error}") from None


def evaluate_file(
    path: Path, labels: Labels, dataset: DictConfig, split: str, overrides: dict[str, Any] | None = None, name: str = ""
) -> Scores:
    """Score a COCO results file, of kplab or of another system, against a split.

    Raises:
        DataError: the file is no results file, is not of this split, or is not the one that its card describes.
        RunError: the file has a record and has changed since.
    """
    predictions = read_predictions(path, labels.skeleton, recorded=False)
    rules = settings_of(dataset, overrides)
    try:
        with working(f"scoring {path.stem}"):
            return score_labels(
                predictions,
                labels,
                rules,
                name or path.stem,
                dataset=str(dataset.name),
                split=split,
                predictions_hash=file_sha256(path),
            )
    except ScoreError as error:
        raise DataError(f"{path}: {error}") from error


def check_origin(run: Run, predictions: Path) -> None:
    """Refuse predictions that another run has made; a run whose folder was renamed keeps its config.

    Raises:
        RunError: names the other run; or there is no record, or a file has changed since.
    """
    record = read_record(predictions)
    made_by = record.get("run", run.name)
    own = {"file": "config.yaml", "sha256": file_sha256(run.folder / "config.yaml")}
    if made_by != run.name and record["made_from"].get("config") != own:
        raise RunError(
            f"{predictions}: was made by run {made_by}, which has another config. Run: kplab predict run={run.name}"
        )


def write_scores(scores: Scores, folder: Path, name: str, predictions: Path, **entries: Any) -> Path:
    """Write ``<name>.json``, the tables beside it and their record; returns the path of the JSON."""
    path = scores.write(folder, name)
    made_from = {"predictions": predictions, "truth": str(scores.card["truth_hash"])}
    write_record(path, configs.workspace(), made_from, list(tables_of(path).values()), **entries)
    return path


def score_labels(
    predictions: Predictions, labels: Labels, settings: ScoreSettings, name: str, **sources: Any
) -> Scores:
    """Score predictions of labelled images.

    Args:
        settings: how to score.
        name: of the scores in tables.
        sources: further lines of the card, e.g. dataset and split.

    Raises:
        ScoreError: predictions of other images or of other keypoints.
    """
    groups = {int(i): str(g) for i, g in zip(labels.image_id, labels.group, strict=True)}
    return score(
        labels.by_image(),
        predictions,
        labels.skeleton,
        files=files_of(labels),
        settings=settings,
        sources={
            **sources,
            "area_source": labels.area_source,
            "box_source": labels.box_source,
            "truth_hash": labels.digest(),
        },
        name=name,
        crowd=labels.crowd_by_image(),
        # groups of one image each, or one group of all images, allow no resampling of groups
        groups=groups if 1 < len(set(groups.values())) < len(groups) else None,
    )


def evaluate_run(
    run: Run,
    split: str,
    predictions: Path | None = None,
    labels: Labels | None = None,
    dataset: DictConfig | None = None,
    settings: dict[str, Any] | None = None,
    quiet: bool = False,
    regions: str | None = None,
    backend: str = "torch",
) -> Scores:
    """Score a run's predictions of a split; writes ``scores/<dataset>-<split>.json`` with tables and a record.

    Args:
        regions: of the predictions, if they are not the run's own.
        backend: that computed the predictions.

    Raises:
        RunError: the split was not predicted, or the predictions are not those of their record.
    """
    own = load_config(run)
    dataset = dataset if dataset is not None else own.dataset
    path = predictions or run.folder / "predictions" / f"{set_name(own, dataset, split, regions, backend)}.json"
    if not path.is_file():
        also = f" regions={regions}" if regions else ""
        also += "" if backend == "torch" else f" backend={backend}"
        raise RunError(f"{path}: not predicted yet. Run: kplab predict run={run.name} split={split}{also}")
    check_origin(run, path)
    labels = labels if labels is not None else read_split(dataset, split)
    scores = evaluate_file(path, labels, dataset, split, settings, name=run.name)
    check_inside(run.folder, run.folder / "scores" / path.name)
    out = write_scores(scores, run.folder / "scores", path.stem, path, run=run.name, split=split)
    if not quiet:
        print(printable(scores.text(out) + f"\nscores: {out}"), flush=True)
    return scores
