"""Labels of one format written in another, and what is lost on the way."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from kplab.data import formats
from kplab.data.check import Dataset, check_dataset
from kplab.data.holds import losses, reduced
from kplab.data.naming import Names, skeleton_from
from kplab.errors import ConfigError, DataError
from kplab.structures.labels import Labels
from kplab.structures.skeleton import Skeleton

#: Formats by the ending of a file, where there is one format with it.
ENDINGS = {".slp": "sleap", ".nwb": "nwb", ".nc": "movement", ".mat": "mpii", ".h5": "deepposekit"}

#: Rules of ``kplab data check`` about faults of an export as a whole.
RULES = ("sides-scrambled", "counted-from-one")


def convert(
    source: str,
    target: str,
    format_from: str | None = None,
    format_to: str | None = None,
    skeleton: Mapping[str, Any] | None = None,
    read: Mapping[str, Any] | None = None,
    write: Mapping[str, Any] | None = None,
    lossy: bool = False,
) -> list[str]:
    """Read labels, and write them in another format.

    Args:
        source: the label file or folder.
        target: the file or folder to write, which must not exist (a folder may be empty).
        format_from: None: recognised from the content.
        format_to: None: from the ending of the target.
        skeleton: content of a file of ``conf/skeleton``; None: as the source states its keypoints.
        read: keys of the reader.
        write: keys of the writer.
        lossy: write although labelled subjects are left out.

    Returns:
        Lines that state what was read, what is lost, and what was written.

    Raises:
        ConfigError: a format is unknown or ambiguous, or a key is unknown or missing.
        DataError: the labels can't be read, or subjects would be lost.
    """
    path, to = Path(source), Path(target)
    name, writer_name = chosen_format(path, format_from), format_of_target(to, format_to)
    module = formats.load_format(writer_name)
    check_keys(module.write, write or {}, f"write.… of format {writer_name}", skip=("labels", "path", "folder"))
    if to.exists() and (to.is_file() or any(to.iterdir())):
        raise DataError(f"{to}: exists. Name a new file, or an empty folder, or delete it first.")
    labels = read_labels(path, name, skeleton, read or {}, to)
    lines = [
        f"read {path} ({name}): {len(labels)} images, {len(labels.poses)} subjects, {len(labels.skeleton)} keypoints"
    ]
    lines += [f"  {note}" for note in labels.notes] + [f"  {text}" for text in remarks(labels)]
    lost = losses(labels, module.HOLDS)
    lines += [f"  {writer_name} can't hold {loss.what}" for loss in lost]
    if sum(loss.instances for loss in lost) and not lossy:
        raise DataError(
            f"{to}: not written, because subjects would be lost: "
            + "; ".join(loss.what for loss in lost if loss.instances)
            + ". Use lossy=true to leave them out, or another format."
        )
    written = module.write(
        reduced(labels, module.HOLDS) if sum(x.instances for x in lost) else labels, to, **(write or {})
    )
    files = written if isinstance(written, list) else [written]
    more = f" and {len(files) - 1} more files" if len(files) > 1 else ""
    lines.append(f"wrote {files[0] if files else to}{more} ({writer_name})")
    if "copy" in inspect.signature(module.write).parameters and not (write or {}).get("copy"):
        lines.append(f"  the images stay in {labels.source}; write.copy=true copies them")
    return lines


def remarks(labels: Labels) -> list[str]:
    """What the linter's rules about faults of exports find, a line each."""
    return check_dataset(Dataset({"": labels}, deep=False), RULES).warnings


def read_labels(
    path: Path, name: str, skeleton: Mapping[str, Any] | None, options: Mapping[str, Any], target: Path | None = None
) -> Labels:
    """Labels of a file or folder.

    Args:
        name: of its format.
        skeleton: None: as the file states its keypoints.
        options: keys of the reader; images are looked up beside the file, and frames written beside the target, unless given.
        target: what is to be written.
    """
    module = formats.load_format(name)
    keys = formats.keys_of(module.read)
    given: dict[str, Any] = {keys[0].name: str(path), **options}
    home = path if path.is_dir() else path.parent
    for key, value in (("images", home), ("frames_to", (target or home).parent / "frames")):
        if any(k.name == key and k.required for k in keys):
            given.setdefault(key, str(value))
    check_keys(module.read, given, f"read.… of format {name}")
    return module.read(skeleton=skeleton_of(path, module, skeleton, options), **given)


def skeleton_of(
    path: Path, module: ModuleType, config: Mapping[str, Any] | None, options: Mapping[str, Any]
) -> Skeleton:
    """The skeleton of a config, or of the names in a file (with those that ``rename`` gives them)."""
    if config is not None:
        return Skeleton.from_config(config)
    found = names_in(path, module, options)
    rename = options.get("rename") or {}
    return skeleton_from(Names(tuple(rename.get(n, n) for n in found.keypoints), found.edges, found.pairs), path.stem)


def names_in(path: Path, module: ModuleType, options: Mapping[str, Any]) -> Names:
    """The keypoints that a file names.

    Raises:
        DataError: there is none.
    """
    known = inspect.signature(module.names).parameters
    found: Names = module.names(path, **{key: value for key, value in options.items() if key in known})
    if not found.keypoints:
        raise DataError(f"{path}: it names no keypoint. Choose a skeleton: skeleton=NAME.")
    return found


def chosen_format(path: Path, name: str | None) -> str:
    """The format of a file or folder.

    Raises:
        ConfigError: it is unknown, or none or several fit.
    """
    known = formats.find_formats("read")
    if name is not None:
        return _known(name, known, "format_from")
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. Check from=.")
    found = formats.recognised(path)
    if len(found) != 1:
        what = f"several formats fit: {', '.join(found)}" if found else "no format is recognised"
        raise ConfigError(f"{path}: {what}. Name it with format_from=: {', '.join(found or known)}.")
    return found[0]


def format_of_target(path: Path, name: str | None) -> str:
    """The format to write.

    Raises:
        ConfigError: it is unknown, or the ending belongs to several formats.
    """
    known = formats.find_formats("write")
    if name is None and path.suffix not in ENDINGS:
        raise ConfigError(f"{path}: its ending does not state a format. Name it with format_to=: {', '.join(known)}.")
    return _known(name or ENDINGS[path.suffix], known, "format_to")


def _known(name: str, known: Iterable[str], key: str) -> str:
    if name not in known:
        raise ConfigError(f"{key} is '{name}'. Use one of: {', '.join(known)}.")
    return name


def check_keys(function: Any, given: Mapping[str, Any], what: str, skip: Iterable[str] = ()) -> None:
    """Refuse keys that a reader or writer does not have.

    Raises:
        ConfigError: names the known ones.
    """
    known = [key for key in formats.keys_of(function) if key.name not in skip]
    unknown = [key for key in given if key not in {k.name for k in known}]
    missing = [k.name for k in known if k.required and k.name not in given]
    if unknown or missing:
        faults = [f"has no key '{key}'" for key in unknown] + [f"needs the key '{key}'" for key in missing]
        listed = "\n".join(f"  {key}" for key in known)
        raise ConfigError(f"{what}: {', '.join(faults)}. Its keys:\n{listed}")
