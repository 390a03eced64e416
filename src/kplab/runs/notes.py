"""Tags and a note of a run, written by its readers: ``notes.json`` in its folder. No hash covers them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kplab.errors import RunError
from kplab.runs.files import replacing
from kplab.runs.records import check_inside

NAME = "notes.json"
LONGEST_NOTE, LONGEST_TAG, MOST_TAGS = 10_000, 50, 30


def read(folder: Path) -> dict[str, Any]:
    """The tags and the note of a run; empty where there are none.

    Returns:
        {"tags": list of texts, "note": text}

    Raises:
        RunError: the file can't be read.
    """
    path = folder / NAME
    try:
        content = json.loads(path.read_text())
        tags, note = content.get("tags", []), content.get("note", "")
        if not isinstance(tags, list) or not all(isinstance(t, str) for t in (*tags, note)):
            raise ValueError("tags or note are no text")
        return {"tags": tags, "note": note}
    except FileNotFoundError:
        return {"tags": [], "note": ""}
    except (ValueError, AttributeError, OSError, RecursionError) as error:
        raise RunError(f"{path}: can't be read as notes ({error!r}). Correct or delete it.") from None


def write(folder: Path, tags: Sequence[str], note: str) -> dict[str, Any]:
    """Write the tags and the note of a run; returns them as they were written: tags in order, without spaces and copies.

    Raises:
        RunError: they are too long, or the file leads out of the folder.
    """
    plain = sorted({"-".join(tag.split()) for tag in tags if tag.strip()})
    if len(note) > LONGEST_NOTE or len(plain) > MOST_TAGS or any(len(tag) > LONGEST_TAG for tag in plain):
        raise RunError(
            f"{folder.name}: a note may have {LONGEST_NOTE} characters, a run {MOST_TAGS} tags of {LONGEST_TAG} characters "
            "each. Shorten them."
        )
    path = folder / NAME
    check_inside(folder, path)
    content = {"tags": plain, "note": note}
    with replacing(path) as stream:
        stream.write(json.dumps(content, indent=1).encode())
    return content
