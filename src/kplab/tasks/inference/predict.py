"""Predictions of a run on disk: of a split of a dataset, or of new images."""

from __future__ import annotations

import time
from pathlib import Path

from omegaconf import DictConfig

from kplab import config as configs
from kplab.data.images import find_images
from kplab.data.reading import some
from kplab.data.sources.files import UprightFiles, check_files
from kplab.data.sources.video import VideoSource, is_video
from kplab.errors import ConfigError, DataError, printable
from kplab.runs.files import replacing_text
from kplab.runs.provenance import file_sha256
from kplab.runs.records import check_inside, make_folder, record_path, write_record
from kplab.runs.run import Run
from kplab.structures.image_source import ImageSource
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses
from kplab.structures.predictions import card_path
from kplab.tasks.inference.assembly import files_of, set_name
from kplab.tasks.inference.loading import LoadedRun
from kplab.tasks.inference.progress import track_images
from kplab.tasks.inference.stream import write_behind
from kplab.tasks.inference.writers import (
    KeypointTable,
    Overlays,
    ResultsFile,
    check_no_links,
    remove_overlays,
)
from kplab.tasks.wiring.datasets import check_regions, read_split, regions_for, skeleton_of
from kplab.tasks.wiring.nodes import load_config


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
    backend: str = "torch",
) -> Path:
    """Predict a split into ``predictions/<dataset>-<split>.json`` of the run; returns that path.

    Args:
        split: name.
        labels: of the split, if they are read already.
        dataset: None is the run's own.
        checkpoint: see ``load_model``.
        flip_test: None is as trained.
        batch_size: views at a time.
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
            "Predict it as new images: images=DIR."
        )
    loaded = LoadedRun.load(run, checkpoint, device, flip_test, backend)
    places = regions_for(config, labels, split, regions)
    check_regions(places, labels, split, config, loaded.model.for_regions(places.kind).max_poses)
    path = run.folder / "predictions" / f"{set_name(config, source, split, regions, backend)}.json"
    check_inside(run.folder, path, card_path(path), record_path(path))
    ids = labels.image_id.tolist()
    with ResultsFile(path, labels.skeleton) as results:
        begun = time.perf_counter()
        found = loaded.stream(labels.source, places, batch_size=batch_size)
        shown = track_images(found, len(labels), f"predicting {path.stem}")
        write_behind(shown, lambda i, poses: results.add(ids[i], poses))
        seconds = time.perf_counter() - begun
        speed = {
            "batch_size": batch_size,
            "seconds": round(seconds, 6),
            "images_per_s": round(len(labels) / seconds, 2),
        }
        card = {**loaded.card(places.kind), "dataset": str(source.name), "split": split, **speed}
        results.finish(card, files_of(labels))
    made_from = {**loaded.made_from(), "truth": labels.digest()}
    write_record(path, configs.workspace(), made_from, [card_path(path)], run=run.name, split=split)
    return path


def predict_images(
    run: Run,
    images: str,
    out: Path | None = None,
    checkpoint: str = "auto",
    flip_test: bool | None = None,
    batch_size: int = 32,
    device: str = "auto",
    overlays: int = 50,
    backend: str = "torch",
) -> Path:
    """Predict new images into ``predictions.json``, ``keypoints.csv`` and ``overlays/``; returns the path of the JSON.

    A model that was trained on annotated boxes takes each image as one box, and a message says so. Images are turned as
    their EXIF orientation states, as viewers show them; doubtful files are counted and printed. Frames of a video are
    images, called ``clip.mp4#000123`` by their number from 0, and the table has their times.

    Args:
        images: a folder, a glob, an image or a video.
        out: folder; None is inside the run.
        checkpoint: see ``load_model``.
        flip_test: None is as trained.
        batch_size: views at a time.
        device: auto, cpu, cuda, …
        overlays: pictures at most; below 0: all.
        backend: torch, or that of an exported file.

    Raises:
        DataError: there is no image, or some are damaged.
        ConfigError: the folder can't be made.
    """
    if out is None:
        out = run.folder / "predictions" / (Path(images).stem.replace("*", "") or "images")
        check_inside(run.folder, out)
    path = out / "predictions.json"
    check_inside(out, path, card_path(path), record_path(path), out / "keypoints.csv")
    check_no_links(out / "overlays")
    make_folder(out / "overlays")
    source = new_images(images)
    video = source if isinstance(source, VideoSource) else None
    loaded = LoadedRun.load(run, checkpoint, device, flip_test, backend)
    if loaded.config.regions == "annotated":
        print("this model was trained on boxes, and new images have none: each image is taken for one subject's box")
    regions = loaded.new_regions(source, batch_size)
    remove_overlays(path, out / "overlays")
    pictures = Overlays(out / "overlays", source, loaded.skeleton, overlays)
    with (
        ResultsFile(path, loaded.skeleton) as results,
        replacing_text(out / "keypoints.csv", newline="") as file,
    ):
        table = KeypointTable(file, loaded.skeleton, timed=video is not None)

        def write(i: int, poses: Poses) -> None:
            # COCO counts images from 1
            results.add(i + 1, poses)
            table.add(source.name(i), poses, 0.0 if video is None else float(video.times[i]))
            pictures.add(i, poses)

        write_behind(
            track_images(loaded.stream(source, regions, batch_size=batch_size), len(source), "predicting"), write
        )
        card = {**loaded.card("image" if regions is None else regions.kind), "exif_orientation": "applied"}
        if video is not None:
            card["video"] = {"sha256": file_sha256(video.file), "frames": len(video), "seconds": float(video.times[-1])}
        results.finish(card, {i + 1: source.name(i) for i in range(len(source))})
    beside = [card_path(path), out / "keypoints.csv"]
    write_record(path, configs.workspace(), loaded.made_from(), beside, run=run.name, images=len(source))
    print(f"{len(source)} images, {results.poses} poses, {pictures.count} overlays in {out / 'overlays'}")
    return path


def new_images(images: str) -> ImageSource:
    """Images to predict, checked: doubtful and unknown files are counted and printed.

    Args:
        images: a folder, a glob, an image or a video.

    Raises:
        DataError: there is no image, or some are damaged.
    """
    if is_video(images) and not Path(images).is_dir():
        return VideoSource(images)
    videos = [p.name for p in sorted(Path(images).rglob("*")) if is_video(p)] if Path(images).is_dir() else []
    try:
        files, others = find_images(images)
    except DataError:
        if not videos:
            raise
        raise DataError(
            f"{images}: holds {len(videos)} videos and no images: {some(videos)}. Predict one at a time, e.g. "
            f"images={Path(images) / videos[0]}"
        ) from None
    if others:
        kinds = ", ".join(sorted({p.suffix.lower() or "without suffix" for p in others}))
        print(printable(f"{len(others)} files are no images of a known kind and are left out ({kinds})"))
    source = UprightFiles.of(files)
    for note in check_files(source):
        print(printable(note))
    return source
