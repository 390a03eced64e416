"""Mistakes in a config are named in one message; bugs in a constructor keep file and line."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from kplab.errors import ConfigError, ModelError
from kplab.models.heads.base import HeadInputs
from kplab.structures.skeleton import Skeleton
from kplab.tasks import compose
from kplab.tasks.wiring import allowed
from kplab.tasks.wiring.models import build_model
from kplab.tasks.wiring.nodes import build_node
from kplab.tasks.wiring.training import build_trainer, optimizer_factory

SKELETON = Skeleton("two", ("a", "b"), ((0, 1),), (0, 1), (0.1, 0.1), "made up")
INPUTS = HeadInputs([8], [4], (64, 64), SKELETON)
HEAD = "kplab.models.heads.heatmap.HeatmapHead"

#: A constructor outside kplab, as a user adds one.
OWN = """
from __future__ import annotations
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal
if TYPE_CHECKING:
    from nowhere import Unknown

class Typed:
    def __init__(
        self, count: int = 1, share: float = 0.5, on: bool = True, pair: tuple[int, int] = (1, 2),
        names: Sequence[str] = (), rates: Mapping[str, float] | None = None, kind: Literal["x", "y"] = "x",
        file: Path | None = None, mixed: str | int = "all",
    ) -> None:
        self.given = (count, share, on, pair, names, rates, kind, file, mixed)

class ForTypeCheckers:
    def __init__(self, what: Unknown = None) -> None:
        self.what = what

class Broken:
    def __init__(self, count: int = 1) -> None:
        self.total = count + "1"

def broken_inside(count: int = 1):
    return int("x")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of the user's."""
    (tmp_path / "own_parts.py").write_text(OWN)
    (tmp_path / "own_typo.py").write_text("class Head:\n    width = undefined_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    listed = tmp_path / "allowed_modules.txt"
    listed.write_text("own_parts\nown_typo\n")
    monkeypatch.setattr(allowed, "user_file", lambda: listed)
    return "own_parts"


def node(target: str, **options: object) -> DictConfig:
    return OmegaConf.create({"_target_": target, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigmo": 2.0}, "head: .*unexpected keyword argument 'sigmo'. Options of HeatmapHead: sigma, level"),
        ({"sigma": "wide"}, r"head.sigma is 'wide': Expected `float`, got `str` \(see conf/head\)"),
        ({"level": 0.5, "dark": 1}, "(?s)head.dark is 1: Expected `bool`.*head.level is 0.5: Expected `int`"),
    ],
)
def test_unknown_options_and_wrong_types_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_node(node(HEAD, **options), "head", inputs=INPUTS)


def test_options_that_make_no_sense_are_the_constructors_own_error() -> None:
    with pytest.raises(ModelError, match="sigma > 0"):
        build_node(node(HEAD, sigma=-1.0), "head", inputs=INPUTS)


def test_missing_options_are_named() -> None:
    with pytest.raises(
        ConfigError, match=r"backbone: missing a required argument: 'name'. Options of Backbone: name, pre"
    ):
        build_node(node("kplab.models.backbone.Backbone", pretrained=False), "backbone")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("count", 3), ("share", 1), ("on", False), ("pair", [3, 4]), ("names", ["a", "b"]), ("rates", {"a": 1}), ("rates", None),
        ("kind", "y"), ("file", "a/b"), ("file", None), ("mixed", 2), ("mixed", "some"),
    ],
)  # fmt: skip
def test_values_of_the_annotated_type_pass(own: str, option: str, value: object) -> None:
    """Lists stand for tuples and sequences, whole numbers for floats, text for paths; the value arrives unchanged."""
    assert value in build_node(node(f"{own}.Typed", **{option: value}), "part").given


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("count", 3.5), ("count", True), ("count", None), ("share", "1"), ("on", 1), ("pair", [3]), ("pair", [3, 4.5]),
        ("names", "ab"), ("names", [1]), ("rates", {"a": "fast"}), ("rates", [1]), ("kind", "z"), ("file", 3), ("mixed", 2.5),
    ],
)  # fmt: skip
def test_values_of_other_types_are_refused(own: str, option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"part.{option} is "):
        build_node(node(f"{own}.Typed", **{option: value}), "part")


def test_annotations_for_type_checkers_only_are_not_checked(own: str) -> None:
    assert build_node(node(f"{own}.ForTypeCheckers", what=3), "part").what == 3


@pytest.mark.parametrize(
    ("target", "kind", "line"),
    [
        ("own_parts.Broken", TypeError, 'self.total = count + "1"'),
        ("own_parts.broken_inside", ValueError, 'return int("x")'),
        ("own_typo.Head", NameError, "width = undefined_name"),
    ],
)
def test_a_bug_in_a_constructor_keeps_file_and_line(own: str, target: str, kind: type[Exception], line: str) -> None:
    """It is no ConfigError, so that the traceback is printed; its last entry is the faulty line."""
    with pytest.raises(kind) as raised:
        build_node(node(target), "part")
    assert not isinstance(raised.value, ConfigError)
    last = traceback.extract_tb(raised.value.__traceback__)[-1]
    assert last.line == line
    assert Path(last.filename).name.startswith("own_")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("kplab.models.heads.heatmap.HeatmopHead", "head: .*HeatmopHead"),
        ("kplab.models.heads.nowhere.Head", "head: .*nowhere"),
        ("nowhere.Head", "head: .*nowhere"),
    ],
)
def test_targets_that_do_not_exist_are_named(target: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_node(node(target), "head")


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ({"_target_": "albumentations.GaussianBlur", "blur_limit": "much"}, "augment: "),
        ({"_target_": "albumentations.NoSuchBlur"}, r"augment.transforms\[0\]: .*NoSuchBlur"),
        ({"_target_": "albumentations.HorizontalFlip"}, "HorizontalFlip, which mirrors"),
    ],
)
def test_refused_transforms_are_named(transform: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_node(node("kplab.data.augment.Augment", transforms=[transform]), "augment")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.precision=8-maybe", "trainer: .*8-maybe"),
        ("trainer.accelerator=abacus", "trainer: .*abacus"),
        ("+trainer.max_epoch=3", "trainer: .*max_epoch"),
    ],
)
def test_what_the_trainer_refuses_is_named(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        build_trainer(compose("train", ["trainer=cpu", override]), tmp_path, [], [], [])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=-1", "optimizer: .*-1"),
        ("optimizer.lr=fast", "optimizer.lr is 'fast': Expected `float`"),
        ("optimizer.betas=[0.9]", "optimizer.betas is .*length 2"),
        ("+optimizer.momentum=0.9", "optimizer: .*momentum"),
        ("+optimizer.rates.tail=0.1", "optimizer.rates names tail"),
    ],
)
def test_what_the_optimiser_refuses_is_named(override: str, message: str) -> None:
    small = ["backbone=resnet10_half", "neck.channels=8", "head=heatmap", "size=[64,64]"]
    config = compose("train", [*small, override])
    with pytest.raises(ConfigError, match=message):
        optimizer_factory(config, build_model(config))


@pytest.mark.parametrize("head", ["rle", "query", "simcc"])
def test_heads_of_one_size_refuse_windows_when_they_are_built(head: str) -> None:
    """Before any data is read; a window as large as the view is none."""
    small = ["backbone=resnet10_half", "neck.channels=8", f"head={head}", "size=[96,96]"]
    with pytest.raises(ModelError, match=r"window is \[64, 64\] and size is \[96, 96\]. Use window=null"):
        build_model(compose("train", [*small, "window=[64,64]"]))
    assert build_model(compose("train", [*small, "window=[96,96]"])).fixed_size
