"""The notebooks show the run that is named, of any family; `make test` also runs each of them as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kplab.runs.run import Run


def code_of(path: Path, until: str = "") -> str:
    """The code cells of a notebook, up to the markdown cell that starts with ``until``."""
    cells = []
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        if until and text.startswith(until):
            break
        cells += [text] if cell["cell_type"] == "code" else []
    return "\n".join(cells)


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [(), ("head=centernet",), ("model=exemplar", "flip_test=false")], ids=["heatmap", "centernet", "exemplar"]
)
def test_predictions_of_a_named_run_of_any_family(
    root: Path, finished: Callable[..., Run], more: tuple[str, ...]
) -> None:
    """With and without heatmaps; nothing is trained."""
    folder = finished(*more).folder
    before = sorted(folder.parent.iterdir())
    source = code_of(root / "notebooks" / "04_see_predictions.ipynb", until="## How keypoints become")
    assert "\nRUN = None\n" in source
    names: dict[str, Any] = {}
    exec(source.replace("\nRUN = None\n", f"\nRUN = {str(folder)!r}\n"), names)
    assert names["shown"] is not None
    assert sorted(folder.parent.iterdir()) == before


@pytest.mark.slow
def test_curves_of_a_named_run(root: Path, finished: Callable[..., Run]) -> None:
    """The notebook of a training shows a run without training it again."""
    folder = finished().folder
    source = code_of(root / "notebooks" / "03_train_small.ipynb")
    exec(source.replace("\nRUN = None\n", f"\nRUN = {str(folder)!r}\n"), names := {})
    assert names["run"].run.folder == folder


def test_the_check_of_splits_counts_shared_groups(root: Path, config: Callable[..., Any]) -> None:
    """Groups that a split by group divides are a leak; a split by image divides them on purpose."""
    from kplab.tasks.wiring import datasets

    source = code_of(root / "notebooks" / "01_the_data.ipynb")
    cell = source[source.index("def shared(kind)") : source.index("hidden = ")]
    splits = datasets.read_splits(config().dataset)
    names: dict[str, Any] = {"splits": splits, "config": config()}
    exec(cell, names)
    assert (names["images"], names["groups"], names["rule"]) == (0, 0, "image")
    for labels in splits.values():
        labels.group[0] = "a video"
    exec(cell, names)
    assert (names["images"], names["groups"]) == (0, 3)
