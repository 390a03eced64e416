"""From views back to images: predicted poses in source pixels, grouped by image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig

from kplab.errors import ConfigError
from kplab.ops.oks import oks_nms, rescored, soft_oks_nms
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

# `kplab evaluate` imports this module for its names, and does without torch
if TYPE_CHECKING:
    from kplab.structures.predictor import Predictor
    from kplab.structures.sample import Batch


@dataclass(frozen=True)
class Assembly:
    """How the poses of views become those of images; the same for every model.

    Args:
        whole_images: regions are whole images; a pose without a box gets the hull of its keypoints, else its region.
        rescore: the score of an instance is that of its box times the mean score of its keypoints above this. None: the
            score of the model times that of the region.
        oks_nms: OKS threshold of non-maximum suppression between the poses of an image; None disables it.
        soft: lower the score of a suppressed pose instead of removing it.
    """

    whole_images: bool = False
    rescore: float | None = None
    oks_nms: float | None = None
    soft: bool = False

    @classmethod
    def of(cls, config: DictConfig, whole_images: bool | None = None) -> Assembly:
        """The assembly that a training config describes.

        Args:
            whole_images: None is as trained.
        """
        whole = config.regions == "image" if whole_images is None else whole_images
        return cls(whole, config.get("rescore"), config.get("oks_nms"), bool(config.get("oks_nms_soft", False)))

    def card(self) -> dict[str, Any]:
        """Lines for the card of the predictions."""
        return {"rescore": self.rescore, "oks_nms": self.oks_nms, "oks_nms_soft": self.soft}

    def predict(self, model: Predictor, batch: Batch, flip_test: bool = False) -> list[Poses]:
        """One Poses a view of the batch, source pixels, with boxes and rescored; OKS-NMS comes with ``by_image``."""
        return self.to_source(batch, model.predict(batch.to(model.device), flip_test))

    def to_source(self, batch: Batch, poses: list[Poses]) -> list[Poses]:
        """Map the poses of each view to source pixels, weight them by the score of the region, and add boxes.

        Args:
            batch: the views.
            poses: one Poses a view, view pixels.
        """
        out = []
        for i, p in enumerate(poses):
            source = p.transform(np.linalg.inv(batch.view[i]))
            without = ~np.isfinite(source.box).all(1)
            fallback = source.extent() if self.whole_images else np.repeat(batch.box[i][None], len(source), 0)
            score = p.score * batch.score[i]
            if self.rescore is not None:
                # the score of a pose in a given box is the mean of its keypoints already
                box_score = score if self.whole_images else np.full(len(p), batch.score[i])
                score = rescored(box_score, p.keypoint_score, self.rescore)
            out.append(replace(source, score=score, box=np.where(without[:, None], fallback, source.box)))
        return out

    def by_image(
        self, parts: Iterable[tuple[int, Poses]], images: Iterable[int], skeleton: Skeleton
    ) -> Iterator[tuple[int, Poses]]:
        """Yield each image with all poses of its regions; an image is complete when the next one begins.

        Args:
            parts: (image, poses of one of its regions) in the order of ``images``; source pixels.
            images: every image, also those without a region, which have an empty Poses.
            skeleton: for the falloffs of OKS-NMS.

        Raises:
            ValueError: the parts are not in the order of the images.
        """
        parts = iter(parts)
        ahead = next(parts, None)
        for image in images:
            found = []
            while ahead is not None and ahead[0] == image:
                found.append(ahead[1])
                ahead = next(parts, None)
            yield image, self.suppressed(Poses.concat(found), skeleton) if found else Poses.empty(len(skeleton))
        if ahead is not None:
            raise ValueError(f"poses of image {ahead[0]} come after those of a later image, or of no image at all")

    def suppressed(self, poses: Poses, skeleton: Skeleton) -> Poses:
        """The poses of one image after OKS-NMS, by falling score; areas are those of boxes. All, where it is disabled."""
        if self.oks_nms is None or len(poses) < 2:
            return poses
        area = (poses.box[:, 2:] - poses.box[:, :2]).prod(1)
        if self.soft:
            order, score = soft_oks_nms(poses.xy, poses.score, area, skeleton.sigma_array, self.oks_nms)
            return replace(poses[order], score=score)
        return poses[oks_nms(poses.xy, poses.score, area, skeleton.sigma_array, self.oks_nms)]


def files_of(labels: Labels) -> dict[int, str]:
    """Image id to file name."""
    return {int(i): str(name) for i, name in zip(labels.image_id, labels.names, strict=True)}


def set_name(
    config: DictConfig, dataset: DictConfig, split: str, regions: str | None = None, backend: str = "torch"
) -> str:
    """Name of a split's predictions and scores: ``<dataset>-<split>``.

    The regions follow if they are not the run's own, and the backend if it is not torch.
    """
    if "/" in str(dataset.name) or "\\" in str(dataset.name):
        raise ConfigError(
            f"the name of the dataset is '{dataset.name}', which names a folder. Use letters, digits and _."
        )
    other = "" if regions is None or regions == config.regions else f"-{regions}"
    by = "" if backend == "torch" else f"-{backend}"
    return f"{dataset.name}-{split}{other}{by}"
