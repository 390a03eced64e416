"""Predictions of a split of a dataset on disk."""

from __future__ import annotations

import time
from pathlib import Path

from omegaconf import DictConfig

from kplab import config as configs
from kplab.data.datamodule import usual_batch
from kplab.errors import ConfigError
from kplab.runs.records import check_inside, record_path, write_record
from kplab.runs.run import Run
from kplab.structures.labels import Labels
from kplab.structures.predictions import card_path
from kplab.tasks.inference.assembly import set_name
from kplab.tasks.inference.loading import LoadedRun
from kplab.tasks.inference.progress import track_images
from kplab.tasks.inference.stream import write_behind
from kplab.tasks.inference.writers.coco import ResultsFile
from kplab.tasks.wiring.datasets import check_regions, read_split, regions_for, skeleton_of
from kplab.tasks.wiring.nodes import load_config


def predict_split(
    run: Run,
    split: str,
    labels: Labels | None = None,
    dataset: DictConfig | None = None,
    checkpoint: str = "auto",
    flip_test: bool | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    regions: str | None = None,
    backend: str = "torch",
) -> Path:
    """Predict a split into ``predictions/<dataset>-<split>.json`` of the run; returns that path.

    Args:
        split: name.
        labels: of the split, if they are read already.
        dataset: None is the run's own.
        checkpoint: see ``load_model``.
        flip_test: None is as trained; False reads each view once.
        batch_size: views at a time; None is ``usual_batch``.
        device: auto, cpu, cuda, …
        regions: image, annotated or detected, if they are not the run's own; the name of the file tells them.
        backend: torch, or that of an exported file; the name of the file tells it.

    Raises:
        ConfigError: the dataset has other keypoints than the run.
    """
    config = load_config(run)
    source = dataset or config.dataset
    if labels is None:
        labels = read_split(source, split)
    own = skeleton_of(config.dataset)
    if own.keypoints != labels.skeleton.keypoints:
        raise ConfigError(
            f"run {run.name} knows the keypoints of skeleton '{own.name}' ({', '.join(own.keypoints)}), but dataset "
            f"'{source.name}' has those of '{labels.skeleton.name}' ({', '.join(labels.skeleton.keypoints)}). "
            "Predict it as new images: source=DIR."
        )
    loaded = LoadedRun.load(run, checkpoint, device, flip_test, backend)
    places = regions_for(config, labels, split, regions)
    check_regions(places, labels, split, config, loaded.model.for_regions(places.kind).max_poses)
    batch_size = batch_size or usual_batch(loaded.model.size)
    path = run.folder / "predictions" / f"{set_name(config, source, split, regions, backend)}.json"
    check_inside(run.folder, path, card_path(path), record_path(path))
    ids = labels.image_id.tolist()
    with ResultsFile(path, labels.skeleton) as results:
        begun = time.perf_counter()
        found = loaded.stream(labels.source, places, batch_size=batch_size)
        shown = track_images(found, len(labels), f"predicting {path.stem}")
        write_behind(shown, lambda i, poses: results.add(ids[i], poses, str(labels.names[i])))
        seconds = time.perf_counter() - begun
        speed = {
            "batch_size": batch_size,
            "seconds": round(seconds, 6),
            "images_per_s": round(len(labels) / seconds, 2),
        }
        card = {**loaded.card(places.kind), "dataset": str(source.name), "split": split, **speed}
        results.finish(card)
    made_from = {**loaded.made_from(), "truth": labels.digest()}
    write_record(path, configs.workspace(), made_from, [card_path(path)], run=run.name, split=split)
    return path
