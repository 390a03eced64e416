"""Faults of labels, planted in datasets: what bench/measure_linter.py measures the linter with.

Each fault is a function ``(labels, rng, share) -> (labels, planted)``: a changed copy of the labels, and the places of the
planted faults: instances, images, or keypoints of the skeleton, as ``UNIT`` states.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from kplab.data.check.chirality import mirror_pairs
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses

Planted = tuple[Labels, set[int]]


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Args:
        kind: "geometry", "identity", "schema", "files" or "splits".
        unit: what is counted: "instance", "image" or "keypoint".
        rules: the rules that are about it; a finding of one of them at the place counts as found.
        plant: the function.
    """

    kind: str
    unit: str
    rules: tuple[str, ...]
    plant: Callable[[Labels, np.random.Generator, float], Planted | None]


def copied(labels: Labels) -> Labels:
    """Labels whose arrays can be changed."""
    p = labels.poses
    columns = (p.xy, p.visible, p.score, p.keypoint_score, p.box, p.area, p.ignore, p.track)
    poses = Poses(*(column.copy() for column in columns))
    return replace(
        labels,
        poses=poses,
        image_id=labels.image_id.copy(),
        instance_id=labels.instance_id.copy(),
        size=labels.size.copy(),
    )


def chosen(labels: Labels, rng: np.random.Generator, share: float, least: int = 2) -> np.ndarray:
    """A share of the counted instances with at least some labelled keypoints, at least one."""
    p = labels.poses
    usable = np.flatnonzero(~p.ignore & (p.labelled.sum(1) >= least))
    return rng.choice(usable, min(len(usable), max(1, round(share * len(usable)))), replace=False)


def hull_of(p: Poses, i: int) -> tuple[np.ndarray, float]:
    """Extent of the keypoints of an instance, and its diagonal."""
    hull = p[[i]].extent()[0]
    return hull, float(max(np.hypot(*(hull[2:] - hull[:2])), 4.0))


def each(least: int = 2) -> Callable[..., Callable[[Labels, np.random.Generator, float], Planted | None]]:
    """Make a fault of a function that changes one instance, (labels, i, rng) -> whether it could."""

    def made(change: Callable[[Labels, int, np.random.Generator], bool]) -> Callable[..., Planted | None]:
        def plant(labels: Labels, rng: np.random.Generator, share: float) -> Planted | None:
            out, planted = copied(labels), set()
            for i in chosen(labels, rng, share, least):
                if change(out, int(i), rng):
                    planted.add(int(i))
            return (out, planted) if planted else None

        return plant

    return made


@each()
def outside(labels: Labels, i: int, rng: np.random.Generator) -> bool:
    """A keypoint 2 to 100 px outside its image."""
    p, size = labels.poses, labels.size[labels.image_of()[i]]
    k = rng.choice(np.flatnonzero(p.labelled[i]))
    axis = rng.integers(2)
    far = rng.uniform(2, 100)
    p.xy[i, k, axis] = -far if rng.random() < 0.5 else size[axis] + far
    return True


@each()
def at_origin(labels: Labels, i: int, rng: np.random.Generator) -> bool:
    """An unlabelled keypoint that became one at (0, 0)."""
    p = labels.poses
    k = rng.integers(p.xy.shape[1])
    if np.nanmax(p.xy[i]) <= 20:
        return False
    p.xy[i, k], p.visible[i, k] = 0.5, 2
    return True


@each()
def no_box(labels: Labels, i: int, rng: np.random.Generator) -> bool:
    """A box without extent."""
    labels.poses.box[i, 2:] = labels.poses.box[i, :2]
    return True


@each()
def box_elsewhere(labels: Labels, i: int, rng: np.random.Generator) -> bool:
    """A box beyond the image."""
    p, size = labels.poses, labels.size[labels.image_of()[i]]
    p.box[i] += np.tile(np.where(rng.random() < 0.5, 1, -1) * (size + p.box[i, 2:] - p.box[i, :2]), 2)
    return True


@each(4)
def box_of_another(labels: Labels, i: int, rng: np.random.Generator) -> bool:
    """A box of the same size that does not overlap the subject, still in the image where it can be."""
    p = labels.poses
    side = (p.box[i, 2:] - p.box[i, :2]) * rng.choice([-1.5, 1.5], 2)
    p.box[i] += np.tile(side, 2)
    return True


@each(4)
def large_box(labels: Labels, i: int, rng: np.random.Generator) -> bool:
    """A box that is 10 to 20 times as large in each direction."""
    p = labels.poses
    centre, half = (p.box[i, :2] + p.box[i, 2:]) / 2, (p.box[i, 2:] - p.box[i, :2]) / 2
    half = np.maximum(half, 4) * rng.uniform(10, 20)
    p.box[i] = np.concatenate([centre - half, centre + half])
    return True


@each()
def no_area(labels: Labels, i: int, rng: np.random.Generator) -> bool:
    """An area of 0."""
    labels.poses.area[i] = 0
    return True


@each()
def large_area(labels: Labels, i: int, rng: np.random.Generator) -> bool:
    """An area of 1.5 to 10 boxes."""
    p = labels.poses
    p.area[i] = np.prod(p.box[i, 2:] - p.box[i, :2]) * rng.uniform(1.5, 10)
    return True


@each()
def pile(labels: Labels, i: int, rng: np.random.Generator) -> bool:
    """All keypoints at one position."""
    p = labels.poses
    p.xy[i, p.labelled[i]] = p.xy[i, np.flatnonzero(p.labelled[i])[0]]
    return True


@each(4)
def misplaced(labels: Labels, i: int, rng: np.random.Generator) -> bool:
    """A keypoint elsewhere in the image, 1 to 2 diagonals of the subject from its place."""
    p, size = labels.poses, labels.size[labels.image_of()[i]]
    k = rng.choice(np.flatnonzero(p.labelled[i]))
    _, diagonal = hull_of(p, i)
    for _ in range(200):
        angle = rng.uniform(0, 2 * np.pi)
        place = p.xy[i, k] + rng.uniform(1, 2) * diagonal * np.array([np.cos(angle), np.sin(angle)])
        if (place >= 0).all() and (place < size).all():
            p.xy[i, k] = place
            return True
    return False


@each(5)
def coincide(labels: Labels, i: int, rng: np.random.Generator) -> bool:
    """A keypoint at the position of another one that is at least a quarter of a diagonal away."""
    p = labels.poses
    _, diagonal = hull_of(p, i)
    known = np.flatnonzero(p.labelled[i])
    for a, b in rng.permutation(np.array(np.meshgrid(known, known)).reshape(2, -1).T):
        if np.linalg.norm(p.xy[i, a] - p.xy[i, b]) > max(diagonal / 4, 10):
            p.xy[i, b] = p.xy[i, a]
            return True
    return False


@each(4)
def axes(labels: Labels, i: int, rng: np.random.Generator) -> bool:
    """x and y exchanged; only where the subject is not near the diagonal of its image."""
    p = labels.poses
    exchanged = p.xy[i, :, ::-1].copy()
    hull, diagonal = hull_of(p, i)
    if np.abs((hull[0] + hull[2]) - (hull[1] + hull[3])) / 2 < diagonal:
        return False
    p.xy[i] = exchanged
    return True


def _sided(labels: Labels, i: int) -> np.ndarray:
    """Mirror pairs of which both keypoints are labelled."""
    pairs = mirror_pairs(labels.skeleton.flip)
    known = labels.poses.labelled[i]
    return pairs[known[pairs[:, 0]] & known[pairs[:, 1]]] if len(pairs) else pairs


def _permute(labels: Labels, i: int, order: np.ndarray) -> None:
    p = labels.poses
    p.xy[i], p.visible[i] = p.xy[i, order], p.visible[i, order]


@each(4)
def left_right(labels: Labels, i: int, rng: np.random.Generator) -> bool:
    """All left and right names exchanged; at least one pair is labelled on both sides."""
    if not len(_sided(labels, i)):
        return False
    _permute(labels, i, labels.skeleton.flip_array)
    return True


@each(4)
def one_pair(labels: Labels, i: int, rng: np.random.Generator) -> bool:
    """The names of one pair exchanged, which lies at least a tenth of the diagonal apart; there are other pairs."""
    p, pairs = labels.poses, _sided(labels, i)
    _, diagonal = hull_of(p, i)
    apart = [pair for pair in pairs if np.linalg.norm(p.xy[i, pair[0]] - p.xy[i, pair[1]]) > 0.1 * diagonal]
    if len(pairs) < 2 or not apart:
        return False
    a, b = apart[rng.integers(len(apart))]
    order = np.arange(p.xy.shape[1])
    order[[a, b]] = [b, a]
    _permute(labels, i, order)
    return True


@each(4)
def shuffled(labels: Labels, i: int, rng: np.random.Generator) -> bool:
    """The labelled keypoints in a random order, as clicked, that is not only an exchange of left and right."""
    known = np.flatnonzero(labels.poses.labelled[i])
    order = np.arange(labels.poses.xy.shape[1])
    order[known] = rng.permutation(known)
    if (order[known] == known).mean() > 0.5:
        return False
    _permute(labels, i, order)
    return True


def twice(labels: Labels, rng: np.random.Generator, share: float) -> Planted:
    """A subject labelled a second time, with a deviation of 1 % of its diagonal in each keypoint."""
    rows = np.sort(chosen(labels, rng, share))
    p = labels.poses[np.sort(np.concatenate([np.arange(len(labels.poses)), rows]))]
    at = rows + np.arange(1, len(rows) + 1)
    p = replace(p, xy=p.xy.copy())
    for i in at:
        p.xy[i] += rng.normal(0, 0.01 * hull_of(p, int(i))[1], p.xy[i].shape)
    count = np.diff(labels.start) + np.bincount(labels.image_of()[rows], minlength=len(labels))
    ids = np.insert(labels.instance_id, rows + 1, labels.instance_id.max() + 1 + np.arange(len(rows)))
    crowd = np.insert(labels.crowd, rows + 1, False)
    start = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    # the second one of the two is reported
    return replace(labels, poses=p, start=start, instance_id=ids, crowd=crowd), {int(i) for i in at}


def tracks(labels: Labels, rng: np.random.Generator, share: float) -> Planted | None:
    """The tracks of two subjects exchanged in single images, at least one size apart."""
    if not (labels.poses.track >= 0).any():
        return None
    out, planted = copied(labels), set()
    images = np.flatnonzero(np.diff(labels.start) == 2)
    for image in rng.choice(images, max(1, round(share * len(images))), replace=False):
        a, b = int(labels.start[image]), int(labels.start[image]) + 1
        hull, diagonal = hull_of(labels.poses, a)
        other, _ = hull_of(labels.poses, b)
        if np.linalg.norm(hull[:2] + hull[2:] - other[:2] - other[2:]) / 2 > diagonal:
            out.poses.track[[a, b]] = out.poses.track[[b, a]]
            planted |= {a, b}
    return (out, planted) if planted else None


def flip_wrong(labels: Labels, rng: np.random.Generator, share: float) -> Planted | None:
    """Two mirror pairs of the skeleton with their partners exchanged."""
    pairs = mirror_pairs(labels.skeleton.flip)
    flip = list(labels.skeleton.flip)
    if len(pairs) < 2:
        return None
    (a, b), (c, d) = pairs[rng.choice(len(pairs), 2, replace=False)]
    flip[a], flip[d], flip[c], flip[b] = int(d), int(a), int(b), int(c)
    return replace(labels, skeleton=replace(labels.skeleton, flip=tuple(flip))), {int(k) for k in (a, b, c, d)}


def sigma_wrong(labels: Labels, rng: np.random.Generator, share: float) -> Planted:
    """A sigma ten times as large or as small."""
    sigmas = list(labels.skeleton.sigmas)
    k = int(rng.integers(len(sigmas)))
    sigmas[k] *= rng.choice([0.1, 10.0])
    # of a pair the first keypoint is named, unless only the other is out of range
    return replace(labels, skeleton=replace(labels.skeleton, sigmas=tuple(sigmas))), {k}


def name_twice(labels: Labels, rng: np.random.Generator, share: float) -> Planted:
    """A name of a keypoint used for another one."""
    a, b = sorted(rng.choice(len(labels.skeleton), 2, replace=False).tolist())
    names = list(labels.skeleton.keypoints)
    names[b] = names[a]
    return replace(labels, skeleton=replace(labels.skeleton, keypoints=tuple(names))), {b}


def ids_twice(labels: Labels, rng: np.random.Generator, share: float) -> Planted:
    """Ids of instances that occur before."""
    out = copied(labels)
    rows = chosen(labels, rng, share, 0)
    rows = rows[rows > 0]
    out.instance_id[rows] = out.instance_id[0]
    return out, {int(i) for i in rows}


FAULTS = {
    "keypoint outside the image": Fault("geometry", "instance", ("keypoint-outside",), outside),
    "keypoint at (0, 0)": Fault("geometry", "instance", ("keypoint-at-origin",), at_origin),
    "empty box": Fault("geometry", "instance", ("box-missing",), no_box),
    "box outside the image": Fault("geometry", "instance", ("box-outside",), box_elsewhere),
    "box of another subject": Fault("geometry", "instance", ("keypoints-outside-box",), box_of_another),
    "box 10 to 20 times too large": Fault("geometry", "instance", ("box-large",), large_box),
    "area of 0": Fault("geometry", "instance", ("area-missing",), no_area),
    "area of 1.5 to 10 boxes": Fault("geometry", "instance", ("area-large",), large_area),
    "all keypoints in one place": Fault("geometry", "instance", ("keypoints-in-one-place",), pile),
    "keypoint 1 to 2 diagonals off": Fault(
        "geometry",
        "instance",
        ("keypoint-misplaced", "limb-length", "keypoint-far-from-box", "pose-outlier", "limb-angle"),
        misplaced,
    ),
    "two keypoints at one position": Fault("geometry", "instance", ("keypoints-coincide",), coincide),
    "x and y exchanged": Fault("geometry", "instance", ("axes-exchanged", "keypoints-outside-box"), axes),
    "left and right exchanged": Fault(
        "identity", "instance", ("left-right-exchanged", "left-right-appearance"), left_right
    ),
    "one pair exchanged": Fault("identity", "instance", ("pair-exchanged",), one_pair),
    "keypoints in random order": Fault(
        "identity", "instance", ("keypoint-order", "pose-outlier", "pair-exchanged", "left-right-exchanged"), shuffled
    ),
    "subject labelled twice": Fault("identity", "instance", ("subject-twice",), twice),
    "tracks exchanged": Fault("identity", "instance", ("track-jump",), tracks),
    "wrong flip pairs": Fault("schema", "keypoint", ("flip-pairs", "flip-geometry"), flip_wrong),
    "sigma 10 times off": Fault("schema", "keypoint", ("sigmas",), sigma_wrong),
    "name used twice": Fault("schema", "keypoint", ("name-repeated",), name_twice),
    "instance id used twice": Fault("schema", "instance", ("instance-ids",), ids_twice),
}
