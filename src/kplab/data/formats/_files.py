"""Files of label formats: JSON, XML, text and tables that a DataError names when they are damaged, and their images."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import xml.parsers.expat
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from xml.etree import ElementTree

import cv2
import msgspec
import numpy as np

from kplab.data.images import IMAGE_SUFFIXES, read_header
from kplab.data.reading import some
from kplab.data.sources.files import leads_out
from kplab.errors import DataError
from kplab.structures.labels import Labels

MAX_BYTES = 4 << 30
"""Largest label file that is read, bytes."""

MAX_DEPTH = 100
"""Deepest nesting of an XML file."""


def read_bytes(path: Path, what: str) -> bytes:
    """The bytes of a label file.

    Raises:
        DataError: it is missing, no file, empty, or too large.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such {what}. Check its path.")
    size = path.stat().st_size
    if not 0 < size <= MAX_BYTES:
        raise DataError(f"{path}: {size} bytes is no size of a {what}. Fetch or export the file again.")
    return path.read_bytes()


def read_json(path: Path, what: str, kind: Any = Any) -> Any:
    """The content of a JSON file, checked against a type.

    Raises:
        DataError: it is missing, is not JSON, or is not of this type.
    """
    data = read_bytes(path, what)
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise DataError(f"{path}: not a {what}: {error}. Choose another file, or export it again.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path}: not whole JSON ({len(data)} bytes): {error}. Export the file again.") from error


def read_text(path: Path, what: str) -> str:
    """The text of a UTF-8 file.

    Raises:
        DataError: it is missing, empty, or not UTF-8.
    """
    try:
        text = read_bytes(path, what).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a {what}: it is not UTF-8 text ({error}). Save it as UTF-8.") from error
    if "\x00" in text:
        raise DataError(f"{path}: not a {what}: it has a zero byte. Export the file again.")
    return text


def read_table(path: Path, what: str) -> list[list[str]]:
    """Cells of the rows of a CSV file; all rows have as many as the first.

    Raises:
        DataError: it is missing or truncated, or a row has another number of cells.
    """
    text = read_text(path, what)
    try:
        rows = [row for row in csv.reader(text.splitlines(), strict=True) if row]
    except csv.Error as error:
        raise DataError(f"{path}: not a {what}: {error}. Export the file again.") from error
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise DataError(
                f"{path}: row {number} has {len(row)} cells, the header has {len(rows[0])}. Export the file again."
            )
    return rows


def number(text: str, where: str) -> float:
    """A finite number from text; NaN where it is empty.

    Raises:
        DataError: it is anything else.
    """
    if not text.strip():
        return float("nan")
    try:
        value = float(text)
    except ValueError:
        value = float("inf")
    if not np.isfinite(value):
        raise DataError(f"{where}: '{text[:40]}' is not a number. Correct it.")
    return value


def read_xml(path: Path, what: str, root: str) -> ElementTree.Element:
    """The root element of an XML file. Document types, and so entities of a file's own, are refused before they are read.

    Args:
        root: tag of the root element.

    Raises:
        DataError: it is missing, is not whole XML, or has another root.
    """
    data = read_bytes(path, what)
    builder = ElementTree.TreeBuilder()
    parser = xml.parsers.expat.ParserCreate()
    depth = 0

    def refuse(*_: Any) -> None:
        raise ValueError("it has a document type, which label files don't need")

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"its elements are nested more than {MAX_DEPTH} deep")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
        found = builder.close()
    except (xml.parsers.expat.ExpatError, ValueError, LookupError) as error:
        raise DataError(f"{path}: not a {what}: {error}. Export the file again.") from error
    if found.tag != root:
        raise DataError(f"{path}: not a {what}: its root is <{found.tag}>, expected <{root}>. Choose another file.")
    return found


def write_xml(root: ElementTree.Element, path: Path) -> Path:
    """Write an XML file with indented elements."""
    ElementTree.indent(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
    return path


def write_json(content: Any, path: Path) -> Path:
    """Write a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1))
    return path


def image_sizes(root: Path, names: Sequence[str]) -> np.ndarray:
    """(I, 2) int64 width and height of image files, from their headers.

    Raises:
        DataError: names all files that can't be read.
    """
    sizes, faults = [], []
    for name in names:
        try:
            sizes.append(read_header(root / name)[0])
        except DataError as error:
            faults.append(str(error))
    if faults:
        raise DataError(f"{root}: {len(faults)} of {len(names)} labelled images cannot be read:\n  " + some(faults, 5))
    return np.array(sizes, dtype=np.int64).reshape(-1, 2)


def find_image(folder: Path, stem: str) -> str | None:
    """Name of the image file of a stem (which may have folders) in a folder; None where there is none."""
    for suffix in IMAGE_SUFFIXES:
        for spelled in (suffix, suffix.upper()):
            if (folder / (stem + spelled)).is_file():
                return stem + spelled
    return None


def posix(name: str) -> str:
    """A file's path with the separators that kplab uses."""
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def below(root: Path, stored: str) -> str | None:
    """The longest end of a stored path that is a file below a folder."""
    parts = [part for part in PureWindowsPath(stored).parts if part not in ("..", ".", "/", "\\")]
    for start in range(len(parts)):
        name = "/".join(parts[start:])
        with contextlib.suppress(OSError, ValueError):
            if os.path.isfile(os.path.join(root, name)) and not leads_out(name):  # Path takes thrice as long
                return name
    return None


def copy_images(labels: Labels, folder: Path, names: Iterable[str]) -> None:
    """Copy the images of labels, unchanged where they are files of the same kind, else as PNG.

    Args:
        labels: the images.
        folder: where to.
        names: path of each image relative to the folder.

    Raises:
        DataError: a name leads out of the folder, or two images have the same one.
    """
    listed = list(names)
    outside = [name for name in listed if leads_out(name)]
    if outside or len(set(listed)) < len(listed):
        raise DataError(f"{folder}: images can't be copied under these names: {some(outside or listed)}. Rename them.")
    for i, name in enumerate(listed):
        target, source = folder / name, labels.path(i)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source is not None and target.exists() and source.samefile(target):
            continue
        if source is not None and source.suffix.lower() == target.suffix.lower():
            shutil.copyfile(source, target)
        elif not cv2.imwrite(str(target), cv2.cvtColor(labels.read(i), cv2.COLOR_RGB2BGR)):
            raise DataError(f"{target}: the image cannot be written. Check the folder.")


def clean(value: float, digits: int = 9) -> float | int:
    """The shortest form of a number: rounding removes what adding and subtracting half a pixel leaves behind."""
    value = round(float(value), digits)
    return int(value) if value.is_integer() else value


def json_keys(path: Path) -> set[str]:
    """Keys of the object in a JSON file, or of the first object of its list; empty where it is neither.

    A folder stands for its first JSON file.
    """
    if path.is_dir():
        path = next(iter(sorted(path.glob("*.json"))), path)
    if path.suffix.lower() != ".json" or not path.is_file():
        return set()
    try:
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, msgspec.Raw] | list[msgspec.Raw])
        if isinstance(found, list):
            found = msgspec.json.decode(found[0], type=dict[str, msgspec.Raw]) if found else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return set()
    return set(found)


def xml_root(path: Path) -> str:
    """Tag of the root of an XML file; empty where it is none."""
    if path.suffix.lower() != ".xml" or not path.is_file():
        return ""
    tags: list[str] = []
    parser = xml.parsers.expat.ParserCreate()
    parser.StartElementHandler = lambda tag, _: tags.append(tag)
    try:
        with path.open("rb") as stream:
            parser.Parse(stream.read(1 << 16), False)
    except xml.parsers.expat.ExpatError:
        return ""
    return tags[0] if tags else ""


def first_rows(path: Path, count: int = 1) -> list[list[str]]:
    """Cells of the first rows of a CSV file; empty ones where it is none, or has fewer."""
    lines: list[str] = []
    if path.suffix.lower() == ".csv" and path.is_file():
        with path.open("rb") as stream:
            lines = [stream.readline(1 << 20).decode("utf-8-sig", "replace") for _ in range(count)]
    return [next(csv.reader([line]), []) for line in lines] or [[]] * count


def hdf5_names(path: Path) -> set[str]:
    """Names at the top of an HDF5 file; empty where it is none."""
    with path.open("rb") as stream:
        if stream.read(8) != b"\x89HDF\r\n\x1a\n":
            return set()
    from kplab.data.apart import read_apart

    try:
        return set(read_apart("kplab.data.formats._hdf5:top_names", path)["names"].tolist())
    except DataError:
        return set()
