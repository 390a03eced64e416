"""What only the CenterNet head promises: its targets, its losses, which instances it can tell apart, what it ignores."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kplab.errors import ModelError
from kplab.models.heads.base import HeadInputs
from kplab.models.heads.centernet import CenterNetHead
from kplab.ops import affine
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

#: not square, so that a swap of width and height shows; 40 x 24 cells
SIZE = (160, 96)
CELLS = (40, 24)
SKELETON = Skeleton("three", ("nose", "left", "right"), (), (0, 2, 1), (0.05, 0.05, 0.05), "made up")
NAN = (math.nan, math.nan)


def head(size: tuple[int, int] = SIZE, **options: Any) -> CenterNetHead:
    torch.manual_seed(0)
    return CenterNetHead(HeadInputs([8, 16], [4, 8], size, SKELETON), **options)


def person(box: tuple[float, float, float, float], *xy: tuple[float, float], **more: Any) -> Poses:
    return Poses.make(np.array([xy]), box=np.array([box]), area=np.array([1.0]), **more)


#: on the left border, so that 20 px of the box and one keypoint are cut off
CUT = person((-20, 11, 45, 70), (10.2, 20.7), (44.0, 69.9), (-3.0, 30.0))
WHOLE = person((70.5, 20, 130, 90.25), (71, 21), (100, 50), (129, 89))


def crowd(seed: int, count: int = 5, size: tuple[int, int] = SIZE) -> Poses:
    """Instances that overlap, drawn anew until no two need the same cell."""
    random = np.random.default_rng(seed)
    while True:
        start = random.uniform(0, 0.6, (count, 2)) * size
        extent = random.uniform(0.2, 0.4, (count, 2)) * size
        xy = start[:, None] + random.uniform(0, 1, (count, 3, 2)) * extent[:, None]
        found = Poses.make(xy, box=np.concatenate([start, start + extent], 1))
        if head(size, offsets="shared").representable(found, size).all():
            return found


def cost(h: CenterNetHead, outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in h.loss(outputs, targets).items()}


def test_targets_are_the_published_formulas() -> None:
    """In the released code's terms: whole numbers are corners of cells, so that offsets are 0.5 larger than here."""
    h = head()
    t = h.encode([CUT, WHOLE], SIZE)
    boxes = [np.array([0, 11, 45, 70]) / 4, np.array([70.5, 20, 130, 90.25]) / 4]
    # of the clipped box, and not of the whole one
    centres = [np.array([5.625, 10.125]), np.array([25.0625, 13.78125])]
    radii = [3, 4]
    for i, (box, centre) in enumerate(zip(boxes, centres, strict=True)):
        wh = box[2:] - box[:2]
        # the golden rule of the released code, for (15, 12) and (18, 15) cells at overlap 0.7
        b, c = np.ceil(wh).sum(), np.ceil(wh).prod()
        assert int((-1.4 * b + math.sqrt((1.4 * b) ** 2 + 4 * 2.8 * 0.3 * c)) / 2) == radii[i]
        assert int(t["view"][i]) == i
        assert t["size"][i, 0].numpy() == pytest.approx(wh)  # width first
        assert t["cell"][i, 0].tolist() == np.floor(centre).tolist()
        assert t["offset"][i, 0].numpy() + 0.5 == pytest.approx(centre - np.floor(centre))
        points = (CUT, WHOLE)[i].xy[0] / 4
        wanted = np.zeros((4, 24, 40))
        for k, point in enumerate([centre, *points]):
            if i == 0 and k == 3:
                assert not t["labelled"][0, 2]
                continue
            x, y = np.floor(point)
            if k:
                assert t["keypoints"][i, k - 1].numpy() + 0.5 == pytest.approx(point - np.floor(centre), abs=1e-5)
                assert t["heatmap_offset"][i, k - 1].numpy() + 0.5 == pytest.approx(point - [x, y], abs=1e-5)
            for row in range(24):
                for column in range(40):
                    if max(abs(column - x), abs(row - y)) <= radii[i]:
                        sigma = (2 * radii[i] + 1) / 6
                        away = (column - x) ** 2 + (row - y) ** 2
                        wanted[k, row, column] = math.exp(-away / (2 * sigma**2))
        np.testing.assert_allclose(t["heatmap"][i].numpy(), wanted, atol=1e-6)


def test_corrected_radius_makes_narrower_targets() -> None:
    """For (18, 15) cells: 4.49 as released and 1.33 corrected; 9 x 9 and 3 x 3 cells are not 0."""
    for option, cells in (("released", 81), ("corrected", 9)):
        assert int((head(radius=option).encode([WHOLE], SIZE)["heatmap"][0, 0] > 0).sum()) == cells


def test_radius_is_that_of_the_box_rounded_up_to_cells() -> None:
    """10.9 x 10.9 cells: 0.27332 x 11 is 3.007, of which 3; 0.27332 x 10.9 would be 2."""
    square = person((20, 20, 63.6, 63.6), (30, 30), (40, 40), (50, 50))
    assert int((head().encode([square], SIZE)["heatmap"][0, 0] > 0).sum()) == 49


def test_hidden_keypoints_are_trained_like_visible_ones() -> None:
    seen = WHOLE
    hidden = Poses.make(seen.xy, np.ones((1, 3)), box=seen.box)
    a, b = head().encode([seen], SIZE), head().encode([hidden], SIZE)
    assert all(torch.equal(a[name], b[name]) for name in a)
    only = Poses.make(seen.xy, np.array([[0, 1, 0]]), box=seen.box)
    assert head().encode([only], SIZE)["labelled"].tolist() == [[False, True, False]]


def test_overlapping_gaussians_take_the_highest_and_are_not_added() -> None:
    near = [person((20, 20, 80, 80), (30, 30), (50, 50), (60, 60)), person((28, 20, 88, 80), (38, 30), (58, 50), NAN)]
    h = head()
    both = h.encode([Poses.concat(near)], SIZE)["heatmap"]
    each = [h.encode([p], SIZE)["heatmap"] for p in near]
    assert torch.equal(both, torch.maximum(*each))
    assert (both == 1).sum((0, 2, 3)).tolist() == [2, 2, 2, 1]


def test_loss_is_the_formula_instance_by_instance() -> None:
    """Random outputs; an instance shared with nobody, one with an unlabelled keypoint, and a view without any."""
    h = head()
    views = [CUT, WHOLE, Poses.empty(3)]
    targets = h.encode(views, SIZE)
    random = torch.Generator().manual_seed(2)
    ideal = h.ideal(targets)
    outputs = {name: 3 * torch.randn(m.shape, generator=random) for name, m in ideal.items()}
    said = {name: m.double().numpy() for name, m in outputs.items()}
    off: dict[str, list[float]] = {name: [] for name in h.points}
    boxes = [np.array([0, 11, 45, 70]) / 4, np.array([70.5, 20, 130, 90.25]) / 4]
    for i, box in enumerate(boxes):
        middle = (box[:2] + box[2:]) / 2
        x, y = np.floor(middle).astype(int)
        off["size"] += list(said["size"][i, 0, :, y, x] - (box[2:] - box[:2]))
        off["offset"] += list(said["offset"][i, 0, :, y, x] - (middle - [x + 0.5, y + 0.5]))
        for k, point in enumerate(views[i].xy[0] / 4):
            if (i, k) == (0, 2):
                continue
            off["keypoints"] += list(said["keypoints"][i, k, :, y, x] - (point - [x + 0.5, y + 0.5]))
            u, v = np.floor(point).astype(int)
            off["heatmap_offset"] += list(said["heatmap_offset"][i, k, :, v, u] - (point - [u + 0.5, v + 0.5]))
    weight = {"size": 0.1, "offset": 1.0, "keypoints": 1.0, "heatmap_offset": 1.0}
    assert [len(v) for v in off.values()] == [4, 4, 10, 10]
    found = cost(h, outputs, targets)
    for name, values in off.items():
        wanted = weight[name] * np.abs(values).sum() / (len(values) + 1e-4)
        assert found[name] == pytest.approx(wanted, rel=1e-5)
    t, counted = targets["heatmap"].double().numpy(), targets["counted"].numpy()
    for name, part in (("centre", np.s_[:, :1]), ("heatmap", np.s_[:, 1:])):
        p = np.clip(1 / (1 + np.exp(-said[name])), 1e-4, 1 - 1e-4)
        one = t[part] == 1
        terms = np.where(one, (1 - p) ** 2 * np.log(p), (1 - t[part]) ** 4 * p**2 * np.log(1 - p))
        assert found[name] == pytest.approx(-terms[counted[part]].sum() / one.sum(), rel=1e-4)
    scaled = head(size_weight=0.2, offset_weight=3.0, keypoint_weight=5.0, heatmap_weight=7.0)
    factors = {"centre": 1, "size": 2, "offset": 3, "heatmap_offset": 3, "keypoints": 5, "heatmap": 7}
    for name, value in cost(scaled, outputs, targets).items():
        assert value == pytest.approx(factors[name] * found[name], rel=1e-6)


def test_offsets_are_asked_for_in_their_cells_only() -> None:
    h = head()
    targets = h.encode([WHOLE], SIZE)
    ideal = h.ideal(targets)
    before = cost(h, ideal, targets)
    cells = {name: h._places(name, targets) for name in h.points}
    for name in h.points:
        view, channel, row, column, _ = cells[name]
        elsewhere = torch.full_like(ideal[name], 100.0)
        elsewhere[view, channel, :, row, column] = ideal[name][view, channel, :, row, column]
        assert cost(h, {**ideal, name: elsewhere}, targets) == before
        there = ideal[name].clone()
        there[view, channel, :, row, column] += 1
        assert cost(h, {**ideal, name: there}, targets)[name] == pytest.approx(0.1 if name == "size" else 1, rel=1e-3)


@pytest.mark.parametrize("reach", [0, 2])
@pytest.mark.parametrize("offsets", ["per_keypoint", "shared"])
@pytest.mark.parametrize("seed", range(5))
def test_crowds_come_back_exactly(offsets: str, seed: int, reach: int) -> None:
    """Boxes and keypoints to 1e-3 px (float32 cells times the stride), as many instances as there are, and no more."""
    h = head((256, 128), offsets=offsets, reach=reach)
    views = [crowd(seed, 6, (256, 128)), crowd(seed + 100, 3, (256, 128))]
    for found, true in zip(h.decode(h.ideal(h.encode(views, (256, 128)))), views, strict=True):
        assert len(found) == len(true)
        order = [int(np.abs(found.box - box).sum(1).argmin()) for box in true.box]
        assert sorted(order) == list(range(len(true)))
        np.testing.assert_allclose(found.box[order], true.box, atol=1e-3)
        np.testing.assert_allclose(found.xy[order], true.xy, atol=1e-3)
        assert (found.score > 0.999).all()
        assert (found.keypoint_score > 0.999).all()


def test_without_offsets_everything_is_within_half_a_cell() -> None:
    h = head()
    true = crowd(3)
    ideal = h.ideal(h.encode([true], SIZE))
    still = {name: torch.zeros_like(m) if "offset" in name else m for name, m in ideal.items()}
    found = h.decode(still)[0]
    middle = (found.box[:, :2] + found.box[:, 2:]) / 2
    order = [int(np.abs(middle - (b[:2] + b[2:]) / 2).sum(1).argmin()) for b in true.box]
    off = np.abs(found.xy[order] - true.xy)
    assert off.max() <= 2 + 1e-4
    assert off.max() > 1  # so that snapping, and no regressed keypoint, was looked at
    assert np.abs(middle[order] - (true.box[:, :2] + true.box[:, 2:]) / 2).max() <= 2 + 1e-4


def test_shared_offsets_err_where_two_keypoints_share_a_cell() -> None:
    """Both are snapped to the mean of the two; with offsets of their own both are exact."""
    pose = person((20, 20, 80, 80), (40.4, 40.4), (43.6, 43.6), (60, 60))
    found = {}
    for offsets in ("shared", "per_keypoint"):
        h = head(offsets=offsets)
        found[offsets] = h.decode(h.ideal(h.encode([pose], SIZE)))[0].xy[0]
        assert h.representable(pose, SIZE).tolist() == [offsets == "per_keypoint"]
    np.testing.assert_allclose(found["shared"], [[42, 42], [42, 42], [60, 60]], atol=1e-4)
    np.testing.assert_allclose(found["per_keypoint"], pose.xy[0], atol=1e-4)


def test_instances_whose_centres_share_a_cell_are_one() -> None:
    inner, outer = person((40, 30, 60, 50), (45, 35), (55, 45), NAN), person((30, 20, 71, 61), (35, 25), (66, 56), NAN)
    both = Poses.concat([inner, outer, WHOLE])
    assert head().representable(both, SIZE).tolist() == [False, False, True]
    assert head().representable(both[[0, 2]], SIZE).tolist() == [True, True]
    h = head()
    assert len(h.decode(h.ideal(h.encode([both], SIZE)))[0]) == 2


def test_mirrored_targets_are_the_mirrored_outputs() -> None:
    """Every map, cell by cell: offsets negated, keypoints renamed; to the rounding of float32 in tens of cells."""
    for offsets, reach in (("per_keypoint", 0), ("shared", 0), ("per_keypoint", 2)):
        h = head(offsets=offsets, reach=reach)
        true = crowd(8)
        ahead = h.ideal(h.encode([true], SIZE))
        mirror = true.transform(affine.mirror(SIZE[0])).permute_keypoints(SKELETON.flip_array)
        back = h.unflip(h.ideal(h.encode([mirror], SIZE)))
        for name, m in ahead.items():
            np.testing.assert_allclose(back[name].numpy(), m.numpy(), atol=2e-5, err_msg=name)


def logits(shape: tuple[int, ...], low: float = -9.0) -> Tensor:
    return torch.full(shape, low)


def outputs_of(**changed: dict[tuple[Any, ...], float]) -> dict[str, Tensor]:
    """Outputs that say nothing but what is given: {name: {index: value}}."""
    w, h = CELLS
    maps = {"centre": logits((1, 1, h, w)), "heatmap": logits((1, 3, h, w))}
    maps |= {
        n: torch.zeros(1, c, 2, h, w) for n, c in (("size", 1), ("offset", 1), ("keypoints", 3), ("heatmap_offset", 3))
    }
    for name, values in changed.items():
        for index, value in values.items():
            maps[name][(0, *index)] = value
    return maps


def test_predicted_boxes_reach_beyond_the_view() -> None:
    said = outputs_of(centre={(0, 5, 2): 3.0}, size={(0, 0, 5, 2): 20.0, (0, 1, 5, 2): 6.0})
    (found,) = head().decode(said)
    np.testing.assert_allclose(found.box, [[4 * 2.5 - 40, 4 * 5.5 - 12, 4 * 2.5 + 40, 4 * 5.5 + 12]])
    assert found.score == pytest.approx([1 / (1 + math.exp(-3))])


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_scores_of_keypoints_and_the_threshold_on_peaks() -> None:
    """Keypoint 0 has a good peak beside the guess, 1 a weak one in its cell, 2 none."""
    said = outputs_of(
        centre={(0, 10, 10): logit(0.8)},
        size={(0, ..., 10, 10): 12.0},
        keypoints={(0, 0, 10, 10): 2.0, (1, 1, 10, 10): 3.0, (2, 1, 10, 10): -3.0},
        heatmap={(0, 10, 13): logit(0.6), (1, 13, 10): logit(0.09)},
        heatmap_offset={(0, 0, 10, 13): 0.25, (1, 0, 13, 10): 0.25},
    )
    (found,) = head().decode(said)
    np.testing.assert_allclose(found.xy[0], [[13.75 * 4, 42], [42, 13.5 * 4], [42, 7.5 * 4]])
    nothing = 0.8 / (1 + math.exp(9))
    assert found.keypoint_score[0] == pytest.approx([0.6, 0.8 * 0.09, nothing], rel=1e-4)
    lower = head(snap_score=0.05).decode(said)[0]
    np.testing.assert_allclose(lower.xy[0, 1], [10.75 * 4, 13.5 * 4])
    assert lower.keypoint_score[0, 1] == pytest.approx(0.09, rel=1e-4)
    # 3.25 cells away from the guess at 12.5, in a box of 12 cells
    assert head(snap_reach=0.1).decode(said)[0].xy[0, 0].tolist() == [50, 42]


def test_guesses_far_outside_are_kept_and_doubted() -> None:
    said = outputs_of(centre={(0, 10, 10): 4.0}, keypoints={(..., 0, 10, 10): 1e6})
    (found,) = head().decode(said)
    assert np.isfinite(found.xy).all()
    assert (found.keypoint_score < 1e-3).all()


def test_most_and_least_of_what_is_decoded() -> None:
    peaks = {(0, 2 * i, 2 * j): logit(0.011 + 0.001 * (9 * i + j)) for i in range(8) for j in range(9)}
    said = outputs_of(centre=peaks)
    assert len(head().decode(said)[0]) == 72
    assert head(max_poses=5).decode(said)[0].score == pytest.approx(0.011 + 0.001 * np.arange(71, 66, -1), rel=1e-4)
    assert len(head(min_score=0.0505).decode(said)[0]) == 32


def test_ignored_instances_are_neither_positive_nor_negative() -> None:
    """A crowd's box of 60..110 x 20..60 px: cells 15..27 and 5..15, of which one holds another's centre."""
    h = head()
    mass = person((60, 20, 110, 60), NAN, NAN, NAN, ignore=np.array([True]))
    among = person((70, 30, 100, 50), (75, 35), (85, 40), (95, 45))
    alone = h.encode([mass], SIZE)
    assert (alone["heatmap"] == 0).all()
    assert len(alone["view"]) == 0
    wanted = torch.ones(4, 24, 40, dtype=torch.bool)
    wanted[:, 5:16, 15:28] = False
    assert torch.equal(alone["counted"][0], wanted)
    said = outputs_of(centre={(0, 10, 20): 5.0}, heatmap={(..., 6, 16): 5.0})
    silent = outputs_of()
    assert cost(h, said, alone) == cost(h, silent, alone)
    outside = outputs_of(centre={(0, 16, 20): 5.0}, heatmap={(..., 6, 14): 5.0})
    assert all(cost(h, outside, alone)[name] > cost(h, silent, alone)[name] + 1 for name in ("centre", "heatmap"))
    both = h.encode([Poses.concat([mass, among])], SIZE)
    positive = both["heatmap"][0] == 1
    assert positive.sum((1, 2)).tolist() == [1, 1, 1, 1]
    assert torch.equal(both["counted"][0], wanted | positive)


def test_unlabelled_keypoints_are_free_in_the_box_and_as_far_as_their_gaussian_reaches() -> None:
    """Box of cells 10..20 x 5..15 (its far border is in cells 20 and 15), radius 2 of (10, 10) cells."""
    h = head()
    pose = person((40, 20, 80, 60), (50, 30), (70, 50), NAN)
    counted = h.encode([pose], SIZE)["counted"][0]
    wanted = torch.ones(4, 24, 40, dtype=torch.bool)
    wanted[3, 3:18, 8:23] = False
    assert torch.equal(counted, wanted)
    other = person((60, 20, 120, 60), NAN, NAN, (70, 40))
    both = h.encode([Poses.concat([pose, other])], SIZE)
    assert both["counted"][0, 3, 10, 17]
    assert both["heatmap"][0, 3, 10, 17] == 1
    assert not both["counted"][0, 3, 10, 16]


def test_where_there_is_no_box_the_hull_of_keypoints_stands_in() -> None:
    bare = Poses.make(np.array([[(40.0, 20.0), (80.0, 60.0), NAN]]))
    (found,) = head().decode(head().ideal(head().encode([bare], SIZE)))
    np.testing.assert_allclose(found.box, [[36, 16, 84, 64]], atol=1e-4)


def test_padded_hulls_are_clipped_to_the_view() -> None:
    bare = Poses.make(np.array([[(2.0, 20.0), (158.0, 60.0), NAN]]))
    (found,) = head().decode(head().ideal(head().encode([bare], SIZE)))
    np.testing.assert_allclose(found.box, [[0, 4.4, 160, 75.6]], atol=1e-4)


def test_unlabelled_keypoints_are_free_in_the_annotated_box_also_where_another_is_trained_on() -> None:
    """A hull of 56..84 x 36..64 px, padded, in a box of cells 10..30 x 5..20; radius 1 of (7, 7) cells."""
    pose = person((40, 20, 120, 80), (60, 40), (80, 60), NAN)
    t = head(boxes="keypoints").encode([pose], SIZE)
    assert t["size"][0, 0].tolist() == [7, 7]
    wanted = torch.ones(24, 40, dtype=torch.bool)
    wanted[4:22, 9:32] = False
    assert torch.equal(t["counted"][0, 3], wanted)


def test_boxes_of_keypoints_stay_tight_in_turned_views() -> None:
    """A bar of 80 px, upright; turned by 45 degrees its annotated box of 88 x 10 grows to 69 x 69, its hull to 57."""
    bar = person((36, 43, 124, 53), (40, 48), (80, 48), (120, 48))
    to_middle = affine.translation(80, 48) @ affine.rotation(45) @ affine.translation(-80, -48)
    turned = bar.transform(to_middle)
    sides = {}
    for boxes in ("annotated", "keypoints"):
        t = head(boxes=boxes).encode([turned], SIZE)
        sides[boxes] = 4 * t["size"][0, 0].numpy()
        # either way the centre is the bar's
        centre = 4 * (t["cell"][0, 0].numpy() + 0.5 + t["offset"][0, 0].numpy())
        assert centre == pytest.approx([80, 48], abs=1e-4)
    assert sides["annotated"] == pytest.approx([98 / math.sqrt(2)] * 2, rel=1e-5)
    assert sides["keypoints"] == pytest.approx([80 / math.sqrt(2) * 1.2] * 2, rel=1e-5)


def test_heatmaps_start_at_a_tenth_and_offsets_at_nothing() -> None:
    h = head()
    said = h([torch.zeros(1, 8, 24, 40), torch.zeros(1, 16, 12, 20)])
    for name in ("centre", "heatmap"):
        assert float(h.branches[name].last.bias[0]) == pytest.approx(-2.19, abs=0.01)
        assert float(said[name].sigmoid().mean()) == pytest.approx(0.1, abs=0.03)
    assert all(float(said[name].abs().max()) < 0.01 for name in h.points)


def test_offsets_keep_their_precision_in_mixed_precision() -> None:
    """bfloat16 would round the 40.3 cells to 40.25."""
    h = head()
    torch.nn.init.constant_(h.branches["keypoints"].last.bias, 40.3)
    torch.nn.init.zeros_(h.branches["keypoints"].last.weight)
    with torch.autocast("cpu", torch.bfloat16):
        said = h([torch.randn(1, 8, 24, 40), torch.randn(1, 16, 12, 20)])
    assert said["keypoints"].dtype == torch.float32
    assert said["keypoints"].detach().numpy() == pytest.approx(40.3, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": "true"}, "radius released and corrected, but got 'true'"),
        ({"boxes": "hull"}, "boxes annotated and keypoints, but got 'hull'"),
        ({"offsets": "both"}, "offsets per_keypoint and shared, but got 'both'"),
        ({"hidden": 0}, "hidden and max_poses of at least 1, but got 0 and 100"),
        ({"overlap": 1.0}, "overlap between 0 and 1, but got 1.0"),
        ({"level": 2}, "Change head.level"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        head(**options)
