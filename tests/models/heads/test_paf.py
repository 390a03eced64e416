"""What only the PAF head promises: its parts, its masks, its loss's scale, its layouts, its poses."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kplab.errors import ModelError
from kplab.models.heads.base import HeadInputs
from kplab.models.heads.paf import PafHead, Parts
from kplab.ops import affine
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

ROOT = Path(__file__).resolve().parents[3]
SIZE = (192, 256)
NAN = math.nan
NECK = {"neck": ["left_shoulder", "right_shoulder"]}
#: nose, two shoulders, two hips
BUST = Skeleton(
    "bust",
    ("nose", "left_shoulder", "right_shoulder", "left_hip", "right_hip"),
    ((0, 1), (0, 2), (1, 3), (2, 4)),
    (0, 2, 1, 4, 3),
    (0.05,) * 5,
    "made up",
)
#: pixels; the same limbs of a copy 80 pixels further run clear
PERSON = np.array([[40.0, 20.0], [60.0, 50.0], [22.0, 52.0], [56.0, 100.0], [26.0, 104.0]])
#: the same on the centres of cells
CENTRED = np.round(PERSON / 4) * 4 + 2
FAR = np.array([80.0, 100.0])
STRETCH = np.array([1.1, 1.3])


def skeleton(name: str) -> Skeleton:
    return Skeleton.from_config(yaml.safe_load((ROOT / "conf" / "skeleton" / f"{name}.yaml").read_text()))


def head(of: Skeleton = BUST, **options: object) -> PafHead:
    torch.manual_seed(0)
    return PafHead(HeadInputs([8, 16], [4, 8], SIZE, of), **{"width": 8, **options})  # type: ignore[arg-type]


def scene(*people: np.ndarray, ignore: tuple[int, ...] = ()) -> Poses:
    xy = np.stack(people)
    poses = Poses.make(xy)
    box = poses.extent() + np.array([-4, -4, 4, 4])
    return Poses.make(xy, box=box, ignore=np.isin(np.arange(len(xy)), ignore))


def without(person: np.ndarray, *keypoints: int) -> np.ndarray:
    out = person.copy()
    out[list(keypoints)] = NAN
    return out


# ---------------------------------------------------------------- parts


def test_published_parts_and_limbs_of_coco() -> None:
    """The order of the released COCO model, with the two ear-shoulder limbs redundant."""
    config = yaml.safe_load((ROOT / "conf" / "experiment" / "openpose_people.yaml").read_text())["head"]
    parts = Parts.of(skeleton("coco17"), config["limbs"], config["virtual"])
    assert len(parts.names) == 18
    assert len(parts.limbs) == 19
    assert [parts.names[i] + ">" + parts.names[j] for i, j in np.array(parts.limbs)[list(parts.redundant)]] == [
        "right_shoulder>right_ear",
        "left_shoulder>left_ear",
    ]
    assert [parts.names[i] for i in parts.limbs[0]] == ["neck", "right_shoulder"]


def test_derived_limbs_are_the_edges_tree_first() -> None:
    of = skeleton("coco17")
    parts = Parts.of(of)
    assert {frozenset(limb) for limb in parts.limbs} == {frozenset(e) for e in of.edges}
    assert of.keypoints[parts.limbs[0][0]] == "left_shoulder"
    assert list(parts.redundant) == [False] * 16 + [True] * 3


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "conf" / "skeleton").glob("*.yaml")))
def test_any_skeleton_is_held_or_told_what_it_lacks(name: str) -> None:
    of = skeleton(name)
    a, b = np.array(of.edges).reshape(-1, 2).T
    if connected_components(coo_array((np.ones(len(a)), (a, b)), (len(of), len(of))), directed=False)[0] > 1:
        with pytest.raises(ModelError, match=r"pieces that no limb connects: .*head.limbs"):
            Parts.of(of)
        return
    h = head(of, limb_width=0.6, sigma=0.8)
    xy = np.random.default_rng(0).uniform([4, 4], np.array(SIZE) - 4, (1, len(of), 2))
    (found,) = h.decode(h.ideal(h.encode([Poses.make(xy)], SIZE)))
    assert len(found) == 1
    assert np.abs(found.xy - xy).max() < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limbs": [["nose", "left_shouldr"]]}, "no 'left_shouldr', which head.limbs names. Known: nose"),
        ({"limbs": [["nose", "left_shoulder"], ["nose", "right_shoulder"]]}, "3 pieces"),
        ({"virtual": {"neck": ["left_shoulder"]}}, "'neck' no mirror image"),
        ({"virtual": {"neck": ["chin"]}}, "no 'chin', which head.virtual names"),
        ({"virtual": {"nose": ["left_hip", "right_hip"]}}, "'virtual' names again"),
        (
            {"limbs": [["nose", "left_shoulder"], ["left_shoulder", "right_shoulder"], ["left_shoulder", "left_hip"],
                       ["right_shoulder", "right_hip"]]},
            "limb nose-left_shoulder without its mirror image nose-right_shoulder",
        ),
        ({"layout": "both"}, "joint and paf_first, but got 'both'"),
        ({"layout": "joint", "stages": [4, 2]}, r"two equal numbers.*got \[4, 2\]"),
        ({"stages": [2]}, r"got \[2\]"),
        ({"sigma": 0.1}, "head.sigma >= 0.5"),
        ({"limb_width": 0.0}, "head.limb_width >= 0.5"),
        ({"samples": 1}, "samples >= 2"),
        ({"level": 2}, "reads map 2"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        head(**options)


# ---------------------------------------------------------------- targets


def test_virtual_parts_are_means_and_labelled_only_with_all_their_sources() -> None:
    h = head(virtual=NECK)
    heat = h.encode([scene(PERSON), scene(without(PERSON, 1))], SIZE)["heat"]
    assert heat.shape == (2, 7, 64, 48)
    neck = (PERSON[1] + PERSON[2]) / 2 / 4
    cell = neck.astype(int)
    expected = math.exp(-float(((cell + 0.5 - neck) ** 2).sum()) / 2)
    assert float(heat[0, 5, cell[1], cell[0]]) == pytest.approx(expected, rel=1e-5)
    assert float(heat[1, 5].max()) == 0
    (found,) = h.decode(h.ideal(h.encode([scene(PERSON)], SIZE)))
    assert found.xy.shape == (1, 5, 2)
    assert found.score == pytest.approx([1.0], abs=0.1)


def test_background_and_the_highest_map_make_one() -> None:
    heat = head().encode([scene(PERSON, PERSON + 70)], SIZE)["heat"]
    assert torch.equal(heat[:, -1] + heat[:, :-1].amax(1), torch.ones(1, 64, 48))


def test_ignored_boxes_count_nowhere_and_are_no_positives() -> None:
    h = head()
    other = PERSON + FAR
    targets = h.encode([scene(PERSON, other, ignore=(1,))], SIZE)
    alone = h.encode([scene(PERSON)], SIZE)
    assert torch.equal(targets["heat"], alone["heat"])
    assert torch.equal(targets["paf"], alone["paf"])
    inside = np.s_[:, :, int(120 / 4) : int(200 / 4), int(106 / 4) : int(136 / 4)]
    for name in ("heat_weight", "paf_weight"):
        assert (targets[name][inside] == 0).all()
        assert (targets[name][:, :, :20, :10] == 1).all()
        assert (alone[name] == 1).all()


def test_unlabelled_keypoints_count_nowhere_in_their_own_box() -> None:
    """In the keypoint's channel, those of its limbs and the background's, and in no other; outside the box everywhere."""
    h = head()
    targets = h.encode([scene(without(PERSON, 3), PERSON + FAR)], SIZE)
    middle = (slice(None), int(60 / 4), int(40 / 4))
    assert targets["heat_weight"][0][middle].tolist() == [1, 1, 1, 0, 1, 0]
    names = [{BUST.keypoints[a], BUST.keypoints[b]} for a, b in h.parts.limbs]
    assert targets["paf_weight"][0][middle].tolist() == [float("left_hip" not in limb) for limb in names]
    assert (targets["heat_weight"][0, :, 40:, 30:] == 1).all()


def test_masked_cells_get_no_gradient_and_cost_nothing() -> None:
    h = head()
    targets = h.encode([scene(without(PERSON, 3), PERSON + FAR, ignore=(1,))], SIZE)
    outputs = {key: [t.clone().requires_grad_() for t in value] for key, value in h.ideal(targets).items()}
    random = torch.Generator().manual_seed(0)
    for key, weight in (("heat", targets["heat_weight"]), ("paf", targets["paf_weight"].repeat_interleave(2, 1))):
        with torch.no_grad():
            for out in outputs[key]:
                out += (weight == 0) * torch.randn(out.shape, generator=random)
        assert (weight == 0).any()
    total = torch.stack(list(h.loss(outputs, targets).values())).sum()
    assert float(total.detach()) == 0
    noisy = {key: [(t.detach() + 1).requires_grad_() for t in value] for key, value in outputs.items()}
    torch.stack(list(h.loss(noisy, targets).values())).sum().backward()
    for key, weight in (("heat", targets["heat_weight"]), ("paf", targets["paf_weight"].repeat_interleave(2, 1))):
        for out in noisy[key]:
            assert out.grad is not None
            assert ((out.grad != 0) == (weight != 0)).all()


def test_people_without_boxes_are_masked_in_their_hulls() -> None:
    weight = head().encode([Poses.make(without(PERSON, 3)[None])], SIZE)["heat_weight"]
    assert float(weight[0, 3, 15, 10]) == 0
    assert float(weight[0, 3, 50, 40]) == 1


# ---------------------------------------------------------------- loss and network


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("people", [1, 3])
def test_silence_costs_one_a_branch_and_stage(level: int, people: int) -> None:
    """Whatever the stride and the number of people, besides the background, which costs what it is off by.

    Up to what is cut off Gaussians: one whole person lies on the floor, which is of whole Gaussians.
    """
    h = head(level=level, stages=[3, 2])
    targets = h.encode([scene(*(PERSON + i * np.array([20, 60]) for i in range(people)))], SIZE)
    silent = {key: [torch.zeros_like(t) for t in value] for key, value in h.ideal(targets).items()}
    for maps in silent["heat"]:
        maps[:, -1] = targets["heat"][:, -1]
    losses = h.loss(silent, targets)
    assert sorted(losses) == ["heat_1", "heat_2", "paf_1", "paf_2", "paf_3"]
    assert {k: float(v) for k, v in losses.items()} == pytest.approx(dict.fromkeys(losses, 1.0), rel=1e-3)


def test_every_stage_is_supervised() -> None:
    for options in ({"stages": [2, 2], "layout": "joint"}, {"stages": [2, 2], "layout": "paf_first"}):
        h = head(**options)
        targets = h.encode([scene(PERSON)] * 2, SIZE)
        maps = [torch.randn(2, 8, 64, 48), torch.randn(2, 16, 32, 24)]
        for name, loss in h.loss(h(maps), targets).items():
            h.zero_grad()
            loss.backward(retain_graph=True)
            branch, stage = name.split("_")
            of_stage = list(getattr(h.refine, branch)[int(stage) - 1].parameters())
            assert any((p.grad != 0).any() for p in of_stage if p.grad is not None), name


def test_joint_layout_is_the_published_network() -> None:
    h = head(skeleton("coco17"), layout="joint", stages=[6, 6], width=128, norm=False, virtual=NECK, limbs=published())
    kernels = [m.weight.shape for m in h.refine.paf[1].modules() if isinstance(m, torch.nn.Conv2d)]
    assert kernels == [(128, 185, 7, 7), *[(128, 128, 7, 7)] * 4, (128, 128, 1, 1), (38, 128, 1, 1)]
    first = [m.weight.shape for m in h.refine.heat[0].modules() if isinstance(m, torch.nn.Conv2d)]
    assert first == [*[(128, 128, 3, 3)] * 3, (512, 128, 1, 1), (19, 512, 1, 1)]
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in h.modules())


def test_paf_first_layout_is_the_published_network() -> None:
    h = head(skeleton("coco17"), layout="paf_first", stages=[4, 2], width=128, virtual=NECK, limbs=published())

    def kernels(stage: torch.nn.Module) -> list[tuple[int, ...]]:
        return [tuple(m.weight.shape) for m in stage.modules() if isinstance(m, torch.nn.Conv2d)]

    first, second = kernels(h.refine.paf[0]), kernels(h.refine.paf[1])
    assert first[:4] == [(96, 128, 3, 3), (96, 96, 3, 3), (96, 96, 3, 3), (96, 288, 3, 3)]
    assert first[-2:] == [(256, 288, 1, 1), (38, 256, 1, 1)]
    assert second[:4] == [(128, 128 + 38, 3, 3), (128, 128, 3, 3), (128, 128, 3, 3), (128, 384, 3, 3)]
    assert second[-2:] == [(512, 384, 1, 1), (38, 512, 1, 1)]
    assert len(second) == 5 * 3 + 2
    assert kernels(h.refine.heat[0])[0] == (96, 128 + 38, 3, 3)
    assert kernels(h.refine.heat[1])[0] == (128, 128 + 19 + 38, 3, 3)
    assert any(isinstance(m, torch.nn.PReLU) for m in h.refine.modules())


def published() -> list[list[str]]:
    return yaml.safe_load((ROOT / "conf" / "experiment" / "openpose_people.yaml").read_text())["head"]["limbs"]


def test_it_starts_with_background_everywhere() -> None:
    for layout in ("joint", "paf_first"):
        out = head(layout=layout, stages=[2, 2])([torch.randn(2, 8, 64, 48), torch.randn(2, 16, 32, 24)])
        for maps, fields in zip(out["heat"], out["paf"], strict=True):
            assert (maps[:, -1] - 1).abs().max() < 0.2
            assert maps[:, :-1].abs().max() < 0.2
            assert fields.abs().max() < 0.2


# ---------------------------------------------------------------- poses


def test_score_is_the_share_of_a_perfect_whole_subject() -> None:
    """5 peaks and 4 limbs: halved maps give half the score; a part of a person what it has of nine.

    Up to a thousandth, by which samples between cells may miss the edge of a limb.
    """
    h = head()
    targets = h.encode([scene(CENTRED)], SIZE)
    (whole,) = h.decode(h.ideal(targets))
    assert whole.score == pytest.approx([1.0], abs=1e-3)
    assert whole.keypoint_score == pytest.approx(np.ones((1, 5)), abs=1e-6)
    (half,) = h.decode({key: [t / 2 for t in value] for key, value in h.ideal(targets).items()})
    assert half.score == pytest.approx([0.5], abs=1e-3)
    (part,) = h.decode(h.ideal(h.encode([scene(without(CENTRED, 3, 4))], SIZE)))
    assert part.score == pytest.approx([5 / 9], abs=1e-3)
    assert part.keypoint_score[0, 3:].tolist() == [0, 0]
    assert np.isnan(part.xy[0, 3:]).all()
    (lone,) = h.decode(h.ideal(h.encode([scene(without(CENTRED, 1, 2, 3, 4))], SIZE)))
    assert lone.score == pytest.approx([1 / 9], abs=1e-3)


def test_filters() -> None:
    three = scene(without(CENTRED, 3, 4), CENTRED + FAR)
    for least, number in ((1, 2), (3, 2), (4, 1)):
        h = head(min_keypoints=least)
        (found,) = h.decode(h.ideal(h.encode([three], SIZE)))
        assert len(found) == number
        assert h.representable(three, SIZE).tolist() == [least <= 3, True]
    ideal = h.ideal(h.encode([three], SIZE))
    faint = {key: [t * 0.15 for t in value] for key, value in ideal.items()}
    # 9 times 0.15 over 5 parts, and 5 times 0.15 over 3
    assert len(head(min_score=0.2).decode(faint)[0]) == 2
    assert len(head(min_score=0.26).decode(faint)[0]) == 1
    assert len(head(min_score=0.4).decode(faint)[0]) == 0
    assert len(head(max_poses=1).decode(ideal)[0]) == 1


def test_noise_gives_no_more_poses_than_are_wanted() -> None:
    h = head()
    noise = {"heat": [torch.rand(1, 6, 64, 48)], "paf": [torch.rand(1, 8, 64, 48)]}
    (found,) = h.decode(noise)
    assert 0 < len(found) <= 100
    assert (found.score[:-1] >= found.score[1:]).all()


def test_a_mirrored_scene_gives_mirrored_poses() -> None:
    """Also where a limb is stored as the reverse of its mirror image, here neck-left_hip and right_hip-neck."""
    limbs = [
        ["nose", "neck"],
        ["neck", "left_shoulder"],
        ["right_shoulder", "neck"],
        ["neck", "left_hip"],
        ["right_hip", "neck"],
    ]
    h = head(virtual=NECK, limbs=limbs)
    people = scene(PERSON, PERSON * STRETCH + FAR)
    flipped = people.transform(affine.mirror(SIZE[0])).permute_keypoints(BUST.flip_array)
    plain = h.ideal(h.encode([people], SIZE))
    back = h.unflip(h.ideal(h.encode([flipped], SIZE)))
    for a, b in zip(plain["paf"] + plain["heat"], back["paf"] + back["heat"], strict=True):
        # a cell on the edge of a limb may fall on either side of it by rounding
        assert ((a - b).abs() > 1e-5).float().mean() < 1e-3
    one, two = h.decode(plain)[0], h.decode(back)[0]
    assert len(one) == len(two) == 2
    np.testing.assert_allclose(one.xy[np.argsort(one.xy[:, 0, 0])], two.xy[np.argsort(two.xy[:, 0, 0])], atol=1e-3)


def test_holds_tells_what_decoding_shows() -> None:
    """On random pairs of people, near and far, whole and in part: instances that hold come back exactly."""
    random = np.random.default_rng(3)
    h = head()
    held = spoilt = 0
    for _ in range(150):
        people = [
            without(PERSON, *np.flatnonzero(random.random(5) < 0.15)) + shift
            for shift in random.uniform(0, 110, (2, 2))
        ]
        poses = scene(*people)
        holds = h.representable(poses, SIZE)
        (found,) = h.decode(h.ideal(h.encode([poses], SIZE)))
        for pose, well in enumerate(holds):
            there = poses.labelled[pose]
            off = np.abs(found.xy[:, there] - poses.xy[pose, there]).max((1, 2), initial=0)
            exact = ((off < 0.05) & (np.isfinite(found.xy[..., 0]) == there).all(1)).any()
            held += well
            spoilt += not exact
            assert exact or not well
    assert held > 60
    assert spoilt > 20
