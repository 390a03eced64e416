"""Splits by subject, pattern, strata and official lists."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kplab.data.sources.arrays import ArraySource
from kplab.data.split import Manifest, make_split, read_manifest, split
from kplab.data.strata import balance, balanced, strata
from kplab.errors import DataError
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

THREE = Skeleton("three", ("a", "b", "c"), (), (0, 1, 2), (0.05,) * 3, "made up")
HALVES = {"train": 0.5, "test": 0.5}


class Named(ArraySource):
    """Images in memory with names."""

    def __init__(self, images: list[np.ndarray], names: list[str]) -> None:
        super().__init__(images)
        self.names = names

    def name(self, i: int) -> str:
        return self.names[i]


def dataset(
    names: list[str],
    per_image: list[int] | None = None,
    area: np.ndarray | None = None,
    visible: np.ndarray | None = None,
    track: list[int] | None = None,
    group: list[str] | None = None,
) -> Labels:
    """Distinct images of 2x2 pixels; ``per_image`` instances each (one by default)."""
    images = [np.array([[[i % 256, i // 256, 0]] * 2] * 2, dtype=np.uint8) for i in range(len(names))]
    image_of = np.repeat(np.arange(len(names)), per_image or [1] * len(names))
    n = len(image_of)
    seen = np.full((n, 3), 2) if visible is None else visible
    poses = Poses.make(
        np.ones((n, 3, 2)),
        seen,
        area=np.full(n, 100.0) if area is None else area,
        track=None if track is None else np.array(track),
    )
    ids, size = np.arange(1, len(names) + 1), np.full((len(names), 2), 2)
    how = {"box_source": "none", "area_source": "none"}
    return make_labels(THREE, Named(images, names), ids, size, group, poses, image_of, np.arange(1, n + 1), **how)


def test_a_pattern_names_the_groups(tmp_path: Path) -> None:
    """Subjects in file names, which the reader does not know; the first group of the pattern counts."""
    labels = dataset([f"day{d}/s{s:02d}_{i}.png" for d in range(2) for s in range(8) for i in range(3)])
    how: dict[str, Any] = {"by": "subject", "pattern": r"/(s\d+)_"}
    parts = split(labels, tmp_path / "m.json", HALVES, **how)
    subjects = {part: {str(name)[5:8] for name in chosen.names} for part, chosen in parts.items()}
    assert not subjects["train"] & subjects["test"]
    assert len(subjects["train"]) == len(subjects["test"]) == 4
    assert json.loads((tmp_path / "m.json").read_text())["pattern"] == how["pattern"]
    with pytest.raises(DataError, match=r"pattern is /\(s"):
        split(labels, tmp_path / "m.json", HALVES, by="subject", pattern="^day.")
    assert {name[:4] for name in make_split(labels, HALVES, "video", pattern="^day.")["train"]} in ({"day0"}, {"day1"})


def test_images_that_share_a_track_stay_together(tmp_path: Path) -> None:
    """Subject 1 is in images 0 and 2, subject 2 in 2 and 3: all three are one unit; image 4 has no track."""
    labels = dataset([f"{i}.png" for i in range(5)], [1, 1, 2, 1, 0], track=[1, 3, 1, 2, 2], group=["v"] * 5)
    for seed in range(20):
        parts = make_split(labels, {"x": 0.34, "y": 0.33, "z": 0.33}, "subject", seed)
        assert sorted(map(tuple, parts.values())) == [("0.png", "2.png", "3.png"), ("1.png",), ("4.png",)]
    # tracks are identities within a video
    apart = dataset([f"{i}.png" for i in range(2)], track=[1, 1], group=["v", "w"])
    assert sorted(make_split(apart, HALVES, "subject").values()) == [["0.png"], ["1.png"]]


def test_strata_are_terciles_of_what_is_counted() -> None:
    area = np.array([1.0, 4.0, 9.0, 16.0, 25.0, 36.0, 1e9])
    visible = np.array([[2, 2, 2], [2, 2, 2], [2, 2, 0], [2, 1, 0], [1, 0, 0], [2, 0, 0], [0, 0, 0]])
    labels = dataset(["a", "b"], [3, 4], area, visible)
    found = {name: count.tolist() for name, count in strata(labels, ["scale", "visibility"]).items()}
    # sides 1 to 6: the unlabelled instance of area 1e9 is not counted
    assert found["scale 1 of 3"] == [2, 0]
    assert found["scale 2 of 3"] == [1, 1]
    assert found["scale 3 of 3"] == [0, 2]
    assert sum(sum(count) for name, count in found.items() if name.startswith("visibility")) == 6
    assert found["images"] == [1, 1]
    assert set(strata(dataset(["a"] * 3), ["scale"])) == {"images", "scale 1 of 1"}, "equal values are one stratum"


def worst(labels: Labels, parts: dict[str, list[str]], shares: dict[str, float]) -> float:
    """The largest deviation of a stratum's share from that of its part."""
    index = {str(name): i for i, name in enumerate(labels.names)}
    counts = strata(labels, ["scale", "visibility"])
    return max(
        abs(count[[index[n] for n in names]].sum() / count.sum() - shares[part])
        for count in counts.values()
        for part, names in parts.items()
    )


def test_stratified_parts_have_their_share_of_every_stratum() -> None:
    """Against the same dataset without strata, for groups of any size, as folds and as fractions."""
    rng = np.random.default_rng(0)
    groups = [f"g{g}" for g, size in enumerate(rng.integers(1, 12, 60)) for _ in range(size)]
    per_image = rng.integers(0, 4, len(groups)).tolist()
    n = sum(per_image)
    # groups differ in scale, as videos do
    scale = np.repeat([int(g[1:]) % 7 for g in groups], per_image)
    labels = dataset(
        [f"{i}.png" for i in range(len(groups))], per_image, 10.0**scale, rng.integers(1, 3, (n, 3)), group=groups
    )
    for shares, folds in (({"train": 0.7, "val": 0.1, "test": 0.2}, None), ({f"fold{i}": 0.2 for i in range(5)}, 5)):
        plain = [worst(labels, make_split(labels, shares, "group", s, folds), shares) for s in range(5)]
        even = [
            worst(labels, make_split(labels, shares, "group", s, folds, stratify=["scale", "visibility"]), shares)
            for s in range(5)
        ]
        # a group of 11 images has up to a tenth of a stratum, and goes to one part
        assert max(even) < 0.06 < max(plain)
        assert len(set(even)) > 1, "another seed is another split"
        assert np.mean(even) < np.mean(plain) / 2


def test_the_assignment_is_near_the_best_one() -> None:
    """Oracle: every assignment of nine units to two parts; by its chi-square statistic."""
    rng = np.random.default_rng(1)
    shares = {"a": 0.6, "b": 0.4}
    ranks = []
    for _ in range(20):
        counts = {"images": np.ones(9, dtype=int), "x": rng.integers(0, 4, 9) + 1, "y": rng.integers(0, 2, 9) + 1}
        table = np.stack(list(counts.values()), 1)

        def statistic(rows: list[int], table: np.ndarray = table) -> float:
            value = 0.0
            for part, share in ((rows, 0.6), ([i for i in range(9) if i not in rows], 0.4)):
                expected = share * table.sum(0)
                value += float((((table[part].sum(0) if part else 0) - expected) ** 2 / expected).sum())
            return value

        every = [list(c) for k in range(1, 9) for c in itertools.combinations(range(9), k)]
        values = sorted(map(statistic, every))
        ranks.append(
            np.searchsorted(values, statistic(balanced([[i] for i in range(9)], shares, counts)["a"])) / len(values)
        )
    # single moves end in a local minimum
    assert np.mean(ranks) < 0.06
    assert max(ranks) < 0.2


def test_a_stratified_split_is_written_and_checked(tmp_path: Path) -> None:
    labels = dataset([f"{i}.png" for i in range(12)], area=np.arange(1, 13) ** 2.0)
    parts = split(labels, tmp_path / "m.json", HALVES, "image", stratify=["scale"])
    rows = balance(parts, ["scale"])
    assert [row["stratum"] for row in rows] == ["images", "scale 1 of 3", "scale 2 of 3", "scale 3 of 3"]
    assert {row["train"] for row in rows} == {"50.0%"}
    with pytest.raises(DataError, match=r"stratify is \['scale'\], asked for \[\]"):
        split(labels, tmp_path / "m.json", HALVES, "image")


def test_manifests_without_new_options_keep_their_hash() -> None:
    """Manifests that older versions wrote stay valid: their content has the old keys only."""
    plain = Manifest("m", "image", 0, {"a": 0.5, "b": 0.5}, None, 0, {"a": ["x"], "b": ["y"]})
    assert set(plain.content()) == {"name", "by", "seed", "fractions", "folds", "gap", "parts", "dropped"}
    assert Manifest(**plain.content()) == plain


def test_official_lists(tmp_path: Path) -> None:
    labels = dataset(["train/001.jpg", "train/002.jpg", "other/001.jpg", "other/003.jpg"])
    (tmp_path / "train.txt").write_text("# official\ntrain/001.jpg\n\n 002 \n", encoding="utf-8")
    (tmp_path / "test.txt").write_text("other/001\n003.jpg\n")
    lists = {"train": str(tmp_path / "train.txt"), "test": str(tmp_path / "test.txt")}
    parts = split(labels, tmp_path / "m.json", by="lists", lists=lists)
    assert {part: list(chosen.names) for part, chosen in parts.items()} == {
        "train": ["train/001.jpg", "train/002.jpg"],
        "test": ["other/001.jpg", "other/003.jpg"],
    }
    (tmp_path / "test.txt").write_text("003\n")
    with pytest.raises(DataError, match=r"1 images are in no list: other/001.jpg.*unlisted: drop"):
        make_split(labels, None, "lists", lists=lists)
    split(labels, tmp_path / "n.json", by="lists", lists=lists, unlisted="drop")
    assert read_manifest(tmp_path / "n.json", labels).dropped == ["other/001.jpg"]


def test_lists_of_patterns() -> None:
    labels = dataset(["afw/1.jpg", "helen/helen/trainset/2.jpg", "helen/helen/testset/3.jpg"])
    lists = {"train": ["afw/*", "helen/*trainset/*"], "test": ["helen/*testset/*"]}
    parts = make_split(labels, None, "lists", lists=lists)
    assert parts == {"train": ["afw/1.jpg", "helen/helen/trainset/2.jpg"], "test": ["helen/helen/testset/3.jpg"]}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"by": "image", "pattern": "x"}, "pattern='x' with by=image"),
        ({"by": "group", "pattern": "("}, "not a regular expression"),
        ({"by": "group", "pattern": "^1"}, r"does not match the names 0\.png"),
        ({"by": "subject"}, "by=subject, but no instance has a track"),
        ({"by": "image", "stratify": ["size"]}, "'size' is unknown. Use scale or visibility"),
        ({"by": "time", "stratify": ["scale"]}, "with by=time: these parts are given"),
        ({"by": "image", "lists": {"a": ["*"]}}, "by=lists and lists belong together"),
        ({"by": "lists"}, "by=lists and lists belong together"),
        ({"by": "lists", "lists": {"a": ["*"]}}, "expected two parts or more"),
        ({"by": "lists", "lists": {"a": ["*"], "b": ["x*"]}}, r"pattern 'x\*' of part 'b' matches no image"),
        ({"by": "lists", "lists": {"a": ["*"], "b": "nowhere.txt"}}, r"nowhere.txt: can't be read"),
        ({"by": "lists", "lists": {"a": ["*"], "b": ["*"]}, "unlisted": "keep"}, "unlisted='keep' is unknown"),
    ],
)
def test_impossible_options_are_reported(options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        make_split(dataset(["0.png", "1.png", "2.png"]), HALVES, **options)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the list is empty"),
        ("nothing\n", "1 lines name no image"),
        ("001\n", r"several images: 001 \(a/001.jpg, b/001.jpg\)"),
    ],
)
def test_lists_that_do_not_fit(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "l.txt").write_text(text)
    labels = dataset(["a/001.jpg", "b/001.jpg"])
    with pytest.raises(DataError, match=words):
        make_split(labels, None, "lists", lists={"x": str(tmp_path / "l.txt"), "y": ["b/*"]})
