"""The exported files of a run: where they are, and how they are opened as a Predictor."""

from __future__ import annotations

from pathlib import Path

from kplab.errors import ConfigError, RunError
from kplab.export.formats import SUFFIXES, load
from kplab.export.predictor import ExportedModel
from kplab.runs.provenance import file_sha256
from kplab.runs.records import read_record
from kplab.runs.run import Run
from kplab.structures.predictor import Model

#: Formats that predict. A TorchScript file contains a program, and nothing from a run is executed.
BACKENDS = ("onnx", "openvino")
#: Added to the name of a folder whose file differs from the model.
FAILED = "-failed"


def export_folder(run: Run, format: str) -> Path:
    """Folder of a run's exported files of a format."""
    return run.folder / "exports" / format


def graph_files(folder: Path, format: str, model: Model) -> dict[str, Path]:
    """The main file of each graph of a model; the first one names the record."""
    return {name: folder / f"{name}{SUFFIXES[format]}" for name in model.networks}


def open_export(run: Run, backend: str, model: Model, checkpoint: Path) -> ExportedModel:
    """The exported files of a run as a Predictor.

    Args:
        backend: onnx or openvino.
        model: of the run.
        checkpoint: that must have been exported.

    Raises:
        ConfigError: there is no such backend.
        RunError: there is no file, it has changed, or it was exported from another checkpoint.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"backend is '{backend}'. Use torch, or with an exported file {' or '.join(BACKENDS)}.")
    folder = export_folder(run, backend)
    again = f"kplab export run={run.name} format={backend}"
    if not folder.is_dir():
        failed = folder.with_name(folder.name + FAILED)
        tried = f" {failed} differs from the model and is not used." if failed.is_dir() else ""
        raise RunError(f"{folder}: the run is not exported.{tried} Run: {again}")
    files = graph_files(folder, backend, model)
    record = read_record(next(iter(files.values())))
    stated = record["made_from"].get("checkpoint")
    made_from = stated.get("sha256") if isinstance(stated, dict) else None
    if made_from != file_sha256(checkpoint):
        raise RunError(
            f"{folder}: was exported from another checkpoint than {checkpoint.name} of {run.name}. Run: {again} "
            f"checkpoint={checkpoint}"
        )
    missing = [path.name for path in files.values() if path.name not in record["sha256"]]
    if missing:
        raise RunError(f"{folder}: its record does not list {', '.join(missing)}. Run: {again}")
    sessions = {name: load(path) for name, path in files.items()}
    return ExportedModel(model, sessions, bool(next(iter(sessions.values())).metadata["flip_test"]))
