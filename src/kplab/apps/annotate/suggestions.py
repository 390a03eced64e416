"""Suggested instances of a run, and the orders of images that follow from its predictions."""

from __future__ import annotations

import tempfile
import threading
from collections import deque
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kplab.apps.annotate.instances import Instance
from kplab.apps.annotate.order import teaching_order, thumbnail
from kplab.apps.annotate.project import Project
from kplab.apps.dashboard.worker import Worker
from kplab.errors import ConfigError, KplabError, RunError, describe
from kplab.runs.run import Run
from kplab.structures.skeleton import Skeleton
from kplab.tasks.wiring.datasets import skeleton_of
from kplab.tasks.wiring.nodes import load_config

JOBS = "kplab.apps.annotate.jobs"
FILE = "file name"
TEACHES = "most instructive"
UNSTABLE = "largest disagreement"
UNCERTAIN = "lowest confidence"
ORDERS = (FILE, TEACHES, UNSTABLE, UNCERTAIN)


def check_run(run: Run, skeleton: Skeleton, checkpoint: str) -> None:
    """Check that a run has a model, and knows a keypoint of a skeleton.

    Raises:
        ConfigError: it knows none.
        RunError: it has no checkpoint.
    """
    if checkpoint in ("auto", "best", "last") and not list((run.folder / "checkpoints").glob("*.ckpt")):
        raise RunError(f"{run.folder}: has no checkpoint (the run is {run.status}). Train it, or name another run.")
    own = skeleton_of(load_config(run).dataset)
    if not set(own.keypoints) & set(skeleton.keypoints):
        raise ConfigError(
            f"run {run.name} predicts {', '.join(own.keypoints[:8])}, and none of the keypoints of '{skeleton.name}'. Name a "
            "run of this skeleton."
        )


class Suggestions:
    """Predictions of all images of a project, one after the other, in a process of their own.

    Images that a window shows come first, then the others, spread over the project, so that the orders soon mean something.

    Args:
        project: whose images are predicted.
        run: whose model predicts.
        checkpoint: as of ``kplab predict``.
        least: score of an instance below which it is not suggested.
    """

    def __init__(self, project: Project, run: Run, checkpoint: str = "auto", least: float = 0.3) -> None:
        check_run(run, project.skeleton, checkpoint)
        count = len(project)
        self.project, self.run, self.checkpoint, self.least = project, run, checkpoint, least
        self.disagree, self.confident = np.full(count, np.nan), np.full(count, np.nan)
        self.features = np.full((count, thumbnail(np.zeros((8, 8, 3), dtype=np.uint8)).size), np.nan, dtype=np.float32)
        self.found: dict[int, list[Instance]] = {}
        self.done: list[int] = []
        self.fault: str | None = None
        self.worker = Worker(jobs=JOBS)
        self._asked: deque[int] = deque(maxlen=16)
        self._spread = deque(spread(count).tolist())
        self._stop = False
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        """Begin to predict."""
        self._thread.start()

    def close(self) -> None:
        """End the process."""
        self._stop = True
        self.worker.close()

    def ask(self, i: int) -> None:
        """Predict image i before others."""
        if i not in self.found:
            self._asked.append(i)

    def of(self, i: int) -> list[Instance] | None:
        """The suggested instances of image i; None where it was not predicted yet."""
        return self.found.get(i)

    def order(self, name: str) -> np.ndarray:
        """(I,) int64 indices of all images in an order of ``ORDERS``; images that were not predicted come last."""
        count = len(self.project)
        if name == FILE:
            return np.arange(count)
        labelled = self.project.counts > 0
        if name == TEACHES:
            first = teaching_order(self.disagree, self.confident, self.features, labelled)
            return np.concatenate([first, np.flatnonzero(labelled)])
        value = -self.disagree if name == UNSTABLE else self.confident
        return np.argsort(np.where(np.isnan(value), np.inf, value), kind="stable")

    def _work(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            while not self._stop and (self._asked or self._spread):
                i = self._asked.pop() if self._asked else self._spread.popleft()
                if i in self.found:
                    continue
                try:
                    self._predict(i, Path(folder) / "image.png")
                except Exception as error:
                    if self._stop:
                        return
                    self.fault = describe(error)
                    if not isinstance(error, KplabError):
                        raise
                    self.found[i] = []

    def _predict(self, i: int, path: Path) -> None:
        image = self.project.base.read(i)
        self.features[i] = thumbnail(image)
        cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
        answer = self.worker.call(
            "predict",
            run=str(self.run.folder),
            checkpoint=self.checkpoint,
            image=str(path),
            keypoints=list(self.project.skeleton.keypoints),
        )
        self.disagree[i], self.confident[i] = answer["disagreement"], answer["confidence"]
        self.found[i] = suggested(answer, self.project.size(i), self.least)
        self.done.append(i)


def suggested(answer: dict[str, Any], size: tuple[int, int], least: float) -> list[Instance]:
    """Instances of an answer of ``jobs.predict``: keypoints inside the image, visible."""
    out = []
    for points, score in zip(answer["xy"], answer["score"], strict=True):
        inside = [p is not None and 0 <= p[0] < size[0] and 0 <= p[1] < size[1] for p in points]
        if score < least or not any(inside):
            continue
        numbers = [
            (round(p[0], 2), round(p[1], 2), 2.0) if ok else (0.0, 0.0, 0.0)
            for p, ok in zip(points, inside, strict=True)
        ]
        out.append(Instance(tuple(v for triplet in numbers for v in triplet)))
    return out


def spread(count: int) -> np.ndarray:
    """(count,) int64: all indices, any first part of which is spread evenly (multiples of the golden ratio)."""
    return np.argsort(np.arange(count) * 0.6180339887498949 % 1.0, kind="stable")
