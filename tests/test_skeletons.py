"""The skeleton files: flip pairs against the names, and names, pairs, edges and sigmas against mmpose."""

import json
import re
from pathlib import Path

import pytest
import yaml

from kplab.structures.skeleton import Skeleton

FOLDER = Path(__file__).resolve().parents[1] / "conf" / "skeleton"
FILES = sorted(FOLDER.glob("*.yaml"))


def load(name: str) -> Skeleton:
    return Skeleton.from_config(yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))


def mirrored(name: str) -> str:
    """The name with left and right exchanged: left_eye, leftear, mouth_left, L_Eye, eyeL, hindlegL4."""
    swap = {"left": "right", "right": "left", "L": "R", "R": "L"}
    pattern = r"^(left|right)|(?<=_)(left|right)$|^[LR](?=_)|(?<=[a-z])([LR])(?=\d?$)"
    return re.sub(pattern, lambda m: swap[m.group()], name)


def test_mirrored_handles_all_naming_styles() -> None:
    names = ["left_eye", "rightear", "eyeL", "hindlegR4", "wing_left", "L_F_Paw", "nose", "root_of_tail", "paw1LH_top"]
    expected = ["right_eye", "leftear", "eyeR", "hindlegL4", "wing_right", "R_F_Paw", *names[6:]]
    assert [mirrored(n) for n in names] == expected


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_flip_is_an_involution_that_swaps_left_and_right_in_the_names(path: Path) -> None:
    skeleton = load(path.stem)
    assert skeleton.name == path.stem
    assert [skeleton.flip[j] for j in skeleton.flip] == list(range(len(skeleton)))
    # points of faces are numbered: their pairs are compared with mmpose's
    if "point17" not in skeleton.keypoints and "face-17" not in skeleton.keypoints:
        assert [skeleton.keypoints[j] for j in skeleton.flip] == [mirrored(n) for n in skeleton.keypoints]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_config_of_a_skeleton_makes_it_again(path: Path) -> None:
    skeleton = load(path.stem)
    assert Skeleton.from_config(yaml.safe_load(yaml.safe_dump(skeleton.as_config()))) == skeleton


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_mirrored_edge_is_an_edge(path: Path) -> None:
    skeleton = load(path.stem)
    edges = {frozenset(e) for e in skeleton.edges}
    assert len(edges) == len(skeleton.edges)
    assert {frozenset(skeleton.flip[j] for j in e) for e in skeleton.edges} == edges


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_keypoint_is_reached_by_an_edge(path: Path) -> None:
    skeleton = load(path.stem)
    if skeleton.edges:
        assert {j for e in skeleton.edges for j in e} == set(range(len(skeleton)))


def test_face_pairs_mirror_the_mean_of_the_outer_corners() -> None:
    """300-W numbers: jaw ends 0-16, outer eye corners 36-45, mouth corners 48-54; the chin and the nose stay."""
    face = load("face68")
    assert (face.flip[0], face.flip[36], face.flip[48], face.flip[8], face.flip[30]) == (16, 45, 54, 8, 30)
    assert sum(i < j for i, j in enumerate(face.flip)) == 29


@pytest.mark.parametrize(
    ("ours", "theirs", "sigmas_of", "same_edges"),
    [
        ("coco17", "coco", "coco", True),
        ("hand21", "onehand10k", "coco_wholebody_hand", True),
        ("face68", "300w", "coco_wholebody_face", False),
        ("ap10k17", "ap10k", "ap10k", True),
        ("mpii16", "mpii", "mpii", True),
        ("crowdpose14", "crowdpose", "crowdpose", True),
        ("wholebody133", "coco_wholebody", "coco_wholebody", False),
        ("animal_pose20", "animalpose", "animalpose", True),
    ],
)
def test_skeletons_equal_those_of_mmpose(
    real_data: Path, ours: str, theirs: str, sigmas_of: str, same_edges: bool
) -> None:
    """Oracle: the dataset definitions of mmpose, order by order; names may be spelled differently."""
    meta = json.loads((real_data / "mmpose_samples" / "keypoint_meta.json").read_text())
    skeleton, names = load(ours), meta[theirs]["keypoints"]
    flip = [names.index(other) if other else i for i, other in enumerate(meta[theirs]["swap"])]
    assert list(skeleton.flip) == flip
    assert list(skeleton.sigmas) == pytest.approx(meta[sigmas_of]["sigmas"])
    if same_edges:
        assert list(skeleton.edges) == [(names.index(a), names.index(b)) for a, b in meta[theirs]["skeleton"]]
    if ours in ("coco17", "mpii16", "wholebody133", "animal_pose20"):
        assert list(skeleton.keypoints) == names


def test_wholebody_has_all_edges_of_mmpose_and_those_of_the_face(real_data: Path) -> None:
    meta = json.loads((real_data / "mmpose_samples" / "keypoint_meta.json").read_text())["coco_wholebody"]
    whole, face = load("wholebody133"), load("face68")
    theirs = [(meta["keypoints"].index(a), meta["keypoints"].index(b)) for a, b in meta["skeleton"]]
    assert list(whole.edges) == theirs + [(a + 23, b + 23) for a, b in face.edges]


def test_horse22_is_horse10_of_mmpose(real_data: Path) -> None:
    meta = json.loads((real_data / "mmpose_samples" / "keypoint_meta.json").read_text())["horse10"]
    horse = load("horse22")
    assert list(horse.keypoints) == meta["keypoints"]
    assert not any(meta["swap"])
    assert horse.flip == tuple(range(22))
    assert [(horse.keypoints[a], horse.keypoints[b]) for a, b in horse.edges] == [tuple(e) for e in meta["skeleton"]]


@pytest.mark.parametrize(
    ("part", "whole"),
    [
        ("wholebody_feet23", "wholebody133"),
        ("wholebody_face68", "wholebody133"),
        ("wholebody_hands42", "wholebody133"),
        ("face51", "face68"),
        ("hand6", "hand21"),
    ],
)
def test_subsets_have_pairs_sigmas_and_edges_of_the_whole(part: str, whole: str) -> None:
    small, large = load(part), load(whole)
    place = [large.index(name) for name in small.keypoints]
    assert [large.flip[i] for i in place] == [place[j] for j in small.flip]
    assert [large.sigmas[i] for i in place] == list(small.sigmas)
    if part != "hand6":  # its tips are joined to the wrist
        kept = {e for e in large.edges if set(e) <= set(place)}
        assert {(place[a], place[b]) for a, b in small.edges} == kept


def test_fly13_is_the_skeleton_of_the_sleap_project(real_data: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(real_data / "sleap_videos" / "clip.slp") as f:
        meta = json.loads(f["metadata"].attrs["json"])
    fly = load("fly13")
    assert list(fly.keypoints) == [n["name"] for n in meta["nodes"]]
    assert sorted(fly.edges) == sorted((e["source"], e["target"]) for e in meta["skeletons"][0]["links"])


def test_lsp14_takes_coco_sigmas_by_name() -> None:
    lsp, coco = load("lsp14"), load("coco17")
    for name in lsp.keypoints[:12]:
        assert lsp.sigmas[lsp.index(name)] == coco.sigmas[coco.index(name)]
    assert "no published" in lsp.sigma_source


@pytest.mark.parametrize(("ours", "theirs"), [("face98", "wflw"), ("zebra9", "zebra")])
def test_skeletons_without_sigmas_of_their_own_have_the_pairs_of_mmpose(
    real_data: Path, ours: str, theirs: str
) -> None:
    meta = json.loads((real_data / "mmpose_samples" / "keypoint_meta.json").read_text())[theirs]
    skeleton, names = load(ours), meta["keypoints"]
    assert list(skeleton.flip) == [names.index(other) if other else i for i, other in enumerate(meta["swap"])]
    assert ours != "zebra9" or list(skeleton.keypoints) == names
