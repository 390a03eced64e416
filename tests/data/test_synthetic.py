"""The renderer against brute force, pycocotools and its promises: exact, repeatable, honest about what is hidden."""

from __future__ import annotations

import errno
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from kplab.errors import DataError
from kplab.structures.skeleton import Skeleton
from kplab.synthetic import generate, render, subjects
from kplab.synthetic import scene as scene_module
from kplab.synthetic.engine import SUPER, Body, Box, Camera, Cone, Ellipsoid, cast, visibility
from kplab.synthetic.figure import Figure, Subject, turn
from kplab.synthetic.paint import Paint

# the module, which the function of the same name hides
generation = importlib.import_module("kplab.synthetic.generate")

SKELETONS = {"person": "coco17", "hand": "hand21", "face": "face68", "quadruped": "ap10k17", "arm": "arm6"}
CONF = Path(__file__).parents[2] / "conf" / "skeleton"
GREY = Paint(np.full(3, 0.5))
SMALL = (96, 96)


def inside(solid: Cone | Ellipsoid | Box, points: np.ndarray) -> np.ndarray:
    """(N,) bool: the definition of each solid, spelled out."""
    if isinstance(solid, Cone):
        t = np.linspace(0, 1, 800)[:, None]
        centres, radii = solid.a + t * (solid.b - solid.a), solid.radius[0] + t * (solid.radius[1] - solid.radius[0])
        return np.array([(((p - centres) ** 2).sum(1) <= radii[:, 0] ** 2).any() for p in points], dtype=bool)
    local = (points - solid.centre) @ solid.frame / np.array(solid.half)
    return (local**2).sum(1) <= 1 if isinstance(solid, Ellipsoid) else np.abs(local).max(1) <= 1


def solids(seed: int) -> list[Cone | Ellipsoid | Box]:
    rng = np.random.default_rng(seed)
    frame = turn(*rng.uniform(-180, 180, 3))
    half = tuple(rng.uniform(3, 12, 3))
    radius = rng.uniform(3, 8, 2)
    a, b = rng.uniform(-8, 8, (2, 3))
    return [Cone(a, b, (radius[0], radius[1]), frame, GREY), Ellipsoid(a, half, frame, GREY), Box(a, half, frame, GREY)]


@pytest.mark.parametrize("kind", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_hit_is_the_nearest_inside_point_found_by_marching_along_the_ray(kind: int, seed: int) -> None:
    solid = solids(seed)[kind]
    x, y = (m.ravel() for m in np.meshgrid(np.arange(-20.0, 20, 6.1), np.arange(-20.0, 20, 6.3)))
    march = np.arange(25, -25, -0.1)
    for u, v, found in zip(x, y, solid.hit(x, y), strict=True):
        ray = inside(solid, np.column_stack([np.full_like(march, u), np.full_like(march, v), march]))
        if np.isfinite(found) and ray.any():
            assert abs(march[ray.argmax()] - found) < 0.11
        else:
            # a ray that grazes the rim may miss by rounding
            assert ray.sum() <= 3


@pytest.mark.parametrize("seed", range(40))
def test_limbs_are_the_hull_of_balls_that_roll_from_end_to_end(seed: int) -> None:
    """Against 4,000 balls: any taper, any tilt, also pointing at the viewer."""
    rng = np.random.default_rng(seed)
    end = rng.normal(0, 1, 3) * [12, 12, 24]
    ra, rb = rng.uniform(2, 10, 2)
    solid = Cone(np.zeros(3), end, (ra, rb), np.eye(3), GREY)
    x, y = (m.ravel() for m in np.meshgrid(np.linspace(-25, 25, 21), np.linspace(-25, 25, 21)))
    t = np.linspace(0, 1, 4000)[:, None]
    h2 = (ra + t * (rb - ra)) ** 2 - (x - t * end[0]) ** 2 - (y - t * end[1]) ** 2
    true = np.where(h2 > 0, t * end[2] + np.sqrt(np.maximum(h2, 0)), -np.inf).max(0)
    z = solid.hit(x, y)
    # where the height changes faster than the balls are dense, or at the rim, the balls are the coarser of the two
    sure = (h2.max(0) > 0.05) & np.isfinite(z)
    assert (np.isfinite(z) | (h2.max(0) < 0.05)).all()
    assert sure.sum() > 5
    np.testing.assert_allclose(z[sure], true[sure], atol=0.08)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_normals_point_out_of_the_surface(kind: int) -> None:
    for seed in range(5):
        solid = solids(seed)[kind]
        x, y = (m.ravel() for m in np.meshgrid(np.arange(-20.0, 20, 2.1), np.arange(-20.0, 20, 2.3)))
        z = solid.hit(x, y)
        surface = np.stack([x, y, z])[:, np.isfinite(z)]
        normal = solid.normal(surface)
        np.testing.assert_allclose(np.linalg.norm(normal, axis=0), 1, atol=1e-6)
        assert not inside(solid, (surface + 0.05 * normal).T).any()
        assert inside(solid, (surface - 0.05 * normal).T).mean() > 0.98


@given(
    st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.floats(1, 500), st.floats(-100, 600), st.floats(2.5, 20),
    st.floats(-1e3, 1e3),
)  # fmt: skip
def test_body_undoes_screen(point: list[float], scale: float, centre: float, distance: float, depth: float) -> None:
    camera = Camera(scale, (centre, -centre), distance, depth)
    there = camera.screen(np.array([point]))
    np.testing.assert_allclose(camera.body(there.T).T, [point], atol=1e-6)
    np.testing.assert_allclose(camera.spot(np.array(point))[:3], there[0], rtol=1e-9, atol=1e-9)


def feature_subject(rng: np.random.Generator) -> Body:
    """A dark board with a small red tile somewhere on it; both face the viewer, so that each is lit evenly."""
    fig = Figure(("tile",))
    fig.box(np.zeros(3), np.eye(3), (1.0, 1.0, 0.1), Paint(np.full(3, 0.02), grain=0, gloss=0))
    spot = np.array([*rng.uniform(-0.8, 0.8, 2), 0.11])
    fig.box(spot, np.eye(3), (0.06, 0.06, 0.02), Paint(np.array([1.0, 0.0, 0.0]), grain=0, gloss=0))
    fig.mark("tile", spot, 0.05)
    return fig.body()


def test_a_small_feature_lies_where_its_keypoint_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scene_module.SUBJECTS, "board", Subject("board", ("tile",), (), feature_subject, (20.0, 30.0)))
    errors = []
    for seed in range(25):
        image, poses, _ = render("board", np.random.default_rng([1, seed]), (128, 128), 1, clean=True)
        x, y = poses.xy[0, 0]
        if poses.visible[0, 0] != 2 or not (12 < x < 116 and 12 < y < 116):
            continue
        c, r = int(x) - 9, int(y) - 9
        patch = image[r : r + 19, c : c + 19].astype(float)
        red = np.clip(patch[..., 0] - patch[..., 1:].max(-1) - 12, 0, None)
        # something in front of the tile changes what is seen of it
        if red.sum() == 0 or (red > 0).sum() < 9:
            continue
        rows, columns = np.mgrid[r : r + 19, c : c + 19] + 0.5
        errors.append([(red * columns).sum() / red.sum() - x, (red * rows).sum() / red.sum() - y])
    assert len(errors) >= 12
    assert np.abs(np.median(errors, axis=0)).max() < 0.05
    assert np.percentile(np.abs(errors), 90) < 0.2


def test_hidden_means_that_something_nearer_is_in_the_way() -> None:
    size, camera = (80, 80), Camera(20.0, (40.0, 40.0), 50.0)
    front, back, right = np.array([0, 0, 0.9]), np.array([0, 0, -0.9]), np.array([1.2, 0, 0.0])
    ball = Ellipsoid(np.zeros(3), (1.0, 1.0, 1.0), np.eye(3), GREY)
    ear = Ellipsoid(right, (0.3, 0.3, 0.3), np.eye(3), GREY)
    gone = np.array([5.0, 0, 0])
    body = Body([ball, ear], 2, np.array([front, back, right, gone]), np.full(4, 0.35))
    fly = Body([Ellipsoid(np.zeros(3), (0.2, 0.2, 0.2), np.eye(3), GREY)], 1, np.zeros((0, 3)), np.zeros(0))

    def seen(fly_at: tuple[float, float], depth: float) -> list[int]:
        pair = [camera, Camera(20.0, fly_at, 50.0, depth)]
        buffers = cast([body, fly], pair, size)
        return visibility(body, camera, 0, buffers)[1].tolist()

    assert seen((0.0, 0.0), 100.0) == [2, 1, 2, 0]
    assert seen((40.0, 40.0), 100.0) == [1, 1, 2, 0]
    assert seen((64.0, 40.0), 100.0) == [2, 1, 1, 0]
    assert seen((64.0, 40.0), -100.0) == [2, 1, 2, 0]


@pytest.mark.parametrize("subject", subjects())
def test_skeletons_agree_with_conf(subject: str) -> None:
    skeleton = Skeleton.from_config(yaml.safe_load((CONF / f"{SKELETONS[subject]}.yaml").read_text()))
    what = scene_module.SUBJECTS[subject]
    assert what.keypoints == skeleton.keypoints
    assert {frozenset(e) for e in what.edges} == {frozenset(e) for e in skeleton.edges}


@pytest.mark.parametrize(
    ("subject", "right", "left", "low", "high", "back", "front"),
    [
        ("person", "right_hip", "left_hip", "left_hip right_hip", "left_shoulder right_shoulder", "left_ear right_ear", "nose"),
        ("person", "right_eye", "left_eye", "left_hip right_hip", "left_ear right_ear", "left_ear right_ear", "nose"),
        ("quadruped", "right_hip", "left_hip", "left_back_paw right_back_paw", "left_hip right_hip", "root_of_tail", "neck"),
        ("quadruped", "right_eye", "left_eye", "nose", "left_eye right_eye", "neck", "nose"),
        ("face", "point36", "point45", "point08", "point27", "point00 point16", "point30"),
    ],
)  # fmt: skip
def test_left_is_the_subjects_left(
    subject: str, right: str, left: str, low: str, high: str, back: str, front: str
) -> None:
    """With left, up and forward as axes, (right to left) . (up x forward) is positive, however the subject is turned."""
    what = scene_module.SUBJECTS[subject]
    for seed in range(30):
        points = what.build(np.random.default_rng(seed)).keypoints
        ends = [
            points[[what.keypoints.index(n) for n in names.split()]].mean(0)
            for names in (right, left, low, high, back, front)
        ]
        across, up, forward = ends[1] - ends[0], ends[3] - ends[2], ends[5] - ends[4]
        assert across @ np.cross(up, forward) > 0


@pytest.mark.parametrize("subject", subjects())
def test_one_subject_of_decent_size_each_in_sight(subject: str) -> None:
    for seed in range(12):
        _, poses, polygons = render(subject, np.random.default_rng([3, seed]), SMALL, 1)
        assert len(poses) == len(polygons) == 1
        assert (poses.box[0, 2:] - poses.box[0, :2]).max() > 0.4 * SMALL[0]
        assert (poses.visible[0] == 2).mean() >= scene_module.SEEN_SHARE


def test_several_subjects_and_every_kind_of_visibility() -> None:
    poses = [render("person", np.random.default_rng([4, i]), SMALL, 3)[1] for i in range(30)]
    assert {len(p) for p in poses} == {1, 2, 3}
    visible = np.concatenate([p.visible for p in poses])
    assert ((visible == 2).mean(1) >= scene_module.SEEN_SHARE).all()
    for kind, low, high in ((2, 0.5, 0.9), (1, 0.1, 0.5), (0, 0.001, 0.2)):
        assert low < (visible == kind).mean() < high


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("sets") / "people", "person", 40, SMALL, seed=7, workers=2)


def test_images_depend_on_seed_and_number_only(small_set: Path, tmp_path: Path) -> None:
    fewer = generate(tmp_path / "fewer", "person", 5, SMALL, seed=7, workers=1)
    some, all_ = (json.loads((f / "annotations.json").read_text()) for f in (fewer, small_set))
    rows = len(some["annotations"])
    assert some["annotations"] == all_["annotations"][:rows]
    assert all_["annotations"][rows]["image_id"] == 6
    for image in some["images"]:
        name = image["file_name"]
        assert (fewer / name).read_bytes() == (small_set / name).read_bytes()
    other = generate(tmp_path / "other", "person", 1, SMALL, seed=8)
    assert (other / "images/000001.jpg").read_bytes() != (fewer / "images/000001.jpg").read_bytes()


def test_files_say_what_render_says_with_positions_counted_from_pixel_centres(small_set: Path) -> None:
    coco = json.loads((small_set / "annotations.json").read_text())
    image, poses, _ = render("person", np.random.default_rng([7, 0]), SMALL, 3)
    rows = [a for a in coco["annotations"] if a["image_id"] == 1]
    assert len(rows) == len(poses)
    for row, xy, v, box in zip(rows, poses.xy, poses.visible, poses.box, strict=True):
        triplets = np.array(row["keypoints"]).reshape(-1, 3)
        np.testing.assert_array_equal(triplets[:, 2], v)
        np.testing.assert_allclose(triplets[v > 0, :2], xy[v > 0] - 0.5, atol=1e-3)
        assert (triplets[v == 0] == 0).all()
        np.testing.assert_allclose(row["bbox"], [*box[:2], *(box[2:] - box[:2])])
    stored = cv2.imread(str(small_set / "images/000001.jpg"))[..., ::-1]
    assert np.abs(stored.astype(int) - image).mean() < 6


def test_pycocotools_reads_masks_that_fit_the_areas_boxes_and_visible_keypoints(small_set: Path) -> None:
    coco = COCO(str(small_set / "annotations.json"))
    ratios = []
    for row in coco.anns.values():
        mask = coco.annToMask(row)
        ratios.append(row["area"] / mask.sum())
        x, y, w, h = cv2.boundingRect(mask)
        left, top, width, height = row["bbox"]
        assert x >= left - 1.01
        assert y >= top - 1.01
        assert x + w <= left + width + 1.01
        assert y + h <= top + height + 1.01
        outline = np.concatenate([np.reshape(p, (-1, 2)) for p in row["segmentation"]])
        np.testing.assert_allclose(
            [*outline.min(0), *outline.max(0)], [left, top, left + width, top + height], atol=0.5
        )
        triplets = np.array(row["keypoints"]).reshape(-1, 3)
        assert row["num_keypoints"] == (triplets[:, 2] > 0).sum()
        pieces = [np.float32(np.reshape(p, (-1, 1, 2))) for p in row["segmentation"]]
        for x, y in triplets[triplets[:, 2] == 2, :2] + 0.5:
            # a keypoint may be seen on a sliver too thin for a mask of whole pixels, so the outlines are asked
            assert max(cv2.pointPolygonTest(piece, (x, y), True) for piece in pieces) > -0.5
    # polygons fill holes, so a mask may be larger than the area, hardly smaller
    assert abs(np.median(ratios) - 1) < 0.03
    assert max(ratios) < 1.15
    category = coco.cats[1]
    assert min(min(e) for e in category["skeleton"]) == 1
    assert len(category["keypoints"]) == 17


def test_a_set_is_made_once_and_never_overwritten(small_set: Path, tmp_path: Path) -> None:
    before = (small_set / "annotations.json").stat().st_mtime_ns
    assert generate(small_set, "person", 40, SMALL, seed=7, workers=1) == small_set
    assert (small_set / "annotations.json").stat().st_mtime_ns == before
    with pytest.raises(DataError, match=r"people.*seed is 7 there, not 9.*Delete that folder"):
        generate(small_set, "person", 40, SMALL, seed=9)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="Choose another folder"):
        generate(tmp_path, "person", 2, SMALL)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_failed_run_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        generate(tmp_path / "set", "arm", 2, SMALL, workers=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [({"subject": "fish"}, "person, hand"), ({"images": 0}, "images >= 1"), ({"max_subjects": 0}, "max_subjects >= 1")],
)
def test_senseless_requests_are_refused(change: dict[str, object], words: str, tmp_path: Path) -> None:
    wish: dict[str, object] = {"subject": "arm", "images": 1, "size": SMALL, "workers": 1, **change}
    with pytest.raises(ValueError, match=words):
        generate(tmp_path / "set", **wish)  # type: ignore[arg-type]


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(subjects()), st.integers(0, 10_000))
def test_labels_lie_where_they_claim(subject: str, seed: int) -> None:
    _, poses, _ = render(subject, np.random.default_rng([5, seed]), (64, 48), 2)
    labelled = poses.xy[poses.labelled]
    assert ((labelled >= 0) & (labelled <= [64, 48])).all()
    assert ((poses.box >= 0) & (poses.box <= [64, 48, 64, 48])).all()
    for xy, v, box in zip(poses.xy, poses.visible, poses.box, strict=True):
        seen = xy[v == 2]
        assert ((seen >= box[:2] - 0.5 / SUPER) & (seen <= box[2:] + 0.5 / SUPER)).all()
    assert (poses.area > 0).all()


def test_what_a_killed_generation_leaves_is_removed_by_the_next(tmp_path: Path) -> None:
    """Folders of processes that live, of other machines and of other programs stay."""
    code = (
        f"from kplab.synthetic import generate; generate({str(tmp_path / 'set')!r}, 'hand', 5000, (96, 96), workers=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    for _ in range(600):
        left = list(tmp_path.glob(".generating-*/set/images/*.jpg"))
        if left:
            break
        time.sleep(0.1)
    process.kill()
    process.wait()
    (abandoned,) = tmp_path.glob(".generating-*")
    kept = [tmp_path / f".generating-{generation._this_process()}-x1", tmp_path / ".generating-0badcafe-99999999-1-x"]
    kept += [tmp_path / ".generating-mine"]
    reused = tmp_path / abandoned.name.replace(f"-{process.pid}-", f"-{os.getpid()}-")  # its number has another process
    for path in (*kept, reused):
        path.mkdir()
    generate(tmp_path / "other", "hand", 1, (96, 96), workers=1)
    assert sorted(tmp_path.glob(".generating-*")) == sorted(kept)
    assert not (tmp_path / "set").exists()


def test_a_damaged_card_is_named(tmp_path: Path) -> None:
    generate(tmp_path / "set", "hand", 1, SMALL, workers=1)
    for content in ("", "[1]", "3"):
        (tmp_path / "set" / "generated.json").write_text(content)
        with pytest.raises(DataError, match=r"generated\.json: cannot be read"):
            generate(tmp_path / "set", "hand", 1, SMALL, workers=1)
