"""Split manifests: nothing in two parts, the same on every machine, and edited manifests are refused."""

import hashlib
import json
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kplab.data.sources.files import FileSource
from kplab.data.split import Manifest, hold_out, make_split, read_manifest, split, write_manifest
from kplab.errors import DataError
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

ONE = Skeleton("one", ("a",), (), (0,), (0.05,), "made up")


def dataset(folder: Path, groups: list[str] | None = None, names: list[str] | None = None, copies: int = 0) -> Labels:
    """Files of distinct bytes, but for the last ``copies``, which repeat the first ones; one instance an image."""
    names = names or [f"img{i}.bin" for i in range(len(groups or []))]
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        same = i - (len(names) - copies)
        (folder / name).write_bytes(b"x" * 70000 + bytes([same if same >= 0 else i]))
    n = len(names)
    poses = Poses.make(np.arange(2 * n, dtype=float).reshape(n, 1, 2))
    how = {"box_source": "none", "area_source": "none"}
    ids = np.arange(1, n + 1)
    size = np.full((n, 2), 9)
    return make_labels(ONE, FileSource(folder, names), ids, size, groups, poses, np.arange(n), ids, **how)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(0, 7), min_size=6, max_size=40),
    st.sampled_from([{"train": 0.8, "test": 0.2}, {"a": 0.5, "b": 0.25, "c": 0.25}]),
    st.integers(0, 5),
    st.integers(0, 3),
)
def test_groups_and_copies_stay_together(
    tmp_path_factory: pytest.TempPathFactory, groups: list[int], shares: dict[str, float], seed: int, copies: int
) -> None:
    labels = dataset(tmp_path_factory.mktemp("split"), [f"g{g}" for g in groups], copies=copies)
    try:
        parts = make_split(labels, shares, "group", seed)
    except DataError as error:
        assert "groups that can be separated" in str(error)  # noqa: PT017
        return
    part_of = {f: name for name, files in parts.items() for f in files}
    assert len(part_of) == sum(map(len, parts.values())) == len(labels), "each image in one part and no more"
    assert set(part_of) == set(labels.names)
    assert all(parts.values())
    for g in set(groups):
        assert len({part_of[f"img{i}.bin"] for i, other in enumerate(groups) if other == g}) == 1
    for k in range(copies):
        assert part_of[f"img{k}.bin"] == part_of[f"img{len(groups) - copies + k}.bin"]


def test_the_order_is_that_of_the_hash_and_nothing_else(tmp_path: Path) -> None:
    """Oracle: ten groups of one image, in halves: dealing in turn puts every second of the hashed order on one side."""
    names = [f"img{i}.bin" for i in range(10)]
    ordered = sorted(names, key=lambda n: hashlib.sha256(f"3:{n}".encode()).hexdigest())
    parts = make_split(dataset(tmp_path, names=names), {"a": 0.5, "b": 0.5}, "image", 3)
    assert parts == {"a": sorted(ordered[0::2]), "b": sorted(ordered[1::2])}
    random.Random(1).shuffle(names)
    again = dataset(tmp_path / "shuffled", names=names)
    for i, name in enumerate(sorted(names)):
        (again.source.root / name).write_bytes(bytes([i]))
    assert make_split(again, {"a": 0.5, "b": 0.5}, "image", 3) == parts, "the order of the files does not matter"


def test_shares_are_kept_by_image(tmp_path: Path) -> None:
    parts = make_split(
        dataset(tmp_path, names=[f"{i}.bin" for i in range(100)]), {"x": 0.7, "y": 0.2, "z": 0.1}, "image"
    )
    assert [len(f) for f in parts.values()] == [70, 20, 10]


def test_folds_cover_the_dataset_once(tmp_path: Path) -> None:
    labels = dataset(tmp_path, [f"g{i // 3}" for i in range(30)])
    path = tmp_path / "five.json"
    seen: list[str] = []
    for fold in range(5):
        parts = split(labels, path, by="group", folds=5, fold=fold)
        train, test = set(parts["train"].names), set(parts["test"].names)
        assert not train & test
        assert train | test == set(labels.names)
        assert len(test) == 6
        seen += test
    assert sorted(seen) == sorted(labels.names)
    assert sorted(split(labels, path, by="group", folds=5)) == [f"fold{i}" for i in range(5)]


def test_parts_are_selections_with_their_own_poses(tmp_path: Path) -> None:
    labels = dataset(tmp_path, names=[f"{i}.bin" for i in range(10)])
    for part in split(labels, tmp_path / "s.json", {"train": 0.8, "test": 0.2}, "image").values():
        for i, name in enumerate(part.names):
            np.testing.assert_array_equal(part.poses_of(i).xy, labels.poses_of(int(name[:-4])).xy)
        assert list(part.image_id) == sorted(part.image_id)


def test_a_manifest_is_made_once_and_then_kept(tmp_path: Path) -> None:
    labels = dataset(tmp_path, [f"g{i}" for i in range(10)])
    path = tmp_path / "splits" / "s.json"
    first = split(labels, path, {"train": 0.5, "test": 0.5}, seed=1)
    text = path.read_text()
    again = split(labels, path, {"train": 0.5, "test": 0.5}, seed=1)
    assert path.read_text() == text
    assert {k: list(v.names) for k, v in first.items()} == {k: list(v.names) for k, v in again.items()}
    with pytest.raises(DataError, match="made with other parameters: seed is 1, asked for 2"):
        split(labels, path, {"train": 0.5, "test": 0.5}, seed=2)
    with pytest.raises(DataError, match=r"fractions is .* asked for"):
        split(labels, path, {"train": 0.6, "test": 0.4}, seed=1)
    with pytest.raises(DataError, match="folds is None, asked for 5"):
        split(labels, path, {"train": 0.5, "test": 0.5}, seed=1, folds=5)


def test_frames_of_a_video_are_cut_in_blocks_with_a_gap(tmp_path: Path) -> None:
    names = [f"{v}_{i}.bin" for v in "ab" for i in range(50)]
    labels = dataset(tmp_path, [n[0] for n in names], names)
    path = tmp_path / "t.json"
    parts = split(labels, path, {"train": 0.6, "val": 0.2, "test": 0.2}, by="time", gap=3)
    for video in "ab":
        frames = {k: sorted(int(n[2:-4]) for n in p.names if n[0] == video) for k, p in parts.items()}
        assert frames == {"train": list(range(30)), "val": list(range(33, 40)), "test": list(range(43, 50))}
        assert all(b - a == 1 for rows in frames.values() for a, b in pairwise(rows))
    assert len(read_manifest(path, labels).dropped) == 12


def test_time_drops_copies_on_the_other_side(tmp_path: Path) -> None:
    names = [f"{i}.bin" for i in range(20)]
    labels = dataset(tmp_path, names=names, copies=2)
    parts = make_split(labels, {"train": 0.5, "test": 0.5}, by="time")
    assert parts["train"] == sorted(names[:10])
    assert parts["test"] == sorted(names[10:18])


def written(tmp_path: Path) -> tuple[Labels, Path]:
    labels = dataset(tmp_path, [f"g{i // 2}" for i in range(12)])
    shares = {"train": 0.5, "test": 0.5}
    path = tmp_path / "m.json"
    write_manifest(path, labels, make_split(labels, shares), shares, "group", 0)
    return labels, path


def test_an_edited_manifest_is_refused(tmp_path: Path) -> None:
    labels, path = written(tmp_path)
    content = json.loads(path.read_text())
    moved = content["parts"]["test"].pop()
    content["parts"]["train"].append(moved)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="edited by hand"):
        read_manifest(path, labels)
    path.write_text("[]")
    with pytest.raises(DataError, match=r"m\.json: not a split manifest"):
        read_manifest(path, labels)


def test_a_manifest_must_fit_the_dataset(tmp_path: Path) -> None:
    labels, path = written(tmp_path)
    with pytest.raises(DataError, match="files that are not in the dataset"):
        read_manifest(path, labels.select(list(range(11))))
    fewer = labels.select(list(range(10)))
    write_manifest(path, fewer, make_split(fewer, {"a": 0.5, "b": 0.5}), {"a": 0.5, "b": 0.5}, "group", 0)
    with pytest.raises(DataError, match=r"2 images of the dataset are in no part: img10.bin, img11.bin"):
        read_manifest(path, labels)
    labels, path = written(tmp_path / "again")
    labels.group[:] = "all one"
    with pytest.raises(DataError, match="groups are in several parts: all one"):
        read_manifest(path, labels)


def test_parts_that_overlap_or_are_empty_are_not_written(tmp_path: Path) -> None:
    labels = dataset(tmp_path, ["a", "b"])
    with pytest.raises(DataError, match=r"in two parts: img0\.bin"):
        write_manifest(tmp_path / "m.json", labels, {"x": ["img0.bin"], "y": ["img0.bin"]}, {}, "image", 0)
    with pytest.raises(DataError, match="part 'y' is empty"):
        write_manifest(tmp_path / "m.json", labels, {"x": ["img0.bin", "img1.bin"], "y": []}, {}, "image", 0)
    assert not (tmp_path / "m.json").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"by": "group"},
            "1 groups that can be separated, but 2 parts: train, test. Use by=time with a gap, or by=image",
        ),
        ({"by": "group", "folds": 5}, "1 groups that can be separated, but 5 parts"),
        ({"by": "image", "folds": 9}, "6 images that can be separated, but 9 parts"),
        ({"by": "colour"}, "by='colour' is unknown"),
        ({"by": "subject"}, "by=subject, but no instance has a track"),
        ({"by": "image", "gap": 2}, "gap=2 with by=image"),
        ({"by": "time", "gap": 3}, "leave none for part 'test' with gap=3"),
        ({"by": "image", "folds": 1}, "folds=1: expected 2 or more"),
        ({"by": "image", "fractions": {"train": 0.5, "test": 0.4}}, "add up to 1"),
        ({"by": "image", "fractions": {"train": 1.0, "test": 0.0}}, "add up to 1"),
        ({"by": "image", "fractions": None}, "expected two parts or more"),
    ],
)
def test_impossible_parameters_are_reported(tmp_path: Path, options: dict, words: str) -> None:
    labels = dataset(tmp_path, ["one video"] * 6)
    with pytest.raises(DataError, match=words):
        make_split(labels, **{"fractions": {"train": 0.8, "test": 0.2}, **options})


def test_a_fold_must_exist_and_images_too(tmp_path: Path) -> None:
    labels = dataset(tmp_path, [f"g{i}" for i in range(6)])
    with pytest.raises(DataError, match="fold=5, but folds=5"):
        split(labels, tmp_path / "m.json", folds=5, fold=5)
    (tmp_path / "img3.bin").unlink()
    with pytest.raises(DataError, match=r"img3\.bin: no such image"):
        split(labels, tmp_path / "m.json", folds=5)


def test_the_openfield_mouse_is_one_video(real_data: Path, tmp_path: Path) -> None:
    from kplab.data.formats import dlc

    names = ("snout", "leftear", "rightear", "tailbase")
    mouse = Skeleton("mouse4", names, (), (0, 2, 1, 3), (0.025,) * 4, "made up")
    labels = dlc.read(real_data / "dlc_openfield_mouse", mouse)
    with pytest.raises(DataError, match="1 groups that can be separated"):
        split(labels, tmp_path / "m.json", {"train": 0.95, "test": 0.05})
    parts = split(labels, tmp_path / "m.json", {"train": 0.95, "test": 0.05}, by="image")
    assert (len(parts["train"]), len(parts["test"])) == (110, 6), "as DeepLabCut's own 95/5 split"


def test_a_split_by_group_needs_groups(tmp_path: Path) -> None:
    """Otherwise frames of one video would be on both sides; a manifest of that kind is refused as well."""
    (tmp_path / "v").mkdir()
    labels = dataset(tmp_path, names=[f"v/img{i}.bin" for i in range(6)])
    words = "no image names a group.*by=image.*video_id.*group: folder.*group: REGEX"
    with pytest.raises(DataError, match=words):
        make_split(labels, {"train": 0.5, "test": 0.5})
    parts = {"train": [f"v/img{i}.bin" for i in range(3)], "test": [f"v/img{i}.bin" for i in range(3, 6)]}
    old = Manifest("old", "group", 0, {"train": 0.5, "test": 0.5}, None, 0, parts)
    (tmp_path / "old.json").write_text(json.dumps({**old.content(), "sha256": old.sha256()}))
    with pytest.raises(DataError, match=words):
        split(labels, tmp_path / "old.json", {"train": 0.5, "test": 0.5})
    assert set(split(labels, tmp_path / "m.json", {"train": 0.5, "test": 0.5}, by="image")) == {"train", "test"}


def test_held_out_folds_are_parts_of_whole_groups(tmp_path: Path) -> None:
    """Each image is held out once; groups stay together where there are as many as folds, else images are drawn."""
    several = dataset(tmp_path / "a", [f"g{i % 5}" for i in range(20)])
    held = [hold_out(several, 4, fold)["held_out"] for fold in range(4)]
    assert sorted(name for part in held for name in part.names) == sorted(several.names)
    groups = [set(map(str, part.group)) for part in held]
    assert all(not a & b for a, b in pairwise(groups))
    one = dataset(tmp_path / "b", ["g"] * 20)
    parts = hold_out(one, 4, 1)
    assert (len(parts["train"]), len(parts["held_out"])) == (15, 5)
    assert hold_out(one, 4, 1)["held_out"].names.tolist() == parts["held_out"].names.tolist()
    assert hold_out(one, 4, 1, seed=1)["held_out"].names.tolist() != parts["held_out"].names.tolist()
