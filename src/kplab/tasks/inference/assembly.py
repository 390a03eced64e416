"""From views back to images: predicted poses in source pixels, grouped by image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig

from kplab.ops.oks import oks_nms, rescored, soft_oks_nms
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

if TYPE_CHECKING:
    from kplab.structures.sample import Batch


@dataclass(frozen=True)
class Assembly:
    """How poses of views become those of images; the same for every family.

    Args:
        whole_images: regions are whole images; then a pose without a box gets the hull of its keypoints, else its region.
        rescore: an instance scores its box's score times the mean score of its keypoints above this. None: as the head
            says, times its region's score.
        oks_nms: OKS above which the less sure of two poses of an image goes; None: nobody goes.
        soft: the less sure one does not go, but scores less.
    """

    whole_images: bool = False
    rescore: float | None = None
    oks_nms: float | None = None
    soft: bool = False

    @classmethod
    def of(cls, config: DictConfig, whole_images: bool | None = None) -> Assembly:
        """What a training config says; runs of old say nothing."""
        whole = config.regions == "image" if whole_images is None else whole_images
        return cls(whole, config.get("rescore"), config.get("oks_nms"), bool(config.get("oks_nms_soft", False)))

    def card(self) -> dict[str, Any]:
        """For the card of the predictions."""
        return {"rescore": self.rescore, "oks_nms": self.oks_nms, "oks_nms_soft": self.soft}

    def to_source(self, batch: Batch, poses: list[Poses]) -> list[Poses]:
        """Map the poses of each view back to source pixels, weigh them by their region's score, and give them boxes.

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
                # the score of a pose in a given box is that of its keypoints already
                box_score = score if self.whole_images else np.full(len(p), batch.score[i])
                score = rescored(box_score, p.keypoint_score, self.rescore)
            out.append(replace(source, score=score, box=np.where(without[:, None], fallback, source.box)))
        return out

    def group(self, image_id: np.ndarray, poses: list[Poses], skeleton: Skeleton) -> dict[int, Poses]:
        """Image id to all poses found in its regions, in the order of the regions; where alike ones go, by falling score."""
        parts: dict[int, list[Poses]] = {}
        for image, p in zip(image_id, poses, strict=True):
            parts.setdefault(int(image), []).append(p)
        return {image: self.kept(Poses.concat(found), skeleton) for image, found in parts.items()}

    def kept(self, poses: Poses, skeleton: Skeleton) -> Poses:
        """One image's poses without those that say the same as surer ones; areas are those of boxes."""
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


def set_name(config: DictConfig, dataset: DictConfig, split: str, regions: str | None = None) -> str:
    """What predictions and scores of a split are called: ``<set>-<split>``, with the regions where they are not the run's."""
    other = "" if regions is None or regions == config.regions else f"-{regions}"
    return f"{dataset.name}-{split}{other}"
