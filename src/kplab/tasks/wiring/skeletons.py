"""The configuration of a skeleton from a label file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from kplab.data import formats
from kplab.data.naming import guess_pairs
from kplab.structures.skeleton import Skeleton
from kplab.tasks.wiring.conversion import chosen_format, names_in

WIDTH = 116


def skeleton_text(
    path: Path,
    format_from: str | None,
    name: str | None,
    read: Mapping[str, Any],
    sigmas: Sequence[float] | None,
    sigma_source: str | None,
) -> tuple[str, str, list[str]]:
    """The skeleton of a label file as YAML, checked as a configuration is.

    Args:
        path: label file or folder.
        format_from: of the file; None: recognised.
        name: of the skeleton; None: that of the file.
        read: keys of the reader that decide the names.
        sigmas: of each keypoint; None: uniform.
        sigma_source: where the sigmas come from.

    Returns:
        name, YAML, and remarks on what was guessed.

    Raises:
        ConfigError: the format is not recognised, or the sigmas don't fit.
        DataError: the file names no keypoints.
    """
    format_name = chosen_format(path, format_from)
    found = names_in(path, formats.load_format(format_name), read)
    name = name or re.sub(r"\W+", "_", f"{path.stem}{len(found.keypoints)}").strip("_").lower()
    pairs = [*found.pairs] or guess_pairs(found.keypoints)
    shown = [[found.keypoints[i] for i in pair] for pair in pairs]
    edges = [[found.keypoints[i] for i in pair] for pair in found.edges]
    lines = [f"# The {len(found.keypoints)} keypoints of {path.name} ({format_name}).", f"name: {_plain(name)}"]
    lines += ["keypoints:", *_wrapped(map(_plain, found.keypoints))]
    for key, listed in (("flip_pairs", shown), ("edges", edges)):
        lines += [f"{key}:", *_wrapped(f"[{_plain(a)}, {_plain(b)}]" for a, b in listed)] if listed else [f"{key}: []"]
    if sigmas is None:
        lines.append("sigmas: uniform")
    else:
        lines += ["sigmas:", *_wrapped(f"{float(s):g}" for s in sigmas), "sigma_source: >-", f"  {sigma_source or ''}"]
    text = "\n".join([*lines, ""])
    Skeleton.from_config(yaml.safe_load(text))
    paired = {i for pair in pairs for i in pair}
    alone = [n for i, n in enumerate(found.keypoints) if i not in paired]
    how = "stated by the file" if found.pairs else "guessed from the names"
    remarks = [f"{len(pairs)} pairs that a mirror image exchanges, {how}: " + (_listed(shown) or "none")]
    remarks.append(f"{len(alone)} keypoints without a partner: {', '.join(alone) or 'none'}")
    if not edges:
        remarks.append("the file states no edges: add those that pictures and part affinity fields should have")
    return name, text, remarks


def _listed(pairs: Iterable[Sequence[str]]) -> str:
    return ", ".join(" / ".join(pair) for pair in pairs)


def _plain(text: str) -> str:
    """A name in YAML: plain where it can be, else quoted."""
    return yaml.safe_dump([text], default_flow_style=True, allow_unicode=True, width=10_000).strip()[1:-1]


def _wrapped(items: Iterable[str]) -> list[str]:
    """Lines of a flow sequence."""
    lines, line = ["  ["], "   "
    for item in items:
        if len(line) + len(item) + 2 > WIDTH:
            lines.append(line)
            line = "   "
        line += f" {item},"
    return [*lines, line, "  ]"]
