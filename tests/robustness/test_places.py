"""Places that can't be written or read end in a message, whichever verb meets them."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kplab.cli import main
from kplab.errors import exit_code
from kplab.runs.run import Run

Finished = Callable[..., Run]
EXEMPLAR = ("model=exemplar", "flip_test=false", "model.max_poses=1")


#: A verb that does not read the files of this pattern: `data` no run, `predict` no record of what it overwrites.
ALLOWED = (
    *(("data", p) for p in (r"run\.json$", r"config\.yaml$", r"dots-test\.json$", r"dots-test\.record\.json$")),
    ("predict", r"dots-test\.record\.json$"),
)


@pytest.fixture
def run(finished: Finished) -> Run:
    """A finished run of an exemplar, which takes no training."""
    return finished(*EXEMPLAR)


@pytest.fixture(params=["under a file", "/proc/here", "/sys/here"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder that nobody can make, root included."""
    (tmp_path / "file").write_text("x")
    return tmp_path / "file" / "here" if request.param == "under a file" else Path(request.param)


def refused(command: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The verb ends in one message that names the place; a traceback would be an exception."""
    capsys.readouterr()
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"kplab {command[0]}: ")
    assert place.name in error
    assert "Traceback" not in error


def test_folders_that_cannot_be_made(
    run: Run, overrides: list[str], place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, images = overrides[:2], f"images={tmp_path}/dots/images"
    exemplar = [o for o in overrides if not o.startswith(("backbone=", "neck."))]
    predictions = run.folder / "predictions" / "dots-test.json"
    other = shutil.copytree(run.folder, tmp_path / "runs" / "2000_other")
    for command in (
        ["data", *dataset, f"out={place}"],
        ["train", *exemplar, *EXEMPLAR, f"runs_dir={place}"],
        ["predict", f"run={run.folder}", images.replace("images=", "source="), f"out={place}"],
        ["evaluate", f"predictions={predictions}", *dataset, "split=test", f"out={place}"],
        ["compare", f"runs=[{run.folder},{other}]", "resamples=10", f"out={place}"],
        [
            "invariance",
            images,
            "count=1",
            "detectors=[orb]",
            "properties=[rotation]",
            "changes.rotation=[10]",
            f"out={place}",
        ],
        ["data", *dataset, f"dataset.split.manifest={place}/a.json", f"out={tmp_path}/out"],
    ):
        refused(command, place, capsys)


def test_places_to_read_that_are_no_folders(
    run: Run, overrides: list[str], place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (
        ["predict", f"run={place}", "split=test"],
        ["predict", f"run={run.folder}", f"source={place}"],
        ["evaluate", f"predictions={place}", *overrides[:2], "split=test"],
        ["data", *overrides[:2], f"dataset.sources.all.annotations={place}", f"out={tmp_path}/out"],
        ["data", *overrides[:2], f"dataset.sources.all.images={place}", f"out={tmp_path}/out"],
        ["compare", f"runs=[{place},{place}]"],
    ):
        refused(command, place, capsys)
    assert main(["runs", f"runs_dir={place}"]) == 0
    assert f"no runs in {place}" in capsys.readouterr().out


def test_a_folder_where_a_file_is_expected(
    run: Run, overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", f"run={run.folder}", "split=test"]) == 0, "writes the split"
    for path in (
        run.folder / "predictions" / "dots-test.json",
        run.folder / "predictions" / "dots-test.record.json",
        run.folder / "config.yaml",
        tmp_path / "dots" / "annotations.json",
        tmp_path / "dots" / "split.json",
        tmp_path / "dots" / "images" / "001.png",
    ):
        content = path.read_bytes()
        path.unlink()
        path.mkdir()
        refused(
            ["evaluate", f"run={run.folder}", "split=test"], path, capsys
        ) if "images" not in path.parts else refused(["data", *overrides[:2], f"out={tmp_path}/out"], path, capsys)
        path.rmdir()
        path.write_bytes(content)


@pytest.mark.parametrize("verb", ["evaluate", "predict", "runs", "data"])
def test_files_that_may_not_be_read(
    run: Run,
    overrides: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
) -> None:
    """Root may read everything, so that the refusal of the system is played."""
    for pattern in (
        r"run\.json$",
        r"config\.yaml$",
        r"dots-test\.json$",
        r"dots-test\.record\.json$",
        r"annotations\.json$",
        r"\.png$",
    ):
        with monkeypatch.context() as patch:
            deny(patch, pattern)
            commands = {
                "evaluate": ["evaluate", f"run={run.folder}", "split=test"],
                "predict": ["predict", f"run={run.folder}", "split=test"],
                "runs": ["runs", f"runs_dir={tmp_path}/runs"],
                "data": ["data", *overrides[:2], f"out={tmp_path}/out"],
            }
            code = main(commands[verb])
        error = capsys.readouterr().err
        assert (code == 0) == (verb == "runs" or (verb, pattern) in ALLOWED), pattern
        assert code == 0 or re.search(pattern.removesuffix("$"), error), error


def deny(patch: pytest.MonkeyPatch, pattern: str) -> None:
    """Let opening of files whose path fits a pattern fail as for a user without the right to."""
    import builtins
    import io

    real = io.open

    def refuse(file: object, *args: object, **options: object) -> object:
        if isinstance(file, str | os.PathLike) and re.search(pattern, os.fspath(file)):
            raise PermissionError(13, "Permission denied", os.fspath(file))
        return real(file, *args, **options)

    patch.setattr(io, "open", refuse)
    patch.setattr(builtins, "open", refuse)


@pytest.mark.parametrize(
    "name", ["EACCES", "EPERM", "EROFS", "ENOTDIR", "EISDIR", "ELOOP", "ENAMETOOLONG", "EIO", "EDQUOT"]
)
def test_what_the_system_refuses_is_one_message(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Some libraries state the file in the reason alone."""
    for error in (
        OSError(getattr(errno, name), "Refused", "/a/b"),
        OSError(getattr(errno, name), "Refused to open '/a/b'"),
    ):
        with exit_code("data") as outcome:
            raise error
        assert outcome.code == 2
        assert "/a/b" in capsys.readouterr().err


def test_a_missing_file_is_a_bug() -> None:
    with pytest.raises(FileNotFoundError), exit_code("data"):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/a/b")
