"""A run's record states what its splits share; ``kplab data split`` prints it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kplab.runs.run import Run
from kplab.tasks.data_actions import split


@pytest.mark.slow
def test_the_record_of_a_run_has_its_leaks(finished: Callable[..., Run]) -> None:
    run = finished()
    pairs = {(leak["one"], leak["other"]): leak for leak in run.record["leaks"]}
    counts = {name: images for name, (images, _) in run.record["counts"].items()}
    assert ("train", "test") in pairs
    for (_, other), leak in pairs.items():
        assert leak["images"] == counts[other]
        assert leak["same"] == leak["neighbours"] == 0


def test_the_balance_and_the_leaks_of_a_split_are_printed(
    real_data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The mouse: frames of one fixed camera, drawn one by one."""
    split.main(["dataset=mouse", f"dataset.split.manifest={tmp_path}/mouse.json"])
    said = capsys.readouterr().out
    assert "mouse: train 110 images, test 6 images (by image" in said
    assert "test (6 images): 0 are the same as in train, 6 near-identical" in said
    assert (tmp_path / "mouse.json").is_file()
