"""Tracks of a file of predictions: reading the poses of a video, tracking, writing and scoring. No model is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kplab import config as configs
from kplab.data.formats import sleap
from kplab.errors import ConfigError, DataError, ScoreError
from kplab.metrics.tracking import track_scores
from kplab.runs.files import replacing_text
from kplab.runs.records import check_inside, record_path, write_record
from kplab.structures.frames import Frame, process
from kplab.structures.poses import Poses
from kplab.structures.predictions import LIMIT, Predictions, card_path
from kplab.structures.skeleton import Skeleton
from kplab.tasks.evaluation.files import read_predictions
from kplab.tasks.inference.tracking.stages import KEYS, build_stages
from kplab.viz import tables

SLEAP = ".slp"
SCORES = ("HOTA", "DetA", "AssA", "IDF1", "MOTA", "switches", "fragmentations", "n_missed", "n_extra")


@dataclass(frozen=True)
class VideoPoses:
    """Predicted poses of a video.

    Args:
        path: the file that they were read from.
        poses: number of frame, from 0, to its poses; ascending.
        names: of the frames.
        image_id: of the frames in results files.
        times: of the frames, seconds.
        card: how the poses were predicted.
    """

    path: Path
    poses: dict[int, Poses]
    names: dict[int, str]
    image_id: dict[int, int]
    times: dict[int, float]
    card: Mapping[str, Any]


def skeleton_name(path: Path) -> str:
    """The skeleton that the card of a predictions file names.

    Raises:
        ConfigError: there is no card, or it names none.
    """
    name = ""
    if card_path(path).is_file():
        try:
            name = str(json.loads(card_path(path).read_text())["skeleton"])
        except (ValueError, OSError, KeyError, TypeError, RecursionError):
            name = ""
    if not re.fullmatch(r"\w+", name):
        raise ConfigError(f"{path}: no card beside it names its skeleton. Name it: skeleton=NAME.")
    return name


def read_video_poses(path: Path, skeleton: Skeleton, rate: float | None = None) -> VideoPoses:
    """Read the poses of a video from a results file of ``kplab predict``, or the predicted instances of a SLEAP file.

    Args:
        skeleton: of the poses; a SLEAP file may have some of its keypoints only.
        rate: frames per second; None: frames have the times that the card of the results file states.

    Raises:
        DataError: the file can't be read, or its frames have no numbers.
        ConfigError: the rate is not positive, or neither a rate is given nor times are stated.
    """
    if path.suffix.lower() == SLEAP:
        poses = sleap.read_frames(path, skeleton, predicted=True)
        names = {frame: f"{path.stem}#{frame:06d}" for frame in poses}
        image_id = {f: f + 1 for f in poses}
        return VideoPoses(path, poses, names, image_id, _times(path, image_id, rate, {}), {})
    found = read_predictions(path, skeleton, recorded=False)
    numbers = {image: _frame_number(path, image, found) for image in sorted(found.poses)}
    order = sorted(numbers, key=numbers.__getitem__)
    if len(set(numbers.values())) < len(numbers):
        raise DataError(f"{path}: several images are the same frame of a video. Track one video at a time.")
    return VideoPoses(
        path,
        {numbers[i]: found.poses[i] for i in order},
        {numbers[i]: found.files.get(i, f"{path.stem}#{numbers[i]:06d}") for i in order},
        {numbers[i]: i for i in order},
        _times(path, {numbers[i]: i for i in order}, rate, found.card),
        found.card,
    )


def _frame_number(path: Path, image: int, found: Predictions) -> int:
    """Number of a frame from its name ``VIDEO#NUMBER``, or from its image id, which counts from 1."""
    name = found.files.get(image)
    if name is None:
        return image - 1
    number = re.search(r"#(\d+)$", name)
    if number is None:
        raise DataError(f"{path}: image {image} is '{name}', no frame of a video. Predict a video: source=VIDEO.")
    return int(number.group(1))


def _times(path: Path, image_id: Mapping[int, int], rate: float | None, card: Mapping[str, Any]) -> dict[int, float]:
    """Seconds of frames by their number: at a constant rate where it is given, else as the card states."""
    if rate is not None:
        if not 0 < rate < LIMIT:
            raise ConfigError(f"{path}: the rate is {rate}, but must be positive. Name the frames per second: rate=25.")
        return {number: number / rate for number in image_id}
    try:
        return {number: float(card["times"][str(i)]) for number, i in image_id.items()}
    except (KeyError, TypeError, ValueError):
        raise ConfigError(
            f"{path}: does not state the times of its frames. Name the frames per second: rate=25."
        ) from None


def track_frames(video: VideoPoses, skeleton: Skeleton, config: DictConfig) -> list[Frame]:
    """The frames of a video after tracking, filling and smoothing.

    Args:
        config: with the keys ``tracker``, ``fill`` and ``smooth``.

    Raises:
        ConfigError: an option is wrong, or there are no tracks to fill or smooth.
    """
    stages = build_stages(config, skeleton)
    tracked = config.tracker is not None or any((p.track >= 0).any() for p in video.poses.values())
    if stages and not tracked:
        raise ConfigError(f"{video.path}: has no tracks, which fill and smooth need. Add a tracker: tracker=oks.")
    frames = (Frame(n, video.names[n], video.times[n], poses) for n, poses in video.poses.items())
    return list(process(frames, stages))


def write_tracks(
    video: VideoPoses, frames: Sequence[Frame], skeleton: Skeleton, config: DictConfig, folder: Path
) -> Path:
    """Write ``<stem>.tracked.json``, results with a ``track_id`` for each tracked pose, with card and record."""
    path = folder / f"{video.path.stem.removesuffix('.tracked')}.tracked.json"
    if path.resolve() == video.path.resolve():
        raise ConfigError(f"{path}: the tracks would be written over the predictions. Name another folder: out=DIR.")
    check_inside(folder, path, card_path(path), record_path(path))
    kept = {key: value for key, value in video.card.items() if key not in ("sha256", "images")}
    times = {str(video.image_id[n]): time for n, time in video.times.items()}
    card = {**kept, "times": times, **{key: configs.plain(config[key]) or None for key in KEYS}}
    ids = video.image_id
    found = {ids[f.index]: f.poses for f in frames}
    Predictions(skeleton, found, card, {ids[f.index]: f.name for f in frames}).write(path)
    write_record(path, configs.workspace(), {"predictions": video.path}, [card_path(path)])
    return path


def read_truth(path: Path, skeleton: Skeleton) -> dict[int, Poses]:
    """True poses with tracks by number of frame.

    Raises:
        ConfigError: the file is not of SLEAP.
        DataError: it can't be read.
    """
    if path.suffix.lower() != SLEAP:
        raise ConfigError(f"truth={path}: tracks are scored against a SLEAP file ({SLEAP}) with user instances.")
    return sleap.read_frames(path, skeleton)


def score_tracks(
    tracked: Path, frames: Sequence[Frame], truth: Mapping[int, Poses], skeleton: Skeleton, config: DictConfig
) -> tuple[str, Path]:
    """Score tracks and write ``<stem>.scores.json`` with its record.

    Args:
        tracked: the file that they were written to.
        truth: see ``read_truth``.
        config: with ``truth``, ``min_oks`` and ``sigma_factor``.

    Returns:
        the scores as text, and the path of the file.

    Raises:
        DataError: the tracks can't be scored against this truth.
    """
    try:
        scores = track_scores(truth, {f.index: f.poses for f in frames}, skeleton, config.min_oks, config.sigma_factor)
    except ScoreError as error:
        raise DataError(f"{config.truth}: {error}") from error
    path = tracked.with_name(f"{tracked.stem}.scores.json")
    check_inside(tracked.parent, path, record_path(path))
    content = {
        "summary": scores.summary,
        "settings": scores.settings,
        "switches": scores.switches,
        "alphas": scores.alphas,
    }
    with replacing_text(path) as file:
        json.dump(content, file, indent=1)
    write_record(path, configs.workspace(), {"tracks": tracked, "truth": Path(config.truth)})
    return scores_text(scores.summary, scores.switches, scores.settings), path


def scores_text(
    summary: Mapping[str, float], switches: Sequence[Mapping[str, int]], settings: Mapping[str, Any]
) -> str:
    """The scores as tables, with the first switches."""
    keypoints = settings["keypoints"]
    lines = [
        tables.text([{key: summary[key] for key in SCORES}]),
        f"{summary['n_frames']} labelled frames, {summary['n_subjects']} subjects, {summary['n_tracks']} tracks, "
        f"{summary['n_untracked']} poses without a track; OKS of {len(keypoints)} keypoints, sigmas x "
        f"{settings['sigma_factor']:g}, at least {settings['min_oks']:g} for IDF1, MOTA and switches",
    ]
    if switches:
        lines.append(tables.text(list(switches[:10])))
    if len(switches) > 10:
        lines.append(f"and {len(switches) - 10} more switches")
    return "\n".join(lines)
