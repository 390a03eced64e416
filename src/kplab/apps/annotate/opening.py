"""A project from the options of ``kplab annotate``: labels of a dataset, or new ones of a folder of images or of a video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from kplab import config as configs
from kplab.apps.annotate.instances import BOX_MARGIN
from kplab.apps.annotate.journal import Journal
from kplab.apps.annotate.project import Project
from kplab.apps.annotate.target import Target
from kplab.data import formats
from kplab.data.formats import coco
from kplab.data.images import find_images, read_header
from kplab.data.sources.files import FileSource, check_files
from kplab.data.sources.video import VideoSource, is_video
from kplab.data.video import write_frames
from kplab.errors import ConfigError, DataError, printable
from kplab.structures.image_source import ImageSource
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton
from kplab.tasks.wiring.allowed import find_target
from kplab.tasks.wiring.datasets import check_source, skeleton_of
from kplab.tasks.wiring.nodes import build_node

#: Frames of a video that are written without being asked for by number.
FRAMES_AT_MOST = 3000


def open_project(config: DictConfig) -> Project:
    """Open a project for editing.

    Raises:
        ConfigError: options contradict each other.
        DataError: labels or images can't be read, or another process has the labels open.
    """
    target, read = plan(config)
    journal = Journal(target.path)
    try:
        project = Project(read(), target, journal)
    except BaseException:
        journal.close(finished=not journal.recovered)
        raise
    for note in project.base.notes:
        print(printable(note))
    if project.recovered:
        print(f"{project.recovered} edits were recovered: an earlier process ended before it had saved them")
    return project


def plan(config: DictConfig) -> tuple[Target, Callable[[], Labels]]:
    """Where the labels of the options are saved, and how they are read."""
    if (config.images is None) == (config.dataset is None):
        raise ConfigError(
            "name labels to edit, dataset=NAME, or images to label, images=FOLDER skeleton=NAME out=FILE.json, and not both."
        )
    if config.dataset is not None:
        return _plan_dataset(config)
    if config.skeleton is None or config.out is None:
        raise ConfigError("new labels want skeleton=NAME (a file of conf/skeleton) and out=FILE.json.")
    if config.annotator is not None:
        raise ConfigError("annotator=NAME is for a dataset; for images, name another file: out=FILE.json.")
    skeleton, target = Skeleton.from_config(configs.plain(config.skeleton)), Target.coco(Path(config.out))
    source = image_files(str(config.images), config.frames, config.frames_to)
    return target, lambda: read_into(target.path, unlabelled(skeleton, source))


def _plan_dataset(config: DictConfig) -> tuple[Target, Callable[[], Labels]]:
    if config.skeleton is not None or config.frames is not None:
        raise ConfigError("skeleton=… and frames=… are for images=…; a dataset has its own. Leave them out.")
    node = source_node(config.dataset, config.source)
    skeleton = skeleton_of(config.dataset)

    def read() -> Labels:
        if config.dataset.get("make"):
            build_node(config.dataset.make, "dataset")
        return read_source(node, skeleton)

    if config.annotator is not None:
        target = Target.coco(Path(config.out) if config.out else second_file(node, str(config.annotator)))
        return target, lambda: read_into(target.path, without_instances(read()))
    if config.out is None:
        return Target.of_source(node), read
    target = Target.coco(Path(config.out))
    return target, lambda: read_into(target.path, read())


def source_node(dataset: DictConfig, name: str | None) -> DictConfig:
    """The source of a dataset that is edited.

    Raises:
        ConfigError: it has none of this name, or several and none is named.
    """
    sources = dataset.get("sources") or {}
    if not sources:
        raise ConfigError(f"dataset '{dataset.get('name')}' has no sources. Name a reader and its files (README).")
    if name is None and len(sources) > 1:
        raise ConfigError(
            f"dataset '{dataset.name}' has several sources. Name one: source={'|'.join(map(str, sources))}."
        )
    name = name or str(next(iter(sources)))
    if name not in sources:
        raise ConfigError(f"dataset '{dataset.name}' has no source '{name}'. It has: {', '.join(map(str, sources))}.")
    check_source(sources[name], f"dataset '{dataset.get('name')}', source '{name}'")
    return sources[name]


def read_source(node: DictConfig, skeleton: Skeleton) -> Labels:
    """The labels of a source, with all that its format needs to write them back."""
    reader = find_target(str(node["_target_"]), "dataset")
    more = {"keep_extras": True} if any(key.name == "keep_extras" for key in formats.keys_of(reader)) else {}
    return build_node(node, "dataset", skeleton=skeleton, **more)


def second_file(node: DictConfig, annotator: str) -> Path:
    """The file of a second annotator: beside the labels of a source.

    Raises:
        ConfigError: the name is no part of a file's name.
    """
    if not annotator.replace("_", "").replace("-", "").isalnum():
        raise ConfigError(f"annotator is '{annotator}'. Use letters, digits, - and _.")
    first = Path(str(node[formats.keys_of(find_target(str(node["_target_"]), "dataset"))[0].name]))
    return (
        first / f"annotations.{annotator}.json" if first.is_dir() else first.with_name(f"{first.stem}.{annotator}.json")
    )


def image_files(images: str, frames: Sequence[int] | None = None, frames_to: str | None = None) -> FileSource:
    """The images to label, each in a file of its own, checked.

    Frames of a video are written as PNG files, called by their true number from 0; see ``data.video.write_frames``.

    Args:
        images: a folder, a glob, an image or a video.
        frames: of a video: first, end, step; None: all.
        frames_to: folder for the frames; None: ``<video>.frames`` beside the video.

    Raises:
        DataError: there is no image, some are damaged, or the video is too long to take all of its frames.
    """
    path = Path(images)
    if not (is_video(images) and not path.is_dir()):
        if frames is not None:
            raise ConfigError("frames=… is for a video. Leave it out.")
        source = FileSource.of(find_images(images)[0])
        for note in check_files(source):
            print(printable(note))
        return source
    count = len(VideoSource(path))
    if frames is not None and (len(frames) != 3 or frames[2] < 1 or not 0 <= frames[0] < frames[1] <= count):
        raise ConfigError(
            f"frames is {list(frames)}. Write frames=[first,end,step], e.g. [0,{count},10]: {path} has {count} frames."
        )
    numbers = range(count) if frames is None else range(*frames)
    if frames is None and count > FRAMES_AT_MOST:
        raise DataError(
            f"{path}: has {count} frames. Choose some: frames=[0,{count},{-(-count // FRAMES_AT_MOST) * 10}]"
        )
    folder = write_frames(path, numbers, Path(frames_to) if frames_to else path.with_name(f"{path.name}.frames"))
    return FileSource(folder, [f"{number:06d}.png" for number in numbers])


def unlabelled(skeleton: Skeleton, source: FileSource) -> Labels:
    """Labels without any instance; the ids of the images count from 1."""
    sizes = np.array([read_header(source.path(i))[0] for i in range(len(source))], dtype=np.int64)
    return make_labels(
        skeleton,
        source,
        np.arange(1, len(source) + 1),
        sizes,
        [Path(name).parent.as_posix() if Path(name).parent.name else name for name in source.names],
        Poses.empty(len(skeleton)),
        np.zeros(0, dtype=np.int64),
        np.zeros(0, dtype=np.int64),
        box_source=f"keypoint extent x {BOX_MARGIN:g}",
        area_source="0.53 x box",
    )


def without_instances(labels: Labels) -> Labels:
    """The images of labels, for an annotator who must not see the labels."""
    none = np.zeros(0, dtype=np.int64)
    return make_labels(
        labels.skeleton, labels.source, labels.image_id, labels.size, list(labels.group), Poses.empty(len(labels.skeleton)),
        none, none, box_source=f"keypoint extent x {BOX_MARGIN:g}", area_source="0.53 x box",
    )  # fmt: skip


def read_into(path: Path, labels: Labels) -> Labels:
    """Labels of a COCO file that was begun before, and the images that it does not have yet; ``labels`` without the file.

    Raises:
        DataError: the file names images that ``labels`` does not have.
    """
    if not path.is_file():
        return labels
    root = root_of(labels.source)
    if root is None:
        raise DataError(
            f"{path}: can't be continued, as its images are no files of one folder. Name a new file: out=FILE.json."
        )
    begun = coco.read(path, root, labels.skeleton, keep_extras=True, allow_outside=True)
    place = {str(name): i for i, name in enumerate(begun.names)}
    unknown = sorted(set(place) - set(map(str, labels.names)))
    if unknown:
        raise DataError(
            f"{path}: has {len(unknown)} images that are not among those to label, e.g. {unknown[0]}. Name another file: "
            "out=FILE.json, or the images that it was made for."
        )
    new = [i for i, name in enumerate(labels.names) if str(name) not in place]
    if not new:
        return begun
    ids = begun.image_id.max(initial=0) + 1 + np.arange(len(new))
    start = np.concatenate([begun.start, np.full(len(new), begun.start[-1])])
    return replace(
        begun,
        source=FileSource(root, [*map(str, begun.names), *(str(labels.names[i]) for i in new)], allow_outside=True),
        image_id=np.concatenate([begun.image_id, ids]),
        size=np.concatenate([begun.size, labels.size[new]]),
        group=np.concatenate([begun.group, labels.group[new]]),
        start=start,
    )


def root_of(source: ImageSource) -> Path | None:
    """The folder that the names of a source are relative to; None where its images are no files."""
    base: Any = getattr(source, "source", source)
    return base.root if isinstance(base, FileSource) else None
