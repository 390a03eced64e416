"""What the notebooks of applications show where no data of one's own are named: rendered hands, insects and cards."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from kplab.applications.gestures import Gestures
from kplab.applications.trajectories import Trajectories, times_at, times_in
from kplab.applications.zones import Circle
from kplab.apps import course, films
from kplab.classical.recognition import ObjectMemory
from kplab.data.sources.arrays import open_source
from kplab.data.sources.video import VideoSource
from kplab.errors import DataError
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions, card_path
from kplab.structures.skeleton import Skeleton
from kplab.synthetic import scene
from kplab.synthetic.arena import Arena, Walk
from kplab.synthetic.cards import card, show
from kplab.synthetic.hands import gesturing
from kplab.viz import paths
from kplab.viz import poses as drawing

HAND = films.skeleton("hand21")
"""The skeleton of rendered hands."""

WALKS = (
    Walk([(60, 60), (190, 60), (190, 190), (60, 190), (60, 60)], 65.0, rest=1.0),
    Walk([(200, 215), (120, 130), (215, 45), (70, 80)], 45.0, rest=0.4),
)
"""Of the two insects of the example."""
RATE = 20.0
"""Frames per second of the example."""


class Detects(Protocol):
    """What ``kplab.load`` returns, as far as it is used here."""

    def predict(self, images: Any) -> Any:
        """Poses of one image, or (name, Poses) of each of many."""


def hand(gesture: str, number: int, seed: int = 0, side: int = 160) -> tuple[np.ndarray, Poses]:
    """Picture ``number`` of a gesture, (side, side, 3) uint8 RGB, and the true keypoints."""
    rng = np.random.default_rng([seed, number, *gesture.encode()])
    image, poses, _ = scene.render(gesturing(gesture), rng, (side, side), max_subjects=1)
    return image, poses


def found_in(poses: Poses, noise: float, number: int) -> np.ndarray:
    """(1, K, 2) keypoints as a detector finds them: true ones plus noise; NaN where they are outside of the picture.

    Args:
        poses: the true pose.
        noise: standard deviation, as a share of the hand's size.
        number: seed of the noise.
    """
    xy = poses.xy[:1]
    size = np.sqrt(np.nanmean(((xy - np.nanmean(xy, 1, keepdims=True)) ** 2).sum(-1)))
    found: np.ndarray = xy + noise * size * np.random.default_rng(number).standard_normal(xy.shape)
    return found


def asked(
    memory: Gestures, gesture: str, number: int, noise: float, run: Detects | None = None
) -> tuple[np.ndarray, str]:
    """Picture ``number`` of a gesture with the keypoints that were found, and which gesture they are found to make."""
    image, poses = hand(gesture, number, seed=3)
    xy = course.best_poses([run.predict(image)]) if run is not None else found_in(poses, noise, number)
    found = memory.classify(xy)
    words = f"{gesture}: found {found.name[0]} (nearest {found.nearest[0]}, distance {found.distance[0]:.2f})"
    return drawing.draw(image, Poses.make(xy), HAND, scale=2.5), words


def hands(
    gestures: Sequence[str], count: int, seed: int, noise: float, run: Detects | None = None
) -> dict[str, np.ndarray]:
    """Gesture to the (count, K, 2) keypoints of rendered hands, as a detector finds them.

    Args:
        noise: standard deviation of what is added to the true keypoints, as a share of the hand's size (RMS distance of its
            keypoints from their centroid); not used with a run.
        run: predicts the keypoints in the rendered pictures; hands in which it finds none are left out.
    """
    found = {}
    for gesture in gestures:
        if run is not None:
            pictures = [hand(gesture, i, seed)[0] for i in range(count)]
            xy = course.best_poses([poses for _, poses in run.predict(pictures)])
            found[gesture] = xy[np.isfinite(xy).all((1, 2))]
            continue
        drawn = []
        for i in range(count):
            rng = np.random.default_rng([seed, i, *gesture.encode()])
            true = scene.keypoints(gesturing(gesture), rng)
            size = np.sqrt(((true - true.mean(0)) ** 2).sum(-1).mean())
            drawn.append(true + noise * size * rng.standard_normal(true.shape))
        found[gesture] = np.array(drawn)
    return found


def recording(
    predictions: str | None, table: str | None, video: str | None
) -> tuple[Predictions, dict[int, float], Callable[[int], np.ndarray], Arena | None]:
    """Predictions of a video, times of its frames, and its pictures.

    Args:
        predictions: results file with identities; None: two insects on known paths, whose keypoints have noise of 0.7 px and
            are missing in 3 % of the frames.
        table: the table of keypoints that was written with it, which has the times.
        video: the video.

    Returns:
        predictions; image id to seconds; from a number of frame, in the order of the image ids, to its picture; and the rendered
        scene, where it is one.

    Raises:
        DataError: a file is missing.
    """
    if predictions is None:
        times = np.arange(240) / RATE
        arena = Arena(WALKS, seed=4)
        found = arena.predictions(times.tolist(), sigma=0.7, missing=0.03)
        return found, times_at(found, RATE), lambda i: arena.frame(float(times[i])), arena
    if table is None or video is None:
        raise DataError(f"{predictions}: name TABLE (the keypoints.csv beside it, for the times) and VIDEO as well.")
    try:
        made = json.loads(card_path(Path(predictions)).read_text())
        named = {"name": made["skeleton"], "keypoints": made["keypoints"], "flip_pairs": [], "sigmas": "uniform"}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{card_path(Path(predictions))}: no card with the names of the keypoints ({error})."
        ) from error
    found = Predictions.read(Path(predictions), Skeleton.from_config(named))
    return found, times_in(found, Path(table)), VideoSource(video).read, None


def objects(folder: str | None) -> tuple[dict[str, list[np.ndarray]], list[np.ndarray]]:
    """Pictures of objects to remember, and distractors without them.

    Args:
        folder: with a subfolder of pictures for each object, and one named ``distractors``; None: six printed cards.

    Raises:
        DataError: a folder has no picture, or one can't be read.
    """
    if folder is None:
        cards = {f"card {i}": [card(i, seed=1)] for i in range(6)}
        return cards, [show(None, np.random.default_rng([5, i]))[0] for i in range(6)]
    found = {}
    for place in sorted(path for path in Path(folder).iterdir() if path.is_dir()):
        source, _ = open_source(str(place))
        found[place.name] = [source.read(i) for i in range(len(source))]
    distractors = found.pop("distractors", [])
    return found, distractors


def card_pictures(
    prints: dict[str, list[np.ndarray]], count: int, seed: int = 9
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(name, picture, corners) of cards in front of backgrounds; every fourth shows another card or none ("unknown")."""
    names, made = list(prints), []
    for n in range(count):
        rng = np.random.default_rng([seed, n])
        if n % 4 == 3:
            image, corners = show(card(100 + n, seed=2) if n % 8 == 3 else None, rng)
            made.append(("unknown", image, corners))
        else:
            name = names[(n - n // 4) % len(names)]
            made.append((name, *show(prints[name][0], rng)))
    return made


def recognised(memory: ObjectMemory, image: np.ndarray, scale: float = 1.5) -> tuple[np.ndarray, str]:
    """A picture with the outlines of the objects that are recognised in it, and the scores of the two best ones."""
    found = memory.recognise(image)
    named = {f"{f.name} {f.score:.2f}": f.outline for f in found if f.score >= 0.5}
    words = ", ".join(f"{f.name}: score {f.score:.2f}, {f.matches} matches" for f in found[:2])
    return paths.outlines(image, named, scale), words or "no feature matches"


def write_pictures(folder: Path) -> list[Path]:
    """Write the pictures of docs/applications.md, as JPEG: ``python -m kplab.apps.examples docs/pictures``."""
    names = ("open", "fist", "point", "two", "thumb", "relaxed", "four", "horns")
    memory = Gestures.learn(hands(names[:-1], 20, 1, 0.03))
    answers = [asked(memory, name, 2, 0.03) for name in names]
    predictions, times, picture, _ = recording(None, None, None)
    tracks = Trajectories.of(predictions, times, "thorax", ("abdomen", "head"))
    zones = {"corner": Circle("corner", (190.0, 60.0), 30.0).outline()}
    walked = [paths.paths(paths.outlines(picture(i), zones, 2.0), 2.0 * tracks.xy[:, : i + 1]) for i in (60, 230)]
    prints, distractors = objects(None)
    cards = ObjectMemory.learn(prints, distractors)
    shown = [recognised(cards, image, 1.0) for _, image, _ in card_pictures(prints, 8)]
    sheets = {
        "gestures": drawing.contact_sheet(
            [a for a, _ in answers], 4, [w.partition(" (")[0] for _, w in answers], cell=(190, 190)
        ),
        "behaviour": drawing.contact_sheet(walked, 2, cell=(400, 400)),
        "object_memory": drawing.contact_sheet([p for p, _ in shown], 4, cell=(230, 180)),
    }
    written = []
    for name, sheet in sheets.items():
        written.append(folder / f"applications_{name}.jpg")
        Image.fromarray(sheet).save(written[-1], quality=80)
    return written


if __name__ == "__main__":
    print(*write_pictures(Path(sys.argv[1])), sep="\n")
