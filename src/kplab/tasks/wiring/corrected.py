"""Corrected labels as files: in the format that they were read from where it holds all of them, else as COCO."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from omegaconf import DictConfig

from kplab.data import formats
from kplab.data.formats import coco
from kplab.data.holds import losses
from kplab.errors import DataError
from kplab.structures.labels import Labels
from kplab.tasks.wiring.conversion import ENDINGS

READERS = "kplab.data.formats."
#: Keys of a source that a corrected file is read with as well.
KEPT = ("_target_", "images", "frames_to", "box_margin", "allow_outside", "group", "area", "keep_extras")


@dataclass(frozen=True)
class Written:
    """Corrected labels of a split.

    Args:
        path: the file or folder.
        format: of it.
        reason: why it is not the format of the source; "" if it is.
        without: keys of the source that it is read without.
    """

    path: Path
    format: str
    reason: str
    without: tuple[str, ...]

    def __str__(self) -> str:
        why = f", because {self.reason}" if self.reason else ""
        keys = f"; read without the source's {', '.join(self.without)}" if self.without else ""
        return f"{self.path} ({self.format}{why}{keys})"


def write_corrected(splits: Mapping[str, Labels], dataset: DictConfig, folder: Path) -> list[Written]:
    """Write the labels of each split, and say where and how.

    Args:
        splits: by name.
        dataset: the config that they were read by.
        folder: an empty one.
    """
    sources = {str(name): node for name, node in dataset.sources.items()}
    only = next(iter(sources.values())) if len(sources) == 1 else {}
    return [_write(labels, folder, name, sources.get(name, only)) for name, labels in splits.items()]


def _write(labels: Labels, folder: Path, name: str, node: Mapping[str, object]) -> Written:
    target = str(node.get("_target_", ""))
    own = target.removeprefix(READERS).removesuffix(".read")
    given = [str(key) for key in node if key not in KEPT]
    if target != f"{READERS}{own}.read" or own not in formats.find_formats("write"):
        reason = f"{own} can't be written" if own in formats.find_formats() else "its source is no format of kplab"
    else:
        module = formats.load_format(own)
        # groups are those that the reader of the format made
        lost = losses(labels, replace(module.HOLDS, groups=True))
        reason = f"{own} can't hold {lost[0].what}" if lost else ""
        if not reason:
            first, before = formats.keys_of(module.read)[0].name, set(folder.iterdir())
            try:
                path = _in_format(labels, module, own, folder, name)
                return Written(path, own, "", tuple(key for key in given if key != first))
            except DataError as error:
                for part in set(folder.iterdir()) - before:
                    shutil.rmtree(part) if part.is_dir() else part.unlink()
                reason = f"{own} can't hold them: {error}"
    return Written(coco.write(labels, folder / f"{name}.json"), "coco", reason, ())


def _in_format(labels: Labels, module: ModuleType, own: str, folder: Path, name: str) -> Path:
    """Write a split as a file, or as a folder, as its format has it."""
    takes = list(inspect.signature(module.write).parameters)[1]
    endings = {format_: ending for ending, format_ in ENDINGS.items()}
    ending = endings.get(own) or (labels.files[0].suffix if labels.files else ".json")
    path = folder / name if takes == "folder" else folder / f"{name}{ending}"
    module.write(labels, path)
    return path
