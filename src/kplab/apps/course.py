"""What the notebooks share: the run that they show, a few pictures, and examples of a folder of pictures and of a video."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from omegaconf import DictConfig

from kplab import config as configs
from kplab.data.datamodule import PoseDataset
from kplab.errors import ConfigError, KplabError
from kplab.metrics.compare import compare
from kplab.ops import affine
from kplab.runs.run import Run
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses
from kplab.structures.predictor import Model
from kplab.structures.sample import Batch
from kplab.tasks import compose
from kplab.tasks.evaluation.comparison import shared_scores
from kplab.tasks.evaluation.files import read_scores
from kplab.tasks.evaluation.overview import spread
from kplab.tasks.wiring import identity
from kplab.tasks.wiring.nodes import load_config
from kplab.viz import fields
from kplab.viz import poses as drawing

#: Names another folder of runs for the notebooks, instead of ``runs`` of the workspace: the tests have one of their own.
FOLDER_VARIABLE = "KPLAB_COURSE_RUNS"


def runs_dir() -> Path:
    """The folder of runs that the notebooks show."""
    return Path(os.environ.get(FOLDER_VARIABLE) or configs.workspace() / "runs")


def example_dir() -> Path:
    """A folder for what the notebooks make besides runs; it may be deleted."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named).parent / "examples" if named else configs.workspace() / "outputs" / "examples"


def find_run(
    name: str | None,
    overrides: Sequence[str],
    fits: Callable[[DictConfig], bool] = lambda config: True,
    train: Callable[[DictConfig], Run | None] | None = None,
) -> Run:
    """The run that a notebook shows. What exists is never trained.

    Args:
        name: latest: the newest finished run that fits, trained if there is none; the name of a run or a part of it; or None:
            the newest finished run of the overrides, trained if there is none.
        overrides: of ``kplab train``, for that training.
        fits: from the config of a run to whether a notebook can show it.
        train: trains a config; None is ``kplab train``'s function.

    Raises:
        RunError: there is no run of this name.
    """
    if name is not None and name != "latest":
        return Run.find(name, runs_dir())
    if name == "latest":
        for run in newest():
            if fits(load_config(run)):
                print(f"latest: {run.name}")
                return run
    config = compose("train", [*overrides, f"runs_dir={runs_dir()}"])
    same = identity.find_run(config)
    return same if same is not None and same.status == "finished" else new_run(config, train)


def new_run(config: DictConfig, train: Callable[[DictConfig], Run | None] | None = None) -> Run:
    """Train a config.

    Raises:
        ConfigError: this process is a further one of a distributed training.
    """
    if train is None:
        from kplab.tasks.training.train import train as train_here

        train = train_here
    run = train(config)
    if run is None:
        raise ConfigError("this is a further process of a distributed training. Use a trainer without ddp.")
    return run


def newest() -> Iterator[Run]:
    """Finished runs with a readable config, newest first."""
    for folder in sorted(runs_dir().glob("*_*"), reverse=True):
        try:
            run = Run.open(folder)
            if run.status == "finished" and load_config(run) is not None:
                yield run
        except KplabError:
            continue  # `kplab runs` lists it as unreadable


def config_of(name: str | None, overrides: Sequence[str]) -> DictConfig:
    """The config of the run that a notebook shows; nothing is trained.

    Args:
        name: as for ``find_run``; None, or where latest finds none: the config of the overrides.
        overrides: of ``kplab train``.
    """
    if name is not None and name != "latest":
        return load_config(Run.find(name, runs_dir()))
    run = next(newest(), None) if name == "latest" else None
    return compose("train", list(overrides)) if run is None else load_config(run)


def with_data_of(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """A training on the dataset of another one, scored on the same splits.

    Args:
        config: of the other training.
        overrides: of ``kplab train``; their dataset is replaced.
    """
    made = compose("train", [f"runs_dir={runs_dir()}", *overrides])
    made.dataset, made.test_on = config.dataset, config.test_on
    return made


def example_runs() -> str:
    """The override of a training whose run is an illustration: it is kept with the examples, and is never the latest run."""
    return f"runs_dir={example_dir() / 'runs'}"


def other_run(run: Run, split: str, name: str | None, overrides: Sequence[str]) -> Run:
    """A run to compare with.

    Args:
        run: the first one.
        split: of the scores.
        name: of the other run; None: the newest other one whose scores were made in the same way, trained if there is none.
        overrides: of ``kplab train``, for that training, on the dataset of the first run.
    """
    if name is not None:
        return Run.find(name, runs_dir())
    return next(
        (other for other in newest() if other.name != run.name and comparable(run, other, split)), None
    ) or new_run(with_data_of(load_config(run), overrides))


def comparable(run: Run, other: Run, split: str) -> bool:
    """Whether two runs have scores of a split that were made in the same way."""
    try:
        _, paths = shared_scores([run, other], split, ["a", "b"])
        compare({label: read_scores(path) for label, path in paths.items()}, resamples=2)
    except KplabError:
        return False
    return True


def picture(labels: Labels, i: int, keypoint: int | None = None, side: int = 420) -> tuple[np.ndarray, str]:
    """An image with its true poses, enlarged, and its name.

    Args:
        labels: the dataset.
        i: index of the image.
        keypoint: draw this one alone; None draws all.
        side: shortest longer side of the picture, pixels.
    """
    poses, image = labels.poses_of(i), labels.read(i)
    if keypoint is not None:
        shown = np.arange(poses.xy.shape[1]) == keypoint
        poses = Poses.make(poses.xy, poses.visible * shown, box=poses.box, ignore=poses.ignore)
    scale = max(1.0, side / max(image.shape[:2]))
    words = [f"{len(poses)} subjects", f"{int((poses.visible == 1).sum())} hidden keypoints"]
    return drawing.draw(image, poses, labels.skeleton, scale=scale), f"{labels.names[i]}: {', '.join(words)}"


def keypoints(labels: Labels) -> dict[str, int | None]:
    """A menu of keypoints: all, or one of them."""
    return {"all": None, **{name: k for k, name in enumerate(labels.skeleton.keypoints)}}


def overlap(splits: Mapping[str, Labels], kind: str) -> int:
    """How many images (``names``) or groups (``group``) are in two splits."""
    found = {name: set(map(str, getattr(labels, kind))) for name, labels in splits.items()}
    return sum(len(found[a] & found[b]) for a in found for b in found if a < b)


def most_similar(first: Labels, second: Labels, most: int = 200, side: int = 12) -> list[tuple[float, int, int]]:
    """The most similar pairs of images of two splits: frames of one video, or copies, are leaks.

    The similarity is the correlation of small grey versions: 1 for copies, also if one is darker.

    Args:
        most: images of each split that are compared, spread evenly.
        side: of the small versions, pixels.

    Returns:
        (similarity, index in the first, index in the second) for each image of the second, most similar first.
    """
    a, b = (spread(len(labels), most) for labels in (first, second))
    small = [np.stack([_thumbnail(labels.read(i), side) for i in some]) for labels, some in ((first, a), (second, b))]
    alike = small[1] @ small[0].T
    best = alike.argmax(1)
    return sorted(((float(alike[n, m]), a[m], b[n]) for n, m in enumerate(best.tolist())), reverse=True)


def _thumbnail(image: np.ndarray, side: int) -> np.ndarray:
    """(side * side,) grey values with mean 0 and length 1."""
    grey = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA).mean(-1).ravel()
    grey -= grey.mean()
    return grey / max(1e-9, float(np.linalg.norm(grey)))


def write_pictures(pictures: Sequence[np.ndarray], folder: Path) -> list[str]:
    """Write pictures as PNG files of a folder; returns their names, which sort as the pictures do.

    Args:
        pictures: (H, W, 3) uint8 RGB each.
    """
    names = [f"picture{i:03d}.png" for i in range(len(pictures))]
    for name, picture in zip(names, pictures, strict=True):
        drawing.write_png(folder / name, picture)
    return names


def moving_camera(
    labels: Labels, i: int, regions: str, size: tuple[int, int] = (256, 256), frames: int = 50
) -> tuple[list[np.ndarray], list[Poses]]:
    """Frames of a camera that sways and turns in front of an image, and the true poses in them.

    Args:
        labels: of the image.
        i: its index.
        regions: annotated: the frames show the first subject; else the whole image.
        size: (width, height) of a frame, pixels.
        frames: number of frames: one period of the motion.
    """
    image, poses = labels.read(i), labels.poses_of(i)
    poses = poses[~poses.ignore]
    box = np.array([0.0, 0.0, image.shape[1], image.shape[0]])
    if regions == "annotated" and len(poses) and np.isfinite(poses.box[0]).all():
        poses, box = poses[[0]], poses.box[0]
    view = affine.fit_box(box, size, 1.25 if regions == "annotated" else 1.0)
    centre = affine.translation(size[0] / 2, size[1] / 2)
    pictures, truth = [], []
    for t in np.arange(frames) * 2 * np.pi / frames:
        zoom, (dx, dy) = 1 + 0.08 * np.sin(2 * t), 0.06 * np.array(size) * (np.sin(t), np.sin(2 * t))
        moved = affine.translation(dx, dy) @ centre @ affine.rotation(10 * np.sin(t)) @ affine.scaling(zoom, zoom)
        matrix = moved @ np.linalg.inv(centre) @ view
        pictures.append(affine.warp(image, matrix, size))
        truth.append(poses.transform(matrix))
    return pictures, truth


def inside(
    model: Model, views: PoseDataset, i: int, keypoint: int | None = None, least: float = 0.0
) -> tuple[Figure | np.ndarray, str]:
    """The heatmaps of a model over a view; of a model without heatmaps, the poses that it predicts there.

    Args:
        model: of a run.
        views: of its dataset.
        i: index of the view.
        keypoint: whose map is shown; None is the maximum of all.
        least: values, or scores of poses, below it are not drawn.
    """
    batch = Batch.collate([views[i]])
    view, name = batch.images[0].permute(1, 2, 0).numpy(), str(views.labels.names[views.regions.image[i]])
    if model.heatmap_stride is None:
        poses = model.predict(batch)[0]
        poses = poses[poses.score >= least]
        scale = max(1.0, 420 / max(view.shape[:2]))
        return drawing.draw(view, poses, model.skeleton, scale=scale), f"{name}: {len(poses)} poses; no heatmaps"
    maps = model.heatmaps(batch.images)[0].float().cpu().numpy()
    maps = np.where(maps < least, 0.0, maps)
    chosen = maps if keypoint is None else maps[[keypoint]]
    title = "the highest of all keypoints" if keypoint is None else model.skeleton.keypoints[keypoint]
    return fields.heatmap(view, chosen.max(0), title, model.heatmap_stride), name


def best_poses(found: Sequence[Poses], near: np.ndarray | None = None) -> np.ndarray:
    """One pose of each image: the one with the highest score, or the one that is nearest to a given pose.

    Args:
        found: poses of T images.
        near: (T, K, 2) given poses, pixels of the images; None takes the highest score.

    Returns:
        (T, K, 2) keypoints; NaN where an image has no pose.
    """
    chosen = np.full((len(found), *found[0].xy.shape[1:]), np.nan)
    for t, poses in enumerate(found):
        if not len(poses):
            continue
        worth = poses.score
        if near is not None:
            worth = -np.nan_to_num(np.linalg.norm(poses.xy - near[t], axis=-1)).mean(-1)
        chosen[t] = poses.xy[int(worth.argmax())]
    return chosen
