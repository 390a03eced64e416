"""Results on disk, image by image: COCO results JSON, a table of keypoints, and overlays."""

from __future__ import annotations

import csv
import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any, Self

from kplab.errors import RunError
from kplab.runs.files import replacing_text
from kplab.structures.image_source import ImageSource
from kplab.structures.poses import Poses
from kplab.structures.predictions import card_path, pixel_indices, result_rows, write_card
from kplab.structures.skeleton import Skeleton
from kplab.viz import poses as drawing

COLUMNS = ("file", "instance", "keypoint", "x_pixel_index", "y_pixel_index", "keypoint_score", "instance_score")


class ResultsFile:
    """COCO results JSON and its card; the same bytes as ``Predictions.write``, without all poses in memory.

    Results are written to a temporary file beside the target as they come; ``finish`` puts them in the order of image ids.

    Args:
        path: of the JSON.
        skeleton: of the poses.
    """

    def __init__(self, path: Path, skeleton: Skeleton) -> None:
        self.path, self.skeleton = path, skeleton
        path.parent.mkdir(parents=True, exist_ok=True)
        self.spool = tempfile.TemporaryFile("w+b", dir=path.parent)  # noqa: SIM115  # closed by __exit__
        self.places: dict[int, tuple[int, int]] = {}
        self.poses = 0

    def add(self, image_id: int, poses: Poses) -> None:
        """Write the results of one image, source pixels."""
        rows = result_rows(image_id, poses)
        text = json.dumps(rows)[1:-1].encode()
        self.places[image_id] = (self.spool.tell(), len(text))
        self.spool.write(text)
        self.poses += len(rows)

    def finish(self, card: Mapping[str, Any], files: Mapping[int, str]) -> Path:
        """Write the JSON and its card; returns the path of the JSON.

        Args:
            card: how the predictions were made.
            files: image id to file name.
        """
        with replacing_text(self.path) as file:
            file.write("[")
            separator = ""
            for image_id in sorted(self.places):
                start, length = self.places[image_id]
                if length:
                    self.spool.seek(start)
                    file.write(separator + self.spool.read(length).decode())
                    separator = ", "
            file.write("]")
        write_card(self.path, card, self.skeleton, {i: files[i] for i in self.places})
        return self.path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.spool.close()


class KeypointTable:
    """CSV rows, one a predicted keypoint: file, instance, keypoint, x and y as pixel indices of the source, scores.

    The numbers are those of the results JSON of the same prediction.

    Args:
        file: an open text file.
        skeleton: names of the keypoints.
        timed: whether there is a last column ``time_s``, for frames of a video.
    """

    def __init__(self, file: IO[str], skeleton: Skeleton, timed: bool = False) -> None:
        self.skeleton, self.writer, self.timed = skeleton, csv.writer(file, lineterminator="\n"), timed
        self.writer.writerow((*COLUMNS, "time_s") if timed else COLUMNS)

    def add(self, name: str, poses: Poses, time: float = 0.0) -> None:
        """Write the rows of one image; what is not a number stays empty.

        Args:
            time: of the frame, seconds.
        """
        more = (round(time, 6),) if self.timed else ()
        for n, score in enumerate(poses.score.tolist()):
            index = pixel_indices(poses.xy[n])
            for k, keypoint in enumerate(self.skeleton.keypoints):
                numbers = (*index[k].tolist(), float(poses.keypoint_score[n, k]), score)
                self.writer.writerow((name, n, keypoint, *("" if v != v else v for v in numbers), *more))


class Overlays:
    """Predicted poses drawn over the first images of a source.

    Args:
        folder: of the pictures.
        source: of the images.
        skeleton: of the poses.
        count: pictures at most; below 0: all.
    """

    def __init__(self, folder: Path, source: ImageSource, skeleton: Skeleton, count: int) -> None:
        self.folder, self.source, self.skeleton = folder, source, skeleton
        self.count = len(source) if count < 0 else min(count, len(source))
        self.names = overlay_names([source.name(i) for i in range(len(source))])[: self.count]

    def add(self, i: int, poses: Poses) -> None:
        """Draw image i, if it is one of the first."""
        if i < self.count:
            drawing.write_png(self.folder / self.names[i], drawing.draw(self.source.read(i), poses, self.skeleton))


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
        names = overlay_names([str(name) for name in dict(json.loads(card.read_text())["images"]).values()])
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
