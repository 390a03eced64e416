"""What the loggers of a run show besides its curves: config, lineage, scores, and predictions over their images.

wandb and TensorBoard are supported; any other logger of Lightning has the curves alone. Metrics of a validation are drawn by
epoch, counted from 1, and wandb's summary has the best value of each.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from omegaconf import DictConfig, OmegaConf

from kplab import config as configs
from kplab.metrics.metric import metrics_of
from kplab.metrics.score import Scores
from kplab.runs.records import read_record
from kplab.runs.run import Run
from kplab.structures.labels import Labels
from kplab.tasks.evaluation import scoring
from kplab.tasks.evaluation.files import read_predictions, read_scores, score_files
from kplab.tasks.evaluation.pictures import caption, overlays, ranked
from kplab.tasks.training.curves import COUNTED_FROM
from kplab.viz import poses as drawing

#: Images of a split whose predictions are shown, half of them typical ones and half the worst.
SHOWN = 16
#: Entries of a run's record that say what it was made from.
LINEAGE = (
    "command", "started", "code", "lock_sha256", "config_sha256", "dataset", "data_sha256", "split", "detections", "weights",
    "parent", "reproduces", "seed", "counts", "parameters", "hardware",
)  # fmt: skip


@dataclass
class Result:
    """What is shown of a split.

    Args:
        name: of the split, with the regions if they are not the run's own: test, test-annotated.
        scores: of its predictions.
        pictures: rank of each image that is shown, its row of ``scores.per_image``, and its overlay.
    """

    name: str
    scores: Scores
    pictures: list[tuple[str, pd.Series, np.ndarray]]

    @property
    def summary(self) -> dict[str, float]:
        """All finite numbers of the scores, as ``test/AP``."""
        found = {f"{self.name}/{key}": value for key, value in self.scores.summary.items()}
        return {k: v for k, v in found.items() if isinstance(v, int | float) and math.isfinite(v)}


def results_of(run: Run, splits: Mapping[str, Labels]) -> Iterator[Result]:
    """The scores of a run, with overlays of typical and of the worst images."""
    for name, path in score_files(run).items():
        scores = read_scores(path)
        labels = splits[str(scores.card["split"])]
        predictions = read_predictions(run.folder / "predictions" / f"{name}.json", labels.skeleton)
        order = ranked(scores).tolist()
        half = min(SHOWN // 2, len(order) // 2)
        middle = max(0, (len(order) - half) // 2)
        chosen = [("worst", i) for i in order[::-1][:half]]
        chosen += [("typical", i) for i in order[middle : middle + half] if i not in order[::-1][:half]]
        rows = scores.per_image.set_index("image_id")
        drawn = overlays(labels, predictions, [i for _, i in chosen], scores.card["min_score"])
        pictures = [(rank, rows.loc[i], picture) for (rank, i), picture in zip(chosen, drawn, strict=True)]
        yield Result(name.removeprefix(f"{scores.card['dataset']}-"), scores, pictures)


def lineage(run: Run) -> dict[str, Any]:
    """What a run was made from, as its record states it."""
    return {key: run.record[key] for key in LINEAGE if run.record.get(key) is not None}


def chain(run: Run) -> list[tuple[str, str, str]]:
    """From the data to the scores: each artefact, its SHA-256, and what it was made from."""
    data, config = str(run.record.get("data_sha256", "")), str(run.record.get("config_sha256", ""))
    found = [("data", data, ""), ("config", config, "")]
    inputs = f"data {data[:12]}, config {config[:12]}"
    found += [(f"checkpoints/{name}", str(value), inputs) for name, value in run.record.get("checkpoints", {}).items()]
    for folder in ("predictions", "scores"):
        for name in score_files(run):
            path = run.folder / folder / f"{name}.json"
            record = read_record(path)
            made_from = (f"{what} {str(source['sha256'])[:12]}" for what, source in record["made_from"].items())
            found.append((f"{folder}/{path.name}", str(record["sha256"][path.name]), ", ".join(made_from)))
    return found


def begin(loggers: Sequence[Logger], run: Run, config: DictConfig) -> None:
    """Count epochs from 1, and show config and lineage, so that a run that fails has them too."""
    known = metrics_of(asdict(scoring.settings_of(config.dataset)), "validation") if loggers else []
    for logger in loggers:
        count_from_one(logger)
        if isinstance(logger, WandbLogger):
            logger.experiment.config.update({**configs.plain(config), "lineage": lineage(run)}, allow_val_change=True)
            logger.experiment.define_metric("epoch", hidden=True)
            best = {"val/loss": "min", **{f"val/{m.name}": "max" if m.higher_is_better else "min" for m in known}}
            for name, summary in best.items():
                logger.experiment.define_metric(name, step_metric="epoch", summary=summary)
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text("config", code(OmegaConf.to_yaml(config, resolve=True)))
            logger.experiment.add_text("lineage", code(json.dumps(lineage(run), indent=1)))


def count_from_one(logger: Logger) -> None:
    """Make a logger count epochs as ``curves.csv`` does; Lightning counts from 0."""
    logger.log_metrics = partial(_log_counted, logger.log_metrics)  # type: ignore[method-assign]


def _log_counted(
    log: Callable[[dict[str, float], int | None], None], metrics: Mapping[str, float], step: int | None = None
) -> None:
    counted = {"epoch": metrics["epoch"] + COUNTED_FROM} if "epoch" in metrics else {}
    log({**metrics, **counted}, step)


def end(loggers: Sequence[Logger], run: Run, splits: Mapping[str, Labels]) -> None:
    """Show scores, predictions, and the chain of artefacts of a finished run.

    Args:
        loggers: as for ``begin``.
        run: with predictions and scores.
        splits: the labels of its splits.
    """
    shown = [logger for logger in loggers if isinstance(logger, WandbLogger | TensorBoardLogger)]
    results = list(results_of(run, splits)) if shown else []
    for logger in shown:
        if isinstance(logger, WandbLogger):
            _to_wandb(logger, run, results)
        else:
            _to_tensorboard(logger, run, results)


def close(loggers: Sequence[Logger], failed: bool) -> None:
    """Complete the loggers' files. A wandb run would otherwise get what the next training in this process logs."""
    for logger in loggers:
        logger.finalize("failed" if failed else "success")
        if isinstance(logger, WandbLogger) and logger._experiment is not None:
            logger.experiment.finish(exit_code=int(failed))


def _to_wandb(logger: WandbLogger, run: Run, results: Sequence[Result]) -> None:
    """Scores in the summary; tables of keypoints, of predictions and of the chain of artefacts."""
    import wandb

    tables: dict[str, Any] = {}
    for result in results:
        logger.experiment.summary.update(result.summary)
        keypoints = result.scores.per_keypoint
        tables[f"{result.name}/keypoints"] = wandb.Table(list(map(str, keypoints.columns)), _cells(keypoints))
        rows = [
            [
                rank,
                str(row["file"]),
                wandb.Image(picture, caption=caption(row)),
                *_cells(row[list(_NUMBERS)].to_frame().T)[0],
            ]
            for rank, row, picture in result.pictures
        ]
        tables[f"{result.name}/predictions"] = wandb.Table(["rank", "file", "truth and prediction", *_NUMBERS], rows)
        for rank in ("typical", "worst"):
            chosen = [(row, picture) for name, row, picture in result.pictures if name == rank]
            canvases = same_size([picture for _, picture in chosen])
            tables[f"{result.name}/{rank}"] = [
                wandb.Image(canvas, caption=caption(row)) for canvas, (row, _) in zip(canvases, chosen, strict=True)
            ]
    tables["lineage"] = wandb.Table(["artefact", "sha256", "made from"], [list(row) for row in chain(run)])
    with _stored_in(run):
        logger.experiment.log({name: shown for name, shown in tables.items() if not isinstance(shown, list) or shown})


def same_size(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Pictures with a border of grey to the largest width and height of all: wandb shows a list in cells of one size.

    >>> [p.shape for p in same_size([np.zeros((2, 5, 3), np.uint8), np.zeros((4, 3, 3), np.uint8)])]
    [(4, 5, 3), (4, 5, 3)]
    """
    height, width = (max((p.shape[axis] for p in pictures), default=0) for axis in (0, 1))
    found = []
    for picture in pictures:
        top, left = (height - picture.shape[0]) // 2, (width - picture.shape[1]) // 2
        canvas = np.full((height, width, 3), 128, dtype=np.uint8)
        canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
        found.append(canvas)
    return found


@contextmanager
def _stored_in(run: Run) -> Iterator[None]:
    """Keep tables and their pictures in the folder of the run; wandb would keep them in the user's home."""
    given = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = given or str(run.folder / "wandb" / "data")
    try:
        yield
    finally:
        if given is None:
            del os.environ["WANDB_DATA_DIR"]


#: Columns of ``Scores.per_image`` in the table of predictions.
_NUMBERS = ("mean_px", "n_instances", "n_missed", "n_extra")


def _cells(table: pd.DataFrame) -> list[list[Any]]:
    """The rows of a table; None for what is not a number."""
    return [[None if v != v else v for v in row] for row in table.astype(object).to_numpy().tolist()]


def _to_tensorboard(logger: TensorBoardLogger, run: Run, results: Sequence[Result]) -> None:
    """Scores as scalars; tables as text; sheets of typical and of the worst images."""
    writer, step = logger.experiment, int(run.record.get("steps") or 0)
    for result in results:
        for name, value in result.summary.items():
            writer.add_scalar(name, value, step)
        keypoints = result.scores.per_keypoint
        writer.add_text(
            f"{result.name}/keypoints", markdown(list(map(str, keypoints.columns)), _cells(keypoints)), step
        )
        for rank in ("typical", "worst"):
            some = [(row, picture) for r, row, picture in result.pictures if r == rank]
            if some:
                sheet = drawing.contact_sheet(
                    [picture for _, picture in some], labels=[caption(row) for row, _ in some]
                )
                writer.add_image(f"{result.name}/{rank}", sheet, step, dataformats="HWC")
    writer.add_text("artefacts", markdown(["artefact", "sha256", "made from"], [list(row) for row in chain(run)]), step)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    r"""A table as Markdown.

    >>> print(markdown(["a", "b"], [[0.123456, "x|y"]]))
    | a | b |
    | --- | --- |
    | 0.1235 | x\|y |
    """
    lines = [columns, ["---"] * len(columns), *rows]
    cells = ([f"{v:.4g}" if isinstance(v, float) else str(v).replace("|", "\\|") for v in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def code(text: str) -> str:
    """Text as a block of code in Markdown: each line is indented."""
    return "\n".join(f"    {line}" for line in text.splitlines())
