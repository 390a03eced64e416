"""Statistics of a dataset whose labels are known, and their figure."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from kplab.data.sources.files import FileSource
from kplab.data.statistics import statistics
from kplab.errors import DataError
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton
from kplab.tasks.data_actions import stats

SIDES = Skeleton("sides", ("nose", "left", "right"), ((1, 2),), (0, 2, 1), (0.05,) * 3, "made up")


def labelled(xy: np.ndarray, visible: np.ndarray, image_of: list[int], images: int, **more: Any) -> Labels:
    """Labels of images of 40x90 pixels that no test reads."""
    n = len(xy)
    poses = Poses.make(xy, visible, area=np.full(n, 100.0), **more)
    how = {"box_source": "none", "area_source": "none"}
    source = FileSource("nowhere", [f"{i}.png" for i in range(images)])
    size = np.tile([[40, 90]], (images, 1))
    ids = np.arange(1, images + 1)
    return make_labels(SIDES, source, ids, size, None, poses, np.array(image_of), np.arange(1, n + 1), **how)


def test_counts_shares_and_scale() -> None:
    visible = np.array([[2, 2, 1], [2, 1, 0], [2, 0, 0], [0, 0, 0]])
    found = statistics(
        labelled(np.ones((4, 3, 2)), visible, [0, 0, 2, 2], 4, ignore=np.array([0, 0, 0, 1], dtype=bool))
    )
    assert found.counts["images"] == 4
    assert found.counts["images without instances"] == 2
    assert (found.counts["instances"], found.counts["ignored instances"]) == (3, 1)
    assert (found.counts["labelled keypoints"], found.counts["hidden keypoints"]) == (6, 2)
    assert found.counts["complete instances"] == 1
    np.testing.assert_allclose(found.visibility, [[0, 0, 1], [1 / 3, 1 / 3, 1 / 3], [2 / 3, 1 / 3, 0]])
    np.testing.assert_allclose(found.co_occurrence, [[1, 2 / 3, 1 / 3], [1, 1, 1 / 2], [1, 1, 1]])
    assert found.per_image.tolist() == [2, 0, 1, 0]
    assert found.scale.tolist() == [10, 10, 10]
    # the images have 40 * 90 = 60**2 pixels
    np.testing.assert_allclose(found.relative_scale, 1 / 6)


def test_the_spread_of_poses_is_that_of_the_poses() -> None:
    """Keypoints about fixed places with known deviations, at any place and scale of the subject."""
    rng = np.random.default_rng(0)
    n = 4000
    # the extent is fixed by the outer two, so that the centre does not move
    pose = np.array([[0.0, 0.0], [-1.0, -1.0], [1.0, 1.0]])
    xy = np.tile(pose, (n, 1, 1))
    xy[:, 0] += rng.normal(0, 0.1, (n, 2))
    xy = xy * 10 + rng.uniform(0, 1000, (n, 1, 2))
    found = statistics(labelled(xy, np.full((n, 3), 2), [0] * n, 1))
    # two coordinates of standard deviation 0.1; the error of the estimate is 0.7 % (one sigma)
    np.testing.assert_allclose(found.spread, [0.1 * np.sqrt(2), 0, 0], atol=0.004)
    np.testing.assert_allclose(found.poses[:, 1:], np.tile(pose[1:], (2000, 1, 1)), atol=1e-9)


def test_left_and_right() -> None:
    """Twelve instances with both sides, nine with the left only, two with the right only."""
    visible = np.array([[2, 2, 2]] * 12 + [[2, 2, 0]] * 9 + [[2, 0, 2]] * 2)
    xy = np.ones((23, 3, 2))
    xy[:9, 1, 0] = 0.5
    (pair,) = statistics(labelled(xy, visible, [0] * 23, 1)).sides
    assert (pair["first"], pair["second"]) == ("left", "right")
    assert (pair["first_labelled"], pair["second_labelled"]) == (21, 14)
    assert (pair["only_first"], pair["only_second"]) == (9, 2)
    assert pair["first_on_the_left"] == 9 / 12
    # both tails of eleven fair coins
    assert pair["p"] == pytest.approx(2 * binom.cdf(2, 11, 0.5))


def test_labels_without_instances_are_refused() -> None:
    with pytest.raises(DataError, match="no labelled instance among 2"):
        statistics(labelled(np.ones((2, 3, 2)), np.zeros((2, 3)), [0, 1], 2))


def test_the_command_writes_tables_and_a_figure(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """COCO's sample, against a count of its own file."""
    stats.main(["dataset=coco_mini", "split=val", f"out={tmp_path}"])
    said = capsys.readouterr().out
    content = json.loads((tmp_path / "coco_mini-val.json").read_text())
    annotations = real_data / "coco_mini/annotations/person_keypoints_val2017.json"
    people = [a for a in json.loads(annotations.read_text())["annotations"] if not a["iscrowd"]]
    true = [v for a in people if (v := np.array(a["keypoints"]).reshape(-1, 3)[:, 2]).any()]
    assert content["counts"]["instances"] == len(true)
    assert content["counts"]["hidden keypoints"] == int((np.array(true) == 1).sum())
    np.testing.assert_allclose(content["visibility"]["visible"], (np.array(true) == 2).mean(0), atol=1e-4)
    assert f"{len(true)} instances" in said
    assert (tmp_path / "coco_mini-val.png").read_bytes().startswith(b"\x89PNG")
