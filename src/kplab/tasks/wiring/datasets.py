"""Datasets from configs: labels, splits, regions, and the loaders of a training."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from omegaconf import DictConfig, OmegaConf

from kplab import config as configs
from kplab.data import formats
from kplab.data import split as splitting
from kplab.data.check import check_labels
from kplab.data.regions import Regions, detected_regions, make_regions
from kplab.errors import ConfigError, DataError, RunError
from kplab.runs.provenance import file_sha256
from kplab.runs.records import read_record
from kplab.runs.run import Run
from kplab.structures.labels import Labels
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton
from kplab.tasks.wiring.allowed import find_target
from kplab.tasks.wiring.nodes import build_node, load_config

# torch and lightning take ten seconds to import: verbs without a model don't import them
if TYPE_CHECKING:
    from kplab.data.datamodule import PoseDataModule, PoseDataset


#: Splits up to this size are decoded completely before training; of larger ones the headers are read (`kplab data` decodes all).
DECODED_AT_MOST = 2000


def skeleton_of(dataset: DictConfig) -> Skeleton:
    """The skeleton that a dataset config names.

    Raises:
        ConfigError: there is none.
    """
    if not dataset.get("skeleton"):
        raise ConfigError(
            f"dataset '{dataset.get('name')}' has no skeleton. Name one in its defaults: /skeleton@skeleton: NAME."
        )
    return Skeleton.from_config(configs.plain(dataset.skeleton))


def read_splits(dataset: DictConfig) -> dict[str, Labels]:
    """Generate the data if the config describes it, read all sources, split them, and hold out a fold of the training split.

    Returns:
        split name ("train", "val", "test", …) to Labels.
    """
    splits = _splits(dataset)
    if dataset.get("holdout") is None:
        return splits
    if "train" not in splits:
        raise ConfigError(f"dataset '{dataset.name}' has a holdout and no split 'train', but: {', '.join(splits)}.")
    return {**splits, **_parts(splitting.hold_out, splits["train"], dataset, "holdout", "folds and fold; by and seed")}


def _splits(dataset: DictConfig) -> dict[str, Labels]:
    skeleton = skeleton_of(dataset)
    if not dataset.get("sources"):
        raise ConfigError(f"dataset '{dataset.get('name')}' has no sources. Name a reader and its files (README).")
    if dataset.get("make"):
        build_node(dataset.make, "dataset")
    sources = {}
    for name, node in dataset.sources.items():
        check_source(node, f"dataset '{dataset.get('name')}', source '{name}'")
        try:
            sources[str(name)] = build_node(node, "dataset", skeleton=skeleton)
        except DataError as error:
            raise DataError(f"{error}{unset_variables(dataset)}") from None
    plan = dataset.get("split")
    if plan is None:
        return sources
    if len(sources) != 1:
        raise ConfigError(f"dataset '{dataset.name}' has a split and {len(sources)} sources. A split wants one source.")
    (labels,) = sources.values()
    return _parts(splitting.split, labels, dataset, "split", "manifest, with fractions or folds, and by")


def _parts(
    function: Callable[..., dict[str, Labels]], labels: Labels, dataset: DictConfig, key: str, wants: str
) -> dict[str, Labels]:
    """The parts that a function makes of labels, with the arguments that a key of the dataset's config states.

    Raises:
        ConfigError: they are not those of the function.
    """
    try:
        asked = inspect.signature(function).bind(labels, **configs.plain(dataset[key]))
    except TypeError as error:
        raise ConfigError(f"dataset '{dataset.name}': {key}: {error}. It wants {wants}.") from None
    return function(*asked.args, **asked.kwargs)


def unset_variables(dataset: DictConfig) -> str:
    """A sentence on the environment variables that a dataset's paths are made of and that are not set; "" if all are.

    >>> unset_variables(OmegaConf.create({"folder": "${oc.env:SOME_UNSET_VARIABLE,data}/mice"}))
    ' The dataset reads the environment variable SOME_UNSET_VARIABLE, which is not set.'
    """
    text = OmegaConf.to_yaml(dataset)
    unset = [name for name in dict.fromkeys(re.findall(r"\$\{oc\.env:(\w+)", text)) if not os.environ.get(name)]
    several = "s" if len(unset) > 1 else ""
    verb = "are" if several else "is"
    return (
        f" The dataset reads the environment variable{several} {', '.join(unset)}, which {verb} not set."
        if unset
        else ""
    )


def check_source(node: DictConfig, where: str) -> None:
    """Hold the keys of a source against its reader's signature.

    Raises:
        ConfigError: there is no such reader or it is not allowed (names the known formats), or a key is unknown or missing
            (lists the reader's keys).
    """
    target = str(node.get("_target_") or "")
    try:
        reader = find_target(target, where)
    except ConfigError as error:
        why = str(error).removeprefix(f"{where}: ")
        raise ConfigError(
            f"{where}: no reader '{target}': {why} Write _target_: kplab.data.formats.FORMAT.read, where FORMAT is one of "
            f"{', '.join(formats.find_formats())} (kplab data formats lists their keys), or name a function of your own."
        ) from None
    keys = formats.keys_of(reader)
    given = {str(key) for key in node if not str(key).startswith("_")}
    unknown = [] if formats.takes_any_key(reader) else sorted(given - {key.name for key in keys})
    missing = [key.name for key in keys if key.required and key.name not in given]
    faults = [f"has no key '{name}'" for name in unknown] + [f"needs the key '{name}'" for name in missing]
    if faults:
        listed = "\n".join(f"  {key}" for key in keys)
        raise ConfigError(f"{where}: {target} {', '.join(faults)}. Its keys:\n{listed}")


def read_split(dataset: DictConfig, name: str) -> Labels:
    """One split of a dataset."""
    splits = read_splits(dataset)
    if name not in splits:
        raise ConfigError(f"dataset '{dataset.name}' has no split '{name}'. It has: {', '.join(splits)}.")
    return splits[name]


def regions_for(config: DictConfig, labels: Labels, split: str, kind: str | None = None) -> Regions:
    """The regions of a split.

    Args:
        kind: None is the config's own.

    Raises:
        RunError: the run that ``detector_run`` names has not predicted this split.
    """
    kind = kind or str(config.regions)
    if kind not in ("image", "annotated", "detected"):
        raise ConfigError(f"regions is '{kind}'. Use image, annotated or detected.")
    if kind != "detected":
        return make_regions(labels, kind, config.padding)
    path = detections_file(config, split)
    read_record(path)
    return detected_regions(labels, Predictions.read(path, labels.skeleton).poses, config.padding)


def detections_file(config: DictConfig, split: str) -> Path:
    """The predictions of a split by the run that ``detector_run`` names.

    Raises:
        RunError: it has not predicted this split.
    """
    if config.get("detector_run") is None:
        raise ConfigError("regions=detected wants detector_run=RUN, the run whose predicted boxes are to be read.")
    run = Run.find(str(config.detector_run), Path(config.runs_dir))
    name = f"{load_config(run).dataset.name}-{split}"
    path = run.folder / "predictions" / f"{name}.json"
    if not path.is_file():
        raise RunError(f"{path}: not predicted yet. Run: kplab predict run={run.name} split={split}")
    return path


def detections_of(config: DictConfig, splits: Iterable[str]) -> dict[str, str] | None:
    """SHA-256 of the detections that a training validates and is scored on, by split; None unless it reads detections."""
    if config.regions != "detected":
        return None
    read = [split for split in splits if split in ("val", *config.test_on)]
    return {split: file_sha256(detections_file(config, split)) for split in read}


@dataclass
class TrainingData:
    """The data of a training."""

    splits: dict[str, Labels]
    datamodule: PoseDataModule
    train: PoseDataset
    val: PoseDataset | None
    notes: list[str]


def training_data(config: DictConfig, max_poses: int | None) -> TrainingData:
    """Datasets and loaders, checked: all errors in the data are raised before the training, in one message.

    Args:
        max_poses: largest number of poses of one view; None is any number.

    Raises:
        DataError: names each file, what is wrong and what to do.
    """
    from kplab.data.datamodule import PoseDataModule, PoseDataset, usual_workers

    cache = config.get("cache", 0)  # runs of earlier versions have none
    splits = read_splits(config.dataset)
    if "train" not in splits:
        raise DataError(f"dataset '{config.dataset.name}' has no split 'train', but: {', '.join(splits)}.")
    size = (int(config.size[0]), int(config.size[1]))
    augment = build_node(config.augment, "augment")
    epochs = max_epochs(config)
    notes = []
    if augment.mosaic and epochs is not None and epochs <= augment.mosaic_off:
        notes.append(f"no mosaics: augment.mosaic_off={augment.mosaic_off} of {epochs} epochs are without them")
    datasets: dict[str, PoseDataset] = {}
    for name, labels in splits.items():
        # notes of a reader concern its whole source, and are the same for all of its splits
        notes += [note for note in labels.notes if note not in notes]
        report = check_labels(labels, deep=len(labels) <= DECODED_AT_MOST)
        report.raise_if_errors()
        notes += [f"{name}: {warning}" for warning in report.warnings]
        learning = name == "train"
        most = config.get("validate_images")
        if name == "val" and most is not None and most < len(labels):
            notes.append(f"val: validated on {most} of {len(labels)} images, evenly spaced (validate_images)")
            labels = labels.select(np.linspace(0, len(labels) - 1, most).round())
        # models for detected boxes are trained on annotated ones, and need detected ones for evaluation only
        given = config.regions == "detected" and (learning or name not in ("val", *config.test_on))
        regions = regions_for(config, labels, name, "annotated" if given else None)
        check_regions(regions, labels, name, config, max_poses, learning)
        check_content(labels, name, config.dataset.name)
        left_out = len(labels.poses) - int(labels.poses.ignore.sum()) - len(regions)
        if regions.kind == "annotated" and left_out:
            notes.append(f"{name}: {left_out} instances without a labelled keypoint or box are left out")
        if labels.poses.ignore.any():
            notes.append(
                f"{name}: {int(labels.poses.ignore.sum())} crowds or unlabelled subjects are neither trained on nor scored"
            )
        window = (int(config.window[0]), int(config.window[1])) if learning and config.window is not None else None
        datasets[name] = PoseDataset(
            *(
                labels,
                regions,
                size,
                augment if learning else None,
                config.seed,
                window,
                epochs,
                config.window_anywhere,
            ),
            cache=int(cache * 1e6 / max(1, usual_workers() if config.workers is None else config.workers)),
        )
    module = PoseDataModule(datasets["train"], datasets.get("val"), config.batch_size, config.workers, config.seed)
    return TrainingData(splits, module, datasets["train"], datasets.get("val"), notes)


def max_epochs(config: DictConfig) -> int | None:
    """How many epochs a training has; None where only time or steps end it."""
    epochs = config.trainer.get("max_epochs")
    return None if epochs is None or epochs < 0 else int(epochs)


def check_regions(
    regions: Regions, labels: Labels, split: str, config: DictConfig, max_poses: int | None, learning: bool = False
) -> None:
    """Refuse regions with more poses than the head can predict; with ``learning`` as the augmentation changes them."""
    where = f"dataset {config.dataset.name}, split {split}"
    most = regions.most_poses(labels)
    for key in ("mosaic", "paste"):
        if learning and max_poses == 1 and config.augment.get(key) and regions.kind == "image":
            raise DataError(
                f"the head holds {max_poses} pose per view, but augment.{key}={config.augment[key]} shows subjects of several "
                f"images in one ({where}). Use augment.{key}=0, or a head that holds any number of poses."
            )
    if max_poses is not None and most > max_poses:
        part = "model" if config.get("head") is None else "head"
        kind = config[part].get("_target_", part).rsplit(".", 1)[-1]
        raise DataError(
            f"{part} '{kind}' holds {max_poses} pose per view, but regions '{regions.kind}' shows up to {most} ({where}). "
            "Use regions=annotated, or a head that holds any number of poses."
        )


def check_content(labels: Labels, split: str, dataset: str) -> None:
    """Refuse splits without images or labels."""
    where = f"dataset {dataset}, split {split}"
    if not len(labels):
        raise DataError(f"the split is empty ({where}). Check its fractions or its manifest.")
    if not (labels.poses.labelled.any(1) & ~labels.poses.ignore).any():
        raise DataError(f"no keypoint is labelled ({where}). Check the annotation file, or leave the split out.")
