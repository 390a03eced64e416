"""Predictions of new images, videos, cameras and folders that grow: one stream from frames to files, which can go on."""

from __future__ import annotations

import errno
import glob
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kplab import config as configs
from kplab.data.sources.frames import FrameSource, ImageFrames, Resumed, Selection, folder_name
from kplab.data.sources.opening import open_frames
from kplab.data.sources.video import VideoFrames
from kplab.errors import DataError, RunError, printable
from kplab.runs.files import PART
from kplab.runs.provenance import file_sha256
from kplab.runs.records import check_inside, make_folder, record_path, write_record
from kplab.runs.run import Run
from kplab.structures.frames import Frame, Stage, process
from kplab.structures.predictions import card_path
from kplab.structures.skeleton import Skeleton
from kplab.tasks.inference.journal import Journal
from kplab.tasks.inference.loading import LoadedRun
from kplab.tasks.inference.progress import track_images
from kplab.tasks.inference.stream import FramePredictor, write_behind
from kplab.tasks.inference.writers import check_names, files_of, writing
from kplab.tasks.inference.writers.about import About
from kplab.tasks.inference.writers.coco import ResultsFile
from kplab.tasks.inference.writers.pictures import (
    Drawing,
    Pictures,
    check_no_links,
    clear_parts,
    remove_overlays,
)

#: Frames that wait for the writers at most.
WAITING = 16


@dataclass(frozen=True)
class Stages:
    """What changes the poses of frames in order: tracking, filling, smoothing.

    Args:
        options: that identify the prediction, by name.
        build: from the loaded run to new stages.
        need_images: whether frames must have their images, also those that were predicted before an interruption.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    build: Callable[[LoadedRun], Sequence[Stage]] = lambda loaded: ()
    need_images: bool = False


@dataclass(frozen=True)
class Predicted:
    """The result of predicting one source.

    Args:
        path: of the results JSON.
        frames: number of frames.
        poses: number of instances in them.
        fault: why the source ended early; None where it is complete.
    """

    path: Path
    frames: int
    poses: int
    fault: str | None = None


def predict_source(
    run: Run,
    source: str | Path | Sequence[str | Path],
    out: Path | None = None,
    *,
    checkpoint: str = "auto",
    flip_test: bool | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    selection: Selection = Selection(),  # noqa: B008  # frozen
    watch: bool | float = False,
    rate: float = 25.0,
    min_score: float = 0.0,
    write: Sequence[str] = ("csv",),
    images_at: str = "",
    drawing: Drawing = Drawing(),  # noqa: B008  # frozen
    stages: Stages | None = None,
    backend: str = "torch",
) -> list[Predicted]:
    """Predict images, videos, a camera or a folder that grows into ``predictions.json``, tables and drawings.

    What is predicted is on disk at once. A command that was interrupted goes on where it was, and gives the same files. A
    source that ends early, such as a truncated video, gives the results of what could be read, and states why.

    A model that was trained on annotated boxes takes each image as one box, and a message says so.

    Args:
        run: a trained run.
        source: see ``open_frames``.
        out: folder; None is inside the run. Several sources have a folder each in it.
        checkpoint: see ``load_model``.
        flip_test: None is as trained; False reads each view once.
        batch_size: views at a time; None is ``usual_batch``.
        device: auto, cpu, cuda, …
        selection: which frames are taken.
        watch: see ``open_frames``.
        rate: of images, a second.
        min_score: instances with a lower score are left out.
        write: formats besides COCO's, see ``WRITERS``.
        images_at: where an annotation tool finds the images, see ``About``.
        drawing: what is drawn.
        stages: tracking and smoothing; None: none.
        backend: torch, or that of an exported file.

    Raises:
        DataError: there is no image and no video, or images are damaged.
        ConfigError: an option is unknown or does not fit the source, or the folder can't be made.
        RunError: the folder has an interrupted prediction with other options, or the disk is full.
    """
    check_names(write)
    sources = open_frames(source, watch=watch, rate=rate)
    if out is None:
        out = run.folder / "predictions"
        folders = [out / folder_name(s.label) for s in sources]
    else:
        folders = [out] if len(sources) == 1 else [out / folder_name(s.label) for s in sources]
    loaded = None
    results = []
    for one, folder in zip(sources, folders, strict=True):
        job = Job(one, folder, selection, min_score, tuple(write), drawing, images_at)
        job.prepare(inside=run.folder if out == run.folder / "predictions" else folder)
        if loaded is None:
            loaded = LoadedRun.load(run, checkpoint, device, flip_test, backend)
            if loaded.config.regions == "annotated":
                print(
                    "this model was trained on boxes, and new images have none: each image is taken for one subject's box"
                )
        results.append(job.run(loaded, batch_size, stages or Stages()))
    return results


class Job:
    """The prediction of one source into one folder.

    Args:
        source: of the frames.
        out: the folder.
        selection: which frames are taken.
        min_score: instances with a lower score are left out.
        write: formats besides COCO's.
        drawing: what is drawn.
        images_at: where an annotation tool finds the images.
    """

    def __init__(
        self,
        source: FrameSource,
        out: Path,
        selection: Selection,
        min_score: float,
        write: Sequence[str],
        drawing: Drawing,
        images_at: str = "",
    ) -> None:
        self.images_at = images_at
        self.source, self.out, self.selection, self.min_score, self.write = source, out, selection, min_score, write
        kind = ("pictures" if isinstance(source, ImageFrames) else "video") if drawing.kind == "auto" else drawing.kind
        self.drawing = replace(drawing, kind=kind)
        self.path, self.parts = out / "predictions.json", out / "predictions.parts"
        self.journal_path = out / "predictions.journal"
        self.fault: str | None = None

    def prepare(self, inside: Path) -> None:
        """Make the folders, and refuse those from which links lead elsewhere.

        Raises:
            RunError: a path is a link.
            ConfigError: the folder can't be made.
        """
        check_inside(inside, self.out)
        check_inside(self.out, *self._files(), self.journal_path, self.parts, self.out / "overlays")
        check_no_links(self.out / "overlays")
        check_no_links(self.parts)
        make_folder(self.out)

    def _files(self) -> list[Path]:
        """All files that may be written, but for single pictures."""
        tables = files_of(self.write)
        beside = [self.path, card_path(self.path), record_path(self.path)]
        return [*beside, *(self.out / name for name in (*tables, "overlay.mp4", "contact_sheet.png"))]

    def run(self, loaded: LoadedRun, batch_size: int | None, stages: Stages) -> Predicted:
        """Predict, or go on; returns what was made.

        Raises:
            RunError: the folder has an interrupted prediction with other options, or the disk is full.
        """
        skeleton, live = loaded.skeleton, self.source.stopped is not None
        predictor = loaded.frame_predictor(batch_size)
        made_from = {
            "run": loaded.run.name,
            "checkpoint": {"file": loaded.checkpoint.name, "sha256": file_sha256(loaded.checkpoint)},
            "source": self.source.identity(),
            "options": {
                "flip_test": loaded.flip_test,
                "turns": list(loaded.model.turns),
                "batch_size": predictor.batch_size,
                "device": str(loaded.model.device.type),
                "backend": loaded.backend,
                "min_score": self.min_score,
                **asdict(self.selection),
                "draw": asdict(self.drawing),
                **stages.options,
            },
        }
        with Journal(self.journal_path, made_from, len(skeleton), 1 if live else predictor.batch_size) as journal:
            if len(journal):
                print(printable(f"{self.source.label}: goes on after {len(journal)} frames"))
            else:
                clear_parts(self.parts)
                remove_overlays(self.path, self.out / "overlays")
            # no other process writes here: what is left of files that were being written is of a killed one
            for path in self._files():
                for left in self.out.glob(f"{glob.escape(path.name)}.*{PART}"):
                    left.unlink()
            self.parts.mkdir(exist_ok=True)
            try:
                with stopped_by_interrupt(self.source), quick_switches():
                    found = self._predict(loaded, predictor, stages, journal, made_from)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"{len(journal)} frames are kept; the same command goes on after them."
                ) from None
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise RunError(
                    f"{self.out}: no space left on the disk. {len(journal)} frames are kept in {self.journal_path.name}: free "
                    "some space and give the same command again, which goes on after them."
                ) from None
            except DataError:
                if not len(journal):
                    journal.remove()
                    clear_parts(self.parts)
                raise
            clear_parts(self.parts)
            journal.remove()
            return found

    def _predict(
        self,
        loaded: LoadedRun,
        predictor: FramePredictor,
        stages: Stages,
        journal: Journal,
        made_from: Mapping[str, Any],
    ) -> Predicted:
        skeleton, source = loaded.skeleton, self.source
        unit = "frames" if source.timed else "images"
        pictures = Pictures(self.out, self.parts, self.drawing, skeleton, source.rate, source.timed, source.names)
        raw = self._frames(predictor, journal, (lambda *_: True) if stages.need_images else pictures.wants)
        total = self.selection.count(source.total, source.rate)
        shown = track_images(raw, total, f"predicting {source.label}", unit=unit)
        count, last = 0, 0.0
        with ExitStack() as stack:
            stack.callback(pictures.close)
            results = stack.enter_context(ResultsFile(self.path, skeleton))
            told = replace(about(source, skeleton), run=loaded.run.name, images_at=self.images_at)
            with writing(self.out, self.write, told) as add:

                def write(position: int, frame: Frame) -> None:
                    nonlocal count, last
                    # COCO counts images from 1
                    results.add(frame.index + 1, frame.poses, frame.name, frame.time if source.timed else math.nan)
                    add(frame)
                    pictures.add(position, frame)
                    count, last = position + 1, frame.time

                sure = (replace(f, poses=f.poses[f.poses.score >= self.min_score]) for f in shown)
                write_behind(enumerate(process(sure, stages.build(loaded))), write, WAITING)
                if not count:
                    raise DataError(self.fault or f"{source.label}: no frame lies between start and end.")
            drawn = pictures.finish()
            card = {
                **loaded.card("detected" if predictor.detector else "image"),
                "exif_orientation": "applied",
                "min_score": self.min_score,
                "selection": asdict(self.selection),
            }
            card |= dict(stages.options)
            if self.fault:
                card["incomplete"] = self.fault
            if isinstance(source, VideoFrames):
                card["video"] = {"sha256": made_from["source"]["sha256"], "frames": count, "seconds": last}
            results.finish(card)
        tables = [self.out / name for name in files_of(self.write)]
        beside = [card_path(self.path), *(path for path in tables if path.is_file()), *drawn]
        write_record(self.path, configs.workspace(), loaded.made_from(), beside, run=loaded.run.name, images=count)
        where = {
            "pictures": f", {pictures.count} overlays in {self.out / 'overlays'}",
            "video": f", drawn in {self.out / 'overlay.mp4'}",
        }.get(self.drawing.kind, "")
        print(printable(f"{count} {unit}, {results.poses} poses{where}"))
        if pictures.lost:
            print(f"{pictures.lost} {unit} from before an interruption are not drawn: they could not be had again")
        return Predicted(self.path, count, results.poses, self.fault)

    def _frames(
        self, predictor: FramePredictor, journal: Journal, wants: Callable[[int, str], bool]
    ) -> Iterator[Frame]:
        """Yield the frames of the journal and then those that are predicted now, each with its image if it is needed.

        Raises:
            RunError: the source does not have the frames of the journal any more.
        """
        done = journal.frames()
        if self.source.stopped is None:
            shots = self.selection.of(self.source.frames())
            for position, frame in enumerate(done):
                shot = next(shots, None)
                if shot is None or (shot.index, shot.name) != (frame.index, frame.name):
                    raise RunError(
                        f"{self.source.label}: has changed since {self.journal_path} was begun: frame {frame.name} is missing. "
                        "Restore it, or delete the journal to begin anew."
                    )
                yield replace(frame, image=shot.read() if wants(position, frame.name) else None)
        else:
            names: list[str] = []
            number = 0
            for frame in done:
                names.append(frame.name)
                number = frame.index + 1
                yield frame
            shots = self.selection.of(self.source.frames(Resumed(journal.begun, number, frozenset(names))))
        try:
            for batch in predictor.predict(shots, live=self.source.stopped is not None):
                yield from journal.append(batch)
        except DataError as error:
            self.fault = str(error)


def about(source: FrameSource, skeleton: Skeleton) -> About:
    """What the writers know of a source."""
    video = source.file if isinstance(source, VideoFrames) else None
    images = None
    if isinstance(source, ImageFrames):
        images = [source.source.path(i) for i in range(len(source.source))]
    return About(skeleton, source.label, source.timed, video, images)


@contextmanager
def quick_switches() -> Iterator[None]:
    """Within the block, threads give way to one another ten times as often.

    The network calls an operation of torch every millisecond, and after each it may wait for a thread that draws.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(before / 10)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def stopped_by_interrupt(source: FrameSource) -> Iterator[None]:
    """Within the block, the first Ctrl-C ends a live source, whose results are then complete; the second one interrupts."""
    stopped = source.stopped
    if stopped is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.getsignal(signal.SIGINT)

    def stop(*_: object) -> None:
        stopped.set()
        signal.signal(signal.SIGINT, earlier)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        stopped.set()
        signal.signal(signal.SIGINT, earlier)
