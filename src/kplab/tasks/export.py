"""``kplab export``: write a run's model as ONNX, OpenVINO or TorchScript, compared with it on images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from kplab.errors import printable
from kplab.tasks import compose

EXAMPLE = "kplab export run=latest format=onnx"


@dataclass
class Options:
    """Keys of ``kplab export``."""

    run: str = MISSING
    format: str = "onnx"
    images: Any = 32
    split: str | None = None
    checkpoint: str = "auto"
    flip_test: bool | None = None
    precision: str = "f32"
    runs_dir: str = MISSING


def main(args: list[str]) -> int:
    """Export a run's model; the status is 1 if the file and the model differ."""
    from kplab.runs.run import Run
    from kplab.tasks.inference.exporting import export_run

    config = compose("export", args)
    run = Run.find(config.run, Path(config.runs_dir))
    images = config.images if isinstance(config.images, int) else str(config.images)
    folder, passed = export_run(
        run, config.format, config.checkpoint, config.flip_test, config.precision, images, config.split
    )
    print(printable(f"exported: {folder}" if passed else f"differs from the model, and is not used: {folder}"))
    return 0 if passed else 1
