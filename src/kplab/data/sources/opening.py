"""The frame sources that a text or a list of texts names: images, videos, a camera, or a folder that grows."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from kplab.data.images import find_images
from kplab.data.sources.files import UprightFiles, check_files
from kplab.data.sources.frames import FrameSource, ImageFrames, folder_name
from kplab.data.sources.live import CAMERA, Camera, WatchedFolder
from kplab.data.sources.video import VideoFrames, is_video
from kplab.errors import ConfigError, DataError, printable


def open_frames(
    source: str | Path | Sequence[str | Path], *, watch: bool | float = False, rate: float = 25.0
) -> list[FrameSource]:
    """Open what a source names: its images are one frame source, and each of its videos is one.

    Images are checked, and doubtful and unknown files are counted and printed. Images are turned as their EXIF orientation
    states, videos as their rotation states.

    Args:
        source: an image, a video, a folder, a glob, ``camera:NUMBER``, or a list of these.
        watch: the source is a folder that grows; a number: seconds without a new image after which it ends.
        rate: of images, a second; it gives them times.

    Raises:
        DataError: there is no image and no video, or some images are damaged.
        ConfigError: a camera or a folder that grows is part of a list, or ``watch`` is not for this source.
    """
    items = [str(item) for item in ([source] if isinstance(source, str | Path) else source)]
    camera = [item for item in items if CAMERA.fullmatch(item)]
    if len(items) > 1 and (camera or watch):
        raise ConfigError("a camera or a folder that grows is predicted alone: name it as the only source.")
    if camera and watch:
        raise ConfigError("watch=… is for a folder that grows, and a camera is none. Leave it out.")
    if camera:
        return [Camera(int(camera[0].partition(":")[2]))]
    if watch:
        return [WatchedFolder(items[0], None if watch is True else float(watch))]
    images, videos, others = _files(items)
    found: list[FrameSource] = []
    if others:
        kinds = ", ".join(sorted({p.suffix.lower() or "without suffix" for p in others}))
        print(printable(f"{len(others)} files are no images or videos of a known kind and are left out ({kinds})"))
    if images:
        files = UprightFiles.of(images)
        for note in check_files(files):
            print(printable(note))
        found.append(ImageFrames(files, rate, folder_name(items[0]) if len(items) == 1 else "images"))
    return found + [VideoFrames(path) for path in videos]


def _files(items: Iterable[str]) -> tuple[list[Path], list[Path], list[Path]]:
    """Images, videos and other files that are named.

    Raises:
        DataError: an item names no image and no video.
    """
    images: list[Path] = []
    videos: list[Path] = []
    others: list[Path] = []
    for item in items:
        path = Path(item)
        if is_video(item) and not path.is_dir() and (path.is_file() or not glob.has_magic(item)):
            videos.append(path)
            continue
        every = path.rglob("*") if path.is_dir() else map(Path, glob.glob(item, recursive=True))
        films = sorted(p for p in every if is_video(p) and p.is_file())
        try:
            found, rest = find_images(item)
        except DataError:
            if not films:
                raise
            found, rest = [], []
        images += found
        videos += films
        others += [p for p in rest if not is_video(p)]
    doubled = sorted({p.stem for p in videos if [q.stem for q in videos].count(p.stem) > 1})
    if doubled:
        raise DataError(
            f"videos of equal names would be predicted into the same folder: {', '.join(doubled)}. Rename them, or predict "
            "them one by one with out=DIR."
        )
    return images, videos, others
