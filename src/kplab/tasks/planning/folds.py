"""Cross-validation within a budget: each fold of the training split is predicted by a model that has not seen it.

The out-of-fold predictions tell what to expect of the model on new images, where labels are too few for a test split, and
decide what concerns prediction alone: flip test, rescoring and non-maximum suppression. Then all labels are trained on.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from kplab.config import workspace
from kplab.errors import RunError
from kplab.metrics.average_precision import Matches
from kplab.metrics.score import Scores
from kplab.ops.oks import rescored
from kplab.runs.files import replacing_text
from kplab.runs.records import make_folder
from kplab.runs.run import Run
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.tasks.evaluation.scoring import score_labels, settings_of
from kplab.tasks.inference.assembly import Assembly, set_name
from kplab.tasks.inference.loading import LoadedRun
from kplab.tasks.planning.plan import VALIDATED
from kplab.tasks.training.train import train
from kplab.tasks.wiring.datasets import read_splits, regions_for
from kplab.tasks.wiring.nodes import load_config

#: Share of the budget for the trainings of the folds.
SHARE = 0.5
#: Smallest share of the budget that is left for the training on all labels.
LEAST = 0.25
#: Values that are tried, beside those of the config; rescoring and suppression where images have several subjects.
RESCORE: tuple[float | None, ...] = (None, 0.0, 0.05, 0.2)
NMS: tuple[float | None, ...] = (None, 0.9, 0.7, 0.5)


@dataclass(frozen=True)
class Options:
    """What concerns prediction alone.

    Args:
        flip_test: average with the predictions of mirrored images.
        rescore: as of ``Assembly``.
        oks_nms: as of ``Assembly``.
    """

    flip_test: bool
    rescore: float | None
    oks_nms: float | None


def cross_validated(config: DictConfig) -> DictConfig:
    """Train and predict the folds, write what they tell, and return the config of the training on all labels.

    Its duration is what is left of the budget, and its options of prediction are those that were best.

    Args:
        config: of ``kplab train``, with ``folds`` and ``duration``.

    Raises:
        RunError: this is a further process of a distributed training.
    """
    begun = time.perf_counter()
    seconds = float(config.duration)
    splits = read_splits(config.dataset)
    labels, validated = splits["train"], len(splits.get("val", ()))
    runs = [trained_fold(config, fold, SHARE * seconds / config.folds, validated) for fold in range(config.folds)]
    several = int(np.diff(labels.start).max(initial=1)) > 1
    best, table, scores = choose(config, labels, runs, several)
    left = max(LEAST * seconds, seconds - (time.perf_counter() - begun))
    folder = make_folder(workspace() / "plans" / str(config.name))
    table.to_csv(folder / "folds.csv", index=False)
    text = page(config, runs, table, scores)
    with replacing_text(folder / "folds.md") as stream:
        stream.write(text)
    print(f"{text}\nfolds: {folder / 'folds.md'}", flush=True)
    return with_options(shortened(config, left, validated), best)


def with_options(config: DictConfig, best: Options) -> DictConfig:
    """The config with other options of prediction; where the flip test is switched off, each view is read once."""
    made = config.copy()
    for key, value in asdict(best).items():
        made[key] = value
    if config.flip_test and not best.flip_test and "turns" in made.model:
        made.model.turns = []
    return made


def shortened(config: DictConfig, seconds: float, validated: int) -> DictConfig:
    """The same training in other time: the estimate of its epochs, the steps of the warm-up, and the validations, in proportion.

    Args:
        validated: number of images of the split val; 0 without it.
    """
    made = config.copy()
    ratio = seconds / float(config.duration)
    made.duration = round(seconds, 1)
    made.trainer.max_epochs = max(1, round(config.trainer.max_epochs * ratio))
    if made.optimizer.get("warmup"):
        made.optimizer.warmup = max(1, round(config.optimizer.warmup * ratio))
    epochs, every = int(made.trainer.max_epochs), int(config.validate_every)
    if validated and epochs < every:
        images = min(validated, config.validate_images or validated)
        made.validate_images = min(images, max(VALIDATED, round(images * epochs / every)))
    made.validate_every = min(every, epochs)
    return made


def trained_fold(config: DictConfig, fold: int, seconds: float, validated: int) -> Run:
    """A run that is trained without a fold of the training split, and scored on it."""
    made = shortened(config, seconds, validated)
    made.name = f"{config.name}_fold{fold}"
    made.folds = None
    made.test_on = ["held_out"]
    made.rescore, made.oks_nms = None, None  # chosen from the predictions afterwards
    OmegaConf.update(made, "dataset.holdout", {"folds": int(config.folds), "fold": fold}, force_add=True)
    run = train(made)
    if run is None:
        raise RunError("folds=… is for one process. Leave it out, or use a trainer without ddp.")
    return run


def choose(config: DictConfig, labels: Labels, runs: list[Run], several: bool) -> tuple[Options, pd.DataFrame, Scores]:
    """The best options of prediction, a table of all, and the scores of the best.

    AP decides where images have several subjects, else the mean pixel error; of equal ones, the config's own or the first.

    Args:
        config: of the training on all labels.
        labels: its training split.
        runs: of the folds.
        several: whether an image has several subjects.
    """
    own = Options(bool(config.flip_test), config.rescore, config.oks_nms)
    flips = [own.flip_test, *([False] if own.flip_test else [])]
    raw = {flip: out_of_fold(runs, flip) for flip in flips}
    tried = (
        [own, *(Options(*o) for o in product(flips, RESCORE, NMS))]
        if several
        else [replace(own, flip_test=f) for f in flips]
    )
    settings = settings_of(config.dataset)
    rows, best, found = [], own, None
    for options in dict.fromkeys(tried):
        assembly = Assembly(oks_nms=options.oks_nms, soft=bool(config.oks_nms_soft))
        poses = {
            image: assembly.suppressed(with_scores(p, options.rescore), labels.skeleton)
            for image, p in raw[options.flip_test].items()
        }
        scores = score_labels(Predictions(labels.skeleton, poses), labels, settings, "out of fold")
        rows.append({**asdict(options), **{k: scores.summary[k] for k in ("AP", "AR", "mean_px", "median_px")}})
        if found is None or worth(scores, several) > worth(found, several):
            best, found = options, scores
    assert found is not None
    return best, pd.DataFrame(rows), found


def worth(scores: Scores, several: bool) -> float:
    """What decides: AP, or the negative pixel error; -inf if there is none."""
    value = float(scores.summary["AP"] if several else -scores.summary["mean_px"])
    return value if np.isfinite(value) else -np.inf


def with_scores(poses: Poses, rescore: float | None) -> Poses:
    """Poses whose scores are those of ``Assembly`` with this ``rescore``, from scores without it."""
    return poses if rescore is None else replace(poses, score=rescored(poses.score, poses.keypoint_score, rescore))


def out_of_fold(runs: list[Run], flip_test: bool) -> dict[int, Poses]:
    """Image id to the poses that the run without the image predicts, without rescoring and suppression."""
    return {image: poses for run in runs for image, poses in predicted(run, flip_test).items()}


def predicted(run: Run, flip_test: bool) -> dict[int, Poses]:
    """Image id to the poses of a held-out image; the run has written those of its own choice of the flip test."""
    config = load_config(run)
    held = read_splits(config.dataset)["held_out"]
    if flip_test == config.flip_test:
        name = set_name(config, config.dataset, "held_out")
        return Predictions.read(run.folder / "predictions" / f"{name}.json", held.skeleton).poses
    found = LoadedRun.load(run, flip_test=flip_test).stream(held.source, regions_for(config, held, "held_out"))
    return {int(held.image_id[i]): poses for i, poses in found}


def threshold(matches: Matches) -> tuple[float, float]:
    """The score from which predictions have the best F1 of finding subjects with OKS 0.5, and that F1; (0, 0) without any."""
    hits, false = (np.cumsum(a[0, 0]) for a in (matches.hit, matches.false))
    if not len(hits) or not hits[-1]:
        return 0.0, 0.0
    f1 = 2 * hits / (hits + false + matches.positives[0].sum())
    # predictions of equal score are reported together
    last = np.append(matches.score[1:] != matches.score[:-1], True)
    best = int(np.argmax(np.where(last, f1, -1)))
    return float(matches.score[best]), float(f1[best])


def page(config: DictConfig, runs: list[Run], table: pd.DataFrame, scores: Scores) -> str:
    """What the folds tell, as Markdown."""
    s, (score, f1) = scores.summary, threshold(scores.matches)
    seconds = SHARE * float(config.duration) / config.folds
    lines = [
        f"# Out-of-fold predictions of {config.name}",
        "",
        f"{config.folds} runs, trained for {seconds:.0f} s each, predicted the images that they were not trained on: "
        f"{', '.join(run.name for run in runs)}.",
        "",
        f"What to expect on images like these: AP {s['AP']:.3f}, mean error {s['mean_px']:.2f} px, median "
        f"{s['median_px']:.2f} px, {s['n_missed']} of {s['n_instances']} subjects missed. The model of all labels sees more "
        "images for longer; the options of prediction were chosen on the same images.",
        "",
        f"The best F1 of found subjects (OKS 0.5), {f1:.3f}, is that of `kplab predict … min_score={score:.3g}`.",
        "",
        f"| {' | '.join(table.columns)} |",
        f"|{'---|' * len(table.columns)}",
        *(f"| {' | '.join(map(cell, row))} |" for row in table.astype(object).itertuples(index=False)),
    ]
    return "\n".join(lines) + "\n"


def cell(value: Any) -> str:
    """A value in a table."""
    if value is None or value != value:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value).lower()
