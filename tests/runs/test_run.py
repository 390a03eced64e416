"""The record of a run: how it started and ended, also after its process was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kplab.errors import RunError
from kplab.runs import provenance, table
from kplab.runs.records import write_record
from kplab.runs.run import Run


def make(root: Path, name: str = "trial") -> Run:
    """A run without a repository around it."""
    return Run.create(root, name, "seed: 1\n", root, seed=1)


def test_record_is_written_at_the_start_and_closed_at_the_end(tmp_path: Path) -> None:
    """There is a record from the start; at the end it has the status and the duration."""
    run = make(tmp_path)
    assert Run.open(run.folder).status == "running"
    assert run.record["config_sha256"] == provenance.sha256("seed: 1\n")
    assert run.record["packages"]["torch"] != "not installed"
    run.close("finished")
    again = Run.open(run.folder)
    assert again.status == "finished"
    assert again.record["seconds"] >= 0
    assert again.error is None


def test_a_killed_run_is_failed(tmp_path: Path) -> None:
    """SIGKILL leaves the record open; the run is not shown as running."""
    code = (
        "import sys, time; from pathlib import Path; from kplab.runs.run import Run\n"
        f"run = Run.create(Path({str(tmp_path)!r}), 'victim', '', Path({str(tmp_path)!r})); print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    (folder,) = tmp_path.iterdir()
    assert Run.open(folder).status == "running"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert Run.open(folder).status == "failed"
    (row,) = table.rows(tmp_path)
    assert row["status"] == "failed"
    assert "killed" in row["error"]


def test_a_later_process_with_the_same_number_is_not_the_run(tmp_path: Path) -> None:
    """Process numbers are reused; start times are not."""
    run = make(tmp_path)
    run.update(process={**run.record["process"], "started": "1"})
    assert Run.open(run.folder).status == "failed"
    run.update(process={**run.record["process"], "pid": os.getpid(), "host": "elsewhere", "written": time.time()})
    assert Run.open(run.folder).status == "running"


def test_bad_folders_are_named_in_the_message(tmp_path: Path) -> None:
    """Missing, not a run, and half written."""
    with pytest.raises(RunError, match="no such run"):
        Run.open(tmp_path / "nothing")
    empty = tmp_path / "2026_empty"
    empty.mkdir()
    with pytest.raises(RunError, match=r"no run\.json"):
        Run.open(empty)
    run = make(tmp_path)
    (run.folder / "run.json").write_text('{"status": "fin')
    with pytest.raises(RunError, match="half written"):
        Run.open(run.folder)
    assert sorted(row["status"] for row in table.rows(tmp_path)) == ["unreadable", "unreadable"]


def test_runs_are_found_by_part_of_their_name(tmp_path: Path) -> None:
    """latest, a path, a unique part; several matches are an error that lists them."""
    with pytest.raises(RunError, match="no runs yet"):
        Run.find("latest", tmp_path)
    one, two = make(tmp_path, "alpha"), make(tmp_path, "beta")
    assert Run.find("alpha", tmp_path).folder == one.folder
    assert Run.find(str(two.folder), tmp_path).folder == two.folder
    with pytest.raises(RunError, match="matches 2 runs"):
        Run.find("2", tmp_path)
    with pytest.raises(RunError, match="is called 'gamma'"):
        Run.find("gamma", tmp_path)


def test_latest_is_the_newest_run_that_can_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Finished, or with a checkpoint to resume from; failed, running and half-made ones are passed over by name."""
    make(tmp_path, "alpha")
    with pytest.raises(RunError, match=r"no run is finished: .*_alpha_.* \(running\)"):
        Run.find("latest", tmp_path)
    runs = {}
    for year, (name, status) in enumerate(
        [("good", "finished"), ("halted", "stopped"), ("broken", "failed"), ("active", "running")], 3000
    ):
        run = make(tmp_path, name)
        if status != "running":
            run.close(status)
        if name != "broken":
            (run.folder / "checkpoints").mkdir()
            (run.folder / "checkpoints" / "last.ckpt").touch()
        runs[name] = run.folder.rename(tmp_path / f"{year}{run.name[4:]}")
    (tmp_path / "9999_empty").mkdir()
    assert Run.find("latest", tmp_path).folder == runs["good"]
    shown = capsys.readouterr().err
    assert shown.startswith(f"latest: {runs['good'].name}; newer, but not used: 9999_empty (unreadable), ")
    assert f"{runs['broken'].name} (failed), {runs['halted'].name} (stopped)" in shown
    assert Run.find("latest", tmp_path, resumable=True).folder == runs["halted"]


def test_a_folder_of_a_run_has_its_record_from_the_first_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed while it makes the folder leaves no run; what it leaves is removed later."""

    def killed(_: Run) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path)
    (left,) = tmp_path.iterdir()
    assert table.rows(tmp_path) == []
    os.utime(left, (0, 0))
    run = make(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [run.name]
    assert {p.name for p in run.folder.iterdir()} == {"run.json", "config.yaml"}


def test_rows_are_newest_first_with_scores(tmp_path: Path) -> None:
    """The summaries are those of score files with a valid record."""
    older, newer = make(tmp_path), make(tmp_path)
    newer.folder.rename(tmp_path / ("9999" + newer.name[4:]))
    (older.folder / "scores").mkdir()
    path = older.folder / "scores" / "set-test.json"
    path.write_text(json.dumps({"summary": {"AP": 0.5, "mean_px": 3.0}}))
    write_record(path, tmp_path, {})
    found = table.rows(tmp_path)
    assert found[0]["run"].startswith("9999")
    assert found[1]["scores"] == {"set-test": {"AP": 0.5, "mean_px": 3.0}}
    assert found[1]["error"] is None
    path.write_text(path.read_text().replace("0.5", "0.9"))
    changed = table.rows(tmp_path)[1]
    assert changed["scores"] == {}
    assert "set-test.json: has changed since it was written" in changed["error"]


def test_patch_and_commit_of_a_repository(tmp_path: Path) -> None:
    """Uncommitted changes are part of the provenance, but outputs that were saved in notebooks are not."""
    for args in (["init", "-q"], ["config", "user.email", "a@b"], ["config", "user.name", "a"]):
        subprocess.run(["git", "-C", tmp_path, *args], check=True)
    (tmp_path / "file").write_text("one\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.ipynb").write_text("{}\n")
    subprocess.run(["git", "-C", tmp_path, "add", "-A"], check=True)
    subprocess.run(["git", "-C", tmp_path, "commit", "-qm", "one"], check=True)
    clean, patch = provenance.code(tmp_path)
    assert len(clean["commit"]) == 40
    assert not clean["dirty"]
    assert patch == ""
    (tmp_path / "sub" / "a.ipynb").write_text('{"outputs": "a picture"}\n')
    assert provenance.code(tmp_path) == (clean, "")
    (tmp_path / "file").write_text("two\n")
    changed, patch = provenance.code(tmp_path)
    assert changed["dirty"]
    assert "+two" in patch
    assert "a picture" not in patch
    assert changed["patch_sha256"] == provenance.sha256(patch)


@pytest.mark.parametrize("inside", [".", "sub"])
def test_a_patch_restores_tracked_and_untracked_changes(tmp_path: Path, inside: str) -> None:
    """By ``git apply`` on the commit, also where the workspace is a folder of the repository; large files are only named."""
    here = tmp_path / "repository" / inside
    (here / "src").mkdir(parents=True)
    top = tmp_path / "repository"
    (here / "src" / "old.py").write_text("one\n")
    for args in (["init", "-q"], ["config", "user.email", "a@b"], ["config", "user.name", "a"], ["add", "-A"]):
        subprocess.run(["git", "-C", top, *args], check=True)
    subprocess.run(["git", "-C", top, "commit", "-qm", "one"], check=True)
    (here / "src" / "old.py").write_text("two\n")
    (here / "src" / "new.py").write_text("--- a\n+++ b\nno line end")
    (here / "src" / "bytes.bin").write_bytes(bytes(range(256)))
    (here / "src" / "large.py").write_text("#" * provenance.LARGEST)
    code, patch = provenance.code(here)
    assert "large.py: sha256" in patch
    (tmp_path / "git.patch").write_text(patch)
    there = tmp_path / "there"
    subprocess.run(["git", "-C", top, "worktree", "add", "-q", "--detach", there, code["commit"]], check=True)
    subprocess.run(["git", "-C", there, "apply", tmp_path / "git.patch"], check=True)
    for name in ("old.py", "new.py", "bytes.bin"):
        assert (there / inside / "src" / name).read_bytes() == (here / "src" / name).read_bytes()


@pytest.mark.parametrize(("seconds", "text"), [(3, "3 s"), (65, "1 min 05 s"), (7260, "2 h 01 min")])
def test_clock(seconds: float, text: str) -> None:
    """Durations in their two largest units."""
    assert table.clock(seconds) == text
