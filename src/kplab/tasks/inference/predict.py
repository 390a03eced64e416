"""``kplab predict``: keypoints of new images, or of a split of a dataset, by a run's model."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig

from kplab import config as configs
from kplab.data.datamodule import EpochSampler, PoseDataset, loader, usual_workers
from kplab.data.images import check_whole, find_images, read_header
from kplab.data.regions import Regions, detected_regions, image_regions
from kplab.data.sources.files import FileSource
from kplab.errors import ConfigError, DataError, RunError
from kplab.runs.records import write_record
from kplab.runs.run import Run
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions, card_path
from kplab.structures.predictor import Model, Predictor
from kplab.structures.sample import Batch
from kplab.structures.skeleton import Skeleton
from kplab.tasks.inference.assembly import Assembly, files_of, set_name
from kplab.tasks.wiring.datasets import check_regions, read_split, regions_for, skeleton_of
from kplab.tasks.wiring.models import build_model, check_flip_test
from kplab.tasks.wiring.nodes import load_config
from kplab.viz import poses as drawing


def load_model(run: Run, checkpoint: str = "auto", device: str = "auto") -> tuple[Model, Path]:
    """A run's model with trained (averaged, where they were averaged) weights, ready to predict.

    Args:
        checkpoint: auto (best where there is one, else last), best, last, or a file.
        device: auto, cpu, cuda, …

    Raises:
        RunError: there is no such checkpoint, or it can't be read.
    """
    folder = run.folder / "checkpoints"
    best, last = folder / "best.ckpt", folder / "last.ckpt"
    path = {"auto": best if best.is_file() else last, "best": best, "last": last}.get(checkpoint, Path(checkpoint))
    if not path.is_file():
        raise RunError(
            f"{run.folder}: no checkpoint {path.name} (the run is {run.status}). Train it, or name another run."
        )
    model = build_model(load_config(run), pretrained=False)
    try:
        # Lightning's checkpoints hold optimiser and callback states, which are not plain tensors
        state = torch.load(path, map_location="cpu", weights_only=False)["state_dict"]
        model.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
    except Exception as error:
        said = f"{type(error).__name__}: {str(error)[:200]}"
        raise RunError(f"{path}: can't be read ({said}). It is damaged, or no checkpoint of this run.") from None
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        return model.to(chosen).eval(), path
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={device}: {str(error).splitlines()[0]} Use device=cpu or device=auto.") from None


def predict_dataset(
    model: Predictor,
    labels: Labels,
    regions: Regions,
    flip_test: bool,
    batch_size: int = 32,
    workers: int | None = None,
    assembly: Assembly | None = None,
) -> dict[int, Poses]:
    """Image id to predicted poses, source pixels; images without a region have an empty Poses."""
    check_flip_test(model, flip_test)
    dataset = PoseDataset(labels, regions, model.size)
    workers = usual_workers() if workers is None else workers
    batches = loader(
        dataset, batch_size, workers if len(dataset) > batch_size else 0, EpochSampler(len(dataset), False)
    )
    assembly = assembly or Assembly(regions.kind == "image")
    return collect(model.predict, batches, labels, assembly, flip_test, model.device)


def collect(
    predict: Callable[..., list[Poses]],
    batches: Any,
    labels: Labels,
    assembly: Assembly,
    flip_test: bool,
    device: torch.device,
) -> dict[int, Poses]:
    """Run ``predict(batch, flip_test)`` over batches and group what it says by image."""

    def parts() -> Iterator[tuple[int, Poses]]:
        batch: Batch
        for batch in batches:
            found = assembly.to_source(batch, predict(batch.to(device), flip_test))
            yield from zip((int(i) for i in batch.image_id), found, strict=True)

    pairs = list(parts())
    grouped = assembly.group(np.array([i for i, _ in pairs]), [p for _, p in pairs], labels.skeleton)
    return {int(i): grouped.get(int(i), Poses.empty(len(labels.skeleton))) for i in labels.image_id}


def predict_split(
    run: Run,
    split: str,
    labels: Labels | None = None,
    dataset: DictConfig | None = None,
    checkpoint: str = "auto",
    flip_test: bool | None = None,
    batch_size: int = 32,
    device: str = "auto",
    regions: str | None = None,
) -> Path:
    """Predict a split of a run's dataset (or of another one) into ``predictions/<set>-<split>.json``.

    Args:
        regions: image, annotated or detected, where they are to be others than the run's own; the file's name says so.
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
            "Predict it as new images: images=DIR."
        )
    whole, path = load_model(run, checkpoint, device)
    flip = config.flip_test if flip_test is None else flip_test
    places = regions_for(config, labels, split, regions)
    model = whole.for_regions(places.kind)
    check_regions(places, labels, split, config, model.max_poses)
    assembly = Assembly.of(config, places.kind == "image")
    begun = time.perf_counter()
    found = predict_dataset(model, labels, places, flip, batch_size, assembly=assembly)
    seconds = time.perf_counter() - begun
    card = card_of(run, path, config, flip, boxes_of(model, places.kind)) | assembly.card()
    speed = {"batch_size": batch_size, "seconds": round(seconds, 6), "images_per_s": round(len(labels) / seconds, 2)}
    card |= {"dataset": str(source.name), "split": split, **speed}
    predictions = Predictions(labels.skeleton, found, card, files_of(labels))
    out = predictions.write(run.folder / "predictions" / f"{set_name(config, source, split, regions)}.json")
    made_from = {"checkpoint": path, "config": run.folder / "config.yaml", "truth": labels.digest()}
    write_record(out, configs.workspace(), made_from, [card_path(out)], run=run.name, split=split)
    return out


def boxes_of(model: Predictor, kind: str) -> str:
    """For the card: who said where the subjects are. ``annotated`` boxes must not be compared with ``detected`` ones."""
    if kind == "image":
        return "whole image" if model.max_poses == 1 else "detected"
    return kind


def card_of(run: Run, checkpoint: Path, config: DictConfig, flip_test: bool, boxes: str) -> dict[str, Any]:
    """How predictions were made."""
    return {
        "run": run.name,
        "checkpoint": checkpoint.name,
        "boxes": boxes,
        "detector_run": config.get("detector_run") if boxes == "detected" else None,
        "flip_test": bool(flip_test),
        "size": list(config.size),
        "padding": float(config.padding),
    }


def unlabelled(files: list[Path], skeleton: Skeleton) -> Labels:
    """New images as Labels without any instance. All are looked at first, so that a bad one is told before work starts."""
    faults, sizes = [], []
    for path in files:
        try:
            check_whole(path)
            sizes.append(read_header(path)[0])
        except DataError as error:
            faults.append(str(error))
    if faults:
        more = f"\n… and {len(faults) - 10} more" if len(faults) > 10 else ""
        raise DataError("\n".join(faults[:10]) + more)
    none = np.zeros(0, dtype=np.int64)
    ids = np.arange(1, len(files) + 1)
    return make_labels(
        skeleton, FileSource.of(files), ids, np.array(sizes), None, Poses.empty(len(skeleton)), none, none,
        box_source="none", area_source="none",
    )  # fmt: skip


def predict_images(
    run: Run,
    images: str,
    out: Path | None = None,
    checkpoint: str = "auto",
    flip_test: bool | None = None,
    batch_size: int = 32,
    device: str = "auto",
    overlays: int = 50,
) -> Path:
    """Predict new images; writes ``predictions.json``, ``keypoints.csv`` and ``overlays/``.

    A model that was trained on boxes takes each image for one box, which it says.
    """
    config = load_config(run)
    skeleton = skeleton_of(config.dataset)
    out = out or run.folder / "predictions" / (Path(images).stem.replace("*", "") or "images")
    try:
        (out / "overlays").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{out}: can't be made ({error.strerror}). Name another folder: out=DIR.") from None
    files, others = find_images(images)
    if others:
        kinds = ", ".join(sorted({p.suffix.lower() or "without suffix" for p in others}))
        print(f"{len(others)} files are no images of a known kind and are left out ({kinds})")
    labels = unlabelled(files, skeleton)
    model, path = load_model(run, checkpoint, device)
    flip = config.flip_test if flip_test is None else flip_test
    regions = image_regions(labels)
    if config.regions == "detected":
        finder = Run.find(str(config.detector_run), Path(config.runs_dir))
        boxes = predict_dataset(load_model(finder, device=device)[0], labels, regions, False, batch_size)
        regions = detected_regions(labels, boxes, config.padding)
    elif config.regions == "annotated":
        print("this model was trained on boxes, and new images have none: each image is taken for one subject's box")
    assembly = Assembly.of(config, regions.kind == "image")
    found = predict_dataset(model, labels, regions, flip, batch_size, assembly=assembly)
    card = card_of(run, path, config, flip, boxes_of(model, regions.kind)) | assembly.card()
    predictions = Predictions(skeleton, found, card, files_of(labels))
    forget_overlays(out)
    result = predictions.write(out / "predictions.json")
    table(predictions, labels).to_csv(out / "keypoints.csv", index=False)
    count = len(files) if overlays < 0 else min(overlays, len(files))
    names = overlay_names([str(name) for name in labels.names])
    for i in range(count):
        picture = drawing.draw(labels.read(i), found[int(labels.image_id[i])], skeleton)
        drawing.write_png(out / "overlays" / names[i], picture)
    made_from = {"checkpoint": path, "config": run.folder / "config.yaml"}
    beside = [card_path(result), out / "keypoints.csv"]
    write_record(result, configs.workspace(), made_from, beside, run=run.name, images=len(files))
    print(f"{len(files)} images, {sum(map(len, found.values()))} poses, {count} overlays in {out / 'overlays'}")
    return result


def overlay_names(files: list[str]) -> list[str]:
    """A picture's name for each image, subfolders kept: ``a/x.jpg`` becomes ``a/x.png``, or ``a/x.jpg.png`` beside ``a/x.tif``."""
    short = [str(PurePosixPath(name).with_suffix(".png")) for name in files]
    often = Counter(short)
    return [name if often[name] == 1 else f"{file}.png" for name, file in zip(short, files, strict=True)]


def forget_overlays(out: Path) -> None:
    """Remove the pictures of an earlier prediction into this folder, which would pass for those of the new one."""
    card = card_path(out / "predictions.json")
    if card.is_file():
        for name in overlay_names(list(json.loads(card.read_text()).get("images", {}).values())):
            (out / "overlays" / name).unlink(missing_ok=True)


def table(predictions: Predictions, labels: Labels) -> pd.DataFrame:
    """One row a predicted keypoint: file, instance, keypoint, x and y in source pixels (continuous), scores."""
    rows = []
    for i, image_id in enumerate(labels.image_id):
        p = predictions.poses[int(image_id)]
        for n in range(len(p)):
            for k, keypoint in enumerate(predictions.skeleton.keypoints):
                x, y = p.xy[n, k]
                rows.append((str(labels.names[i]), n, keypoint, x, y, p.keypoint_score[n, k], p.score[n]))
    return pd.DataFrame(rows, columns=["file", "instance", "keypoint", "x", "y", "keypoint_score", "instance_score"])
