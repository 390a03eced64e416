"""A new head, as the verb meets it: a mistake in its config is one message, a bug in its constructor keeps its traceback."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from kplab.cli import main
from kplab.models import heads

HEAD = """
from kplab.models.heads.heatmap import HeatmapHead


class BrokenHead(HeatmapHead):
    def __init__(self, *args, width: int = 1, **options):
        super().__init__(*args, **options)
        self.width = width + None
"""


@pytest.fixture
def new_head(tmp_path: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides of a training with a head that is as new as it is broken: one module and one config."""
    (tmp_path / "heads").mkdir()
    (tmp_path / "heads" / "broken.py").write_text(HEAD)
    monkeypatch.setattr(heads, "__path__", [*heads.__path__, str(tmp_path / "heads")])
    (tmp_path / "conf" / "head").mkdir()
    (tmp_path / "conf" / "head" / "broken.yaml").write_text(
        "_target_: kplab.models.heads.broken.BrokenHead\n_partial_: true\nwidth: 1\n"
    )
    return [*overrides, "head=broken"]


def test_a_bug_in_a_new_head_keeps_file_and_line(new_head: list[str]) -> None:
    """The verb ends in the TypeError itself, whose last frame is the line of the head."""
    with pytest.raises(TypeError, match="unsupported operand") as caught:
        main(["train", *new_head])
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (Path(frame.filename).name, frame.line) == ("broken.py", "self.width = width + None")


def test_a_wrong_option_of_a_new_head_is_one_message(new_head: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Of another type than the constructor's."""
    assert main(["train", *new_head, "head.width=wide"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("kplab train: ")
    assert "head.width is 'wide'" in error
    assert "Traceback" not in error
