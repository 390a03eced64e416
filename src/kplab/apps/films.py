"""What the notebooks on applications share: predictions on films of rendered subjects, by a run or with errors of a given size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from omegaconf import OmegaConf

from kplab import config as configs
from kplab.applications.arm import Arm
from kplab.applications.joint_angles import sigma_of_errors
from kplab.apps import course
from kplab.errors import ConfigError, KplabError
from kplab.runs.run import Run
from kplab.structures.frames import Frame, Stage, process
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton
from kplab.synthetic.figure import turn
from kplab.synthetic.film import VIEW, Film, film
from kplab.tasks.evaluation.files import read_scores
from kplab.tasks.inference.assembly import set_name
from kplab.tasks.inference.loading import LoadedRun
from kplab.tasks.wiring.datasets import skeleton_of
from kplab.tasks.wiring.nodes import load_config

#: Joints of a rendered arm that its keypoints show, and the axis of each in the frame of the link before it.
ARM_JOINTS = ("turret", "shoulder", "elbow", "wrist")
ARM_AXES = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])


@dataclass(frozen=True)
class Detected:
    """Predictions on a film: one pose in each frame, or none.

    Args:
        predictions: image id, which is the number of the frame, to poses.
        sigma: (K,) standard deviation of the keypoints in x and in y, pixels.
        source: what made them, in words.
    """

    predictions: Predictions
    sigma: np.ndarray
    source: str

    @property
    def xy(self) -> np.ndarray:
        """(T, K, 2) keypoints of the pose with the highest score; NaN in frames without a pose."""
        return course.best_poses([self.predictions.poses[i] for i in sorted(self.predictions.poses)])


def skeleton(name: str) -> Skeleton:
    """The skeleton of a name, from ``conf/skeleton``."""
    return Skeleton.from_config(configs.plain(OmegaConf.load(configs.conf_dir() / "skeleton" / f"{name}.yaml")))


def find_run(name: str | None, of: Skeleton) -> Run | None:
    """The run whose predictions an application shows; nothing is trained.

    Args:
        name: latest: the newest finished run of a network with these keypoints, None if there is none; the name of a run or a
            part of it; or None: no run.
        of: its keypoints.

    Raises:
        ConfigError: the run that is named has other keypoints.
        RunError: there is no run of this name.
    """
    if name is None:
        return None
    if name == "latest":
        for run in course.newest():
            config = load_config(run)
            if skeleton_of(config.dataset).keypoints == of.keypoints and config.get("head") is not None:
                return run
        return None
    run = Run.find(name, course.runs_dir())
    own = skeleton_of(load_config(run).dataset)
    if own.keypoints != of.keypoints:
        raise ConfigError(
            f"run {run.name} predicts keypoints of '{own.name}', but this application needs '{of.name}': "
            f"{', '.join(of.keypoints)}. Name another run, or None."
        )
    return run


def detect(
    clip: Film, of: Skeleton, run: Run | None = None, sigma: float = 1.5, missing: float = 0.0, seed: int = 0
) -> Detected:
    """Predictions on a film: those of a run, or the exact keypoints with normal errors.

    The standard deviations of a run are those of its scores on the first split that it was tested on, and hold for subjects
    of that size. Where it has no such scores, ``sigma`` is stated.

    Args:
        clip: the film.
        of: skeleton of its subject.
        run: None: the exact keypoints with errors.
        sigma: standard deviation of the errors in x and in y, pixels.
        missing: share of the frames without a pose, of the exact keypoints with errors.
        seed: of the errors.
    """
    files = {i: clip.name(i) for i in range(len(clip))}
    if run is None:
        rng = np.random.default_rng(seed)
        noisy = clip.xy + sigma * rng.standard_normal(clip.xy.shape)
        lost = rng.random(len(clip)) < missing
        poses = {i: Poses.empty(len(of)) if lost[i] else Poses.make(noisy[i : i + 1]) for i in files}
        card = {"made": f"exact keypoints with normal errors of {sigma} px"}
        return Detected(Predictions(of, poses, card, files), np.full(len(of), sigma), card["made"])
    loaded = LoadedRun.load(run, device="cpu")
    found = Predictions(of, dict(loaded.stream(clip, loaded.new_regions(clip))), {"run": run.name}, files)
    try:
        name = set_name(loaded.config, loaded.config.dataset, loaded.config.test_on[0])
        measured = sigma_of_errors(read_scores(run.folder / "scores" / f"{name}.json").per_keypoint, of)
    except KplabError:
        measured = np.full(len(of), sigma)
    return Detected(found, measured, f"predictions of run {run.name}")


def processed(xy: np.ndarray, times: np.ndarray, *stages: Stage) -> np.ndarray:
    """Keypoints of one subject after stages of a stream, such as smoothing.

    Args:
        xy: (T, K, 2) pixels; NaN where there is none.
        times: (T,) seconds.
        stages: in order.

    Returns:
        (T, K, 2)
    """
    track = np.zeros(1, dtype=np.int64)
    frames = (Frame(i, str(i), float(times[i]), Poses.make(xy[i : i + 1], track=track)) for i in range(len(xy)))
    return course.best_poses([frame.poses for frame in process(frames, stages)])


def turning_head(angles: np.ndarray, seed: int = 4, rate: float = 25.0) -> tuple[Film, np.ndarray]:
    """A head that turns, and its landmarks in space.

    Args:
        angles: (T, 3) yaw, pitch and roll, degrees.
        seed: of the individual.
        rate: frames per second.

    Returns:
        the film, and (68, 3) landmarks in the head's axes: x to the viewer's right, y up, z forward.
    """
    rows = [dict(zip(VIEW, row, strict=True)) for row in angles.tolist()]
    clip = film("face", [{"view": row} for row in rows], seed=seed, rate=rate)
    return clip, clip.points[0] @ _view(rows[0])


def moving_arm(
    angles: np.ndarray, view: tuple[float, float, float] = (40.0, 20.0, 0.0), seed: int = 3, rate: float = 12.5
) -> tuple[Film, Arm]:
    """A robot arm that moves, and its geometry and camera.

    Args:
        angles: (T, 4) of ``ARM_JOINTS``, degrees.
        view: yaw, pitch and roll, degrees.
        seed: of the individual.
        rate: frames per second.
    """
    turned = dict(zip(VIEW, view, strict=True))
    rows = [dict(zip(ARM_JOINTS, row, strict=True)) for row in angles.tolist()]
    poses = [{"view": turned, "joints": {**row, "grip": 0.0, "jaw": -20.0}} for row in rows]
    clip = film("arm", poses, seed=seed, rate=rate)
    points = clip.points[0, : len(ARM_JOINTS) + 1]
    return clip, Arm.calibrated(ARM_JOINTS, ARM_AXES, points, angles[0], _view(turned), clip.projection(0))


def _view(angle: Mapping[str, float]) -> np.ndarray:
    """(3, 3) orientation of a body."""
    return turn(z=angle["roll"]) @ turn(x=angle["pitch"]) @ turn(y=angle["yaw"])
