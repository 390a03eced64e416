"""Files from elsewhere name no path outside their folder, and control no terminal; `kplab runs` lists what it can."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from kplab.cli import main
from kplab.data.formats import _slp_tables, coco, dlc, sleap
from kplab.data.sources.files import FileSource
from kplab.errors import DataError, KplabError, RunError, printable
from kplab.runs import provenance
from kplab.runs.files import replacing
from kplab.runs.records import check_inside, list_artefacts, read_record, record_path
from kplab.runs.run import Run
from kplab.structures.skeleton import Skeleton
from kplab.tasks.evaluation.comparison import compare_runs
from kplab.tasks.evaluation.pictures import see_predictions
from kplab.tasks.inference.writers.pictures import remove_overlays

Finished = Callable[..., Run]
EXEMPLAR = ("model=exemplar", "flip_test=false", "model.max_poses=1")
CONTROL = "\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202e"


@pytest.fixture
def run(finished: Finished) -> Run:
    """A finished run of an exemplar, which takes no training."""
    return finished(*EXEMPLAR)


def edit(path: Path, **entries: Any) -> None:
    """Change entries of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


# overlays


def predicted(folder: Path, *names: str) -> Path:
    """A results file whose card names these images, and the folder of its overlays."""
    (folder / "out" / "overlays" / "sub").mkdir(parents=True)
    results = folder / "out" / "predictions.json"
    results.write_text("[]")
    results.with_suffix(".card.json").write_text(json.dumps({"images": {str(i): n for i, n in enumerate(names, 1)}}))
    return results


def test_only_overlays_of_the_prediction_are_removed(tmp_path: Path) -> None:
    secret = tmp_path / "elsewhere" / "secret.png"
    names = (
        "a.jpg",
        "sub/b.jpg",
        "../../elsewhere/secret.png",
        str(secret),
        "sub/../../../elsewhere/secret.jpg",
        "link/secret.png",
    )
    results = predicted(tmp_path, *names)
    overlays = results.parent / "overlays"
    secret.parent.mkdir()
    for file in (secret, overlays / "a.png", overlays / "sub" / "b.png", overlays / "mine.png"):
        file.write_text("x")
    (overlays / "link").symlink_to(secret.parent)
    remove_overlays(results, overlays)
    assert secret.is_file()
    assert sorted(p.name for p in overlays.rglob("*.png")) == ["mine.png"]


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"images": 3}', '{"images": {"1": ""}}', '{"images": {"1": "a\\u0000"}}', "{", "\xff"]
)
def test_a_damaged_card_is_named(tmp_path: Path, content: str) -> None:
    results = predicted(tmp_path, "a.jpg")
    results.with_suffix(".card.json").write_text(content, encoding="latin-1")
    with pytest.raises(RunError, match=r"predictions.card.json: can't be read as a card"):
        remove_overlays(results, results.parent / "overlays")


@pytest.mark.parametrize(
    "link",
    ["overlays", "overlays/001.png", "overlays/sub", "predictions.json", "predictions.card.json", "keypoints.csv", ""],
)
def test_predictions_are_not_written_through_links(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], link: str
) -> None:
    victim = tmp_path / "victim"
    place = run.folder / "predictions" / "images" / link
    place.parent.mkdir(parents=True, exist_ok=True)
    if "." in link:
        victim.write_text("mine")
    else:
        victim.mkdir()
    place.symlink_to(victim)
    assert main(["predict", f"run={run.folder}", f"source={tmp_path}/dots/images"]) == 2
    assert place.name in capsys.readouterr().err
    assert victim.read_text() == "mine" if victim.is_file() else not list(victim.iterdir())


def test_a_temporary_file_that_is_a_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name can't be foreseen; if it could, a link of that name would be refused."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr("secrets.token_hex", lambda size: "0" * 2 * size)
    (tmp_path / "p.json.00000000.part").symlink_to(victim)
    with pytest.raises(FileExistsError), replacing(tmp_path / "p.json") as stream:
        stream.write(b"theirs")
    assert victim.read_text() == "mine"


def test_a_link_in_a_run_is_not_followed(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, command in (("scores", "evaluate"), ("predictions", "predict")):
        shutil.move(run.folder / kind, tmp_path / kind)
        (run.folder / kind).symlink_to(tmp_path / kind)
        before = {p: p.stat().st_mtime_ns for p in (tmp_path / kind).iterdir()}
        assert main([command, f"run={run.folder}", "split=test"]) == 2
        assert "leads out of" in capsys.readouterr().err
        assert {p: p.stat().st_mtime_ns for p in (tmp_path / kind).iterdir()} == before


def test_links_in_a_circle_end_in_a_message(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(RunError, match="/a: "):
        check_inside(tmp_path / "x", tmp_path / "a")


# names in a run


def test_an_experiment_does_not_lead_out(run: Run, tmp_path: Path) -> None:
    edit(run.folder / "run.json", experiment="../../../escaped/x")
    paths = see_predictions(Run.open(run.folder), "test", run.folder / "pictures", 1)
    assert {p.parent for p in paths} == {run.folder / "pictures"}
    assert all(p.is_file() for p in paths)
    assert not list(tmp_path.rglob("escaped*"))
    # both have the same experiment, so that the names of the folders are used
    other = shutil.copytree(run.folder, run.folder.with_name("2000_other"))
    _, out = compare_runs([Run.open(run.folder), Run.open(other)], "test", resamples=20)
    assert out.is_relative_to(run.folder)


def test_the_name_of_a_dataset_does_not_lead_out(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    config = OmegaConf.load(run.folder / "config.yaml")
    config.dataset.name = "../../../escaped"
    OmegaConf.save(config, run.folder / "config.yaml")
    for verb in ("predict", "evaluate"):
        assert main([verb, f"run={run.folder}", "split=test"]) == 2
        assert "'../../../escaped', which names a folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../secret.json", "/etc/hostname", "..", "", "a/b", 3, None, ["x"], "a\0"])
def test_records_name_files_of_their_own_folder(run: Run, name: Any) -> None:
    scores = run.folder / "scores" / "dots-test.json"
    record = record_path(scores)
    stored = json.loads(record.read_text())
    edit(record, artefact=name)
    with pytest.raises(RunError, match="can't be read as a record"):
        list_artefacts(scores.parent)
    if isinstance(name, str):
        edit(record, sha256={**stored["sha256"], name: "0" * 64})
        with pytest.raises(RunError, match="can't be read as a record"):
            read_record(scores)


# labels


ONE = Skeleton("one", ("a",), (), (0,), (0.1,), "made up")


@pytest.mark.parametrize("name", ["../secret.png", "sub/../../secret.png", "ABSOLUTE"])
def test_labels_name_images_inside_their_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    Image.new("RGB", (20, 10)).save(tmp_path / "secret.png")
    name = str(tmp_path / "secret.png") if name == "ABSOLUTE" else name
    document = {
        "images": [{"id": 1, "file_name": name, "width": 20, "height": 10}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [1, 1, 5, 5],
                "area": 9,
                "keypoints": [3, 3, 2],
            }
        ],
        "categories": [{"id": 1, "name": "x", "keypoints": ["a"]}],
    }
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"images outside this folder: .*secret.png.* add allow_outside=true"):
        coco.read(path, folder, ONE)
    labels = coco.read(path, folder, ONE, keep_extras=True, allow_outside=True)
    assert labels.read(0).shape == (10, 20, 3)
    coco.write(labels, tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text())["images"][0]["file_name"] == name

    project = tmp_path / "project"
    (project / "labeled-data" / "v").mkdir(parents=True)
    row = name if name.startswith("/") else "../secret.png"
    table = f"scorer,Ann,Ann\nbodyparts,a,a\ncoords,x,y\n{row},3,3\n"
    (project / "labeled-data" / "v" / "CollectedData_Ann.csv").write_text(table)
    with pytest.raises(DataError, match=r"images outside this folder: .*secret.png"):
        dlc.read(project, ONE)
    assert dlc.read(project, ONE, allow_outside=True).read(0).shape == (10, 20, 3)


def test_links_and_dots_inside_the_folder_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    Image.new("RGB", (20, 10)).save(tmp_path / "there.png")
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "there.png")
    source = FileSource(tmp_path / "images", ["link.png", "a/../link.png", "..link.png", "a..b/c.png"])
    assert source.read(0).shape == source.read(1).shape == (10, 20, 3)


@pytest.mark.parametrize(
    ("table", "kind"),
    [("metadata", "soft link"), ("metadata", "external link")]
    + [
        (table, kind)
        for table in ("frames", "points", "videos_json")
        for kind in ("soft link", "external link", "external storage", "virtual")
    ],
)
def test_links_and_external_storage_of_a_slp_are_refused(tmp_path: Path, table: str, kind: str) -> None:
    """What they lead to is a whole table of the same file or of another one, or bytes of a secret file."""
    path, other = tmp_path / "a.slp", tmp_path / "other.slp"
    for file in (path, other):
        slp(file)
    with h5py.File(path, "a") as file:
        if kind == "external link":
            del file[table]
            file[table] = h5py.ExternalLink(str(other), table)
        elif kind == "soft link":
            file.move(table, "there")
            file[table] = h5py.SoftLink("/there")
        else:
            shape, dtype = file[table].shape, file[table].dtype
            del file[table]
            if kind == "virtual":
                layout = h5py.VirtualLayout(shape, dtype)
                layout[:] = h5py.VirtualSource(str(other), table, shape)
                file.create_virtual_dataset(table, layout)
            else:
                (tmp_path / "raw").write_bytes(bytes(4096))
                file.create_dataset(table, shape, dtype, external=[(str(tmp_path / "raw"), 0, 4096)])
    with pytest.raises(DataError, match=rf"a.slp: not a whole SLEAP .slp file \(.*'{table}'"):
        sleap.read(path, ONE, tmp_path / "frames")


def slp(path: Path) -> None:
    """The tables of an empty SLEAP file."""
    with h5py.File(path, "w") as file:
        file.create_group("metadata").attrs["json"] = json.dumps({"nodes": [{"name": "a"}], "skeletons": []})
        for name, columns in _slp_tables.COLUMNS.items():
            file[name] = np.zeros(1, [(column, np.int64) for column in columns])
        file["videos_json"] = np.array([b"{}"])


# the terminal


def test_control_characters_are_shown_as_escapes() -> None:
    assert printable(CONTROL) == r"\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202e"
    assert printable("große Maus 鼠 é\t·\n") == "große Maus 鼠 é\t·\n"
    assert printable(os.fsdecode(b"a\xff.png")) == r"a\udcff.png"


def clean(text: str) -> bool:
    """Whether a text holds no control characters but line ends and tabs."""
    return printable(text) == text


def test_records_do_not_control_the_terminal(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the list of runs, a comparison, an evaluation and messages; styles of rich are text as well."""
    hostile = f"[red]{CONTROL}[/red][link=file:///x]"
    edit(run.folder / "run.json", experiment=hostile, status="failed", error=hostile)
    other = run.folder.with_name(f"2000_{hostile.replace('/', '')}")
    shutil.copytree(run.folder, other)
    edit(other / "run.json", experiment="other", status=hostile)
    (tmp_path / "runs" / f"3000_{CONTROL}").mkdir()
    capsys.readouterr()
    runs = f"runs_dir={tmp_path}/runs"
    assert main(["runs", runs]) == 0
    shown = capsys.readouterr()
    assert clean(shown.out + shown.err)
    assert "[red]" in shown.out
    assert main(["compare", f"runs=[{run.name},2000_]", runs, "resamples=20"]) == 0
    assert main(["evaluate", f"run={run.name}", "split=test", runs]) == 0
    assert main(["evaluate", "run=3000_", "split=test", runs]) == 2
    shown = capsys.readouterr()
    assert clean(shown.out + shown.err)
    assert r"\x1b[2J" in shown.out
    assert r"\x1b[2J" in shown.err


def test_a_dataset_does_not_control_the_terminal(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its name, and the endings of files beside images."""
    config = OmegaConf.load(run.folder / "config.yaml")
    config.dataset.name = f"x{CONTROL}"
    OmegaConf.save(config, run.folder / "config.yaml")
    (tmp_path / "dots" / "images" / f"a.{CONTROL.replace('/', '')}").write_text("x")
    capsys.readouterr()
    assert main(["predict", f"run={run.folder}", "split=test"]) == 0
    assert main(["evaluate", f"run={run.folder}", "split=test"]) == 0
    assert main(["predict", f"run={run.folder}", f"source={tmp_path}/dots/images", f"out={tmp_path}/out"]) == 0
    shown = capsys.readouterr()
    assert clean(shown.out + shown.err)
    assert r"\x1b[2J" in shown.out


# the list of runs


HOSTILE = {
    "list": "[]", "number": "3", "null": "null", "text": '"x"', "empty": "", "half": '{"status": "fini', "bytes": b"\xff\xfe\0",
    "deep": "[" * 200_000, "status": '{"status": 3}', "process": '{"status": "running", "process": []}',
    "pid": f'{{"status": "running", "process": {{"pid": {2**63}, "host": "HOST"}}}}',
    "written": '{"status": "running", "process": {"pid": 1, "written": "x", "host": "elsewhere"}}',
    "seconds": '{"status": "finished", "seconds": "long"}', "error": '{"status": "failed", "error": ["x"]}',
    "empty error": '{"status": "failed", "error": ""}', "started": '{"status": "finished", "started": 7}',
}  # fmt: skip


def test_every_good_run_is_listed_whatever_lies_beside_it(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    for name, content in HOSTILE.items():
        folder = runs / f"2000_{name.replace(' ', '-')}"
        folder.mkdir()
        data = content if isinstance(content, bytes) else content.replace("HOST", os.uname().nodename).encode()
        (folder / "run.json").write_bytes(data)
    (runs / "2000_file").write_text("no folder")
    (runs / "2000_dangling").symlink_to(tmp_path / "nowhere")
    (runs / "2000_circle").symlink_to(runs / "2000_circle")
    (runs / "2000_folder" / "run.json").mkdir(parents=True)
    (runs / "2000_lost").mkdir()
    (runs / "2000_lost" / "run.json").symlink_to(tmp_path / "nowhere")
    for number, content in enumerate(("[]", '{"summary": []}', '{"summary": {"AP": "x"}}', "{}", "{", b"\xff")):
        scored = shutil.copytree(run.folder, runs / f"2001_scores{number}")
        path = scored / "scores" / "dots-test.json"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        record = json.loads(record_path(path).read_text())
        record["sha256"] = {path.name: provenance.file_sha256(path)}
        record_path(path).write_text(json.dumps(record))
    for number, content in enumerate(
        ("[]", "{}", '{"artefact": 3}', '{"artefact": "/etc/passwd"}', "[" * 200_000, b"\xff")
    ):
        recorded = shutil.copytree(run.folder, runs / f"2002_record{number}")
        path = recorded / "scores" / "dots-test.record.json"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    capsys.readouterr()
    assert main(["runs", f"runs_dir={runs}", "limit=100"]) == 0
    shown = capsys.readouterr().out
    assert f"{run.name}" in shown
    line = next(line for line in shown.splitlines() if line.startswith(run.name))
    assert "finished" in line
    assert "dots-test" in line
    for folder in runs.iterdir():
        if folder.is_dir():
            assert folder.name in shown


@pytest.mark.parametrize("name", [n for n in HOSTILE if n != "empty error"])
def test_a_damaged_record_ends_every_verb_in_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = tmp_path / "runs" / "2000_x"
    folder.mkdir(parents=True)
    content = HOSTILE[name]
    (folder / "run.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    for command in (["predict", "split=test"], ["evaluate", "split=test"]):
        assert main([command[0], f"run={folder}", *command[1:]]) == 2
        assert str(folder) in capsys.readouterr().err
    with pytest.raises(KplabError):
        Run.open(folder)
