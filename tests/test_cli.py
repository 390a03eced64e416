"""The command line: help that starts fast, and one clear message for each mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kplab.cli import main
from kplab.errors import ConfigError
from kplab.tasks import find_verbs
from kplab.tasks.wiring import allocator


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    """Each verb with its summary and an example."""
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for verb in find_verbs().values():
        assert f"  {verb.name}" in out
        assert verb.summary in out
        assert verb.example in out


@pytest.mark.parametrize("verb", list(find_verbs()))
def test_help_of_a_verb_shows_its_keys(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The help of a verb prints its config file, which documents each key."""
    assert main([*verb.split(), "--help"]) == 0
    assert f"# kplab {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trian"], "Did you mean train?"),
        (["train", "bacbone=resnet18"], "bacbone"),
        (["predict", "run=nothing", "source=x"], "has no runs yet"),
        (["compare", "runs=[a]"], "needs two runs"),
        (["evaluate"], "needs run=RUN"),
        (["evaluate", "predictions=x.json", "dataset=mouse", "split=test", "pictures=3"], "pictures=… has no meaning"),
        (["evaluate", "run=x", "predictions=y.json"], "predictions=… has no meaning with run=RUN"),
        (["runs", "limit=0"], "limit is 0"),
        (["compare", "runs=a"], "Write a list: runs=[A,B]"),
        (["train", "head"], "Overrides are key=value"),
        (["train", "dataset.fodler=/x"], "--cfg prints what it has"),
    ],
)
def test_mistakes_exit_with_2_and_one_message(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """No traceback, and nothing on standard output."""
    root = {
        "predict": [f"runs_dir={tmp_path}"],
        "evaluate": [f"runs_dir={tmp_path}"],
        "compare": [f"runs_dir={tmp_path}"],
    }
    assert main([*args, *root.get(args[0], [])]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.err.count("kplab") >= 1


@pytest.mark.parametrize("args", [["train", "head=simcc"], ["data", "dataset=mouse"], ["runs"], ["predict", "run=x"]])
def test_cfg_prints_what_a_verb_would_work_with(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """``--cfg`` works for every verb, as the usage states."""
    import yaml

    assert main([*args, "--cfg"]) == 0
    composed = yaml.safe_load(capsys.readouterr().out)
    assert "runs_dir" in composed or "dataset" in composed
    assert main([*args, "--help"]) == 0
    assert f"# kplab {args[0]}" in capsys.readouterr().out


def test_runs_of_an_empty_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The message names the command that makes the first run."""
    assert main(["runs", f"runs_dir={tmp_path}"]) == 0
    assert "make demo" in capsys.readouterr().out


#: Imports of torch and Lightning take ten seconds. Each statement may import these packages only after the ones before it.
LIGHT = """
import sys
heavy = {"torch", "torchvision", "lightning", "timm", "albumentations", "wandb"}
tables = {"pandas", "matplotlib"}

def check(what, packages):
    found = packages & set(sys.modules)
    assert not found, f"{what} imports {', '.join(sorted(found))}"

from kplab.cli import main
main(["--help"])
check("kplab --help", heavy | tables | {"hydra", "omegaconf"})
from importlib import import_module
from kplab.tasks import find_verbs
for verb in find_verbs().values():
    import_module(verb.module)
    check(f"the module of {verb.name}", heavy | tables)
import kplab.tasks.evaluation.scoring, kplab.tasks.evaluation.comparison, kplab.tasks.points.invariance
check("a verb without a model", {"torch", "lightning", "timm"})
"""


def test_help_and_verbs_without_a_model_start_light() -> None:
    """Help and --cfg import the modules of all verbs."""
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "kplab train" in done.stdout


GREET = """\"\"\"``kplab greet``: say hello.\"\"\"
EXAMPLE = "kplab greet"
class Options: ...
def main(args): ...
"""


def test_a_verb_that_lacks_a_part_is_named(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "greet.py").write_text("\n".join(GREET.splitlines()[:2]))
    with pytest.raises(ConfigError, match=r"greet.py: the verb lacks Options, main"):
        find_verbs(tmp_path)


def test_an_app_is_a_verb_in_a_folder_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "apps" / "greet"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(GREET)
    with pytest.raises(ConfigError, match=r"lacks the file greet.yaml"):
        find_verbs(tmp_path)
    (folder / "greet.yaml").write_text("runs_dir: x")
    assert find_verbs(tmp_path)["greet"].module == "kplab.apps.greet"


def test_only_a_process_of_its_own_keeps_freed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that calls ``main`` is left as it is."""
    kept: list[bool] = []
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: kept.append(True))
    main(["train", "--help"])
    monkeypatch.setattr("sys.argv", ["kplab", "runs", "--help"])
    main()
    assert kept == []
    monkeypatch.setattr("sys.argv", ["kplab", "train", "--help"])
    main()
    assert kept == [True]
