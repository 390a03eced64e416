"""Images in files: a folder, a list or a glob."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kplab.data.damage import find_damaged
from kplab.data.images import FEW_BITS, check_ending, few_bits, find_images, read_header, read_image
from kplab.data.reading import some
from kplab.errors import DataError

#: Faults that one message lists.
LISTED = 10


class FileSource:
    """Images in files below one folder.

    Args:
        root: the folder.
        names: path of each image relative to it, posix style.
        allow_outside: allow names that lead out of the folder, such as ``../a.png`` or an absolute path.

    Raises:
        DataError: a name leads out of the folder. Links inside it are followed.
    """

    def __init__(self, root: str | Path, names: Sequence[str], allow_outside: bool = False) -> None:
        self.root, self.names = Path(root), [str(name) for name in names]
        outside = [] if allow_outside else [name for name in self.names if leads_out(name)]
        if outside:
            more = f" and {len(outside) - LISTED} more" if len(outside) > LISTED else ""
            raise DataError(
                f"{self.root}: the labels name images outside this folder: {', '.join(outside[:LISTED])}{more}. Name the "
                "folder that holds all images, or add allow_outside=true to the source if these files are meant."
            )

    @classmethod
    def of(cls, files: Sequence[Path]) -> FileSource:
        """Listed files; the root is the deepest folder that holds all of them."""
        whole = [Path(path).absolute() for path in files]
        root = Path(os.path.commonpath([path.parent for path in whole])) if whole else Path()
        return cls(root, [path.relative_to(root).as_posix() for path in whole])

    @classmethod
    def find(cls, pattern: str) -> FileSource:
        """Image files of a folder (with its subfolders), a glob, or one file, sorted by name.

        Raises:
            DataError: there is none.
        """
        return cls.of(find_images(pattern)[0])

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        return str(self.root)

    def __repr__(self) -> str:
        return f"FileSource({len(self)} files below {self.root})"

    def read(self, i: int) -> np.ndarray:
        """Image i, (H, W, 3) uint8 RGB, as ``data.images.read_image`` gives it.

        Raises:
            DataError: the file is missing, is not an image, or is truncated.
        """
        return read_image(self.path(i))

    def name(self, i: int) -> str:
        """Path of image i relative to the root."""
        return self.names[i]

    def path(self, i: int) -> Path:
        """File of image i."""
        return self.root / self.names[i]


class UprightFiles(FileSource):
    """Image files as their EXIF orientation turns them, as viewers show them: new images, which have no labels."""

    def read(self, i: int) -> np.ndarray:
        """Image i, (H, W, 3) uint8 RGB, upright.

        Raises:
            DataError: as ``FileSource.read``.
        """
        return read_image(self.path(i), upright=True)


def leads_out(name: str) -> bool:
    """Whether a relative path is absolute or leads out of the folder that it is relative to.

    >>> leads_out("a/../b.png"), leads_out("a/../../b.png"), leads_out("/b.png")
    (False, True, True)
    """
    if os.path.isabs(name):
        return True
    return ".." in name and os.path.normpath(name).split(os.sep, 1)[0] == os.pardir


def check_files(source: FileSource) -> list[str]:
    """Read every header and the end of every file, so that a damaged one is reported before work starts.

    Returns:
        notes on files that can be read but may surprise: turned by EXIF, dark 16-bit images, doubtful JPEG data.

    Raises:
        DataError: the first damaged files, a line each.
    """
    faults, oriented, dark = [], [], []
    for i in range(len(source)):
        try:
            check_ending(source.path(i))
            if read_header(source.path(i))[1] != 1:
                oriented.append(source.names[i])
            bits = few_bits(source.path(i))
            if bits:
                dark.append(f"{source.names[i]} ({bits} bits)")
        except DataError as error:
            faults.append(str(error))
    if faults:
        more = f"\n… and {len(faults) - LISTED} more" if len(faults) > LISTED else ""
        raise DataError("\n".join(faults[:LISTED]) + more)
    damaged = find_damaged([source.path(i) for i in range(len(source))])
    remarks = [f"{path.name} ({text})" for path, text in damaged.items()]
    how = "turned upright, and coordinates are on the upright image" if isinstance(source, UprightFiles) else "ignored"
    return [
        f"{len(found)} {what}: {some(found)}"
        for found, what in (
            (oriented, f"images have an EXIF orientation: {how}"),
            (dark, f"images of 16 bits use {FEW_BITS} or fewer, and appear dark: stretch their values to 16 bits"),
            (remarks, "JPEG images have damaged data, and may be wrong in part"),
        )
        if found
    ]
