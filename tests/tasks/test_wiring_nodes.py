"""A mistake in a config is one message; a bug in a constructor keeps its traceback."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from kplab.cli import main
from kplab.errors import ConfigError
from kplab.models import heads
from kplab.tasks.wiring.models import build_model

Config = Callable[..., DictConfig]

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


def test_a_bug_in_a_new_head_keeps_file_and_line(new_head: list[str], config: Config) -> None:
    """The verb ends in the TypeError itself, whose last frame is the line of the head."""
    with pytest.raises(TypeError, match="unsupported operand") as caught:
        main(["train", *new_head])
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (Path(frame.filename).name, frame.line) == ("broken.py", "self.width = width + None")


@pytest.mark.parametrize(
    ("option", "message"),
    [("+head.colour=3", "colour"), ("head.width=wide", r"head\.width is 'wide'"), ("head.sigma=0", "sigma > 0")],
)
def test_a_wrong_option_is_one_message(
    new_head: list[str], config: Config, option: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unknown, of a wrong type, or refused by the constructor itself."""
    head = new_head if "width" in option else [*new_head[:-1], "head=heatmap"]
    assert main(["train", *head, option]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("kplab train: ")
    assert "Traceback" not in error
    with pytest.raises(ConfigError if "sigma" not in option else ValueError, match=message):
        build_model(config(*head[-1:], option), pretrained=False)
