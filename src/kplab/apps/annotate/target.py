"""Where labels are saved: the file or folder that a dataset was read from, or a new COCO file."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kplab.data import formats
from kplab.data.formats import coco
from kplab.errors import ConfigError
from kplab.structures.labels import Labels


@dataclass(frozen=True)
class Target:
    """The place of a project's labels.

    Args:
        path: a file, or the folder of a format that keeps several files.
        write: the format's ``write``.
        folder: whether ``path`` is a folder.
        lacks: what the format can't hold, of "occluded", "box" and "track".
    """

    path: Path
    write: Callable[[Labels, Path], Any]
    folder: bool = False
    lacks: tuple[str, ...] = ()

    @classmethod
    def coco(cls, path: Path) -> Target:
        """A COCO file.

        Raises:
            ConfigError: the name does not end with .json.
        """
        if path.suffix != ".json":
            raise ConfigError(f"out={path}: new labels are a COCO file. Give it a name that ends with .json.")
        return cls(path, coco.write)

    @classmethod
    def of_source(cls, node: DictConfig) -> Target:
        """The files of a dataset's source, written by the format that reads them.

        The first argument of a format's ``read`` and the second of its ``write`` name the same place. Only formats that
        change what differs (``UPDATES``) are written: others would lose what kplab does not read.

        Raises:
            ConfigError: the format can't be written, or its writer makes new files.
        """
        name = str(node.get("_target_")).rsplit(".", 2)[-2]
        module = formats.load_format(name) if name in formats.find_formats() else None
        if module is None or not getattr(module, "UPDATES", False):
            raise ConfigError(
                f"{node.get('_target_')}: labels that it reads can't be written back. Save a COCO file instead: out=FILE.json"
            )
        place = str(node[formats.keys_of(module.read)[0].name])
        folder = list(inspect.signature(module.write).parameters)[1] == "folder"
        holds = module.HOLDS
        held = {"occluded": holds.visibility, "box": holds.boxes, "track": holds.tracks}
        return cls(Path(place), module.write, folder, tuple(name for name, known in held.items() if not known))

    def files(self, labels: Labels) -> dict[str, Path]:
        """The label files as they are now, by their name relative to the folder that holds ``path``."""
        root = self.path.absolute().parent
        found = [self.path, *labels.files] if not self.folder else labels.files
        return {p.absolute().relative_to(root).as_posix(): p for p in found if p.absolute().is_relative_to(root)}

    def stage(self, labels: Labels, into: Path) -> dict[str, Path]:
        """Write labels into an empty folder.

        Returns:
            the files, by their name relative to the folder that holds ``path``.
        """
        self.write(labels, into / self.path.name)
        return {p.relative_to(into).as_posix(): p for p in sorted(into.rglob("*")) if p.is_file()}
