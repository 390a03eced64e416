"""Drawings of a stream: pictures of its first images or a video, and a contact sheet; what is complete survives a kill."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from kplab.data.sources.files import FileSource
from kplab.errors import ConfigError, DataError, RunError
from kplab.runs.files import replacing
from kplab.structures.frames import Frame
from kplab.structures.predictions import card_path
from kplab.structures.skeleton import Skeleton
from kplab.viz.look import png
from kplab.viz.poses import contact_sheet
from kplab.viz.tracks import CAPTIONS, FrameDrawing, keep_evenly
from kplab.viz.video import TICKS, VideoFile, join

KINDS = ("auto", "pictures", "video", "none")
COLOURS = ("auto", "sides", "instances", "tracks")
#: Frames of a segment of the video.
SEGMENT = 250
#: (width, height) of a picture on the contact sheet, pixels.
CELL = (320, 320)
NAMES = re.compile(r"segment-(\d+)-(\d+)\.mp4|thumbnail-(\d+)\.png|segment\.part\.mp4")


@dataclass(frozen=True)
class Drawing:
    """What is drawn.

    Args:
        kind: "pictures", "video", "none", or "auto": a video of a video or a camera, pictures of images.
        pictures: at most; below 0: all.
        sheet: pictures on the contact sheet, about; 0: none.
        colour: see ``FrameDrawing``, as all below.
        trails: length of the trails, frames.
        captions: what is written at each instance.
        min_keypoint_score: keypoints with a lower score are not drawn.
        quality: of the video, "crf" of H.264: 0 is best, 51 worst.

    Raises:
        ConfigError: a value is unknown.
    """

    kind: str = "auto"
    pictures: int = 50
    sheet: int = 12
    colour: str = "auto"
    trails: int = 0
    captions: Sequence[str] = CAPTIONS
    min_keypoint_score: float = 0.0
    quality: int = 23

    def __post_init__(self) -> None:
        for name, value, known in (
            ("draw", [self.kind], KINDS),
            ("colour", [self.colour], COLOURS),
            ("captions", self.captions, CAPTIONS),
        ):
            if unknown := [v for v in value if v not in known]:
                raise ConfigError(f"{name}={unknown[0]} is unknown. Use {', '.join(known)}.")
        if self.trails < 0 or self.sheet < 0 or not 0 <= self.quality <= 51:
            raise ConfigError("trails and sheet must be 0 or more, and quality between 0 and 51.")


class Even:
    """Chooses about so many frames, evenly spread over a stream of unknown length."""

    def __init__(self, count: int) -> None:
        self.count, self.stride = count, 1

    def keeps(self, position: int) -> bool:
        """Whether a frame is chosen; positions come in order."""
        if not self.count:
            return False
        kept, self.stride = keep_evenly(position, self.stride, self.count)
        return kept


class Pictures:
    """The drawings of one prediction.

    Args:
        out: folder of the results.
        parts: folder of what is complete of an interrupted prediction: segments of the video and thumbnails.
        options: what is drawn; its kind is not "auto".
        skeleton: of the poses.
        rate: frames a second, about.
        timed: whether frames have times of their own.
        names: of all images, where they are known: pictures of images of equal names need different ones.

    Attributes:
        count: pictures, or frames of the video, that are drawn.
        lost: frames that are not drawn, since they could not be had again after an interruption.
    """

    def __init__(
        self,
        out: Path,
        parts: Path,
        options: Drawing,
        skeleton: Skeleton,
        rate: float = 25.0,
        timed: bool = True,
        names: Sequence[str] | None = None,
    ) -> None:
        self.out, self.parts, self.options, self.rate, self.timed = out, parts, options, rate, timed
        self.drawing = FrameDrawing(
            skeleton, options.colour, options.trails, options.captions, options.min_keypoint_score
        )
        self.short = None if names is None else dict(zip(names, overlay_names(names), strict=True))
        sheet = 0 if options.kind == "none" else options.sheet
        self._wanted, self._kept = Even(sheet), Even(sheet)
        self.labels: dict[int, str] = {}
        found = [(path, NAMES.fullmatch(path.name)) for path in sorted(parts.iterdir())]
        #: by number: file and start of each complete segment
        self.segments = {int(m[1]): (path, int(m[2])) for path, m in found if m and m[1]}
        self.video: VideoFile | None = None
        self.start = self.tick = -1
        self.size: tuple[int, int] | None = None
        self.count = self.lost = 0

    def wants(self, position: int, name: str) -> bool:
        """Whether the image of a frame is needed; its drawing is not complete yet. Positions come in order."""
        thumbnail = self._wanted.keeps(position) and not self._thumbnail(position).is_file()
        if self.options.kind == "video":
            return thumbnail or position // SEGMENT not in self.segments
        return thumbnail or (self._pictured(position) and not self._picture(name).is_file())

    def add(self, position: int, frame: Frame) -> None:
        """Draw a frame, as far as that is needed; every frame comes here, in order.

        Raises:
            DataError: the video's frames have several sizes.
        """
        self.drawing.follow(frame)
        self.tick = max(round(frame.time * TICKS), self.tick + 1)
        kept, video = self._kept.keeps(position), self.options.kind == "video"
        if kept:
            self.labels[position] = PurePosixPath(frame.name).name + (f"  {frame.time:.2f} s" if self.timed else "")
        filmed = video and position // SEGMENT not in self.segments
        pictured = not video and self._pictured(position)
        self.count += pictured or video
        if frame.image is None:
            self.lost += filmed or (pictured and not self._picture(frame.name).is_file())
        elif filmed or kept or pictured:
            picture = self.drawing.draw(frame)
            if filmed:
                self._film(picture, frame.name)
            if pictured:
                self._write(self._picture(frame.name), picture)
            if kept:
                scale = min(1.0, CELL[0] / picture.shape[1], CELL[1] / picture.shape[0])
                self._write(
                    self._thumbnail(position),
                    cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA),
                )
        if video and (position + 1) % SEGMENT == 0:
            self._close(position // SEGMENT)

    def finish(self) -> list[Path]:
        """Write the video and the contact sheet; returns their paths."""
        written = []
        if self.options.kind == "video":
            last = self._close(None)
            segments = [self.segments[number] for number in sorted(self.segments)] + ([last] if last else [])
            if segments:
                film = self.out / "overlay.mp4"
                part = self.parts / "segment.part.joined.mp4"
                join(part, [(path, start - segments[0][1]) for path, start in segments])
                part.replace(film)
                written.append(film)
        shown = [p for p in self.labels if p % self._kept.stride == 0 and self._thumbnail(p).is_file()]
        if shown:
            places = np.unique(np.linspace(0, len(shown) - 1, min(len(shown), self.options.sheet)).round().astype(int))
            shown = [shown[i] for i in places]
            files = FileSource(self.parts, [self._thumbnail(p).name for p in shown])
            images = [files.read(i) for i in range(len(files))]
            self._write(self.out / "contact_sheet.png", contact_sheet(images, 4, [self.labels[p] for p in shown]))
            written.append(self.out / "contact_sheet.png")
        return written

    def close(self) -> None:
        """Stop, leaving what is complete for a later command."""
        if self.video is not None:
            with suppress(Exception):
                self.video.container.close()
            self.video = None

    def _pictured(self, position: int) -> bool:
        most = self.options.pictures
        return self.options.kind == "pictures" and (most < 0 or position < most)

    def _picture(self, name: str) -> Path:
        return self.out / "overlays" / (f"{name}.png" if self.short is None else self.short[name])

    def _thumbnail(self, position: int) -> Path:
        return self.parts / f"thumbnail-{position:09d}.png"

    def _write(self, path: Path, picture: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(png(picture))

    def _film(self, picture: np.ndarray, name: str) -> None:
        """Append a picture to the segment."""
        self.size = self.size or picture.shape[1::-1]
        if picture.shape[1::-1] != self.size:
            raise DataError(
                f"{name}: is {picture.shape[1]}x{picture.shape[0]}, but those before are {self.size[0]}x{self.size[1]}. A video "
                "has one size: use draw=pictures."
            )
        if self.video is None:
            self.video, self.start = (
                VideoFile(self.parts / "segment.part.mp4", self.rate, self.options.quality),
                self.tick,
            )
        self.video.add(picture, self.tick - self.start)

    def _close(self, number: int | None) -> tuple[Path, int] | None:
        """Complete the segment that is written; the last one has no number, and is encoded again after an interruption."""
        if self.video is None:
            return None
        with self.video:
            pass
        self.video, path = None, self.parts / "segment.part.mp4"
        if number is not None:
            path = path.rename(self.parts / f"segment-{number:06d}-{self.start:015d}.mp4")
            self.segments[number] = path, self.start
        return path, self.start


def clear_parts(parts: Path) -> None:
    """Remove what an interrupted prediction has left in its folder, and the folder if nothing else is there."""
    if parts.is_dir() and not parts.is_symlink():
        for path in parts.iterdir():
            if NAMES.fullmatch(path.name) or path.suffix == ".part" or path.name == "segment.part.joined.mp4":
                path.unlink()
        with suppress(OSError):
            parts.rmdir()


def overlay_names(files: Sequence[str]) -> list[str]:
    """Name of each image's picture, in the same subfolder: ``a/x.jpg`` is ``a/x.png``, or ``a/x.jpg.png`` beside ``a/x.tif``."""
    short = [str(PurePosixPath(name).with_suffix(".png")) for name in files]
    often = Counter(short)
    return [name if often[name] == 1 else f"{file}.png" for name, file in zip(short, files, strict=True)]


def remove_overlays(results: Path, folder: Path) -> None:
    """Remove the pictures of an earlier prediction into the same folder; nothing outside this folder is removed.

    Args:
        results: the JSON of that prediction, whose card lists the images.
        folder: of the pictures.

    Raises:
        RunError: the card can't be read.
    """
    card = card_path(results)
    if not card.is_file():
        return
    try:
        files = [str(name) for name in dict(json.loads(card.read_text())["images"]).values()]
        names = overlay_names(files) + [f"{name}.png" for name in files]
        if any("\0" in name for name in names):
            raise ValueError("a name contains a zero byte")
    except (ValueError, TypeError, KeyError, OSError, RecursionError) as error:
        raise RunError(
            f"{card}: can't be read as a card ({error!r}). Delete it, or name another folder: out=DIR."
        ) from None
    home = folder.resolve()
    for name in names:
        picture = folder / name
        if picture.parent.resolve().is_relative_to(home):
            with suppress(IsADirectoryError):
                picture.unlink(missing_ok=True)


def check_no_links(folder: Path) -> None:
    """Refuse a folder of pictures that contains links: pictures would be written to where they lead.

    Raises:
        RunError: names the link.
    """
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink():
            raise RunError(f"{path}: is a link, and pictures would be written through it. Remove it, or use out=DIR.")
