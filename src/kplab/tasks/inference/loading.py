"""A run's model, loaded and ready to predict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from kplab.data.datamodule import usual_batch
from kplab.data.regions import Regions, predicted_regions
from kplab.errors import ConfigError, ModelError, RunError
from kplab.export.predictor import ExportedModel
from kplab.models.weights import read_checkpoint
from kplab.runs.provenance import file_sha256
from kplab.runs.run import Run
from kplab.structures.image_source import ImageSource
from kplab.structures.poses import Poses
from kplab.structures.predictor import Model
from kplab.structures.skeleton import Skeleton
from kplab.tasks.inference.assembly import Assembly
from kplab.tasks.inference.stream import FramePredictor, stream_poses
from kplab.tasks.wiring.models import build_model
from kplab.tasks.wiring.nodes import load_config


def load_model(run: Run, checkpoint: str = "auto", device: str = "auto") -> tuple[Model, Path]:
    """A run's model with trained weights (the averaged ones if the run averages), and the checkpoint's path.

    Args:
        checkpoint: auto (best if there is one, else last), best, last, or a file.
        device: auto, cpu, cuda, …

    Raises:
        RunError: there is no such checkpoint, or it can't be read.
        ConfigError: there is no such device.
    """
    folder = run.folder / "checkpoints"
    best, last = folder / "best.ckpt", folder / "last.ckpt"
    path = {"auto": best if best.is_file() else last, "best": best, "last": last}.get(checkpoint, Path(checkpoint))
    if not path.is_file():
        raise RunError(
            f"{run.folder}: no checkpoint {path.name} (the run is {run.status}). Train it, or name another run."
        )
    if checkpoint == "auto" and path == last and "best.ckpt" in checkpoint_hashes(run):
        raise RunError(f"{best} is missing: {run.name} had it. Restore it, or use the last one: checkpoint=last.")
    if checkpoint in ("auto", "best", "last"):
        check_checkpoint(run, path)
    model = build_model(load_config(run), pretrained=False)
    try:
        state = read_checkpoint(path)["state_dict"]
        model.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
    except ModelError as error:
        raise RunError(f"{error} Name another checkpoint, or train again.") from None
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise RunError(f"{path}: can't be read ({reason}). It is damaged, or no checkpoint of this run.") from None
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        return model.to(chosen).eval(), path
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={device}: {str(error).splitlines()[0]} Use device=cpu or device=auto.") from None


def check_checkpoint(run: Run, path: Path) -> None:
    """Check that a checkpoint is the file that the run's training wrote; runs of an older kplab don't state it.

    Raises:
        RunError: it was replaced or changed since.
    """
    expected = checkpoint_hashes(run).get(path.name)
    if expected is None:
        return
    found = file_sha256(path)
    if found != expected:
        raise RunError(
            f"{path}: is not the file that the training of {run.name} wrote (sha256 {found[:12]}…, run.json has "
            f"{expected[:12]}…). Restore it, or train again; to use this file nevertheless, name it: checkpoint={path}."
        )


def checkpoint_hashes(run: Run) -> dict[str, str]:
    """SHA-256 of each checkpoint at the end of its training; none of a run that has not ended, or of an older kplab."""
    return {str(name): str(value) for name, value in run.record.get("checkpoints", {}).items()}


@dataclass(frozen=True)
class LoadedRun:
    """A run with its model, and the settings of its config that concern prediction.

    Args:
        run: the record.
        config: that the run was trained with.
        model: with trained weights, or its exported file.
        checkpoint: where they come from.
        flip_test: average with the mirrored views.
        device: of the model, as named: auto, cpu, …
        backend: torch, or what computes the exported file.
    """

    run: Run
    config: DictConfig
    model: Model | ExportedModel
    checkpoint: Path
    flip_test: bool
    device: str = "auto"
    backend: str = "torch"

    @classmethod
    def load(
        cls,
        run: Run,
        checkpoint: str = "auto",
        device: str = "auto",
        flip_test: bool | None = None,
        backend: str = "torch",
    ) -> LoadedRun:
        """Load a run; see ``load_model``.

        Args:
            flip_test: None is as trained, or as exported; False reads each view once, without turned ones (``model.turns``).
            backend: torch, or onnx or openvino: the file that ``kplab export`` wrote of this checkpoint.

        Raises:
            RunError: there is no such file, it has changed, or it was exported from another checkpoint.
        """
        config = load_config(run)
        if backend == "torch":
            model, path = load_model(run, checkpoint, device)
            if flip_test is False:
                model.without_turns()
            return cls(run, config, model, path, bool(config.flip_test if flip_test is None else flip_test), device)
        from kplab.tasks.inference.exported import open_export

        if device not in ("auto", "cpu"):
            raise ConfigError(
                f"device={device} has no meaning with backend={backend}, which computes on the processor."
            )
        model, path = load_model(run, checkpoint, "cpu")
        exported = open_export(run, backend, model, path)
        if flip_test is not None:
            exported.check_flip_test(flip_test)
        if flip_test is False:
            exported.without_turns()
        return cls(run, config, exported, path, exported.flip_test, "cpu", backend)

    @property
    def skeleton(self) -> Skeleton:
        """Names of the keypoints."""
        return self.model.skeleton

    def assembly(self, kind: str) -> Assembly:
        """From views to images, for regions of a kind."""
        return Assembly.of(self.config, kind == "image")

    def stream(
        self,
        source: ImageSource,
        regions: Regions | None = None,
        *,
        batch_size: int | None = None,
        workers: int | None = None,
    ) -> Iterator[tuple[int, Poses]]:
        """Yield (index, poses) of every image of a source, in order, source pixels; see ``stream_poses``.

        Args:
            regions: which parts of the images; None: whole images.
        """
        kind = "image" if regions is None else regions.kind
        return stream_poses(
            self.model.for_regions(kind),
            source,
            regions,
            assembly=self.assembly(kind),
            flip_test=self.flip_test,
            batch_size=batch_size,
            workers=workers,
        )

    def new_regions(self, source: ImageSource, batch_size: int | None = None) -> Regions | None:
        """Regions of images without labels: the boxes of ``detector_run`` if the run reads detected boxes, else None.

        Raises:
            RunError: the detector's run is missing or incomplete.
        """
        detector = self.load_detector()
        if detector is None:
            return None
        found = stream_poses(detector, source, batch_size=batch_size)
        return predicted_regions((poses for _, poses in found), self.config.padding)

    def frame_predictor(self, batch_size: int | None = None) -> FramePredictor:
        """What predicts the frames of a stream: in whole images, or in the boxes of ``detector_run``.

        Args:
            batch_size: views at a time; None is ``usual_batch``.

        Raises:
            RunError: the detector's run is missing or incomplete.
        """
        detector = self.load_detector()
        kind = "image" if detector is None else "detected"
        return FramePredictor(
            self.model.for_regions(kind),
            self.assembly(kind),
            detector,
            float(self.config.padding),
            self.flip_test,
            batch_size or min(usual_batch(network.size) for network in (self.model, detector) if network is not None),
        )

    def load_detector(self) -> Model | None:
        """The model of ``detector_run`` if the run reads detected boxes, else None.

        Raises:
            RunError: the detector's run is missing or incomplete.
        """
        if self.config.regions != "detected":
            return None
        run = Run.find(str(self.config.detector_run), Path(self.config.runs_dir))
        return load_model(run, device=self.device)[0]

    def made_from(self) -> dict[str, Path]:
        """The files that predictions depend on, for their record."""
        return {"checkpoint": self.checkpoint, "config": self.run.folder / "config.yaml"}

    def card(self, kind: str) -> dict[str, Any]:
        """How predictions of regions of a kind are made."""
        boxes = kind
        if kind == "image":
            # boxes that are given must not be compared with those that the model finds
            boxes = "whole image" if self.model.for_regions(kind).max_poses == 1 else "detected"
        return {
            "run": self.run.name,
            "checkpoint": self.checkpoint.name,
            "boxes": boxes,
            "detector_run": self.config.get("detector_run") if boxes == "detected" else None,
            "flip_test": self.flip_test,
            "turns": list(self.model.turns),
            "size": list(self.config.size),
            "padding": float(self.config.padding),
            **self.assembly(kind).card(),
            **({} if isinstance(self.model, Model) else {"backend": self.backend, "precision": self.model.precision}),
        }
