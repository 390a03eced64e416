"""Predictions on disk, frame by frame: results files of several formats, and drawings.

A writer of a format is a function from a path and the ``About`` of a prediction to a context manager, which yields a function
that takes the frames, in order. Files are written beside their target, and replace it when the block ends without an error.
Memory does not grow with the number of frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import import_module
from pathlib import Path

from kplab.errors import ConfigError
from kplab.structures.frames import Frame
from kplab.tasks.inference.writers.about import About

Add = Callable[[Frame], None]
Writer = Callable[[Path, About], AbstractContextManager[Add]]

#: By name: the module and function that write it, and the file or folder that is written, and others beside it.
WRITERS = {
    "csv": ("tables:write_csv", "keypoints.csv"),
    "parquet": ("tables:write_parquet", "keypoints.parquet"),
    "slp": ("sleap:write_slp", "predictions.slp"),
    "dlc_h5": ("dlc:write_h5", "dlc.h5"),
    "dlc_csv": ("dlc:write_csv", "dlc.csv"),
    "yolo": ("yolo:write_yolo", "yolo"),
    "label_studio": ("label_studio:write_label_studio", "label_studio.json", "label_studio.xml"),
}


def files_of(names: Sequence[str]) -> list[str]:
    """Names of the files and folders that formats write."""
    return [file for name in dict.fromkeys(names) for file in WRITERS[name][1:]]


def check_names(names: Sequence[str]) -> None:
    """Refuse formats that are unknown.

    Raises:
        ConfigError: lists those that exist.
    """
    unknown = [name for name in names if name not in WRITERS]
    if unknown:
        raise ConfigError(
            f"write={unknown[0]} is unknown. Use {', '.join(WRITERS)}; predictions.json in COCO's format is always written."
        )


@contextmanager
def writing(folder: Path, names: Sequence[str], about: About) -> Iterator[Add]:
    """Yield a function that adds a frame to the files of all formats.

    Args:
        folder: of the files.
        names: of the formats.
        about: what is predicted.

    Raises:
        ConfigError: a format can't hold what is predicted.
    """
    with ExitStack() as stack:
        every: list[Add] = []
        for name in dict.fromkeys(names):
            place, file, *_ = WRITERS[name]
            module, function = place.split(":")
            writer: Writer = getattr(import_module(f"{__name__}.{module}"), function)
            every.append(stack.enter_context(writer(folder / file, about)))

        def add(frame: Frame) -> None:
            for one in every:
                one(frame)

        yield add
