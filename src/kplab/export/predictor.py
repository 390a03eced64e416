"""Exported graphs as a Predictor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kplab.errors import ConfigError
from kplab.export.formats import Session
from kplab.export.graphs import in_view
from kplab.models.cascade import Reader
from kplab.ops import affine
from kplab.structures.poses import Poses
from kplab.structures.sample import Batch
from kplab.structures.skeleton import Skeleton


class ExportedModel:
    """Predicts by the graphs of a model; its networks make the poses. See ``Predictor``.

    Args:
        model: which was exported; its weights are not used.
        sessions: a loaded file for each of its graphs.
        flip_test: whether the graphs contain the flip test.
    """

    max_poses: int | None

    def __init__(self, model: Any, sessions: Mapping[str, Session], flip_test: bool) -> None:
        self.model, self.sessions, self.flip_test = model, sessions, flip_test
        self.networks: dict[str, Any] = model.networks
        self.skeleton: Skeleton = model.skeleton
        self.size, self.max_poses, self.flips = model.size, model.max_poses, flip_test
        # the last graph reads turned views, if any does
        self.turns = tuple(map(float, [*sessions.values()][-1].metadata.get("turns", ())))
        self.device = torch.device("cpu")
        self.precision = next(iter(sessions.values())).metadata["precision"]

    def for_regions(self, kind: str) -> ExportedModel:
        """The predictor for regions of a kind.

        Raises:
            ConfigError: a cascade is exported with its detector, and can't read given boxes.
        """
        if kind != "image" and len(self.networks) > 1:
            raise ConfigError(
                f"an exported cascade finds its boxes itself and can't read {kind} ones. Use regions=image, or backend=torch."
            )
        return self

    def predict(self, batch: Batch, flip_test: bool = False) -> list[Poses]:
        """One Poses a view, view pixels.

        Raises:
            ConfigError: the graphs were exported with another ``flip_test``.
        """
        self.check_flip_test(flip_test)
        width, height = batch.size
        whole = np.array([0.0, 0.0, width, height])
        images = batch.images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return [self.read(image, whole) for image in images]

    def check_flip_test(self, flip_test: bool) -> None:
        """Refuse another ``flip_test`` than that of the graphs.

        Raises:
            ConfigError: states how to export them.
        """
        if flip_test != self.flip_test:
            own, wanted = (str(value).lower() for value in (self.flip_test, flip_test))
            raise ConfigError(
                f"the run was exported with flip_test={own}, which is part of the file. Export it again with "
                f"flip_test={wanted}, or use flip_test={own}."
            )

    def without_turns(self) -> None:
        """Refuse graphs that contain turned views.

        Raises:
            ConfigError: states how to export them without.
        """
        if self.turns:
            raise ConfigError(
                f"the run was exported with views turned by {list(self.turns)} degrees, which are part of the file. Export it "
                "again with flip_test=false, or leave flip_test out."
            )

    def read(self, image: np.ndarray, region: np.ndarray) -> Poses:
        """Predict a region of an image.

        Args:
            image: (H, W, 3) uint8 RGB.
            region: (4,) xyxy, pixels of the image; padded already.

        Returns:
            the poses in pixels of the image, continuous.
        """
        inputs = {"images": image[None], "regions": region[None]}
        first, *others = self.sessions
        found = self._run(first, inputs)
        if not others:
            return found

        def reader(graph: str) -> Reader:
            return lambda _, boxes: Poses.concat([self._run(graph, {**inputs, "crops": box[None]}) for box in boxes])

        found = found[found.score >= self.model.min_score]
        (poses,) = self.model.in_passes([found], [reader(graph) for graph in others])
        return poses

    def _run(self, graph: str, inputs: dict[str, Any]) -> Poses:
        """The poses of one graph, pixels of the image."""
        decoded: dict[str, Tensor] = {
            name: torch.from_numpy(value) for name, value in self.sessions[graph].run(**inputs).items()
        }
        to_view = decoded.pop("to_view").double()
        (poses,) = self.networks[graph].make_poses(in_view(decoded, to_view))
        scale, x, y = to_view[0].tolist()
        return poses.transform(np.linalg.inv(affine.translation(x, y) @ affine.scaling(scale, scale)))
