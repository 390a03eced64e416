"""From configs to objects: the only place that calls Hydra's ``instantiate``."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from kplab import config as configs
from kplab.config import ConfigError
from kplab.data import split as splitting
from kplab.data.check import check_labels
from kplab.data.formats import DataError
from kplab.data.regions import Regions, detected_regions, make_regions
from kplab.runs.run import Run, RunError
from kplab.structures.labels import Labels
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton
from kplab.tasks.errors import is_users

# torch and lightning take ten seconds to import: verbs that load no model do without
if TYPE_CHECKING:
    import lightning.pytorch as pl

    from kplab.classical.exemplar import Exemplar
    from kplab.data.datamodule import PoseDataModule, PoseDataset
    from kplab.models.cascade import Cascade
    from kplab.models.pose_model import PoseModel

    #: What predicts: ``predict(batch, flip_test)``, ``max_poses``, ``flips`` and ``size``.
    Model = PoseModel | Cascade | Exemplar

#: Keys of a detector that are no options of the cascade.
STAGE = ("backbone", "neck", "head", "size", "crop")
#: Splits up to this size are decoded whole before training; of larger ones the headers are read (`kplab data` decodes all).
DECODED_AT_MOST = 2000


def made(config: DictConfig, what: str, **more: Any) -> Any:
    """Instantiate a config node; a user's mistake in it becomes a message that names the node.

    Args:
        more: arguments that are objects already. (Hydra would take them for configs, hence the two steps.)
    """
    try:
        if not more:
            return instantiate(config, _convert_="all")
        return instantiate(config, _convert_="all", _partial_=True)(**more)
    except (InstantiationException, ValueError, TypeError) as error:
        cause: BaseException = (error.__cause__ or error) if isinstance(error, InstantiationException) else error
        if is_users(cause) or isinstance(cause, OSError):
            raise cause from None
        # a constructor's own message may name its node already
        said = str(cause) if str(cause).startswith(f"{what}.") else f"{what}: {cause} (see conf/{what})"
        raise ConfigError(said) from error


def config_of(run: Run) -> DictConfig:
    """The config that a run was made with."""
    path = run.folder / "config.yaml"
    if not path.is_file():
        raise RunError(f"{run.folder}: half written: it has no config.yaml. Train the run again.")
    OmegaConf.register_new_resolver("workspace", lambda: str(configs.workspace()), replace=True)
    try:
        config = OmegaConf.load(path)
        if "dataset" not in config or "head" not in config:
            raise ValueError("it has no dataset or no head")
    except (ValueError, OSError, YAMLError) as error:
        said = str(error).splitlines()[0]
        raise RunError(f"{path}: half written or damaged ({said}). Train the run again.") from None
    return config  # type: ignore[return-value]


def skeleton_of(dataset: DictConfig) -> Skeleton:
    """The skeleton that a dataset config names.

    Raises:
        ConfigError: it names none.
    """
    if not dataset.get("skeleton"):
        raise ConfigError(
            f"dataset '{dataset.get('name')}' has no skeleton. Name one in its defaults: /skeleton@skeleton: NAME."
        )
    return Skeleton.from_config(configs.plain(dataset.skeleton))


def labels_of(dataset: DictConfig) -> dict[str, Labels]:
    """Make the data if the config says how, read all sources, and split them.

    Returns:
        split name ("train", "val", "test", …) to Labels.
    """
    skeleton = skeleton_of(dataset)
    if not dataset.get("sources"):
        raise ConfigError(f"dataset '{dataset.get('name')}' has no sources. Name a reader and its files (README).")
    if dataset.get("make"):
        made(dataset.make, "dataset")
    sources = {str(name): made(node, "dataset", skeleton=skeleton) for name, node in dataset.sources.items()}
    plan = dataset.get("split")
    if plan is None:
        return sources
    if len(sources) != 1:
        raise ConfigError(f"dataset '{dataset.name}' has a split and {len(sources)} sources. A split wants one source.")
    (labels,) = sources.values()
    try:
        asked = inspect.signature(splitting.split).bind(labels, **configs.plain(plan))
    except TypeError as error:
        raise ConfigError(
            f"dataset '{dataset.name}': split: {error}. It wants manifest, with fractions or folds, and by."
        ) from None
    return splitting.split(*asked.args, **asked.kwargs)


def one_split(dataset: DictConfig, name: str) -> Labels:
    """One split of a dataset."""
    splits = labels_of(dataset)
    if name not in splits:
        raise ConfigError(f"dataset '{dataset.name}' has no split '{name}'. It has: {', '.join(splits)}.")
    return splits[name]


def model_of(config: DictConfig, pretrained: bool = True) -> Model:
    """Backbone → neck → head, as a run's config says; behind a detector where it names one; or else its matcher.

    Args:
        pretrained: False where a checkpoint is loaded next, so that no weights are fetched for nothing.

    Raises:
        ModelError: parts don't go together, or the file of ``weights`` doesn't fit them.
    """
    from kplab.models.cascade import Cascade
    from kplab.models.pose_model import PoseModel
    from kplab.models.weights import load_model_weights

    skeleton = skeleton_of(config.dataset)
    if config.get("matcher") is not None:
        return made(config.matcher, "matcher", size=(int(config.size[0]), int(config.size[1])), skeleton=skeleton)
    given = config.get("weights") if pretrained and config.get("resume") is None else None
    overrides: dict[str, Any] = {} if pretrained and not given else {"pretrained": False, "checkpoint": None}

    def stage(parts: DictConfig, sides: Sequence[int]) -> PoseModel:
        size = (int(sides[0]), int(sides[1]))
        backbone = made(parts.backbone, "backbone", size=size, **overrides)
        neck = made(parts.neck, "neck", in_channels=backbone.channels, strides=backbone.strides)
        head = made(parts.head, "head", in_channels=neck.channels, strides=neck.strides, size=size, skeleton=skeleton)
        return PoseModel(backbone, neck, head, size)

    first = config.get("detector")
    model: PoseModel | Cascade
    if first is None:
        model = stage(config, config.size)
    else:
        options = {key: value for key, value in configs.plain(first).items() if key not in STAGE}
        size = (int(config.size[0]), int(config.size[1]))
        model = Cascade(stage(first, first.size), stage(config, first.crop), size, config.padding, **options)
    if given:
        load_model_weights(model, Path(str(given)))
    return model


def regions_of(config: DictConfig, labels: Labels, split: str, kind: str | None = None) -> Regions:
    """The regions of a split.

    Args:
        kind: None is the config's own.

    Raises:
        RunError: the boxes of another run are asked for, which has not predicted this split.
    """
    kind = kind or str(config.regions)
    if kind not in ("image", "annotated", "detected"):
        raise ConfigError(f"regions is '{kind}'. Use image, annotated or detected.")
    if kind != "detected":
        return make_regions(labels, kind, config.padding)
    if config.get("detector_run") is None:
        raise ConfigError("regions=detected wants detector_run=RUN, the run whose predicted boxes are to be read.")
    run = Run.find(str(config.detector_run), Path(config.runs))
    name = f"{config_of(run).dataset.name}-{split}"
    path = run.folder / "predictions" / f"{name}.json"
    if not path.is_file():
        raise RunError(f"{path}: not predicted yet. Run: kplab predict run={run.name} split={split}")
    return detected_regions(labels, Predictions.read(path, labels.skeleton).poses, config.padding)


@dataclass
class Data:
    """What a training needs of a dataset."""

    splits: dict[str, Labels]
    datamodule: PoseDataModule
    train: PoseDataset
    val: PoseDataset | None
    notes: list[str]


def data_of(config: DictConfig, max_poses: int | None) -> Data:
    """Datasets and loaders, checked: every fault that would stop or spoil a training is raised here, all at once.

    Args:
        max_poses: how many poses the head holds in one view; None is any number.

    Raises:
        DataError: what is wrong, file by file, and what to do.
    """
    from kplab.data.datamodule import PoseDataModule, PoseDataset

    splits = labels_of(config.dataset)
    if "train" not in splits:
        raise DataError(f"dataset '{config.dataset.name}' has no split 'train', but: {', '.join(splits)}.")
    size = (int(config.size[0]), int(config.size[1]))
    augment = made(config.augment, "augment")
    epochs = epochs_of(config)
    notes = []
    if augment.mosaic and epochs is not None and epochs <= augment.mosaic_off:
        notes.append(f"no mosaics: augment.mosaic_off={augment.mosaic_off} of {epochs} epochs are without them")
    datasets: dict[str, PoseDataset] = {}
    for name, labels in splits.items():
        # one reader's notes are about its whole source, however many splits were made of it
        notes += [note for note in labels.notes if note not in notes]
        report = check_labels(labels, deep=len(labels) <= DECODED_AT_MOST)
        report.raise_if_errors()
        notes += [f"{name}: {warning}" for warning in report.warnings]
        learning = name == "train"
        # whoever is to read detected boxes learns from annotated ones, and needs detected ones only where it is measured
        given = config.regions == "detected" and (learning or name not in ("val", *config.test_on))
        regions = regions_of(config, labels, name, "annotated" if given else None)
        check_regions(regions, labels, name, config, max_poses, mosaic=learning and augment.mosaic > 0)
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
            labels, regions, size, augment if learning else None, config.seed, window, epochs, config.window_anywhere
        )
    module = PoseDataModule(datasets["train"], datasets.get("val"), config.batch_size, config.workers, config.seed)
    return Data(splits, module, datasets["train"], datasets.get("val"), notes)


def epochs_of(config: DictConfig) -> int | None:
    """How many epochs a training has; None where only time or steps end it."""
    epochs = config.trainer.get("max_epochs")
    return None if epochs is None or epochs < 0 else int(epochs)


def check_flip_test(model: Model, flip_test: bool) -> None:
    """Refuse a flip test that the model can't do.

    Raises:
        ConfigError: it has a head without ``unflip``, or none.
    """
    if flip_test and not model.flips:
        from kplab.models.cascade import Cascade

        stages = [model.detector, model.subject] if isinstance(model, Cascade) else [model]
        heads = {s: getattr(s, "head", None) for s in stages if not s.flips}
        names = ", ".join(
            f"head '{type(h).__name__}'" if h is not None else f"matcher '{type(s).__name__}'" for s, h in heads.items()
        )
        raise ConfigError(
            f"flip_test is true, but {names} has no unflip, which would turn outputs of the mirrored image back. "
            "Use flip_test=false."
        )


def check_regions(
    regions: Regions, labels: Labels, split: str, config: DictConfig, max_poses: int | None, mosaic: bool = False
) -> None:
    """Refuse what a head can't hold."""
    where = f"dataset {config.dataset.name}, split {split}"
    most = regions.most_poses(labels)
    if max_poses is not None and mosaic and regions.kind == "image":
        raise DataError(
            f"the head holds {max_poses} pose per view, but augment.mosaic={config.augment.mosaic} shows four images in "
            f"one ({where}). Use augment.mosaic=0, or a head that holds any number of poses."
        )
    if max_poses is not None and most > max_poses:
        part = "head" if config.get("matcher") is None else "matcher"
        kind = config[part].get("_target_", part).rsplit(".", 1)[-1]
        raise DataError(
            f"{part} '{kind}' holds {max_poses} pose per view, but regions '{regions.kind}' shows up to {most} ({where}). "
            "Use regions=annotated, or a head that holds any number of poses."
        )


def check_content(labels: Labels, split: str, dataset: str) -> None:
    """Refuse splits with nothing to learn or score."""
    where = f"dataset {dataset}, split {split}"
    if not len(labels):
        raise DataError(f"the split is empty ({where}). Check its fractions or its manifest.")
    if not (labels.poses.labelled.any(1) & ~labels.poses.ignore).any():
        raise DataError(f"no keypoint is labelled ({where}). Check the annotation file, or leave the split out.")


def precision_of(asked: str, accelerator: str) -> str:
    """Lightning's precision for ``auto``: bf16 where the hardware has it, CPUs included; else full precision."""
    import torch

    if accelerator in ("gpu", "cuda") and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        raise ConfigError(
            f"the trainer wants a GPU, but torch {torch.__version__} sees none. Use trainer=cpu, or install a build of "
            "torch that fits the driver (README, Environment)."
        )
    if asked != "auto":
        return asked
    if accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available()):
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    return "bf16-mixed" if torch.cpu._is_avx512_bf16_supported() else "32-true"


def trainer_of(config: DictConfig, run_folder: Path, callbacks: list[pl.Callback], loggers: list[Any]) -> pl.Trainer:
    """Lightning's Trainer from ``conf/trainer``."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.callbacks import ProgressBar

    options = configs.plain(config.trainer)
    options["precision"] = precision_of(str(options.get("precision", "auto")), str(options.get("accelerator", "auto")))
    try:
        return made(
            DictConfig(options),
            "trainer",
            callbacks=callbacks,
            logger=loggers,
            default_root_dir=str(run_folder),
            use_distributed_sampler=False,
            check_val_every_n_epoch=config.validate_every,
            num_sanity_val_steps=0,
            # Lightning refuses a bar of ours without this, and would add its own with it
            enable_progress_bar=any(isinstance(c, ProgressBar) for c in callbacks),
            enable_model_summary=False,
        )
    except MisconfigurationException as error:
        raise ConfigError(f"trainer: {error} (see conf/trainer)") from None


def global_rank() -> int:
    """This process's number in a distributed run, before Lightning has started one."""
    for key in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if key in os.environ and (key != "SLURM_PROCID" or "SLURM_NTASKS" in os.environ):
            return int(os.environ[key])
    return 0


def optimizer_factory(config: DictConfig, model: Model) -> Callable[..., Any]:
    """The optimiser's function, waiting for ``model`` and ``steps``; tried once, so that a mistake shows now."""

    def factory(model: Any, steps: int) -> Any:
        return made(config.optimizer, "optimizer", model=model, steps=steps)

    factory(model, 10)
    return factory


def logger_of(config: DictConfig, run_folder: Path, run_name: str) -> list[Any]:
    """The loggers of ``conf/logger`` besides the CSV file, which is always written."""
    if not config.logger.get("_target_"):
        return []
    return [made(config.logger, "logger", save_dir=str(run_folder), name=run_name)]
