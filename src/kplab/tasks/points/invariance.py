"""Repeatability and distinctiveness of interest points under changes of an image or of the viewpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from omegaconf import DictConfig

from kplab import config as configs
from kplab.classical.changes import CHANGES
from kplab.classical.points import Detector, Points
from kplab.data.images import find_images
from kplab.data.sources.files import FileSource
from kplab.errors import ConfigError, DataError
from kplab.metrics import repeatability as metrics
from kplab.ops import affine
from kplab.runs.provenance import sha256
from kplab.runs.records import make_folder, write_record
from kplab.runs.run import Run
from kplab.tasks.wiring.nodes import build_node
from kplab.viz import invariance as figures
from kplab.viz import look, tables

#: Photographs of scikit-image.
PHOTOGRAPHS = ("astronaut.png", "camera.png", "coffee.png", "brick.png", "grass.png", "gravel.png")
MMA = tuple(range(1, 11))
ACCURATE = (1, 3, 5)
#: Ratios at which the cumulative distribution of uniqueness is evaluated.
GRID = np.round(np.arange(0.02, 1.001, 0.02), 2)


@dataclass
class Pair:
    """A changed image, or another view of the same scene.

    Args:
        first: index of the unchanged image in the set.
        image: the changed image, (H, W, 3) uint8 RGB.
        homography: (3, 3) unchanged to changed image, continuous pixels.
        property: name of the change.
        strength: strength of the change, in the property's unit.
    """

    first: int
    image: np.ndarray
    homography: np.ndarray
    property: str
    strength: float


@dataclass
class Seen:
    """The points and descriptors that a detector gives for an image."""

    size: tuple[int, int]
    points: Points
    descriptors: np.ndarray

    @classmethod
    def by(cls, detector: Detector, image: np.ndarray) -> Seen:
        """Detect and describe the points of an image."""
        points = detector.detect(image)
        return cls((image.shape[1], image.shape[0]), points, detector.describe(image, points))

    def __getitem__(self, rows: np.ndarray) -> Seen:
        return Seen(self.size, self.points[rows], self.descriptors[rows])

    def strongest(self, mask: np.ndarray, count: int | None) -> Seen:
        """The highest-scoring locations within a mask."""
        some = self[np.flatnonzero(mask)]
        return some[some.points.best(count)]


def invariance(config: DictConfig) -> None:
    """Measure the interest points of all detectors; write tables, figures and a record."""
    check(config)
    out = make_folder(Path(config.out))
    detectors = detectors_of(config)
    names, images, units = sources(config)
    rows, grid = measure(detectors, names, images, config)
    path = write(rows, grid, units, out)
    pixels = {name: sha256(image.tobytes()) for name, image in zip(names, images, strict=True)}
    write_record(
        path,
        configs.workspace(),
        made_from_sequence(config) or pixels,
        [out / f"{name}.csv" for name in ("table", "curves", "pairs", "uniqueness")],
        images=names,
        opencv=cv2.__version__,
        **{k: config[k] for k in ("count", "radius", "margin", "max_side", "ransac")},
    )
    print(f"table: {path}\npairs and figures: {out}", flush=True)


def check(config: DictConfig) -> None:
    """Raise a ConfigError that lists all invalid options."""
    faults = []
    for key, known in (("detectors", list(config.points)), ("properties", list(CHANGES))):
        unknown = [str(name) for name in config[key] if name not in known]
        if unknown:
            faults.append(f"{key} contains {', '.join(unknown)}. Known: {', '.join(map(str, known))}.")
    if not config.detectors and not config.runs:
        faults.append("detectors and runs are both empty. Use detectors=[sift], for example.")
    if config.images is not None and config.sequence is not None:
        faults.append("images and sequence are both given. Use one of them.")
    for key, low in (("count", 1), ("radius", 1e-6), ("margin", 0), ("max_side", 32), ("ransac", 1e-6)):
        if config[key] is not None and config[key] < low:
            faults.append(f"{key} is {config[key]}, but must be at least {low}.")
    if config.sequence is None and not any(config.changes.get(name) for name in config.properties):
        faults.append("no change has a strength. Use properties=[rotation] changes.rotation=[10,20], for example.")
    if faults:
        raise ConfigError("\n".join(faults))


def detectors_of(config: DictConfig) -> dict[str, Detector]:
    """Detectors by name: those of ``conf/points``, then trained runs."""
    found: dict[str, Detector] = {str(name): build_node(config.points[name], "points") for name in config.detectors}
    for name in config.runs:
        # torch takes ten seconds to import
        from kplab.tasks.points.peaks import HeatmapPeaks

        run = Run.find(str(name), Path(config.runs_dir))
        label = str(run.record.get("experiment", run.name))
        found[run.name if label in found else label] = HeatmapPeaks(run, config.checkpoint, config.device)
    return found


def photographs() -> list[Path]:
    """Paths of photographs that are part of scikit-image."""
    found = util.find_spec("skimage")
    assert found is not None and found.origin is not None  # noqa: PT018
    return [Path(found.origin).parent / "data" / name for name in PHOTOGRAPHS]


def sources(config: DictConfig) -> tuple[list[str], list[np.ndarray], dict[str, str]]:
    """Names and pixels of the unchanged images, and the unit of each property's strength."""
    if config.sequence is not None:
        folder = Path(config.sequence)
        (_, first, _), *_ = views(folder)
        image = FileSource.of([first]).read(0)
        return [str(folder.name)], [shrunk(image, config.max_side)[0]], {folder.name: "image"}
    source = FileSource.of(photographs()) if config.images is None else FileSource.find(config.images)
    names = [source.path(i).name for i in range(len(source))]
    images = [shrunk(source.read(i), config.max_side)[0] for i in range(len(source))]
    print(f"{len(source)} images: {', '.join(names[:8])}{' …' if len(names) > 8 else ''}", flush=True)
    return names, images, {name: unit for name, (_, unit) in CHANGES.items()}


def made_from_sequence(config: DictConfig) -> dict[str, Any]:
    """The images and homographies of a sequence, by file name; none of photographs."""
    if config.sequence is None:
        return {}
    folder = Path(config.sequence)
    seen = views(folder)
    homographies = [folder / f"H1to{number}p" for number, _, _ in seen[1:]]
    return {path.name: path for path in [*(path for _, path, _ in seen), *homographies]}


def shrunk(image: np.ndarray, side: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The image with its longer side reduced to at most ``side``, and the (3, 3) map from the original pixels."""
    height, width = image.shape[:2]
    if side is None or max(height, width) <= side:
        return image, np.eye(3)
    size = [max(1, round(s * side / max(height, width))) for s in (width, height)]
    smaller = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return smaller, affine.scaling(size[0] / width, size[1] / height)


def views(folder: Path) -> list[tuple[int, Path, np.ndarray]]:
    """The images of a sequence: number, file, and the homography from the first, continuous pixels.

    The files' homographies count pixel centres from 0, as VGG's do.

    Raises:
        DataError: there are fewer than two images, or a homography is missing or is not an invertible 3x3 matrix.
    """
    found = {
        int(m[1]): p
        for p in (find_images(str(folder))[0] if folder.is_dir() else [])
        if (m := re.fullmatch(r"img(\d+)", p.stem))
    }
    if 1 not in found or len(found) < 2:
        raise DataError(f"{folder}: not a sequence. It must contain img1.png, img2.png …, and homographies H1to2p ….")
    half = affine.translation(0.5, 0.5)
    result = [(1, found.pop(1), np.eye(3))]
    for number, path in sorted(found.items()):
        file = folder / f"H1to{number}p"
        try:
            matrix = np.loadtxt(file)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{file}: the homography can't be read ({error}). It must be 3 lines of 3 numbers."
            ) from None
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
            raise DataError(f"{file}: contains {matrix.shape} numbers, but must be an invertible 3x3 matrix.")
        result.append((number, path, half @ (matrix / matrix[2, 2]) @ np.linalg.inv(half)))
    return result


def pairs(images: list[np.ndarray], config: DictConfig) -> Iterator[Pair]:
    """Yield every changed image."""
    if config.sequence is not None:
        folder = Path(config.sequence)
        seen = views(folder)
        source = FileSource.of([path for _, path, _ in seen])
        to_first = shrunk(source.read(0), config.max_side)[1]
        for i, (number, _, matrix) in enumerate(seen[1:], 1):
            image, to_image = shrunk(source.read(i), config.max_side)
            yield Pair(0, image, to_image @ matrix @ np.linalg.inv(to_first), folder.name, float(number))
        return
    for i, image in enumerate(images):
        for name in config.properties:
            for strength in config.changes.get(name) or []:
                changed, matrix = CHANGES[name][0](image, float(strength))
                yield Pair(i, changed, matrix, str(name), float(strength))


def measure(
    detectors: dict[str, Detector], names: list[str], images: list[np.ndarray], config: DictConfig
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All measures, one row per detector and pair, and the distribution of the uniqueness of each detector's points."""
    rows, grids = [], []
    for name, detector in detectors.items():
        first = [Seen.by(detector, image) for image in images]
        best = [seen[seen.points.best(config.count)] for seen in first]
        unique = []
        for pair in pairs(images, config):
            others = [seen for i, seen in enumerate(best) if i != pair.first]
            figures_, ratios = score(first[pair.first], Seen.by(detector, pair.image), pair.homography, others, config)
            what = {"detector": name, "descriptor": detector.descriptor, "property": pair.property}
            rows.append({**what, "strength": pair.strength, "image": names[pair.first], **figures_})
            unique.append(ratios)
        known = np.concatenate(unique)
        known = known[~np.isnan(known)]
        share = [float((known < g).mean()) if len(known) else np.nan for g in GRID]
        grids.append(pd.DataFrame({"detector": name, "ratio": GRID, "share": share}))
        print(f"{name}: {len(unique)} pairs", flush=True)
    return pd.DataFrame(rows), pd.concat(grids)


def score(
    first: Seen, second: Seen, homography: np.ndarray, others: list[Seen], config: DictConfig
) -> tuple[dict[str, Any], np.ndarray]:
    """Measures of one pair, and the ratio of the best to the second-best match of each point of the first image.

    Each point is matched against all points of the second image and of the other images.
    """
    back = np.linalg.inv(homography)
    visible_a = metrics.common(first.points.xy, homography, first.size, second.size, config.margin)
    visible_b = metrics.common(second.points.xy, back / back[2, 2], second.size, first.size, config.margin)
    # equal numbers on both sides: more points are found again by chance more often
    available = [
        len(s.points[np.flatnonzero(visible)].distinct()) for s, visible in ((first, visible_a), (second, visible_b))
    ]
    count = min([*available, *([] if config.count is None else [config.count])])
    a, b = first.strongest(visible_a, count), second.strongest(visible_b, count)
    at_a, at_b = a.points.distinct().xy, b.points.distinct().xy
    a_in_b = metrics.project(homography, at_a)
    distance = metrics.descriptor_distances(a.descriptors, b.descriptors, a.points.place, b.points.place)
    matched = metrics.mutual_nearest(distance)
    error = metrics.corner_error(estimate(at_a[matched[0]], at_b[matched[1]], config.ransac), homography, first.size)
    to_others = [
        metrics.descriptor_distances(a.descriptors, o.descriptors, a.points.place, o.points.place) for o in others
    ]
    ratio = metrics.ratios(np.concatenate([distance, *to_others], axis=1))
    return {
        "available_a": available[0],
        "available_b": available[1],
        "points": count,
        "chance": metrics.chance(count, shared_area(homography, first.size, second.size, config.margin), config.radius),
        **metrics.repeatability(a_in_b, at_b, config.radius),
        **metrics.matching(a_in_b, at_b, matched, MMA, config.radius),
        "n_matches": len(matched[0]),
        "corner_px": error,
        **{f"homography@{t}": float(error <= t) for t in ACCURATE},
        "ratio_median": float(np.nanmedian(ratio)) if np.isfinite(ratio).any() else np.nan,
        "unique": float(np.mean(ratio[~np.isnan(ratio)] < 0.8)) if np.isfinite(ratio).any() else np.nan,
    }, ratio


def shared_area(
    homography: np.ndarray, first: tuple[int, int], second: tuple[int, int], margin: float, cells: int = 128
) -> float:
    """Area of the second image that the first image shows as well, pixels**2, estimated on a grid of cells."""
    x, y = ((np.arange(cells) + 0.5) * side / cells for side in second)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    back = np.linalg.inv(homography)
    return float(metrics.common(grid, back / back[2, 2], second, first, margin).mean() * second[0] * second[1])


def estimate(a: np.ndarray, b: np.ndarray, radius: float) -> np.ndarray | None:
    """The homography estimated by RANSAC from matched points; None where the estimate fails."""
    if len(a) < 4:
        return None
    cv2.setRNGSeed(0)
    return cv2.findHomography(a, b, cv2.RANSAC, radius, maxIters=5000, confidence=0.9999)[0]


#: Columns of the short table.
SHOWN = (
    "points", "chance", "repeatability", "repeatability_symmetric", "localisation_px", "matching_score", "mma@1", "mma@3", "mma@5",
    "homography@1", "homography@3", "homography@5", "ratio_median", "unique",
)  # fmt: skip


def write(rows: pd.DataFrame, grid: pd.DataFrame, units: dict[str, str], out: Path) -> Path:
    """Write all tables and figures, and print the table of means.

    ``pairs.csv`` has a row per pair, ``curves.csv`` means over images, ``table.csv`` and ``table.md`` means over strengths.

    Returns:
        Path of the markdown.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows.to_csv(out / "pairs.csv", index=False)
    grid.to_csv(out / "uniqueness.csv", index=False)
    keys = ["property", "detector", "descriptor"]
    numbers = [c for c in rows.columns if c not in (*keys, "strength", "image")]
    curves = rows.groupby([*keys, "strength"], sort=False)[numbers].mean().reset_index()
    curves.to_csv(out / "curves.csv", index=False)
    table = curves.groupby(keys, sort=False)[numbers].mean().reset_index()
    table.to_csv(out / "table.csv", index=False)
    short = table[[*keys, *SHOWN]].round(3)
    short["points"] = short["points"].round().astype(int)
    path = out / "table.md"
    lines = [list(short.columns), ["---"] * short.shape[1], *short.to_numpy().tolist()]
    path.write_text("\n".join(f"| {' | '.join(tables.cell(c) for c in line)} |" for line in lines) + "\n")
    for metric, title in figures.METRICS.items():
        look.write_png(out / f"{metric.replace('@', '_')}.png", figures.curves(curves, metric, title, units))
    look.write_png(out / "uniqueness.png", figures.uniqueness(grid))
    print("\n" + tables.text(short.to_dict("records")))
    return path
