"""``kplab export`` and its gate: what is equal passes and predicts, what differs is found, named and not used."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from kplab.cli import main
from kplab.errors import ConfigError, RunError
from kplab.export.graphs import ViewGraph
from kplab.export.parity import ImageParity, Parity
from kplab.runs.run import Run
from kplab.structures.poses import Poses
from kplab.structures.predictor import Predictor
from kplab.tasks.inference import exporting
from kplab.tasks.inference.exporting import export_run
from kplab.tasks.inference.loading import LoadedRun

Change = Callable[[ViewGraph], object]


def numbers(path: Path) -> list[list[str]]:
    """Rows of a table of keypoints, without the header."""
    with path.open() as stream:
        return list(csv.reader(stream))[1:]


@pytest.mark.slow
def test_an_exported_run_predicts_and_is_scored(
    finished: Callable[..., Run], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the verbs, by the Predictor, and by a script that can't import kplab: the same numbers as torch's."""
    run = finished()
    assert main(["export", f"run={run.folder}", "images=3"]) == 0
    folder = run.folder / "exports" / "onnx"
    report = json.loads((folder / "parity.json").read_text())
    assert report["passed"]
    assert [c["path"] for c in report["comparisons"]] == ["whole images", "views of kplab predict"]
    assert all(c["keypoints"] == 9 and c["worst_px"] < 0.1 for c in report["comparisons"])

    loaded = LoadedRun.load(run, backend="onnx")
    assert isinstance(loaded.model, Predictor)
    for backend in ("torch", "onnx"):
        assert main(["predict", f"run={run.folder}", "split=test", f"backend={backend}"]) == 0
        assert main(["evaluate", f"run={run.folder}", "split=test", f"backend={backend}"]) == 0
    scores = {b: json.loads((run.folder / "scores" / f"dots-test{b}.json").read_text()) for b in ("", "-onnx")}
    assert scores["-onnx"]["card"]["backend"] == "onnx"
    assert "backend" not in scores[""]["card"]
    for name, value in scores[""]["summary"].items():
        assert scores["-onnx"]["summary"][name] == pytest.approx(value, abs=1e-3), name

    image = sorted((tmp_path / "dots" / "images").glob("*.png"))[0]
    assert main(["predict", f"run={run.folder}", f"source={image}", f"out={tmp_path / 'out'}"]) == 0
    expected = numbers(tmp_path / "out" / "keypoints.csv")
    code = "import sys, runpy; sys.modules['kplab'] = None; del sys.argv[0]; runpy.run_path(sys.argv[0])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(root / "examples" / "onnx_without_kplab.py"), str(folder / "model.onnx"), str(image)],
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [line.split(",") for line in done.stdout.splitlines()]
    assert [row[1] for row in found] == [row[2] for row in expected] == ["red", "left_green", "right_blue"]
    for row, other in zip(found, expected, strict=True):
        assert [float(v) for v in row[2:]] == pytest.approx([float(v) for v in other[3:6]], abs=2e-3)

    # another checkpoint than the exported one, and a file that has changed
    state = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)
    torch.save({**state, "other": 1}, tmp_path / "other.ckpt")
    with pytest.raises(RunError, match=r"was exported from another checkpoint than other\.ckpt"):
        LoadedRun.load(run, backend="onnx", checkpoint=str(tmp_path / "other.ckpt"))
    with pytest.raises(ConfigError, match=r"was exported with flip_test=true.*Export it again with flip_test=false"):
        LoadedRun.load(run, backend="onnx", flip_test=False)
    with (folder / "model.onnx").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(RunError, match=r"model\.onnx: has changed since it was written"):
        LoadedRun.load(run, backend="onnx")
    with pytest.raises(RunError, match=r"the run is not exported\. Run: kplab export run=.* format=openvino"):
        LoadedRun.load(run, backend="openvino")
    with pytest.raises(
        ConfigError, match=r"backend is 'torchscript'\. Use torch, or with an exported file onnx or openvino"
    ):
        LoadedRun.load(run, backend="torchscript")


@pytest.mark.slow
def test_turned_views_are_exported_or_left_out(finished: Callable[..., Run]) -> None:
    """flip_test=false reads each view once; a file that contains turned views does not pass for one that does."""
    run = finished("model.turns=[90]", "flip_test=false")
    turned, once = LoadedRun.load(run), LoadedRun.load(run, flip_test=False)
    assert (turned.card("image")["turns"], once.card("image")["turns"]) == ([90.0], [])
    assert main(["export", f"run={run.folder}", "images=2"]) == 0
    assert LoadedRun.load(run, backend="onnx").card("image")["turns"] == [90.0]
    with pytest.raises(
        ConfigError, match=r"exported with views turned by \[90.0\] degrees.*again with flip_test=false"
    ):
        LoadedRun.load(run, backend="onnx", flip_test=False)
    assert main(["export", f"run={run.folder}", "images=2", "flip_test=false"]) == 0
    assert LoadedRun.load(run, backend="onnx", flip_test=False).card("image")["turns"] == []


def wrong_mean(graph: ViewGraph) -> None:
    """ImageNet's mean in another order of colours, far enough to move peaks."""
    graph.model.mean += 0.4


def wrong_weights(graph: ViewGraph) -> None:
    """The last layer reads other channels."""
    last = list(graph.model.head.parameters())[-2]
    last.data = last.data.flip(1)


def wrong_decode(graph: ViewGraph) -> None:
    """A shift of two pixels."""
    decode = graph.model.head.decode_tensors
    graph.model.head.decode_tensors = lambda outputs: {  # type: ignore[method-assign]
        name: value + 2 if name == "keypoints" else value for name, value in decode(outputs).items()
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "stage"), [(wrong_mean, "input pixels"), (wrong_weights, "network outputs"), (wrong_decode, "decode")]
)
def test_a_file_that_differs_fails_and_is_not_used(
    finished: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, change: Change, stage: str
) -> None:
    run = finished()
    made = exporting.graphs_of

    def changed(model: object, flip_test: bool) -> dict[str, ViewGraph]:
        graphs = made(model, flip_test)  # type: ignore[arg-type]
        change(graphs["model"])
        return graphs

    monkeypatch.setattr(exporting, "graphs_of", changed)
    assert main(["export", f"run={run.folder}", "images=2"]) == 1
    folder = run.folder / "exports" / "onnx-failed"
    report = json.loads((folder / "parity.json").read_text())
    assert not report["passed"]
    assert report["differs_first_in"] == stage
    assert "torch and onnx" in report["comparisons"][0]["faults"][0]
    assert (folder / "model.onnx").is_file()
    with pytest.raises(RunError, match=r"not exported.*onnx-failed differs from the model and is not used"):
        LoadedRun.load(run, backend="onnx")


def test_other_counts_fail() -> None:
    """Which side has how many is stated."""
    two, one = Poses.make(np.array([[[1.0, 2.0]], [[5.0, 6.0]]])), Poses.make(np.array([[[5.0, 6.02]]]))
    compared = Parity(("torch", "onnx"), "whole images", [ImageParity.of("a.png", two, one)])
    assert compared.worst == pytest.approx(0.02)
    assert compared.faults() == ["a.png: torch finds 2 poses, onnx 1", "a.png: torch finds 2 keypoints, onnx 1"]
    unlabelled = Poses.make(np.array([[[1.0, 2.0]], [[np.nan, np.nan]]]))
    compared = Parity(("torch", "onnx"), "whole images", [ImageParity.of("a.png", two, unlabelled)])
    assert compared.faults() == ["a.png: torch finds 2 keypoints, onnx 1"]
    nothing = Parity(("torch", "onnx"), "whole images", [ImageParity.of("a.png", two[:0], two[:0])])
    assert "nothing is compared" in nothing.faults()[0]
    for distance, fault in ((0.2, "the median difference of torch and onnx is 0.200 px, and may be 0.1"), (0.05, None)):
        moved = Poses.make(two.xy + np.array([distance, 0.0]))
        faults = Parity(("torch", "onnx"), "whole images", [ImageParity.of("a.png", two, moved)]).faults()
        assert faults == ([fault] if fault else [])


@pytest.mark.slow
def test_openvino_computes_in_f32_and_its_own_choice_is_found(finished: Callable[..., Run], real_data: Path) -> None:
    """On photographs. OpenVINO chooses bfloat16 on processors that have it, without a message."""
    import openvino

    run = finished()
    folder, passed = export_run(run, "openvino", images=str(real_data / "dlib_faces"))
    assert passed
    assert LoadedRun.load(run, backend="openvino").card("image")["precision"] == "f32"
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bfloat16, so that OpenVINO chooses float32")
    folder, passed = export_run(run, "openvino", precision="default", images=str(real_data / "dlib_faces"))
    assert not passed
    assert folder.name == "openvino-failed"
    assert json.loads((folder / "parity.json").read_text())["differs_first_in"] in exporting.STAGES


@pytest.mark.slow
def test_wrong_options_are_one_message(finished: Callable[..., Run], capsys: pytest.CaptureFixture[str]) -> None:
    run = finished()
    for option, message in (
        ("format=tflite", "format is 'tflite'. Use onnx, openvino, torchscript."),
        ("precision=int8", "precision is 'int8'. Use f32, bf16, f16, default."),
        ("precision=bf16", "precision=bf16 is for format=openvino; onnx computes in f32. Leave it out."),
        ("images=0", "images is 0, but must be at least 1, or a folder."),
        ("images=nowhere", "nowhere"),
        ("split=nosplit", "has no split 'nosplit'"),
    ):
        assert main(["export", f"run={run.folder}", option]) == 2
        assert message in capsys.readouterr().err
    assert not (run.folder / "exports").exists()
