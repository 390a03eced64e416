"""Named keypoints without learning: SIFT descriptors of labelled subjects, remembered, and found again by voting.

A feature of a new picture that looks like a remembered one says where the whole subject would lie: at the similarity
that takes the one's frame to the other's. Votes that agree are a subject (a generalised Hough transform, as in Lowe 2004,
section 7, but with the distance of the shapes that two similarities draw in place of bins). Each keypoint then lies where
the agreeing votes put it, those from near it first, and is at last moved to where the picture looks most like that
keypoint did in the memory.

Sources: Lowe, "Distinctive image features from scale-invariant keypoints", 2004; McCann & Lowe, "Local naive Bayes nearest
neighbor for image classification", 2012 (what a match is worth against the background).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kplab.classical.frames import Features, described, features, root
from kplab.classical.memory import Recall, Thinned, belongs, free, pictures, stacked, views
from kplab.classical.voting import Votes, agreed, as_complex, as_points, compose, fitted, inverse, mean_shape, peak
from kplab.errors import ModelError
from kplab.structures.poses import Poses
from kplab.structures.predictor import Model
from kplab.structures.sample import Batch
from kplab.structures.skeleton import Skeleton

#: Features that are compared with the memory at a time.
PIECE = 256
#: Votes that are compared with each other, at most; the strongest.
VOTES = 2000
#: Training views in which subjects are looked for with the memory of others, to know what support is usual, and into how
#: many runs of views the training set is divided for it: the neighbours of a frame of a video are no others.
CHECKED, RUNS = 48, 5
#: Places that are expected without a feature's vote, at most.
EXPECTED = 500
NONE = range(0)
#: Subjects that are looked for in a view of any number.
MOST = 30


@dataclass
class Found:
    """One subject, before it is scored.

    Args:
        xy: (K,) complex, pixels.
        support: weight of the votes for it.
        keypoint_support: (K,) weight of those for each keypoint.
    """

    xy: np.ndarray
    support: float
    keypoint_support: np.ndarray


class Exemplar(Model):
    """What memorises, and what predicts.

    Lengths are in sizes of the subject: the RMS distance of its keypoints from their centroid.

    Args:
        size: (width, height) of the views, pixels.
        skeleton: of the subjects.
        max_poses: largest number of subjects in a view; None is any number.
        contrast: SIFT's threshold; low ones find more points on plain animals.
        points: SIFT points of a view, at most; the strongest.
        neighbours: remembered features that a point may be taken for.
        far: distance of RootSIFT descriptors (of length 1) beyond which nothing is alike.
        reach: a feature within this of a keypoint or an edge belongs to the subject, any other to the background.
        tolerance: votes whose mean shapes lie closer than this agree.
        slack: subjects may be so many times smaller or larger than any that was memorised.
        prior: weight of all the places together where subjects lay in training views: votes without a feature, for views of
            given boxes. A feature's vote weighs at most far**2.
        apart: centres of two subjects are not closer than this.
        nearby: votes of features within this of a keypoint count alike for it, those further off less and less.
        patch: half the side of what is remembered around a keypoint.
        search: how far a keypoint is moved at most towards what looks like it; 0: not at all.
        moving: what it costs to move it so far, as a squared distance of descriptors.
        min_score: subjects below it are not told, unless they are expected where they are (``prior``).
        exemplars, memory, background: subjects, features of subjects and features of the background that are kept at
            most. Where there are more, every 2**j-th is, with the least j that will do.
    """

    one_pass = True

    def __init__(
        self,
        size: tuple[int, int],
        skeleton: Skeleton,
        max_poses: int | None = None,
        contrast: float = 0.02,
        points: int = 2000,
        neighbours: int = 5,
        far: float = 0.8,
        reach: float = 0.5,
        tolerance: float = 0.4,
        slack: float = 1.5,
        prior: float = 0.0,
        apart: float = 0.5,
        nearby: float = 0.3,
        patch: float = 0.5,
        search: float = 0.15,
        moving: float = 0.1,
        min_score: float = 0.2,
        exemplars: int = 2000,
        memory: int = 40000,
        background: int = 40000,
    ) -> None:
        super().__init__()
        self.size, self.skeleton, self.max_poses = size, skeleton, max_poses
        self.contrast, self.points, self.neighbours, self.far = contrast, points, neighbours, far
        self.reach, self.tolerance, self.slack, self.prior, self.apart = reach, tolerance, slack, prior, apart
        self.nearby, self.patch, self.search, self.moving = nearby, patch, search, moving
        self.min_score, self.exemplars, self.memory, self.background = min_score, exemplars, memory, background
        k = len(skeleton)
        # links from each keypoint to itself and along each edge
        self.links = np.array([(i, i) for i in range(k)] + list(skeleton.edges))
        self.remember(
            pose=torch.zeros(0, k, dtype=torch.complex128),  # pixels of the subject's own view; NaN where unlabelled
            frame=torch.zeros(0, 2, dtype=torch.complex128),  # the subject's own frame to its view
            view=torch.zeros(0, dtype=torch.int64),  # that it was seen in
            named=torch.zeros(0, k, 128, dtype=torch.uint8),  # descriptors at its keypoints
            descriptor=torch.zeros(0, 128, dtype=torch.uint8),  # of features on subjects
            place=torch.zeros(0, 2, dtype=torch.complex128),  # their frames, in their subject's own
            owner=torch.zeros(0, dtype=torch.int64),  # their subject: a row of pose
            ground=torch.zeros(0, 128, dtype=torch.uint8),  # descriptors of the background
            ground_view=torch.zeros(0, dtype=torch.int64),
            shape=torch.zeros(k, dtype=torch.complex128),  # the mean shape, in subjects' own frame
            usual=torch.ones(1 + k, dtype=torch.float64),  # support of a subject, and of each keypoint
        )

    def remember(self, **memory: Tensor) -> None:
        """Take these as the memory: buffers, so that a checkpoint holds them."""
        for name, value in memory.items():
            self.register_buffer(name, value)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # a memory is as long as it is: take over the lengths, then let torch copy
        for name, own in self._buffers.items():
            if own is not None and prefix + name in state_dict:
                self._buffers[name] = own.new_empty(state_dict[prefix + name].shape)
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def without_flip(self) -> list[str]:
        """The whole of it."""
        return [f"model '{type(self).__name__}'"]

    def fit(self, batches: Iterable[Batch]) -> dict[str, int]:
        """Remember the subjects of some views; what was remembered before is forgotten.

        Args:
            batches: gone through twice. The same ones in the same order give the same memory, to the bit.

        Raises:
            ModelError: nobody has a labelled keypoint.
        """
        subjects: Thinned[tuple[int, np.ndarray]] = Thinned(self.exemplars)
        for number, _, poses in views(batches):
            subjects.add((number, as_complex(xy)) for xy in poses[~poses.ignore & poses.labelled.any(1)].xy)
        if not subjects.kept:
            raise ModelError("nobody has a labelled keypoint, so there is nothing to remember. Check the split train.")
        view, pose = np.array([v for v, _ in subjects.kept]), np.stack([z for _, z in subjects.kept])
        shape = mean_shape(pose)
        frame = fitted(shape, pose)
        named = np.zeros((*pose.shape, 128), dtype=np.uint8)
        own: Thinned[tuple[int, np.ndarray, np.ndarray]] = Thinned(self.memory)
        ground: Thinned[tuple[int, np.ndarray]] = Thinned(self.background)
        checked: Thinned[tuple[int, np.ndarray, np.ndarray]] = Thinned(CHECKED)
        for number, image, poses in views(batches):
            seen = features(image, self.contrast, self.points)
            # rows are copied, as one that is kept would keep all of its view's
            ground.add((number, d.copy()) for d in seen.descriptor[free(seen, poses, shape, self.links, self.reach)])
            rows = np.flatnonzero(view == number)
            for row in rows:
                mine = belongs(seen.frame[:, 1], pose[row], self.links, self.reach * abs(frame[row, 0]))
                places = compose(inverse(frame[row]), seen.frame[mine])
                own.add((int(row), p.copy(), d.copy()) for p, d in zip(places, seen.descriptor[mine], strict=True))
                known = np.isfinite(pose[row])
                named[row, known] = self.described(image, pose[row, known], frame[row, 0])
            if len(rows):
                checked.add([(number, image, rows)])
        self.remember(
            pose=torch.from_numpy(pose),
            frame=torch.from_numpy(frame),
            view=torch.from_numpy(view),
            named=torch.from_numpy(named),
            descriptor=stacked([d for _, _, d in own.kept], (128,), np.uint8),
            place=stacked([p for _, p, _ in own.kept], (2,), np.complex128),
            owner=stacked([row for row, _, _ in own.kept], (), np.int64),
            ground=stacked([d for _, d in ground.kept], (128,), np.uint8),
            ground_view=stacked([v for v, _ in ground.kept], (), np.int64),
            shape=torch.from_numpy(shape),
        )
        self.remember(usual=torch.from_numpy(self.usual_support(checked.kept, number + 1)))
        return self.remembered()

    def remembered(self) -> dict[str, int]:
        """How many of what."""
        names = {"subjects": "pose", "features of subjects": "descriptor", "features of the background": "ground"}
        return {what: len(self.get_buffer(name)) for what, name in names.items()}

    def usual_support(self, checked: list[tuple[int, np.ndarray, np.ndarray]], count: int) -> np.ndarray:
        """(1 + K,) support that is half way, in its logarithm, between that of subjects and that of ghosts.

        Subjects are looked for in training views, one more than they show, with the memory of other views. Who lies
        where nobody is, is a ghost. Where no subject is found so (no two are alike), their own views count too.

        Args:
            checked: number of the view, its image, and the rows of the subjects it shows.
            count: of views, in all.
        """
        recall, k, pose = (
            Recall.of(dict(self.named_buffers())),
            len(self.skeleton),
            self.get_buffer("pose").cpu().numpy(),
        )
        run = -(-count // RUNS)
        ghosts: list[float] = []
        for others in (True, False):
            found: list[Found] = []
            for number, image, rows in checked:
                left_out = range(number // run * run, (number // run + 1) * run) if others else NONE
                for f in self.search_view(image, recall, len(rows) + 1, 0.0, left_out):
                    apart = np.nanmean(np.abs(f.xy - pose[rows]), axis=1) / np.abs(recall.frame[rows, 0])
                    if apart.min() < self.apart and f.support > 0:
                        found.append(f)
                    else:
                        ghosts.append(f.support)
            if found:
                whole = float(np.median([f.support for f in found]))
                ghost = float(np.clip(np.median(ghosts or [0.0]), whole / 1e4, whole))
                parts = np.median([f.keypoint_support for f in found], axis=0)
                return np.concatenate([[whole], np.where(parts > 0, parts, whole)]) * np.sqrt(ghost / whole)
        return np.ones(1 + k)

    def described(self, image: np.ndarray, places: np.ndarray, a: complex | np.ndarray) -> np.ndarray:
        """(N, 128) what a subject's keypoints look like at places, turned and scaled as its frame is."""
        return described(image, places, self.patch * np.abs(a), np.angle(a))

    def predict(self, batch: Batch, flip_test: bool = False) -> list[Poses]:
        """Poses of each view, view pixels.

        A pose scores s / (s + u): s is the weight of the votes for it, and u lies half way between what subjects of the
        training views get from the memory of others and what ghosts get there. So does each keypoint, by the votes
        that put it where it is. A keypoint that nobody votes for lies where the mean shape has it, and scores 0.

        Args:
            batch: B views; its poses are not looked at.
            flip_test: there is none.
        """
        recall = Recall.of(dict(self.named_buffers()))
        usual = recall.usual
        out = []
        for image in pictures(batch):
            least = self.min_score / (1 - self.min_score) * usual[0]
            found = self.search_view(image, recall, self.max_poses or MOST, least)
            support = np.array([f.support for f in found])
            parts = np.array([f.keypoint_support for f in found]).reshape(-1, len(self.skeleton))
            xy = np.array([f.xy for f in found]).reshape(-1, len(self.skeleton))
            out.append(
                Poses.make(
                    as_points(xy), score=support / (support + usual[0]), keypoint_score=parts / (parts + usual[1:])
                )
            )
        return out

    def search_view(
        self, image: np.ndarray, recall: Recall, most: int, least: float, left_out: range = NONE
    ) -> list[Found]:
        """Subjects of a view, the surest first.

        Args:
            image: (H, W, 3) uint8 RGB.
            recall: the memory.
            most: how many.
            least: support that each must have, and more than 0.
            left_out: training views whose memories do not count, by number.
        """
        seen = features(image, self.contrast, self.points)
        votes = self.votes(seen, recall, left_out)
        votes = Votes.concat([votes, self.expected(recall, left_out)])
        found: list[Found] = []
        while len(votes) and len(found) < most:
            centre, agreement = peak(votes, self.tolerance)
            if float((votes.weight * agreement).sum()) <= least:
                break
            for_it = agreement > 0
            found.append(self.read(image, votes[for_it], agreement[for_it], centre, recall, left_out))
            # a feature speaks for one subject, and two subjects are not in one place
            taken = np.isin(votes.source, votes.source[for_it])
            taken |= np.abs(votes.maps[:, 1] - centre[1]) < self.apart * np.abs(centre[0])
            votes = votes[~taken]
        return found

    def votes(self, seen: Features, recall: Recall, left_out: range) -> Votes:
        """What each feature votes for: it weighs how much more it is like a subject than like the background.

        weight = (min(d_background, far)**2 - d_subject**2) / neighbours, where that is positive
        """
        count = min(self.neighbours, len(recall.own))
        if not len(seen) or not count:
            nobody = np.zeros(0, dtype=np.int64)
            return Votes(np.zeros((0, 2), complex), np.zeros(0), nobody, nobody, np.zeros(0, complex))
        own = torch.from_numpy(recall.own)
        others = torch.from_numpy(recall.ground[~np.isin(recall.ground_view, left_out)])
        hidden = torch.from_numpy(np.isin(recall.own_view, left_out))
        parts = []
        for some in torch.from_numpy(root(seen.descriptor)).split(PIECE):
            bar = torch.full((len(some),), 1 - self.far**2 / 2)
            if len(others):
                bar = torch.maximum(bar, (some @ others.T).amax(1))
            like, which = (some @ own.T).masked_fill(hidden, -1).topk(count)
            parts.append((like - bar[:, None], which))
        margin, memory = (torch.cat(p).numpy().ravel() for p in zip(*parts, strict=True))
        # squared distances of vectors of length 1 are 2 - 2 cos
        weight = 2 * margin.astype(np.float64) / self.neighbours
        source = np.repeat(np.arange(len(seen)), count)
        maps = compose(seen.frame[source], inverse(recall.place[memory]))
        low, high = recall.sizes
        size = np.abs(maps[:, 0])
        kept = (weight > 1e-6) & (size >= low / self.slack) & (size <= high * self.slack)
        every = Votes(maps, weight, source, recall.owner[memory], seen.frame[source, 1])
        return every[kept].strongest(VOTES)

    def expected(self, recall: Recall, left_out: range) -> Votes:
        """Votes of no feature: subjects may lie where those in memory lay in their views; all together weigh ``prior``."""
        rows = np.flatnonzero(~np.isin(recall.view, left_out)) if self.prior > 0 else np.zeros(0, dtype=np.int64)
        rows = rows[:: -(-len(rows) // EXPECTED) or 1]
        n = len(rows)
        return Votes(
            recall.frame[rows], np.full(n, self.prior / max(n, 1)), -1 - rows, rows, np.full(n, np.nan, complex)
        )

    def read(
        self,
        image: np.ndarray,
        votes: Votes,
        agreement: np.ndarray,
        centre: np.ndarray,
        recall: Recall,
        left_out: range,
    ) -> Found:
        """Where the votes that agree put each keypoint.

        A vote counts for a keypoint by its weight, its agreement, the votes for the same exemplar in all (poses hang
        together), and its nearness: what it says of far places errs with its angle.
        """
        owner = votes.owner
        weight = votes.weight * agreement
        z = votes.maps[:, :1] * recall.keypoints[owner] + votes.maps[:, 1:]
        size = abs(centre[0])
        distance = np.nan_to_num(np.abs(z - votes.place[:, None]) / size, nan=1.0)
        local = weight[:, None] / (1 + (distance / self.nearby) ** 2)
        trusted = np.bincount(owner, weight, len(recall.keypoints))[owner] / weight.sum()
        place, _ = agreed(z, local * trusted[:, None], 0.1 * size)
        implied = centre[0] * recall.shape + centre[1]
        place = np.where(np.isfinite(place), place, implied)
        if self.search > 0:
            place = self.moved(image, place, centre[0], recall, left_out)
        close = np.where(np.isfinite(z), np.clip(1 - (np.abs(z - place) / (0.3 * size)) ** 2, 0, 1), 0)
        # what is expected helps to find a subject, and is no sign that there is one
        seen = votes.source >= 0
        return Found(place, float(weight[seen].sum()), (local * close)[seen].sum(0))

    def moved(self, image: np.ndarray, place: np.ndarray, a: complex, recall: Recall, left_out: range) -> np.ndarray:
        """Each keypoint moved to where the picture looks most like it: three rounds, each three times as fine."""
        known = ~np.isin(recall.view, left_out)[:, None] & np.isfinite(recall.keypoints)
        start = place
        for step in self.search / 3 ** np.arange(1, 4):
            grid = np.array([complex(x, y) for y in range(-3, 4) for x in range(-3, 4) if x * x + y * y <= 9])
            grid = grid[np.argsort(np.abs(grid), kind="stable")] * step * abs(a)  # where nothing differs, it stays
            places = place[:, None] + grid
            there = root(self.described(image, places.ravel(), a)).reshape(len(place), len(grid), 128)
            cost = self.moving * np.abs((places - start[:, None]) / (self.search * abs(a))) ** 2
            for k in np.flatnonzero(known.any(0)):
                like = there[k] @ recall.named[known[:, k], k].T
                cost[k] += 2 - 2 * like.max(1)
            place = places[np.arange(len(place)), cost.argmin(1)]
        return place
