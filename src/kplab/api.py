"""The Python interface for notebooks and other programs; see docs/api.md. ``import kplab`` offers these functions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from kplab import config as configs
from kplab.errors import ConfigError
from kplab.metrics.compare import Comparison
from kplab.metrics.compare import compare as compare_scores
from kplab.metrics.score import Scores
from kplab.runs.run import Run
from kplab.structures.frames import Frame
from kplab.structures.image_source import ImageSource
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton
from kplab.tasks import compose
from kplab.tasks.evaluation import comparison, scoring
from kplab.tasks.evaluation.files import read_curves, read_predictions, read_scores
from kplab.tasks.inference.assembly import set_name
from kplab.tasks.wiring import datasets
from kplab.tasks.wiring.nodes import load_config

if TYPE_CHECKING:
    from PIL.Image import Image

    # torch takes seconds to import: it is loaded with the first model
    from kplab.structures.predictor import Model
    from kplab.tasks.inference.loading import LoadedRun

__all__ = ["TrainedRun", "compare", "evaluate", "load", "read_labels"]


class TrainedRun:
    """A trained run: its model, which is loaded at its first use, its dataset, predictions and scores.

    Args:
        run: the record.
        checkpoint: auto (best if there is one, else last), best, last, or a file.
        device: auto, cpu, cuda, …
        flip_test: average with the mirrored views; None is as trained.
    """

    def __init__(self, run: Run, checkpoint: str = "auto", device: str = "auto", flip_test: bool | None = None) -> None:
        self.run, self.config = run, load_config(run)
        self._options: dict[str, Any] = {"checkpoint": checkpoint, "device": device, "flip_test": flip_test}

    def __repr__(self) -> str:
        return f"TrainedRun({self.name}, {self.run.status})"

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.run.name

    @property
    def skeleton(self) -> Skeleton:
        """Names of the keypoints."""
        return datasets.skeleton_of(self.config.dataset)

    @property
    def model(self) -> Model:
        """The model with trained weights, in evaluation mode."""
        return cast("Model", self._loaded.model)

    @cached_property
    def _loaded(self) -> LoadedRun:
        from kplab.tasks.inference.loading import LoadedRun

        return LoadedRun.load(self.run, **self._options)

    @overload
    def predict(self, images: np.ndarray | Image, *, batch_size: int | None = None) -> Poses: ...
    @overload
    def predict(
        self, images: Sequence[str | Path | np.ndarray | Image] | ImageSource, *, batch_size: int | None = None
    ) -> Iterator[tuple[str, Poses]]: ...
    @overload
    def predict(self, images: str | Path, *, batch_size: int | None = None) -> Poses | Any: ...
    def predict(self, images: Any, *, batch_size: int | None = None) -> Any:
        """Predict one image or many; a model that was trained on given boxes takes each image as one box.

        Args:
            images: an (H, W, 3) uint8 RGB array, an image of PIL, or the path of a file; or many: a folder, a glob, a list
                of any of these, or an ImageSource.
            batch_size: views at a time; None: 32, and fewer of more than 256x256 pixels.

        Returns:
            Poses of one image; of many an iterator of (name, Poses), image by image, in order. Source pixels, continuous.

        Raises:
            DataError: there is no image, or one can't be read.
        """
        from kplab.data.sources.arrays import open_source

        source, single = open_source(images)
        found = self._stream(source, batch_size)
        return next(found)[1] if single else found

    def _stream(self, source: ImageSource, batch_size: int | None) -> Iterator[tuple[str, Poses]]:
        regions = self._loaded.new_regions(source, batch_size)
        for i, poses in self._loaded.stream(source, regions, batch_size=batch_size):
            yield source.name(i), poses

    def predict_video(
        self,
        source: str | Path,
        *,
        every: int = 1,
        start: int | str | None = None,
        end: int | str | None = None,
        batch_size: int | None = None,
        images: bool = False,
    ) -> Iterator[Frame]:
        """Predict the frames of a video, a camera (``camera:0``) or images, one after the other; nothing is written.

        Frames are decoded and turned upright while others are predicted, and memory does not grow with their number.

        Args:
            source: one video, a camera, or images.
            every: one frame of so many.
            start: the first frame: its number from 0, or seconds as text: "12.5s".
            end: the first frame that is left out again.
            batch_size: frames at a time; None: 32, and fewer where views have more than 256x256 pixels.
            images: whether frames keep their images.

        Yields:
            each frame with its true number, name, time in seconds and ``poses`` in source pixels.

        Raises:
            DataError: there is no such source, or it ends unexpectedly, after all frames before.
            ConfigError: the source is several videos.
        """
        from kplab.data.sources.frames import Selection
        from kplab.data.sources.opening import open_frames

        sources = open_frames(source)
        if len(sources) > 1:
            raise ConfigError(f"{source}: holds {len(sources)} sources: videos, or images as well. Name one video.")
        shots = Selection(every, start, end).of(sources[0].frames())
        live = sources[0].stopped is not None
        for batch in self._loaded.frame_predictor(batch_size).predict(shots, live=live):
            yield from batch if images else (replace(frame, image=None) for frame in batch)

    def labels(self, split: str) -> Labels:
        """Images and true poses of a split of the run's dataset."""
        return datasets.read_split(self.config.dataset, split)

    def predictions(self, split: str, regions: str | None = None) -> Predictions:
        """Predictions that ``kplab predict`` or the end of the training wrote.

        Args:
            split: of the run's dataset.
            regions: that were predicted, if they are not the run's own.

        Raises:
            RunError: there is no record, or a file has changed since.
        """
        name = set_name(self.config, self.config.dataset, split, regions)
        return read_predictions(self.run.folder / "predictions" / f"{name}.json", self.skeleton)

    def scores(self, split: str, regions: str | None = None) -> Scores:
        """Scores that ``kplab evaluate`` or the end of the training wrote; arguments as of ``predictions``."""
        name = set_name(self.config, self.config.dataset, split, regions)
        return read_scores(self.run.folder / "scores" / f"{name}.json")

    def curves(self) -> pd.DataFrame:
        """The learning curves: losses, learning rates and validations by epoch, counted from 1; empty without any."""
        found = read_curves(self.run)
        return pd.DataFrame({"epoch": []}) if found is None else found


def load(
    run: str | Path | Run,
    *,
    checkpoint: str = "auto",
    device: str = "auto",
    flip_test: bool | None = None,
    runs_dir: str | Path | None = None,
) -> TrainedRun:
    """A trained run.

    Args:
        run: its path, its name or a unique part of it, ``latest``, or its record.
        checkpoint: auto (best if there is one, else last), best, last, or a file.
        device: auto, cpu, cuda, …
        flip_test: average with the mirrored views; None is as trained.
        runs_dir: folder of all runs; None is ``runs`` of the workspace.

    Raises:
        RunError: no run fits, or several do, or it has no such checkpoint (at the first use of its model).
    """
    found = run if isinstance(run, Run) else Run.find(os.fspath(run), Path(runs_dir or configs.workspace() / "runs"))
    return TrainedRun(found, checkpoint, device, flip_test)


def read_labels(dataset: str | DictConfig, split: str, overrides: Iterable[str] = ()) -> Labels:
    """Images and true poses of a split of a dataset; data that kplab makes is made first.

    Args:
        dataset: name of a file in ``conf/dataset``, or the ``dataset`` node of a config.
        split: e.g. train, val or test.
        overrides: of the dataset's config, e.g. "dataset.images=200".

    Raises:
        ConfigError: there is no such dataset, or it has no such split.
    """
    node = compose("data", [f"dataset={dataset}", *overrides]).dataset if isinstance(dataset, str) else dataset
    return datasets.read_split(node, split)


def evaluate(
    predictions: Predictions | Mapping[int, Poses] | str | Path,
    truth: Labels | TrainedRun,
    split: str | None = None,
    **settings: Any,
) -> Scores:
    """Scores of predictions; nothing is written.

    Args:
        predictions: image id to poses in source pixels, with or without their card; or a COCO results file.
        truth: labels of the same images; or a run, whose dataset has them and says how to score.
        split: of the run's dataset.
        settings: fields of ``kplab.metrics.settings.ScoreSettings`` that differ from the dataset's, or from their defaults.

    Raises:
        ConfigError: a setting is unknown or has an invalid value, or the split is missing.
        DataError: the file holds no results, or is not the one that its card describes.
        RunError: the file has a record and has changed since.
        ScoreError: predictions of other images or of other keypoints.
    """
    sources = {}
    if isinstance(truth, TrainedRun):
        if split is None:
            raise ConfigError(
                "the truth is a run, which has several splits. Name one: evaluate(predictions, run, 'test')."
            )
        labels, rules = truth.labels(split), scoring.settings_of(truth.config.dataset, settings)
        sources = {"dataset": str(truth.config.dataset.name), "split": split}
    else:
        labels, rules = truth, scoring.make_settings(settings, truth.skeleton.keypoints)
    name = "predictions"
    if isinstance(predictions, str | Path):
        name = Path(predictions).stem
        predictions = read_predictions(Path(predictions), labels.skeleton, recorded=False)
    elif not isinstance(predictions, Predictions):
        predictions = Predictions(labels.skeleton, dict(predictions))
    return scoring.score_labels(predictions, labels, rules, name, **sources)


def compare(
    runs: Sequence[TrainedRun | str | Path | Run] | Mapping[str, TrainedRun | str | Path | Run],
    split: str | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
    force: bool = False,
) -> Comparison:
    """Figures of runs with 95 % intervals of a paired bootstrap, and their differences; nothing is written.

    Args:
        runs: two or more, as ``load`` takes them; by name for the tables, or named after their experiments.
        split: whose scores are compared, where the runs share several.
        resamples: draws of as many images, or groups of images, as there are.
        seed: of the draws.
        force: compare although the scores were not made in the same way.

    Raises:
        RunError: the runs share no scores.
        CardMismatch: the scores were not made in the same way.
    """
    given = list(runs.values() if isinstance(runs, Mapping) else runs)
    records = [run.run if isinstance(run, TrainedRun) else load(run).run for run in given]
    _, paths = comparison.shared_scores(records, split, list(runs) if isinstance(runs, Mapping) else None)
    return compare_scores({label: read_scores(path) for label, path in paths.items()}, resamples, seed, force)
