"""Mutated files for every reader, and what each of them ends in.

A target writes a small valid example and reads it. ``probe`` damages one of its files again and again, reproducibly: attempt
i of a target depends on (seed, i) alone. An attempt may end in an error that a user can correct and that names the file, or
in a valid result; every other end is a finding.

    python -m tests.robustness.fuzz --count 20000 coco sleap
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from PIL import Image
from tests.data.formats._spots import PET
from tests.data.test_formats import FORMATS, example
from tests.robustness.mutations import BINARY, BY_SUFFIX

from kplab.data import apart, formats, images, split
from kplab.data.formats import coco
from kplab.errors import KplabError
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions, card_path
from kplab.structures.skeleton import Skeleton


@dataclass
class Target:
    """What is damaged, and how it is read.

    Args:
        name: of the target.
        files: that are damaged.
        read: reads them; returns a result that ``valid`` takes.
        valid: raises AssertionError where a result is not valid.
        named: texts of which an error names one.
    """

    name: str
    files: list[Path]
    read: Callable[[], Any]
    valid: Callable[[Any], None]
    named: list[str]


def check_poses(poses: Poses) -> None:
    """Numbers of poses are finite or absent, and within any image."""
    xy, box = poses.xy[poses.labelled], poses.box[np.isfinite(poses.box).all(1)]
    assert np.isfinite(xy).all()
    assert np.abs(xy).max(initial=0) < 1e9, "keypoint beyond any image"
    assert not np.isinf(poses.box).any()
    assert np.abs(box).max(initial=0) < 1e9, "box beyond any image"
    assert (box[:, 2:] >= box[:, :2]).all(), "negative side"
    assert np.isfinite(poses.score).all()


def check_labels(labels: Labels) -> None:
    """Labels fit their images and can be hashed, selected and written."""
    check_poses(labels.poses)
    assert (labels.size > 0).all()
    for ids in (labels.image_id, labels.instance_id):
        assert (ids > 0).all()
        assert len(np.unique(ids)) == len(ids)
    p, size = labels.poses, labels.size[labels.image_of()].astype(float)
    counted = p.labelled.any(1)
    box, sides = p.box[counted], size[counted]
    assert (box[:, :2] > -2 * sides - 9).all(), "box beyond its image"
    assert (box[:, 2:] < 3 * sides + 9).all(), "box beyond its image"
    assert (p.area[counted] <= 9 * sides.prod(1)).all(), "area above its image's"
    assert all("\x00" not in str(name) for name in labels.names)
    labels.digest()
    labels.select([0] if len(labels) else []).digest()


def format_target(name: str, folder: Path, rewrite: bool = False, **changes: Any) -> Target:
    """A label format, with the example of its tests.

    Args:
        rewrite: also write the files that the format's writer makes.
        changes: of the reader's arguments.
    """
    arguments = example(name).make(folder)
    if rewrite:
        formats.load_format(name).write(formats.load_format(name).read(**arguments), folder)
    arguments |= changes
    media = (*images.IMAGE_SUFFIXES, ".avi", ".mp4")
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix not in media)

    def read() -> Labels:
        return formats.load_format(name).read(**arguments)

    read()
    kind = changes.get("labels")
    files = [p for p in files if kind is None or p.suffix == f".{kind}"]
    return Target(name, files, read, check_labels, [str(folder)])


def rewritten_target(name: str, folder: Path) -> Target:
    """The files that a format's writer makes of the example of its tests, where its reader reads several kinds."""
    arguments = example(name).make(folder)
    again = folder / "again"
    arguments = example(name).rewrite(formats.load_format(name).read(**arguments), again, arguments)

    def read() -> Labels:
        return formats.load_format(name).read(**arguments)

    read()
    return Target(f"{name}_written", [p for p in again.rglob("*") if p.is_file()], read, check_labels, [str(folder)])


def results_target(folder: Path) -> Target:
    """A results file and its card."""
    poses = Poses.make(
        np.arange(12.0).reshape(2, 3, 2) + 1, box=np.array([[0, 0, 5, 5], [1, 1, 8, 9.0]]), track=np.array([1, -1])
    )
    path = Predictions(PET, {4: poses, 5: Poses.empty(3)}, {"run": "r"}, {4: "a", 5: "b"}).write(folder / "p.json")

    def valid(predictions: Predictions) -> None:
        for image_id, poses in predictions.poses.items():
            assert abs(image_id) < 2**63
            check_poses(poses)

    return Target("results", [path, card_path(path)], lambda: Predictions.read(path, PET), valid, [str(folder)])


def skeleton_target(folder: Path) -> Target:
    """A skeleton's config."""
    path = folder / "pet.yaml"
    content = {
        "name": "pet", "keypoints": ["nose", "left_ear", "right_ear"], "edges": [["nose", "left_ear"]],
        "flip_pairs": [["left_ear", "right_ear"]], "sigmas": [0.02, 0.03, 0.03], "sigma_source": "made up",
    }  # fmt: skip
    path.write_bytes(yaml.safe_dump(content).encode())

    def read() -> Skeleton | None:
        try:
            config = yaml.safe_load(path.read_bytes())
        except (yaml.YAMLError, ValueError):
            return None  # Hydra reads the file, and names it
        return Skeleton.from_config(config) if isinstance(config, dict) else None

    def valid(skeleton: Skeleton | None) -> None:
        if skeleton is not None:
            assert np.isfinite(skeleton.sigma_array).all()
            assert all(skeleton.keypoints)
            assert skeleton.flip_array[skeleton.flip_array].tolist() == list(range(len(skeleton)))

    return Target("skeleton", [path], read, valid, ["skeleton '"])


def manifest_target(folder: Path) -> Target:
    """A split manifest."""
    labels = coco.read(**example("coco").make(folder))
    path = folder / "split.json"

    def read() -> dict[str, Labels]:
        return split.split(labels, path, {"train": 0.5, "test": 0.5}, by="image")

    def valid(parts: dict[str, Labels]) -> None:
        assert sorted(name for part in parts.values() for name in part.names) == sorted(labels.names)

    read()
    return Target("manifest", [path], read, valid, [str(path)])


def image_target(suffix: str, folder: Path) -> Target:
    """An image file; it is read as data, after its header."""
    rng = np.random.default_rng(0)
    pixels = cv2.resize(rng.integers(0, 255, (6, 9, 3), dtype=np.uint8), (48, 32), interpolation=cv2.INTER_CUBIC)
    path = folder / f"a{suffix}"
    exif = Image.Exif()
    exif[images.ROTATION_TAG] = 6
    Image.fromarray(pixels).save(path, **({} if suffix == ".bmp" else {"exif": exif}))

    def read() -> tuple[tuple[int, int], np.ndarray]:
        images.check_ending(path)
        size, orientation = images.read_header(path)
        assert 1 <= orientation <= 8
        return size, images.read_image(path)

    def valid(found: tuple[tuple[int, int], np.ndarray]) -> None:
        assert found[1].dtype == np.uint8
        assert found[1].ndim == 3
        assert found[1].shape[2] == 3

    read()
    return Target(f"image{suffix}", [path], read, valid, [str(path)])


TARGETS: dict[str, Callable[[Path], Target]] = {
    **{name: (lambda folder, name=name: format_target(name, folder)) for name in FORMATS},
    "dlc_h5": lambda folder: format_target("dlc", folder, rewrite=True, labels="h5", scorer="Ann"),
    "mpii_written": lambda folder: rewritten_target("mpii", folder),
    "results": results_target,
    "skeleton": skeleton_target,
    "manifest": manifest_target,
    **{f"image{s}": (lambda folder, s=s: image_target(s, folder)) for s in images.IMAGE_SUFFIXES if s != ".jpeg"},
}


@dataclass
class Outcome:
    """What the attempts at one target ended in."""

    refused: int = 0
    valid: int = 0
    findings: list[str] = field(default_factory=list)
    seconds: float = 0.0


def attempt(target: Target, seed: int, number: int) -> str:
    """Damage one file, read, and restore it. Returns refused, valid, or what was found."""
    rng = random.Random(f"{seed}:{target.name}:{number}")
    path = rng.choice(target.files)
    whole = path.read_bytes()
    structured = BY_SUFFIX.get(path.suffix, ())
    mutation = rng.choice(structured) if structured and rng.random() < 0.6 else rng.choice(BINARY)
    damaged = mutation(rng, whole)
    path.write_bytes(damaged)
    try:
        target.valid(target.read())
        return "valid"
    except KplabError as error:
        message = str(error)
        if not any(name in message for name in target.named):
            return f"{mutation.__name__} of {path.name}: the message names no file: {message[:300]}"
        return "refused"
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "kplab" in f.filename]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        return f"{mutation.__name__} of {path.name}: {type(error).__name__} at {where}: {str(error)[:200]}"
    finally:
        path.write_bytes(whole)


def probe(name: str, count: int, seconds: float = float("inf"), seed: int = 0, start: int = 0) -> Outcome:
    """Attempts at one target, until there are ``count`` or the time is over."""
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target = TARGETS[name](Path(folder))
        apart.SECONDS = 5.0  # for files on which a library never ends
        begun = time.perf_counter()
        for number in range(start, start + count):
            if time.perf_counter() - begun > seconds:
                break
            print(f"#{name} {number}", file=sys.stderr, flush=True)
            end = attempt(target, seed, number)
            if end == "valid":
                outcome.valid += 1
            elif end == "refused":
                outcome.refused += 1
            else:
                outcome.findings.append(f"{number}: {end}")
        outcome.seconds = time.perf_counter() - begun
    return outcome


def main(args: list[str]) -> int:
    """Probe targets and print a line each; status 1 where anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--count", type=int, default=2000, help="attempts at each target")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="at most, for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first attempt")
    options = parser.parse_args(args)
    found = 0
    for name in options.targets or TARGETS:
        outcome = probe(name, options.count, options.seconds, options.seed, options.start)
        found += len(outcome.findings)
        done = outcome.refused + outcome.valid + len(outcome.findings)
        print(f"{name}: {done} files in {outcome.seconds:.1f} s: {outcome.refused} refused, {outcome.valid} valid, "
              f"{len(outcome.findings)} findings", flush=True)  # fmt: skip
        kinds: Counter[str] = Counter()
        for finding in outcome.findings:
            kind = re.sub(r"\d+", "N", finding.split(": ", 1)[1])[:90]
            kinds[kind] += 1
            if kinds[kind] == 1:
                print(f"  {finding}", flush=True)
        for kind, number in kinds.most_common():
            print(f"  {number} x {kind}", flush=True)
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
