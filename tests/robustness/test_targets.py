"""The config of a run from elsewhere calls nothing but what the allow-list names, whatever verb reads it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from kplab.cli import main
from kplab.errors import ConfigError
from kplab.runs.run import Run
from kplab.tasks.wiring import allowed
from kplab.tasks.wiring.allowed import RULES, find_target
from kplab.tasks.wiring.datasets import read_splits
from kplab.tasks.wiring.models import build_model
from kplab.tasks.wiring.nodes import build_node
from kplab.tasks.wiring.training import build_loggers

Config = Callable[..., DictConfig]
Finished = Callable[..., Run]
EXEMPLAR = ("model=exemplar", "flip_test=false", "model.max_poses=1")

#: Each is callable, and none of them builds a part of a model or of a dataset.
FOREIGN = [
    "torch.load", "torch.hub.load", "torch.save", "numpy.load", "numpy.save", "pandas.read_pickle", "pathlib.Path.write_text",
    "pathlib.Path", "builtins.eval", "builtins.exec", "builtins.print", "os.system", "os.remove", "subprocess.run",
    "subprocess.Popen", "shutil.rmtree", "pickle.loads", "importlib.import_module", "hydra.utils.instantiate",
    "kplab.structures.predictions.Predictions.write", "kplab.runs.records.write_record", "kplab.runs.run.Run.create",
    "kplab.data.formats.coco.write", "kplab.data.formats.dlc.write", "kplab.data.video.write_frames", "kplab.viz.poses.write_png",
    "kplab.tasks.inference.writers.pictures.remove_overlays", "kplab.models.weights.load_model_weights", "kplab.cli.main",
    "kplab.data.formats.load_format", "kplab.data.formats.coco.json.loads", "kplab.models.backbone.torch.load",
    "kplab.models.backbone.Backbone.load_state_dict", "kplab.classical.exemplar.torch.load", "torch.optim.SGD.load_state_dict",
    "kplab.tasks.training.optimize.torch.load", "torch.optim.optimizer.torch.load", "albumentations.load", "albumentations.from_dict",
    "albumentations.core.composition.Path", "lightning.pytorch.loggers.csv_logs.os.system", "lightning.pytorch.Trainer.fit",
    "kplab.data.augment.os.system", "kplab.data.augment.Augment.__init__", "kplab", "", ".", "kplab..models", "os", 3, True,
]  # fmt: skip

WRITE = {"_target_": "pathlib.Path.write_text", "_args_": [{"_target_": "pathlib.Path", "_args_": ["SENTINEL"]}, "ran"]}


@pytest.mark.parametrize("target", FOREIGN)
def test_other_targets_are_refused(target: Any) -> None:
    with pytest.raises(ConfigError, match=r"part.deep"):
        build_node(
            OmegaConf.create({"_target_": "kplab.data.augment.Augment", "deep": [{"_target_": target}]}),
            "part",
        )


def test_the_message_names_target_place_and_remedy() -> None:
    node = OmegaConf.create({"_target_": "kplab.data.augment.Augment", "transforms": [{"_target_": "os.system"}]})
    with pytest.raises(
        ConfigError,
        match=r"augment.transforms\[0\]: _target_ 'os.system' is not allowed. .* on a line of .*/conf/allowed_modules.txt",
    ):
        build_node(node, "augment")


def test_modules_outside_the_list_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil_on_import.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Head: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    for build in (
        lambda: build_node(OmegaConf.create({"_target_": "evil_on_import.Head"}), "head"),
        lambda: find_target("evil_on_import.Head", "head"),
        lambda: read_splits(OmegaConf.create({**DATASET, "sources": {"all": {"_target_": "evil_on_import.Head"}}})),
    ):
        with pytest.raises(ConfigError, match=r"evil_on_import.Head' is not allowed"):
            build()
    assert not (tmp_path / "ran").exists()
    assert "evil_on_import" not in sys.modules


SKELETON = {
    "name": "one",
    "keypoints": ["a"],
    "edges": [],
    "flip_pairs": [],
    "sigmas": [0.1],
    "sigma_source": "made up",
}
DATASET = {"name": "mine", "skeleton": SKELETON}


@pytest.mark.parametrize(
    "hidden",
    [
        {"x": "${command}", "command": "os.system"},
        {"x": "os.${command}", "command": "system"},
    ],
)
def test_targets_behind_interpolations_are_refused(hidden: dict[str, str]) -> None:
    config = OmegaConf.create({"node": {"_target_": hidden["x"], "_args_": ["true"]}, "command": hidden["command"]})
    with pytest.raises(ConfigError, match=r"'os.system' is not allowed"):
        build_node(config.node, "head")


def test_interpolations_that_yield_interpolations_are_refused(tmp_path: Path) -> None:
    """The first resolution gives text, the second would give a node with a target."""
    inner = "${oc.create:{_target_: os.system, _args_: ['touch " + str(tmp_path / "ran") + "']}}"
    config = OmegaConf.create({"_target_": "kplab.data.augment.Augment", "transforms": ["\\" + inner]})
    with pytest.raises(ConfigError, match=r"augment.transforms\[0\]: .* yields an interpolation"):
        build_node(config, "augment")
    once = OmegaConf.create({"_target_": "kplab.data.augment.Augment", "transforms": [inner]})
    with pytest.raises(ConfigError, match=r"augment.transforms\[0\]: .*'os.system' is not allowed"):
        build_node(once, "augment")
    assert not (tmp_path / "ran").exists()


def sentinel(node: Any, path: Path) -> Any:
    """The node that writes a file, with its path."""
    if isinstance(node, dict):
        return {key: sentinel(value, path) for key, value in node.items()}
    if isinstance(node, list):
        return [sentinel(value, path) for value in node]
    return str(path) if node == "SENTINEL" else node


@pytest.mark.parametrize(
    ("where", "verbs"),
    [
        ("dataset.make", ("predict", "evaluate", "resume")),
        ("dataset.sources.all", ("predict", "evaluate", "resume")),
        ("dataset.sources.all.rename", ("predict", "evaluate", "resume")),
        ("model", ("predict", "images", "resume")),
        ("model.max_poses", ("predict", "images", "resume")),
        ("augment.transforms", ("resume",)),
        ("logger", ("resume",)),
        ("optimizer", ("resume",)),
        ("trainer.plugins", ("resume",)),
    ],
)
def test_a_run_from_elsewhere_executes_nothing(
    finished: Finished,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    where: str,
    verbs: tuple[str, ...],
) -> None:
    run = finished(
        "test_on=[test]", *(EXEMPLAR if where.startswith(("dataset", "model")) else ("trainer.max_epochs=1",))
    )
    ran = tmp_path / "ran"
    path = run.folder / "config.yaml"
    config = OmegaConf.load(path)
    node = sentinel(WRITE, ran)
    OmegaConf.update(config, where, [node] if where == "augment.transforms" else node, merge=False, force_add=True)
    OmegaConf.save(config, path)
    run.update(status="failed")
    commands = {
        "predict": ["predict", f"run={run.folder}", "split=test"],
        "evaluate": ["evaluate", f"run={run.folder}", "split=test"],
        "images": ["predict", f"run={run.folder}", f"source={tmp_path}/dots/images", f"out={tmp_path}/out"],
        "resume": ["train", f"resume={run.folder}", f"runs_dir={tmp_path}/runs", "trainer.max_epochs=2"],
    }
    for verb in verbs:
        capsys.readouterr()
        assert main(commands[verb]) == 2, verb
        assert "'pathlib.Path" in capsys.readouterr().err, verb
        assert not ran.exists(), verb


def test_heads_and_loggers_are_checked_too(config: Config, tmp_path: Path) -> None:
    composed = config("head.sigma=2.0")
    OmegaConf.update(composed, "head._target_", "subprocess.run")
    with pytest.raises(ConfigError, match=r"head: _target_ 'subprocess.run' is not allowed"):
        build_model(composed)
    logger = OmegaConf.create({"logger": {"_target_": "subprocess.run", "args": ["true"]}})
    with pytest.raises(ConfigError, match=r"logger: _target_ 'subprocess.run' is not allowed"):
        build_loggers(logger, tmp_path, "name")


def targets(node: Any) -> list[str]:
    """Every target of a plain config."""
    if isinstance(node, dict):
        own = [str(node["_target_"])] if node.get("_target_") else []
        return own + [t for v in node.values() for t in targets(v)]
    return [t for v in node for t in targets(v)] if isinstance(node, list) else []


def test_every_target_of_the_shipped_configs_is_allowed(root: Path) -> None:
    found = set()
    for file in (root / "conf").rglob("*.yaml"):
        found |= set(targets(OmegaConf.to_container(OmegaConf.load(file))))
    assert len(found) > 40
    for target in found:
        assert find_target(target, "conf")
    named = [rule for rule in RULES if any(rule.fits(find_target(t, "conf")) for t in found)]
    assert set(RULES) - set(named) == {rule for rule in RULES if rule.module == "torch.optim"}


def test_libraries_parts_are_allowed() -> None:
    for target in (
        "torch.optim.AdamW",
        "torch.optim.lr_scheduler.StepLR",
        "lightning.pytorch.loggers.TensorBoardLogger",
    ):
        assert find_target(target, "x").__name__ == target.rpartition(".")[2]


def test_a_users_module_is_allowed_by_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the module defines, and nothing that it only imports."""
    (tmp_path / "my_parts.py").write_text(
        "import os, subprocess\nfrom pathlib import Path\nclass Head: pass\ndef make(): return 3\n"
    )
    (tmp_path / "my_parts_too.py").write_text("class Head: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    listed = tmp_path / "conf" / "allowed_modules.txt"
    listed.parent.mkdir()
    monkeypatch.setattr(allowed, "user_file", lambda: listed)
    head, make = OmegaConf.create({"_target_": "my_parts.Head"}), OmegaConf.create({"_target_": "my_parts.make"})
    with pytest.raises(ConfigError, match=f"my_parts.Head' is not allowed.* on a line of {listed}"):
        build_node(head, "head")
    listed.write_text("# mine\n\nmy_parts  # heads\n")
    assert type(build_node(head, "head")).__name__ == "Head"
    assert build_node(make, "head") == 3
    for other in (
        "my_parts.os.system",
        "my_parts.subprocess.run",
        "my_parts.Path",
        "my_parts_too.Head",
        "my_parts.Head.mro",
    ):
        with pytest.raises(ConfigError, match="is not allowed"):
            find_target(other, "head")
    with pytest.raises(ConfigError, match=r"there is no 'my_parts.Tail'"):
        find_target("my_parts.Tail", "head")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match="is not allowed"):
        build_node(head, "head")
    (tmp_path / "run.json").unlink()
    listed.write_text("my parts\n")
    with pytest.raises(ConfigError, match=r"'my parts' is no name of a module"):
        build_node(head, "head")
