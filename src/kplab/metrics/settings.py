"""Settings of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kplab.errors import ScoreError
from kplab.metrics.pck import BOX_NORMALIZERS, keypoint_pair

#: Name of a rule to the lowest COCO visibility that is scored.
VISIBILITY = {"labelled": 1, "visible": 2}


@dataclass(frozen=True)
class ScoreSettings:
    """Settings of an evaluation; every field is a line of the card.

    Args:
        max_dets: maximum number of predictions per image, highest scores first, for AP and pixel errors.
        pck_normalizer: 'box_longer_side', 'box_diagonal', 'pixels', or two keypoints as 'nameA-nameB'.
        pck_thresholds: PCK@t counts errors <= t times the normaliser.
        nme_pair: 'nameA-nameB', whose true distance NME divides by; None = no NME.
        auc_range: ends of the part of the PCK curve whose area is taken, in units of the normaliser.
        min_score: predictions below it are left out of pixel errors (AP uses all).
        min_oks: pairs below it count as missed instead of as a large error; None = every pair counts.
        visibility: 'labelled' scores keypoints with v > 0, as COCO does; 'visible' those with v == 2 only, in AP too.
    """

    max_dets: int = 20
    pck_normalizer: str = "box_longer_side"
    pck_thresholds: tuple[float, ...] = (0.05, 0.1, 0.2)
    nme_pair: str | None = None
    auc_range: tuple[float, float] = (0.0, 0.2)
    min_score: float | None = None
    min_oks: float | None = None
    visibility: str = "labelled"

    def __post_init__(self) -> None:
        if self.visibility not in VISIBILITY:
            raise ScoreError(f"visibility is '{self.visibility}'. Use one of: {', '.join(VISIBILITY)}.")
        # lists come from config files
        for key in ("pck_thresholds", "auc_range"):
            if not isinstance(getattr(self, key), list | tuple):
                raise ScoreError(f"{key} is {getattr(self, key)}, but must be a list: {key}=[0.1,0.2].")
        object.__setattr__(self, "pck_thresholds", tuple(float(t) for t in self.pck_thresholds))
        object.__setattr__(self, "auc_range", tuple(float(t) for t in self.auc_range))
        if self.max_dets < 1:
            raise ScoreError(f"max_dets is {self.max_dets}, but must be at least 1.")
        if not self.pck_thresholds or not min(self.pck_thresholds) > 0:
            raise ScoreError(f"pck_thresholds are {list(self.pck_thresholds)}. Give one or more, all above 0.")
        if len(self.auc_range) != 2 or not 0 <= self.auc_range[0] < self.auc_range[1]:
            raise ScoreError(f"auc_range is {list(self.auc_range)}, but must be [start, end] with 0 <= start < end.")

    def check_names(self, keypoints: Sequence[str]) -> None:
        """Check that a skeleton has the keypoints of the pairs that PCK and NME divide by.

        Raises:
            ScoreError: a pair names other keypoints.
        """
        if self.pck_normalizer not in (*BOX_NORMALIZERS, "pixels"):
            try:
                keypoint_pair(self.pck_normalizer, keypoints)
            except ScoreError as error:
                others = ", ".join((*BOX_NORMALIZERS, "pixels"))
                raise ScoreError(f"pck_normalizer: {error} Or use one of: {others}.") from None
        if self.nme_pair is not None:
            try:
                keypoint_pair(self.nme_pair, keypoints)
            except ScoreError as error:
                raise ScoreError(f"nme_pair: {error}") from None
