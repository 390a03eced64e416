"""What wandb and TensorBoard hold of a training: read back from their files."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import wandb
from omegaconf import DictConfig
from PIL import Image

from kplab.runs.run import Run
from kplab.tasks.evaluation.files import read_scores
from kplab.tasks.training import train as training
from kplab.tasks.training.train import train

Config = Callable[..., DictConfig]


def records(path: Path) -> Iterator[Any]:
    """The records of an offline file of wandb, each with its checksum checked.

    A file has a header of 7 bytes; then, in blocks of 32 KiB, parts of records: CRC-32, length, and a kind: 1 whole, 2 first,
    3 middle, 4 last (LevelDB's log format).
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, block = path.read_bytes(), 32768
    assert data[:4] == b":W&B"
    at, whole = 7, b""
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block  # the rest of a block is too short for a header
            continue
        checksum, length, kind = struct.unpack("<IHB", data[at : at + 7])
        part = data[at + 7 : at + 7 + length]
        assert zlib.crc32(bytes([kind]) + part) == checksum
        at, whole = at + 7 + length, whole + part
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def entries(items: Any) -> dict[str, Any]:
    """Names and values of a record, nested as they were logged."""
    found: dict[str, Any] = {}
    for item in items:
        *outer, last = list(item.nested_key) or [item.key]
        node = found
        for key in outer:
            node = node.setdefault(key, {})
        node[last] = json.loads(item.value_json)
    return found


class Offline:
    """A run of wandb as its offline folder has it."""

    def __init__(self, run: Run) -> None:
        wandb.teardown()  # its process writes the last records after finish() has returned: this waits for them
        (self.folder,) = (run.folder / "wandb").glob("offline-run-*")
        (path,) = self.folder.glob("*.wandb")
        self.history: list[dict[str, Any]] = []
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.best: dict[str, str] = {}
        self.stored: dict[str, Path] = {}
        self.about, self.exit_code = None, None
        for record in records(path):
            match record.WhichOneof("record_type"):
                case "run":
                    self.about = record.run
                    self.config |= entries(record.run.config.update)
                case "config":
                    self.config |= entries(record.config.update)
                case "history":
                    self.history.append(entries(record.history.item))
                case "summary":
                    self.summary |= entries(record.summary.update)
                case "metric":
                    kinds = [kind for kind in ("min", "max") if getattr(record.metric.summary, kind)]
                    self.best |= dict.fromkeys([record.metric.name] if kinds else [], *kinds)
                case "artifact":
                    self.stored |= {c.path: Path(c.local_path) for c in record.artifact.manifest.contents}
                case "exit":
                    self.exit_code = record.exit.exit_code

    def column(self, name: str) -> list[tuple[float, float]]:
        """(epoch, value) of a metric."""
        return [(row["epoch"], row[name]) for row in self.history if name in row]

    def table(self, name: str) -> tuple[list[str], list[list[Any]]]:
        """Columns and rows of a table, as the artefact has it that wandb shows, which lies in the folder of the run."""
        (entry,) = (row[name] for row in self.history if name in row)
        assert entry["_type"] == "table-file"
        path = self.stored[f"{name}.table.json"]
        assert path.is_relative_to(self.folder.parents[1])
        table = json.loads(path.read_text())
        return table["columns"], table["data"]


@pytest.mark.slow
def test_wandb_holds_the_run(config: Config, tmp_path: Path) -> None:
    """Curves, scores, predictions with overlays, config and lineage, without an account or a network."""
    run = train(config("logger=wandb_offline"))
    assert run is not None
    found = Offline(run)
    assert found.exit_code == 0
    assert (found.about.display_name, found.about.run_group, list(found.about.tags)) == (run.name, "tiny", ["dots"])

    curves = pd.read_csv(run.folder / "curves.csv")
    for name in ("val/mean_px", "val/AP", "train/loss_epoch"):
        expected = curves[["epoch", name]].dropna().to_numpy().tolist()
        assert found.column(name) == [tuple(pytest.approx(v, rel=1e-6) for v in row) for row in expected]
    assert (found.best["val/AP"], found.best["val/mean_px"]) == ("max", "min")

    scores = read_scores(run.folder / "scores" / "dots-test.json")
    for name in ("AP", "mean_px", "n_instances"):
        assert found.summary[f"test/{name}"] == pytest.approx(scores.summary[name])
    columns, rows = found.table("test/keypoints")
    errors = dict(zip(scores.per_keypoint["keypoint"], scores.per_keypoint["mean_px"], strict=True))
    assert {row[columns.index("keypoint")]: row[columns.index("mean_px")] for row in rows} == pytest.approx(errors)

    columns, rows = found.table("test/predictions")
    assert len(rows) == 3  # of the four images two are typical and two the worst, and one is both
    assert {row[0] for row in rows} == {"worst", "typical"}
    per_image = scores.per_image.set_index("file")
    for row in rows:
        cells = dict(zip(columns, row, strict=True))
        assert cells["mean_px"] == pytest.approx(per_image.loc[cells["file"], "mean_px"])
        stored = found.stored[cells["truth and prediction"]["path"]]
        assert np.ptp(np.asarray(Image.open(stored))) > 100  # a picture and not one colour

    assert found.config["head"]["sigma"] == config().head.sigma
    stated = found.config["lineage"]
    assert stated["config_sha256"] == run.record["config_sha256"]
    assert stated["data_sha256"] == run.record["data_sha256"]
    _, rows = found.table("lineage")
    artefacts = {name: (sha256, made_from) for name, sha256, made_from in rows}
    assert artefacts["checkpoints/best.ckpt"][0] == run.record["checkpoints"]["best.ckpt"]
    assert f"checkpoint {artefacts['checkpoints/best.ckpt'][0][:12]}" in artefacts["predictions/dots-test.json"][1]
    assert f"predictions {artefacts['predictions/dots-test.json'][0][:12]}" in artefacts["scores/dots-test.json"][1]


@pytest.mark.slow
def test_each_training_of_a_process_is_a_run_of_wandb(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that fails is marked as failed, and the next one does not continue it; a model without epochs has its scores."""

    def broken(*args: Any, **options: Any) -> None:
        raise RuntimeError("broken on purpose")

    with monkeypatch.context() as patched:
        patched.setattr(training, "fit", broken)
        with pytest.raises(RuntimeError, match="on purpose"):
            train(config("logger=wandb_offline", "name=first"))
    second = train(
        config("model=exemplar", "flip_test=false", "model.max_poses=1", "logger=wandb_offline", "name=second")
    )
    assert second is not None
    (folder,) = second.folder.parent.glob("*_first_*")
    first, last = Offline(Run.open(folder)), Offline(second)
    assert (first.exit_code, last.exit_code) == (1, 0)
    assert first.config["name"] == "first"
    assert last.config["name"] == "second"
    assert last.summary["test/mean_px"] == pytest.approx(
        read_scores(second.folder / "scores" / "dots-test.json").summary["mean_px"]
    )


@pytest.mark.slow
def test_tensorboard_holds_the_run(config: Config) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(config("logger=tensorboard"))
    assert run is not None
    found = EventAccumulator(str(run.folder / "tensorboard"), {"images": 0, "tensors": 0, "scalars": 0}).Reload()
    curves = pd.read_csv(run.folder / "curves.csv")
    for name in ("val/mean_px", "train/loss_epoch", "epoch"):
        expected = curves[name].dropna().drop_duplicates()
        assert sorted({e.value for e in found.Scalars(name)}) == pytest.approx(sorted(expected), rel=1e-6)
    scores = read_scores(run.folder / "scores" / "dots-test.json")
    (ap,) = found.Scalars("test/AP")
    assert (ap.value, ap.step) == (pytest.approx(scores.summary["AP"]), run.record["steps"])
    for name in ("test/worst", "test/typical"):
        (image,) = found.Images(name)
        assert np.ptp(np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))) > 100
    texts = {
        name: found.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0].decode()
        for name in ("config", "lineage", "artefacts", "test/keypoints")
    }
    assert "  name: dots" in texts["config"]
    assert run.record["config_sha256"] in texts["lineage"]
    assert run.record["checkpoints"]["best.ckpt"] in texts["artefacts"]
    assert "| left_green |" in texts["test/keypoints"]
