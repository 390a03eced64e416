"""The cells around a centre in which CenterNet's head learns a box and its keypoints, too."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from kplab.errors import ModelError
from kplab.models.heads.base import HeadInputs
from kplab.models.heads.centernet import CenterNetHead
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

#: 40 x 24 cells
SIZE = (160, 96)
SKELETON = Skeleton("two", ("nose", "tail"), (), (0, 1), (0.05, 0.05), "made up")


def head(reach: int) -> CenterNetHead:
    torch.manual_seed(0)
    return CenterNetHead(HeadInputs([8], [4], SIZE, SKELETON), reach=reach)


def around(*centres: tuple[float, float]) -> Poses:
    """Subjects of 16 x 12 px with centres at the given pixels; the second keypoint of the first one is unlabelled."""
    middle, half = np.array(centres), np.array([8, 6])
    xy = middle[:, None] + np.array([[-7.0, -5.0], [7.5, 5.5]])
    xy[0, 1] = math.nan
    return Poses.make(xy, box=np.concatenate([middle - half, middle + half], axis=1))


#: Two near ones, of which cells are shared; one in a corner, where cells are missing; and one alone in its view.
VIEWS = [around((61, 50), (71.9, 46), (151.5, 89)), around((70, 50))]


@pytest.mark.parametrize("reach", [0, 1, 2, 3])
def test_each_cell_learns_the_instance_of_the_nearest_centre(reach: int) -> None:
    """Random outputs against the formula, cell by cell."""
    h = head(reach)
    targets = h.encode(VIEWS, SIZE)
    random = torch.Generator().manual_seed(1)
    outputs = {name: 3 * torch.randn(m.shape, generator=random) for name, m in h.ideal(targets).items()}
    said = {name: m.double().numpy() for name, m in outputs.items()}
    off: dict[str, list[float]] = {name: [] for name in h.points}
    for v, poses in enumerate(VIEWS):
        middle = (poses.box[:, :2] + poses.box[:, 2:]) / 8
        cells = np.floor(middle)
        for i in range(len(poses)):
            for k in np.flatnonzero(poses.labelled[i]):
                x, y = np.floor(poses.xy[i, k] / 4).astype(int)
                off["heatmap_offset"] += list(
                    said["heatmap_offset"][v, k, :, y, x] - poses.xy[i, k] / 4 + [x + 0.5, y + 0.5]
                )
            for y in range(24):
                for x in range(40):
                    far = np.hypot(*(cells - [x, y]).T)
                    if np.abs(cells[i] - [x, y]).max() > reach or far[i] > far.min():
                        continue
                    here = np.array([x + 0.5, y + 0.5])
                    off["size"] += list(said["size"][v, 0, :, y, x] - [4, 3])
                    off["offset"] += list(said["offset"][v, 0, :, y, x] - (middle[i] - here))
                    for k in np.flatnonzero(poses.labelled[i]):
                        off["keypoints"] += list(said["keypoints"][v, k, :, y, x] - (poses.xy[i, k] / 4 - here))
    found = {name: float(value) for name, value in h.loss(outputs, targets).items()}
    for name, values in off.items():
        weight = 0.1 if name == "size" else 1.0
        assert found[name] == pytest.approx(weight * np.abs(values).sum() / (len(values) + 1e-4), rel=1e-5), name


def test_the_published_head_learns_in_the_cell_of_the_centre() -> None:
    assert len(head(0).encode(VIEWS, SIZE)["view"]) == 4
    alone = head(2).encode(VIEWS[1:], SIZE)
    assert len(alone["view"]) == 25
    assert int(alone["central"].sum()) == 1


def test_subjects_in_a_crowd_keep_their_own_centre() -> None:
    """Centres in neighbouring cells: each has its own one, and none is lost."""
    t = head(2).encode([around((50, 50), (54, 50), (58, 50), (54, 54))], SIZE)
    central = t["cell"][t["central"], 0].tolist()
    assert sorted(central) == [[12, 12], [13, 12], [13, 13], [14, 12]]


def test_a_view_without_subjects_has_no_cells() -> None:
    t = head(2).encode([Poses.empty(2)], SIZE)
    assert len(t["view"]) == 0
    assert all(float(v) >= 0 for v in head(2).loss(head(2).ideal(t), t).values())


def test_a_negative_reach_is_refused() -> None:
    with pytest.raises(ModelError, match="reach of at least 0, but got -1"):
        head(-1)
