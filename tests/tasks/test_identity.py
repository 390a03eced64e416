"""The identity of a training: which keys decide its result, and how `resume` and `trained` use it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from kplab.errors import ConfigError, RunError
from kplab.runs.run import Run
from kplab.tasks import compose
from kplab.tasks.training.resume import resume_from
from kplab.tasks.wiring.identity import Difference, changed_on_resume, differences, find_run, identity, identity_hash
from kplab.tasks.wiring.nodes import load_config

Config = Callable[..., DictConfig]


def stored(config: DictConfig, status: str = "finished") -> Run:
    """A run of a config, without a training: its folder, config, record and a checkpoint."""
    run = Run.create(Path(config.runs_dir), str(config.name), OmegaConf.to_yaml(config), Path(config.runs_dir))
    (run.folder / "checkpoints").mkdir()
    torch.save({}, run.folder / "checkpoints" / "last.ckpt")
    run.close(status)
    return run


@pytest.mark.parametrize(
    "override",
    [
        "runs_dir=elsewhere", "name=other", "workers=3", "logger=wandb_offline", "parent=x", "trainer.accelerator=gpu",
        "+trainer.strategy=ddp", "trainer.log_every_n_steps=1", "+trainer.enable_progress_bar=false", "+trainer.min_steps=null",
    ],
)  # fmt: skip
def test_what_never_matters(config: Config, override: str) -> None:
    assert identity_hash(config(override)) == identity_hash(config())


@pytest.mark.parametrize(
    "override",
    [
        "trainer.max_epochs=7", "+trainer.max_steps=7", "trainer.max_time='00:00:01:00'", "trainer.devices=2",
        "+trainer.num_nodes=2", "+trainer.sync_batchnorm=true", "patience=3", "validate_every=2",
        "validate_images=2", "flip_test=false", "test_on=[val]",
    ],
)  # fmt: skip
def test_what_a_resumed_run_may_change(config: Config, override: str) -> None:
    assert identity_hash(config(override)) != identity_hash(config())
    assert not differences(config(override), config(), resumed=True)


@pytest.mark.parametrize(
    ("override", "key", "was", "now"),
    [
        ("trainer.precision=64-true", "trainer.precision", "auto", "64-true"),
        ("trainer.gradient_clip_val=0.5", "trainer.gradient_clip_val", 1.0, 0.5),
        ("+trainer.gradient_clip_algorithm=value", "trainer.gradient_clip_algorithm", None, "value"),
        ("+trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches", None, 2),
        ("trainer.deterministic=false", "trainer.deterministic", "warn", False),
        ("+trainer.limit_train_batches=0.5", "trainer.limit_train_batches", None, 0.5),
        ("batch_size=2", "batch_size", 4, 2),
        ("seed=1", "seed", 0, 1),
        ("ema=null", "ema", 0.999, None),
        ("window=[32,32]", "window", None, [32, 32]),
        ("optimizer.lr=0.1", "optimizer.lr", 0.003, 0.1),
        ("neck.channels=16", "neck.channels", 32, 16),
        ("dataset.evaluation.auc_range=[0,5]", "dataset.evaluation.auc_range", [0, 10], [0, 5]),
        ("weights=start.ckpt", "weights", None, "start.ckpt"),
    ],
)
def test_everything_else_matters(config: Config, override: str, key: str, was: object, now: object) -> None:
    for resumed in (False, True):
        assert differences(config(), config(override), resumed) == [Difference(key, was, now)]


def test_a_null_that_an_older_config_lacks_is_no_difference(config: Config) -> None:
    older = config()
    OmegaConf.set_struct(older, False)
    del older["window"]
    assert identity_hash(older) == identity_hash(config())
    del older["seed"]
    assert differences(older, config()) == [Difference("seed", None, 0)]


def test_the_place_of_the_workspace_does_not_matter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from kplab import config as configs

    here = identity(compose("train", ["dataset=mouse"]))
    assert any("${workspace:}" in str(value) for value in here.values())
    composed = compose("train", ["dataset=mouse"])
    monkeypatch.setattr(configs, "workspace", lambda: tmp_path)
    assert identity(composed) == here


def test_the_run_of_a_training_is_found_whatever_does_not_matter(config: Config) -> None:
    assert find_run(config()) is None
    stopped = stored(config(), "failed")
    found = find_run(config("name=other", "workers=1"))
    assert found is not None
    assert found.folder == stopped.folder
    finished = stored(config("logger=wandb_offline", "name=a"))
    stored(config(), "failed")
    stored(config("trainer.max_epochs=3"))
    stored(config("trainer.precision=64-true"))
    found = find_run(config())
    assert found is not None
    assert found.folder == finished.folder
    (found.folder / "config.yaml").write_text("dataset: [")
    again = find_run(config())
    assert again is not None
    assert again.status == "failed"


def test_an_extended_run_is_not_the_training_that_its_config_describes(config: Config) -> None:
    """Its schedule was another one before; a longer time limit or another split to score change nothing of it."""
    short = stored(config("trainer.max_epochs=1"))
    assert changed_on_resume(short, config("trainer.max_epochs=3", "test_on=[val]", "workers=2")) == [
        "trainer.max_epochs"
    ]
    assert (
        changed_on_resume(short, config("trainer.max_epochs=1", "patience=3", "trainer.max_time='00:01:00:00'")) == []
    )
    longer = stored(config("trainer.max_epochs=3"))
    longer.update(changed_on_resume=["trainer.max_epochs"])
    assert find_run(config("trainer.max_epochs=3")) is None
    assert changed_on_resume(longer, config("trainer.max_epochs=3")) == ["trainer.max_epochs"]


def test_resume_alone_reads_the_config_of_the_run(config: Config, tmp_path: Path) -> None:
    """It is that run's to the last key, beside what does not matter."""
    run = stored(config("head=simcc", "neck.levels=[8]", "seed=5", "logger=wandb_offline"))
    runs = f"runs_dir={tmp_path}/runs"
    before = load_config(run)
    for how in ([f"resume={run.name}", runs], [f"resume={run.folder}"]):
        got = compose("train", how)
        assert {k for k in got if got[k] != before[k]} == {"resume"}
        assert resume_from(got) is not None
    more = compose(
        "train",
        [f"resume={run.name}", runs, "trainer.max_epochs=50", "workers=2", "logger=csv", "+trainer.num_nodes=2"],
    )
    assert {k for k in more if more[k] != before[k]} == {"resume", "trainer", "workers", "logger"}
    assert (more.trainer.max_epochs, more.trainer.num_nodes, more.workers) == (50, 2, 2)
    assert more.logger == {"_target_": None}
    found = resume_from(more)
    assert found is not None
    assert found[0].folder == run.folder
    assert found[1] == run.folder / "checkpoints" / "last.ckpt"
    assert compose("train", [f"resume={run.folder}", f"runs_dir={tmp_path}/other"]).runs_dir == f"{tmp_path}/other"


def test_overrides_that_matter_are_refused_by_name_with_both_values(config: Config) -> None:
    run = stored(config("head=simcc", "neck.levels=[8]"))
    refused = compose("train", [f"resume={run.folder}", "batch_size=8", "trainer.precision=64-true", "workers=1"])
    with pytest.raises(RunError) as refusal:
        resume_from(refused)
    lines = str(refusal.value).splitlines()
    assert lines[1:3] == [
        "  batch_size is 4 in that run and 8 in this command",
        "  trainer.precision is auto in that run and 64-true in this command",
    ]
    with pytest.raises(ConfigError, match="batchsize"):
        compose("train", [f"resume={run.folder}", "batchsize=8"])
    # the default of a key matters as much as any other value
    with pytest.raises(RunError, match="batch_size is 4 in that run and 16 in this command"):
        resume_from(compose("train", [f"resume={run.folder}", "batch_size=16"]))


def test_groups_beside_resume_are_allowed_where_they_compose_to_the_same_training(config: Config) -> None:
    """The whole command of the run, as it was, and longer."""
    simcc = ["head=simcc", "neck.levels=[8]"]
    run = stored(config(*simcc))
    assert resume_from(config(*simcc, "trainer.max_epochs=9", f"resume={run.name}")) is not None
    with pytest.raises(RunError, match=r"neck.levels is \[8\] in that run and \[4\] in this command"):
        resume_from(config("head=simcc", f"resume={run.name}"))
    with pytest.raises(RunError, match=r"and \d+ more\n"):
        resume_from(compose("train", ["dataset=mouse", f"resume={run.folder}"]))


def test_what_can_not_be_resumed(config: Config, tmp_path: Path) -> None:
    run = stored(config())
    with pytest.raises(RunError, match=r"no run in .* is called 'nothing'"):
        compose("train", ["resume=nothing", f"runs_dir={tmp_path}/runs"])
    assert compose("train", ["resume=null"]).resume is None
    checkpoint = run.folder / "checkpoints" / "last.ckpt"
    checkpoint.write_bytes(b"broken")
    with pytest.raises(RunError, match="damaged"):
        resume_from(compose("train", [f"resume={run.folder}"]))
    checkpoint.unlink()
    with pytest.raises(RunError, match=r"no checkpoints/last\.ckpt"):
        resume_from(compose("train", [f"resume={run.folder}"]))
