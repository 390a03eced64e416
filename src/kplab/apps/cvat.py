"""A run as an auto-annotation function of CVAT, which labels a task with the run's predictions before people do.

    cvat-cli task auto-annotate TASK --function-module kplab.apps.cvat -p run=str:RUN -p label=str:person

It needs the package ``cvat-sdk``, which kplab does not install. The task's label is a skeleton whose points have the names of
the run's keypoints.

Source: CVAT SDK, "Auto-annotation API".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kplab import config as configs
from kplab.data.sources.arrays import ArraySource, as_array
from kplab.errors import ConfigError
from kplab.runs.run import Run
from kplab.structures.poses import Poses
from kplab.tasks.inference.loading import LoadedRun


def create(run: str, label: str | None = None, checkpoint: str = "auto", runs_dir: str | None = None) -> Function:
    """The function of a run; CVAT's command calls this with its parameters ``-p``.

    Args:
        run: path, name, part of a name, or latest.
        label: name of the task's label; None: the skeleton's.
        checkpoint: as of ``kplab predict``.
        runs_dir: folder of all runs; None: ``runs`` of the workspace.

    Raises:
        ConfigError: the package ``cvat-sdk`` is missing.
        RunError: there is no such run, or it has no checkpoint.
    """
    folder = Path(runs_dir) if runs_dir else configs.workspace() / "runs"
    return Function(LoadedRun.load(Run.find(run, folder), checkpoint), label)


class Function:
    """Predicts skeletons in one image after the other.

    Args:
        run: whose model predicts.
        label: of the skeletons; None: the name of the run's skeleton.

    Attributes:
        spec: the label and its keypoints, as CVAT asks for it.
    """

    def __init__(self, run: LoadedRun, label: str | None = None) -> None:
        try:
            from cvat_sdk import auto_annotation
        except ImportError:
            raise ConfigError("CVAT's functions need the package cvat-sdk. Install it: pip install cvat-sdk") from None
        self.run, self.cvat = run, auto_annotation
        points = [auto_annotation.keypoint_spec(name, k) for k, name in enumerate(run.skeleton.keypoints)]
        skeleton = auto_annotation.skeleton_label_spec(label or run.skeleton.name, 0, points)
        self.spec = auto_annotation.DetectionFunctionSpec(labels=[skeleton])

    def detect(self, context: Any, image: Image.Image) -> list[Any]:
        """The skeletons of an image.

        Args:
            context: of CVAT: its ``conf_threshold`` is the lowest score of a subject; None: 0.
            image: of any mode.
        """
        source = ArraySource([as_array(image)])
        _, poses = next(iter(self.run.stream(source, self.run.new_regions(source), batch_size=1, workers=0)))
        least = context.conf_threshold or 0.0
        return [self._skeleton(poses, n) for n in np.flatnonzero(poses.score >= least).tolist()]

    def _skeleton(self, poses: Poses, n: int) -> Any:
        """Instance n. CVAT counts pixels from the corner of the image, as kplab does; every keypoint must be there."""
        elements = [
            self.cvat.keypoint(k, [float(x), float(y)])
            if poses.labelled[n, k]
            else self.cvat.keypoint(k, [0.0, 0.0], outside=True)
            for k, (x, y) in enumerate(poses.xy[n])
        ]
        return self.cvat.skeleton(0, elements, score=float(np.clip(poses.score[n], 0, 1)))
