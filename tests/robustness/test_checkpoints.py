"""Checkpoints are complete or not there, and reading one executes nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from kplab.cli import main
from kplab.errors import ModelError, RunError
from kplab.models.weights import read_checkpoint
from kplab.runs.files import replacing
from kplab.runs.run import Run
from kplab.tasks.inference.loading import LoadedRun, load_model
from kplab.tasks.training.checkpoints import save
from kplab.tasks.training.train import train
from kplab.tasks.wiring.datasets import read_split
from kplab.tasks.wiring.models import build_model

Config = Callable[..., DictConfig]
Finished = Callable[..., Run]


class Attack:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def poison(checkpoint: Path, trace: Path, legacy: bool = False) -> None:
    """Add an object to a checkpoint that creates ``trace`` when it is unpickled."""
    content = {**read_checkpoint(checkpoint), "more": Attack(trace)}
    torch.save(content, checkpoint, _use_new_zipfile_serialization=not legacy)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_checkpoint_with_objects_is_refused_wherever_it_is_read(
    legacy: bool, config: Config, finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """predict, checkpoint=, resume, weights= and detector_run=: nothing is executed, and the message is clear."""
    run = finished("trainer.max_epochs=1", "test_on=[]")
    trace = tmp_path / "trace"
    for name in ("best", "last"):
        poison(run.folder / "checkpoints" / f"{name}.ckpt", trace, legacy)
    run.update(checkpoints={})  # a run from elsewhere states what it likes
    poisoned = run.folder / "checkpoints" / "best.ckpt"
    with pytest.raises(RunError, match="could execute code"):
        load_model(run)
    with pytest.raises(RunError, match="could execute code"):
        load_model(run, checkpoint=str(poisoned))
    with pytest.raises(RunError, match="could execute code"):
        train(config("trainer.max_epochs=1", "test_on=[]", f"resume={run.name}"))
    with pytest.raises(ModelError, match="could execute code"):
        train(config(f"weights={poisoned}"))
    detected = config("regions=detected", f"detector_run={run.name}")
    loaded = LoadedRun(run, detected, build_model(detected), poisoned, flip_test=False)
    with pytest.raises(RunError, match="could execute code"):
        loaded.new_regions(read_split(detected.dataset, "test"))
    out = [f"out={tmp_path}/new", f"runs_dir={tmp_path}/runs", f"source={tmp_path}/dots/images"]
    for more in ([], [f"checkpoint={poisoned}"]):
        assert main(["predict", f"run={run.folder}", *out, *more]) == 2
        assert "could execute code" in capsys.readouterr().err
    assert not trace.exists()
    torch.load(poisoned, weights_only=False)  # the attack works
    assert trace.is_dir()


@pytest.mark.parametrize("content", [b"", b"broken", b"PK\x03\x04" + bytes(100), b"\x80\x02}q\x00."])
def test_a_damaged_file_is_an_error(content: bytes, tmp_path: Path) -> None:
    """The message gives no advice to load the file without a check."""
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    for mapped in (False, True):
        with pytest.raises(ModelError, match="damaged, or no PyTorch file") as error:
            read_checkpoint(path, mapped)
        assert "weights_only" not in str(error.value)


def test_a_file_is_replaced_completely_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while writing leaves the earlier content and no litter; nothing is written elsewhere."""
    path = tmp_path / "last.ckpt"
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    save({"epoch": 1}, path)
    with pytest.raises(TypeError), replacing(path) as stream:
        stream.writelines([b"half", 1])  # type: ignore[list-item]
    assert read_checkpoint(path) == {"epoch": 1}
    left, other = path.with_name("last.ckpt.01234567.part"), path.with_name("last.ckpt.89abcdef.part")
    left.write_bytes(b"left by a killed process")
    os.utime(left, (0, 0))
    other.write_bytes(b"being written by another process")
    save({"epoch": 2}, path)
    assert read_checkpoint(path) == {"epoch": 2}
    assert {p.name for p in tmp_path.iterdir()} == {"last.ckpt", other.name}


def test_ctrl_c_while_a_checkpoint_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.save, interrupted, raises a RuntimeError; here the file is completed first, then the interrupt is raised."""
    path = tmp_path / "last.ckpt"
    real = torch.save

    def interrupted(checkpoint: dict[str, Any], stream: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        real(checkpoint, stream)

    monkeypatch.setattr(torch, "save", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        save({"epoch": 3}, path)
    assert read_checkpoint(path) == {"epoch": 3}
    assert signal.getsignal(signal.SIGINT) is before


def save_for_ever(path: Path, ready: int) -> None:
    """Save checkpoints until the process is killed; writes a byte to a pipe after the first one."""
    for epoch in range(10**6):
        save({"epoch": epoch, "weights": torch.full((10**6,), float(epoch))}, path)
        if epoch == 0:
            os.write(ready, b"1")


@pytest.mark.slow
def test_a_process_killed_while_it_saves_leaves_a_complete_checkpoint(tmp_path: Path) -> None:
    """A SIGKILL at moments that are spread over a save of some milliseconds; a resumed run removes the rest."""
    path = tmp_path / "checkpoints" / "last.ckpt"
    for delay in (0.0, 0.003, 0.007):
        begun, ready = os.pipe()
        child = os.fork()  # a new process would import torch and Lightning for seconds
        if child == 0:
            try:
                save_for_ever(path, ready)
            finally:
                os._exit(1)
        os.close(ready)
        assert os.read(begun, 1) == b"1"
        os.close(begun)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        found = read_checkpoint(path)
        assert (found["weights"] == found["epoch"]).all()
        assert len([p for p in path.parent.iterdir() if p != path and p.suffix != ".part"]) == 0


def test_resuming_removes_what_a_killed_save_left(config: Config, finished: Finished) -> None:
    """Neither folder holds it afterwards."""
    run = finished("trainer.max_epochs=1", "test_on=[]")
    (run.folder / "checkpoints" / "best.ckpt.part").write_bytes(b"half")
    resumed = train(config("trainer.max_epochs=1", "test_on=[]", f"resume={run.name}"))
    assert resumed is not None
    for folder in (run.folder, resumed.folder):
        assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_a_checkpoint_of_an_older_version_is_not_resumed(config: Config, finished: Finished) -> None:
    """It holds no number of complete epochs; but it can predict."""
    run = finished("trainer.max_epochs=1", "test_on=[]")
    path = run.folder / "checkpoints" / "last.ckpt"
    save({**read_checkpoint(path), "callbacks": {}}, path)
    run.update(checkpoints={})
    with pytest.raises(RunError, match="an older kplab wrote it"):
        train(config("trainer.max_epochs=1", "test_on=[]", f"resume={run.name}"))
    assert load_model(run, "last")


def test_a_damaged_best_checkpoint_is_named(config: Config, finished: Finished) -> None:
    """A resumed run would not know the score to exceed."""
    run = finished("trainer.max_epochs=1", "test_on=[]")
    (run.folder / "checkpoints" / "best.ckpt").write_bytes(b"broken")
    with pytest.raises(RunError, match=r"best\.ckpt.* Delete it to resume without it"):
        train(config("trainer.max_epochs=1", "test_on=[]", f"resume={run.name}"))
