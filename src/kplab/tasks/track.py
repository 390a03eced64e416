"""``kplab track``: give the poses of a video identities, and score the tracks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from kplab.errors import ConfigError, printable
from kplab.tasks import compose

EXAMPLE = "kplab track predictions=predictions.json tracker.subjects=2"


@dataclass
class Options:
    """Keys of ``kplab track``."""

    predictions: str = MISSING
    truth: str | None = None
    skeleton: dict[str, Any] | None = None
    tracker: dict[str, Any] | None = None
    fill: dict[str, Any] | None = None
    smooth: dict[str, Any] | None = None
    rate: float | None = None
    min_oks: float = 0.5
    sigma_factor: float = 1.0
    out: str | None = None


def main(args: list[str]) -> None:
    """Track the poses of a file, write them, and score them where truth is given. No model is loaded."""
    from kplab import config as configs
    from kplab.runs.records import make_folder
    from kplab.structures.skeleton import Skeleton
    from kplab.tasks.evaluation.tracks import (
        read_truth,
        read_video_poses,
        score_tracks,
        skeleton_name,
        track_frames,
        write_tracks,
    )

    config = compose("track", args)
    path = Path(config.predictions)
    if not path.is_file():
        raise ConfigError(f"{path}: no such predictions file. `kplab predict source=VIDEO` writes one.")
    if not (0 < config.min_oks <= 1 and config.sigma_factor > 0):
        raise ConfigError(
            f"min_oks is {config.min_oks}, but must be above 0 and at most 1; sigma_factor is {config.sigma_factor}, but "
            "must be positive."
        )
    if config.skeleton is None:
        config = compose("track", [*args, f"skeleton={skeleton_name(path)}"])
    skeleton = Skeleton.from_config(configs.plain(config.skeleton))
    truth = None if config.truth is None else read_truth(Path(config.truth), skeleton)
    video = read_video_poses(path, skeleton, config.rate)
    out = make_folder(Path(config.out)) if config.out else path.parent
    frames = track_frames(video, skeleton, config)
    written = write_tracks(video, frames, skeleton, config, out)
    tracks = {int(t) for f in frames for t in f.poses.track if t >= 0}
    without = sum(int((f.poses.track < 0).sum()) for f in frames)
    poses = sum(len(f.poses) for f in frames)
    print(
        printable(f"{len(frames)} frames, {poses} poses, {len(tracks)} tracks, {without} poses without one: {written}")
    )
    if truth is not None:
        text, scores = score_tracks(written, frames, truth, skeleton, config)
        print(printable(f"{text}\nscores: {scores}"))
