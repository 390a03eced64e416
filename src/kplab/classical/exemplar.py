"""Exemplar-based pose estimation: SIFT descriptors of labelled subjects are stored, and new subjects are found by voting.

A feature of a new image that matches a stored one votes for the similarity map that takes the frame of the stored feature
to its own, and with it the whole subject. Votes that agree are a subject: a generalised Hough transform as in Lowe 2004,
section 7, in which the distance of the shapes that two similarities draw replaces bins. Each keypoint is placed where the
agreeing votes put it, with more weight for features near it, and then moved to the position nearby whose descriptor is
most similar to the stored descriptors of that keypoint.

Sources: Lowe, "Distinctive image features from scale-invariant keypoints", 2004; McCann & Lowe, "Local naive Bayes nearest
neighbor for image classification", 2012 (the weight of a match relative to the background).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kplab.classical.frames import Features, described, features, root
from kplab.classical.memory import Recall, Thinned, belongs, images_of, in_background, stacked, views
from kplab.classical.voting import Votes, agreed, as_complex, as_points, compose, fitted, inverse, mean_shape, peak
from kplab.errors import ModelError
from kplab.structures.poses import Poses
from kplab.structures.predictor import Model
from kplab.structures.sample import Batch
from kplab.structures.skeleton import Skeleton

#: Number of features that are compared with the memory at a time.
CHUNK = 256
#: Largest number of votes that are compared with each other; the strongest are kept.
MAX_VOTES = 2000
#: Number of training views for calibration, and number of blocks of consecutive views. A calibration view is searched
#: without the memory of its block, as consecutive frames of a video are nearly equal.
CALIBRATION_VIEWS, BLOCKS = 48, 5
#: Largest number of prior votes, which come from poses of training views and not from features.
MAX_PRIOR_VOTES = 500
NO_VIEWS = range(0)
#: Largest number of subjects of a view where ``max_poses`` is None.
MAX_POSES = 30


@dataclass
class Found:
    """One subject and its support, before scoring.

    Args:
        xy: (K,) complex, pixels.
        support: total weight of the votes for the subject.
        keypoint_support: (K,) total weight of the votes for each keypoint.
    """

    xy: np.ndarray
    support: float
    keypoint_support: np.ndarray


class Exemplar(Model):
    """Exemplar-based pose model, fitted in one pass without gradients.

    The unit of lengths is the size of the subject: the RMS distance of its keypoints from their centroid.

    Args:
        size: (width, height) of the views, pixels.
        skeleton: of the subjects.
        max_poses: largest number of subjects in a view; None is any number.
        contrast: SIFT's contrast threshold; lower values give more points on untextured animals.
        points: largest number of SIFT points of a view; the strongest are kept.
        neighbours: number of stored features that a point is matched with.
        max_distance: RootSIFT descriptors (of length 1) further apart than this don't match.
        subject_margin: features within this distance of a keypoint or an edge belong to the subject, others to the
            background.
        tolerance: votes agree if their mean shapes are closer than this.
        size_factor: subjects may be at most this factor smaller or larger than the stored ones.
        prior: total weight of votes for the poses of the training views, which need no feature; for views of given boxes.
            A feature's vote weighs at most max_distance**2.
        min_separation: smallest distance of the centres of two subjects.
        vote_radius: distance from a keypoint at which the weight of a feature's vote for it is one half.
        patch: half the side of the window that is described around a keypoint.
        search_radius: largest distance that a keypoint is moved in the refinement; 0 disables it.
        move_cost: cost of moving a keypoint by ``search_radius``, as a squared distance of descriptors.
        min_score: minimum score to report a subject. Prior votes count towards it.
        exemplars, memory, background: largest number of stored subjects, features of subjects and features of the
            background. Of more, every 2**j-th is kept, with the smallest j that is sufficient.
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
        max_distance: float = 0.8,
        subject_margin: float = 0.5,
        tolerance: float = 0.4,
        size_factor: float = 1.5,
        prior: float = 0.0,
        min_separation: float = 0.5,
        vote_radius: float = 0.3,
        patch: float = 0.5,
        search_radius: float = 0.15,
        move_cost: float = 0.1,
        min_score: float = 0.2,
        exemplars: int = 2000,
        memory: int = 40000,
        background: int = 40000,
    ) -> None:
        super().__init__()
        self.size, self.skeleton, self.max_poses = size, skeleton, max_poses
        self.contrast, self.points, self.neighbours, self.max_distance = contrast, points, neighbours, max_distance
        self.subject_margin, self.tolerance, self.size_factor = subject_margin, tolerance, size_factor
        self.prior, self.min_separation, self.vote_radius = prior, min_separation, vote_radius
        self.patch, self.search_radius, self.move_cost = patch, search_radius, move_cost
        self.min_score, self.exemplars, self.memory, self.background = min_score, exemplars, memory, background
        k = len(skeleton)
        # pairs of keypoints: each keypoint with itself, and the ends of each edge
        self.links = np.array([(i, i) for i in range(k)] + list(skeleton.edges))
        self.remember(
            pose=torch.zeros(
                0, k, dtype=torch.complex128
            ),  # keypoints of each subject, view pixels; NaN where unlabelled
            frame=torch.zeros(0, 2, dtype=torch.complex128),  # from the subject's frame to its view
            view=torch.zeros(0, dtype=torch.int64),  # number of the subject's training view
            named=torch.zeros(0, k, 128, dtype=torch.uint8),  # descriptors at the subject's keypoints
            descriptor=torch.zeros(0, 128, dtype=torch.uint8),  # of features on subjects
            place=torch.zeros(0, 2, dtype=torch.complex128),  # frames of these features in their subject's frame
            owner=torch.zeros(0, dtype=torch.int64),  # subject of these features: a row of pose
            ground=torch.zeros(0, 128, dtype=torch.uint8),  # descriptors of features of the background
            ground_view=torch.zeros(0, dtype=torch.int64),  # training view of these features
            shape=torch.zeros(k, dtype=torch.complex128),  # mean shape in the subjects' frame
            usual=torch.ones(1 + k, dtype=torch.float64),  # support at a score of 0.5: of a subject, of each keypoint
        )

    def remember(self, **memory: Tensor) -> None:
        """Store these arrays as buffers, so that checkpoints contain them."""
        for name, value in memory.items():
            self.register_buffer(name, value)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # lengths differ from memory to memory: allocate buffers of the stored lengths, then let torch copy
        for name, own in self._buffers.items():
            if own is not None and prefix + name in state_dict:
                self._buffers[name] = own.new_empty(state_dict[prefix + name].shape)
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def without_flip(self) -> list[str]:
        """The model as a whole has no flip test."""
        return [f"model '{type(self).__name__}'"]

    def fit(self, batches: Iterable[Batch]) -> dict[str, int]:
        """Store the subjects of the training views; replaces the memory.

        Args:
            batches: iterated over twice. The same views in the same order give the same memory, bit for bit.

        Raises:
            ModelError: no subject has a labelled keypoint.
        """
        subjects: Thinned[tuple[int, np.ndarray]] = Thinned(self.exemplars)
        for number, _, poses in views(batches):
            subjects.add((number, as_complex(xy)) for xy in poses[~poses.ignore & poses.labelled.any(1)].xy)
        if not subjects.kept:
            raise ModelError(
                "no subject of the training views has a labelled keypoint, so there is nothing to fit. Check the split train."
            )
        view, pose = np.array([v for v, _ in subjects.kept]), np.stack([z for _, z in subjects.kept])
        shape = mean_shape(pose)
        frame = fitted(shape, pose)
        named = np.zeros((*pose.shape, 128), dtype=np.uint8)
        own: Thinned[tuple[int, np.ndarray, np.ndarray]] = Thinned(self.memory)
        ground: Thinned[tuple[int, np.ndarray]] = Thinned(self.background)
        calibration: Thinned[tuple[int, np.ndarray, np.ndarray]] = Thinned(CALIBRATION_VIEWS)
        for number, image, poses in views(batches):
            seen = features(image, self.contrast, self.points)
            # rows are copied: a row that is kept would otherwise keep the array of the whole view alive
            background = in_background(seen, poses, shape, self.links, self.subject_margin)
            ground.add((number, d.copy()) for d in seen.descriptor[background])
            rows = np.flatnonzero(view == number)
            for row in rows:
                on_subject = belongs(seen.frame[:, 1], pose[row], self.links, self.subject_margin * abs(frame[row, 0]))
                places = compose(inverse(frame[row]), seen.frame[on_subject])
                own.add(
                    (int(row), p.copy(), d.copy()) for p, d in zip(places, seen.descriptor[on_subject], strict=True)
                )
                known = np.isfinite(pose[row])
                named[row, known] = self.described(image, pose[row, known], frame[row, 0])
            if len(rows):
                calibration.add([(number, image, rows)])
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
        self.remember(usual=torch.from_numpy(self.calibrate(calibration.kept, number + 1)))
        return self.counts()

    def counts(self) -> dict[str, int]:
        """Numbers of stored subjects and features."""
        names = {"subjects": "pose", "features of subjects": "descriptor", "features of the background": "ground"}
        return {what: len(self.get_buffer(name)) for what, name in names.items()}

    def calibrate(self, views: list[tuple[int, np.ndarray, np.ndarray]], count: int) -> np.ndarray:
        """(1 + K,) support at which a score is 0.5: the geometric mean of the support of true and of false positives.

        One more detection than there are subjects is made in each calibration view, without the memory of the view's
        block. Detections far from every true subject are false positives. Where no subject is detected (no two are
        similar), the memory of all views is used.

        Args:
            views: number of the view, its image, and the rows of its subjects.
            count: total number of training views.
        """
        recall, k, pose = (
            Recall.of(dict(self.named_buffers())),
            len(self.skeleton),
            self.get_buffer("pose").cpu().numpy(),
        )
        block = -(-count // BLOCKS)
        false_positives: list[float] = []
        for others in (True, False):
            found: list[Found] = []
            for number, image, rows in views:
                left_out = range(number // block * block, (number // block + 1) * block) if others else NO_VIEWS
                for f in self.search_view(image, recall, len(rows) + 1, 0.0, left_out):
                    distance = np.nanmean(np.abs(f.xy - pose[rows]), axis=1) / np.abs(recall.frame[rows, 0])
                    if distance.min() < self.min_separation and f.support > 0:
                        found.append(f)
                    else:
                        false_positives.append(f.support)
            if found:
                whole = float(np.median([f.support for f in found]))
                false = float(np.clip(np.median(false_positives or [0.0]), whole / 1e4, whole))
                parts = np.median([f.keypoint_support for f in found], axis=0)
                return np.concatenate([[whole], np.where(parts > 0, parts, whole)]) * np.sqrt(false / whole)
        return np.ones(1 + k)

    def described(self, image: np.ndarray, places: np.ndarray, a: complex | np.ndarray) -> np.ndarray:
        """(N, 128) descriptors at positions, in the orientation and scale of a subject's frame."""
        return described(image, places, self.patch * np.abs(a), np.angle(a))

    def predict(self, batch: Batch, flip_test: bool = False) -> list[Poses]:
        """Poses of each view, view pixels.

        The score of a pose is s / (s + u), with s the total weight of its votes and u the support that ``calibrate``
        computes; the score of a keypoint likewise, from the votes near its position. A keypoint without votes is placed
        by the mean shape, and scores 0.

        Args:
            batch: B views; its poses are not read.
            flip_test: ignored, as the model has none.
        """
        recall = Recall.of(dict(self.named_buffers()))
        usual = recall.usual
        out = []
        for image in images_of(batch):
            min_support = self.min_score / (1 - self.min_score) * usual[0]
            found = self.search_view(image, recall, self.max_poses or MAX_POSES, min_support)
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
        self, image: np.ndarray, recall: Recall, max_poses: int, min_support: float, left_out: range = NO_VIEWS
    ) -> list[Found]:
        """Subjects of a view, in the order in which they are detected.

        Args:
            image: (H, W, 3) uint8 RGB.
            recall: the memory.
            max_poses: largest number of subjects.
            min_support: subjects have more than this support.
            left_out: numbers of training views whose memory is not used.
        """
        seen = features(image, self.contrast, self.points)
        votes = self.votes(seen, recall, left_out)
        votes = Votes.concat([votes, self.prior_votes(recall, left_out)])
        found: list[Found] = []
        while len(votes) and len(found) < max_poses:
            centre, agreement = peak(votes, self.tolerance)
            if float((votes.weight * agreement).sum()) <= min_support:
                break
            agrees = agreement > 0
            found.append(self.place_keypoints(image, votes[agrees], agreement[agrees], centre, recall, left_out))
            # a feature votes for one subject, and two subjects are never at the same position
            used = np.isin(votes.source, votes.source[agrees])
            used |= np.abs(votes.maps[:, 1] - centre[1]) < self.min_separation * np.abs(centre[0])
            votes = votes[~used]
        return found

    def votes(self, seen: Features, recall: Recall, left_out: range) -> Votes:
        """The votes of features, weighted by how much more similar they are to a subject than to the background.

        weight = (min(d_background, max_distance)**2 - d_subject**2) / neighbours, where that is positive
        """
        count = min(self.neighbours, len(recall.own))
        if not len(seen) or not count:
            none = np.zeros(0, dtype=np.int64)
            return Votes(np.zeros((0, 2), complex), np.zeros(0), none, none, np.zeros(0, complex))
        own = torch.from_numpy(recall.own)
        background = torch.from_numpy(recall.ground[~np.isin(recall.ground_view, left_out)])
        excluded = torch.from_numpy(np.isin(recall.own_view, left_out))
        parts = []
        for chunk in torch.from_numpy(root(seen.descriptor)).split(CHUNK):
            threshold = torch.full((len(chunk),), 1 - self.max_distance**2 / 2)
            if len(background):
                threshold = torch.maximum(threshold, (chunk @ background.T).amax(1))
            similarity, index = (chunk @ own.T).masked_fill(excluded, -1).topk(count)
            parts.append((similarity - threshold[:, None], index))
        margin, memory = (torch.cat(p).numpy().ravel() for p in zip(*parts, strict=True))
        # squared distances of vectors of length 1 are 2 - 2 cos
        weight = 2 * margin.astype(np.float64) / self.neighbours
        source = np.repeat(np.arange(len(seen)), count)
        maps = compose(seen.frame[source], inverse(recall.place[memory]))
        low, high = recall.sizes
        size = np.abs(maps[:, 0])
        kept = (weight > 1e-6) & (size >= low / self.size_factor) & (size <= high * self.size_factor)
        votes = Votes(maps, weight, source, recall.owner[memory], seen.frame[source, 1])
        return votes[kept].strongest(MAX_VOTES)

    def prior_votes(self, recall: Recall, left_out: range) -> Votes:
        """Votes for the poses of the training views, without a feature; their total weight is ``prior``."""
        rows = np.flatnonzero(~np.isin(recall.view, left_out)) if self.prior > 0 else np.zeros(0, dtype=np.int64)
        rows = rows[:: -(-len(rows) // MAX_PRIOR_VOTES) or 1]
        n = len(rows)
        return Votes(
            recall.frame[rows], np.full(n, self.prior / max(n, 1)), -1 - rows, rows, np.full(n, np.nan, complex)
        )

    def place_keypoints(
        self,
        image: np.ndarray,
        votes: Votes,
        agreement: np.ndarray,
        centre: np.ndarray,
        recall: Recall,
        left_out: range,
    ) -> Found:
        """The position of each keypoint by the votes that agree.

        The weight of a vote for a keypoint is the product of the vote's weight, its agreement, the total weight of the
        votes for the same exemplar (the keypoints of a pose depend on each other), and a factor that decreases with the
        distance of the feature from the keypoint (an error of the feature's angle grows with the distance).
        """
        owner = votes.owner
        weight = votes.weight * agreement
        z = votes.maps[:, :1] * recall.keypoints[owner] + votes.maps[:, 1:]
        size = abs(centre[0])
        distance = np.nan_to_num(np.abs(z - votes.place[:, None]) / size, nan=1.0)
        local = weight[:, None] / (1 + (distance / self.vote_radius) ** 2)
        exemplar_weight = np.bincount(owner, weight, len(recall.keypoints))[owner] / weight.sum()
        place, _ = agreed(z, local * exemplar_weight[:, None], 0.1 * size)
        implied = centre[0] * recall.shape + centre[1]
        place = np.where(np.isfinite(place), place, implied)
        if self.search_radius > 0:
            place = self.refine(image, place, centre[0], recall, left_out)
        close = np.where(np.isfinite(z), np.clip(1 - (np.abs(z - place) / (0.3 * size)) ** 2, 0, 1), 0)
        # prior votes help to detect a subject, and are no evidence of one
        evidence = votes.source >= 0
        return Found(place, float(weight[evidence].sum()), (local * close)[evidence].sum(0))

    def refine(self, image: np.ndarray, place: np.ndarray, a: complex, recall: Recall, left_out: range) -> np.ndarray:
        """Move each keypoint to the position nearby with the most similar descriptor; three grids, each three times finer."""
        known = ~np.isin(recall.view, left_out)[:, None] & np.isfinite(recall.keypoints)
        start = place
        for step in self.search_radius / 3 ** np.arange(1, 4):
            grid = np.array([complex(x, y) for y in range(-3, 4) for x in range(-3, 4) if x * x + y * y <= 9])
            grid = grid[np.argsort(np.abs(grid), kind="stable")] * step * abs(a)  # centre first, so that ties keep it
            places = place[:, None] + grid
            descriptors = root(self.described(image, places.ravel(), a)).reshape(len(place), len(grid), 128)
            cost = self.move_cost * np.abs((places - start[:, None]) / (self.search_radius * abs(a))) ** 2
            for k in np.flatnonzero(known.any(0)):
                similarity = descriptors[k] @ recall.named[known[:, k], k].T
                cost[k] += 2 - 2 * similarity.max(1)
            place = places[np.arange(len(place)), cost.argmin(1)]
        return place
