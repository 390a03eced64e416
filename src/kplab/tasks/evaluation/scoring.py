"""``kplab evaluate``: predictions against truth. No model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kplab import config as configs
from kplab.errors import ConfigError, DataError, RunError, ScoreError
from kplab.metrics.score import Scores, ScoreSettings, score
from kplab.runs.run import Run, write_record
from kplab.structures.labels import Labels
from kplab.structures.predictions import Predictions
from kplab.tasks.inference.assembly import files_of, set_name
from kplab.tasks.wiring.datasets import read_split, skeleton_of
from kplab.tasks.wiring.nodes import load_config


def settings_of(dataset: DictConfig, overrides: dict[str, Any] | None = None) -> ScoreSettings:
    """The dataset's evaluation settings.

    Raises:
        ConfigError: an unknown setting, or a value that can't be.
    """
    try:
        settings = ScoreSettings(**{**configs.plain(dataset.get("evaluation")), **(overrides or {})})
        settings.check_names(skeleton_of(dataset).keypoints)
        return settings
    except ConfigError:
        raise
    except (TypeError, ScoreError) as error:
        raise ConfigError(f"evaluation settings of dataset '{dataset.name}': {error}") from None


def evaluate_file(
    path: Path, labels: Labels, dataset: DictConfig, split: str, overrides: dict[str, Any] | None = None, name: str = ""
) -> Scores:
    """Score a COCO results file against a split.

    Raises:
        DataError: the file is no results file, or is not of this split.
    """
    predictions = Predictions.read(path, labels.skeleton)
    rules = settings_of(dataset, overrides)
    groups = {int(i): str(g) for i, g in zip(labels.image_id, labels.group, strict=True)}
    try:
        return score(
            labels.by_image(),
            predictions,
            labels.skeleton,
            files=files_of(labels),
            settings=rules,
            sources={
                "dataset": str(dataset.name),
                "split": split,
                "area_source": labels.area_source,
                "box_source": labels.box_source,
                "truth_hash": labels.digest(),
            },
            name=name or path.stem,
            crowd=labels.crowd_by_image(),
            # where every image is its own group there is nothing to keep together; where all are one, nothing to draw
            groups=groups if 1 < len(set(groups.values())) < len(groups) else None,
        )
    except ScoreError as error:
        raise DataError(f"{path}: {error}") from error


def evaluate_run(
    run: Run,
    split: str,
    predictions: Path | None = None,
    labels: Labels | None = None,
    dataset: DictConfig | None = None,
    settings: dict[str, Any] | None = None,
    quiet: bool = False,
    regions: str | None = None,
) -> Scores:
    """Score a run's predictions of a split into ``scores/<set>-<split>.json`` and the tables beside it.

    Args:
        regions: that were predicted, where they are not the run's own.
    """
    own = load_config(run)
    dataset = dataset if dataset is not None else own.dataset
    path = predictions or run.folder / "predictions" / f"{set_name(own, dataset, split, regions)}.json"
    if not path.is_file():
        also = f" regions={regions}" if regions else ""
        raise RunError(f"{path}: not predicted yet. Run: kplab predict run={run.name} split={split}{also}")
    labels = labels if labels is not None else read_split(dataset, split)
    scores = evaluate_file(path, labels, dataset, split, settings, name=run.name)
    out = scores.write(run.folder / "scores", path.stem)
    write_record(out.parent, configs.workspace(), run=run.name, predictions=path.name, split=split)
    if not quiet:
        print(scores.text() + f"\nscores: {out}", flush=True)
    return scores
