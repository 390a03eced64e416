"""The command: help without weight, clear words for mistakes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kplab.cli import main
from kplab.errors import ConfigError
from kplab.tasks import find_verbs


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    """What can be done, with an example each."""
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for verb in find_verbs().values():
        assert f"  {verb.name}" in out
        assert verb.summary in out
        assert verb.example in out


@pytest.mark.parametrize("verb", list(find_verbs()))
def test_help_of_a_verb_shows_its_keys(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The config file is its own documentation."""
    assert main([verb, "--help"]) == 0
    assert f"# kplab {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trian"], "Did you mean train?"),
        (["train", "bacbone=resnet18"], "bacbone"),
        (["predict", "run=nothing", "images=x"], "has no runs yet"),
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
    """The usage says so of every verb."""
    import yaml

    assert main([*args, "--cfg"]) == 0
    composed = yaml.safe_load(capsys.readouterr().out)
    assert "runs_dir" in composed or "dataset" in composed
    assert main([*args, "--help"]) == 0
    assert f"# kplab {args[0]}" in capsys.readouterr().out


def test_runs_of_an_empty_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Says what to do."""
    assert main(["runs", f"runs_dir={tmp_path}"]) == 0
    assert "make demo" in capsys.readouterr().out


def test_verbs_import_nothing_heavy() -> None:
    """Help and --cfg import the verbs' modules; torch and Lightning take ten seconds."""
    code = (
        "import sys; from kplab.tasks import find_verbs, load_verb; [load_verb(v) for v in find_verbs()]; "
        "print({'torch', 'lightning', 'timm', 'pandas', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_verbs_without_a_model_start_without_torch() -> None:
    code = (
        "import sys, kplab.tasks.evaluation.scoring, kplab.tasks.evaluation.comparison, kplab.tasks.points.invariance; "
        "print({'torch', 'lightning', 'timm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_verb_that_lacks_a_part_is_named(tmp_path: Path) -> None:
    (tmp_path / "greet.py").write_text('"""``kplab greet``: say hello."""\nEXAMPLE = "kplab greet"\n')
    with pytest.raises(ConfigError, match=r"greet.py: a verb, but it lacks Options, main"):
        find_verbs(tmp_path)
