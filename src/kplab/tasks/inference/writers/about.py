"""What a prediction is about, as far as its files state it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kplab.structures.skeleton import Skeleton


@dataclass(frozen=True)
class About:
    """What writers know of a prediction besides its frames.

    Args:
        skeleton: of the poses.
        label: what the source is called.
        timed: whether frames have times of their own.
        video: the file that is predicted, if it is a video.
        images: files of all images, in order, if it is images.
        run: whose model predicts.
        images_at: address or folder where an annotation tool finds the images, see ``labelstudio.address``.
    """

    skeleton: Skeleton
    label: str = ""
    timed: bool = True
    video: Path | None = None
    images: Sequence[Path] | None = None
    run: str = ""
    images_at: str = ""
