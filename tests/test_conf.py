"""Every config composes, and every mistake in a command is told with the name that was meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from kplab.config import conf_dir
from kplab.errors import ConfigError
from kplab.structures.skeleton import Skeleton
from kplab.tasks import compose

CONF = conf_dir()
GROUPS = [
    "dataset",
    "backbone",
    "neck",
    "head",
    "augment",
    "optimizer",
    "trainer",
    "logger",
    "experiment",
    "model",
]
CHOICES = [f"{group}={path.stem}" for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
CHOICES += [f"model=cascade detector={path.stem}" for path in sorted((CONF / "detector").glob("*.yaml"))]


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_resolves(choice: str) -> None:
    """Composition, interpolation and schema."""
    # a detector looks at whole images
    config = compose("train", [*choice.split(), *(["regions=image"] if choice.startswith("model=cascade") else [])])
    assert OmegaConf.to_container(config, resolve=True)
    assert config.name


@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda p: p.stem)
def test_experiments_say_what_they_are(path: Path) -> None:
    """The first lines of the file tell its reader what to expect."""
    head = path.read_text().splitlines()[:3]
    assert head[0] == "# @package _global_"
    assert head[1].startswith("# ")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["batchsize=4"], "Did you mean batch_size"),
        (["head.sigm=3"], "unknown override 'head.sigm'"),
        (["dataset=moose"], "dataset can be: .*mouse"),
        (["batch_size=many"], "'batch_size'"),
        (["batch_size=0", "size=[1,2]", "ema=2"], "(?s)size is.*batch_size is 0.*ema is 2"),
        (["regions=boxes"], "Use image, annotated or detected"),
        (["batch_size"], "batch_size"),
        (["experiment=yolo_flys"], "there is no experiment/yolo_flys. experiment can be: .*yolo_flies"),
        (["model=cascade", "detector=rcnn9", "regions=image"], "there is no detector/rcnn9. detector can be: "),
        (["hydra.searchpath=[file:///nowhere/conf]"], "/nowhere/conf: no such folder of configs"),
        (
            ["workers=-1", "patience=0", "monitor=val/ap", "trainer.max_epochs=0"],
            "(?s)workers is -1.*patience is 0.*max_epochs is 0.*monitor is 'val/ap'. Use one of: val/loss, val/AP, val/mean_px",
        ),
        (["trainer.max_epochs=many"], "max_epochs is many"),
    ],
)
def test_mistakes_are_told(overrides: list[str], message: str) -> None:
    """All faults at once, with the remedy."""
    with pytest.raises(ConfigError, match=message):
        compose("train", overrides)


def test_other_verbs_refuse_datasets_that_do_not_exist() -> None:
    """The group is optional there, and Hydra would score against the run's own dataset without a word."""
    for verb in ("predict", "evaluate"):
        with pytest.raises(ConfigError, match=r"there is no dataset/moose. dataset can be: .*mouse"):
            compose(verb, ["run=x", "dataset=moose"])


def test_groups_of_the_users_own_folder_are_found(tmp_path: Path) -> None:
    """Also those that are optional."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nbatch_size: 3\n")
    assert compose("train", [f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine"]).batch_size == 3


def test_missing_keys_are_named() -> None:
    """What a verb can't do without."""
    with pytest.raises(ConfigError, match="'run' is not given"):
        compose("predict", ["source=x"])


GOOD = {
    "name": "t",
    "keypoints": ["a", "left_b", "right_b"],
    "edges": [["a", "left_b"]],
    "flip_pairs": [["left_b", "right_b"]],
    "sigmas": [0.1, 0.1, 0.1],
    "sigma_source": "test",
}


def test_skeleton_from_config() -> None:
    """Names become indices; the flip is a permutation."""
    skeleton = Skeleton.from_config(GOOD)
    assert skeleton.flip == (0, 2, 1)
    assert skeleton.edges == ((0, 1),)
    assert skeleton.index("right_b") == 2


def test_a_first_skeleton_is_four_lines() -> None:
    """Uniform sigmas state their source, and pairs by name are those that would be listed."""
    text = "name: t\nkeypoints: [a, left_b, right_b, cLeft, cRight]\nflip_pairs: by_name\nsigmas: uniform\n"
    skeleton = Skeleton.from_config(yaml.safe_load(text))
    assert skeleton.flip == (0, 2, 1, 4, 3)
    assert skeleton.sigmas == (0.025,) * 5
    assert "SLEAP" in skeleton.sigma_source
    assert "not measured" in skeleton.sigma_source
    # names without sides need three lines
    assert Skeleton.from_config(yaml.safe_load("name: t\nkeypoints: [a, b]\nsigmas: uniform\n")).flip == (0, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigmas": [0.1]}, "3 keypoints but 1 sigmas"),
        ({"sigmas": None}, "but none sigmas"),
        ({"sigmas": [0.1, 0.0, 0.1]}, "not positive"),
        ({"sigmas": [0.1, None, 0.1]}, "a sigma is not a number"),
        ({"sigmas": 3}, "sigmas is '3'"),
        ({"edges": 3}, "edges is '3'"),
        ({"sigma_source": ""}, "sigma_source"),
        ({"flip_pairs": [["left_b", "right_b"], ["a", "right_b"]]}, "twice"),
        ({"flip_pairs": [["left_b", "right_c"]]}, "unknown keypoints: right_c"),
        ({"flip_pairs": [["left_b"]]}, "not a pair"),
        ({"edges": [["a", "z"]]}, "unknown keypoints: z"),
        ({"keypoints": ["a", "a", "b"]}, "occur twice"),
        ({"keypoints": []}, "has no keypoints"),
        ({"sigmas": "even"}, "write sigmas: uniform"),
        ({"sigmas": "uniform"}, "uniform sigmas state their own"),
        ({"flip_pairs": "by_name", "keypoints": ["a", "left_b", "right_c"]}, "no partner: left_b, right_c"),
        ({"flip_pairs": None}, "left_b and right_b look like a pair"),
        ({"flip_pairs": "by_name", "keypoints": ["a", "b", "c"]}, "no name contains left or right"),
    ],
)
def test_skeletons_that_contradict_themselves(change: dict[str, object], message: str) -> None:
    """Nothing is filled in silently."""
    with pytest.raises(ConfigError, match=message):
        Skeleton.from_config({**GOOD, **change})


def commands_of_the_readme(root: Path) -> list[str]:
    """The commands of the table that leads from the kind of data to an experiment."""
    return re.findall(r"^\|.*\| `kplab train (.*dataset=mine)` \|$", (root / "README.md").read_text(), re.MULTILINE)


def test_the_readme_trains_own_data(root: Path, tmp_path: Path) -> None:
    """Its files, word by word, compose with every experiment that it names."""
    blocks = re.findall(r"```yaml\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)
    dataset, source, skeleton = blocks[:3]
    head, reader, rest = re.split(r"(    _target_.*?)(?=^split)", dataset, flags=re.DOTALL | re.MULTILINE)
    assert "formats.coco" in reader
    own = head.replace("skeleton: coco17 ", "skeleton: mymouse ") + source + rest
    for folder, name, text in (("dataset", "mine", own), ("skeleton", "mymouse", skeleton)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.yaml").write_text(text)
    commands = commands_of_the_readme(root)
    assert len(commands) >= 6
    for command in commands:
        config = compose("train", [f"hydra.searchpath=[file://{tmp_path}]", *command.split()])
        assert config.dataset.sources.all.project.startswith("/data/")
        assert Skeleton.from_config(config.dataset.skeleton).flip == (0, 2, 1, 3)
