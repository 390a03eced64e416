"""Leaks between splits: planted copies, re-encoded copies and neighbouring frames are found, and nothing else."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.fft

from kplab.data import fingerprints as module
from kplab.data.fingerprint_cache import FingerprintCache, stamp
from kplab.data.fingerprints import LOW, SIDE, correlation, fingerprint, fingerprints
from kplab.data.images import read_image, read_small
from kplab.data.leaks import find_leaks
from kplab.data.sources.files import FileSource
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

ONE = Skeleton("one", ("a",), (), (0,), (0.05,), "made up")


def scene(seed: int, size: tuple[int, int] = (160, 120)) -> np.ndarray:
    """A smooth random picture, as different from others as photographs are."""
    small = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)


def dataset(folder: Path, images: dict[str, np.ndarray | bytes], group: list[str] | None = None) -> Labels:
    """Files of these images."""
    for name, image in images.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image if isinstance(image, bytes) else cv2.imencode(path.suffix, image)[1].tobytes())
    n = len(images)
    ids, poses = np.arange(1, n + 1), Poses.make(np.ones((n, 1, 2)))
    how = {"box_source": "none", "area_source": "none"}
    size = np.full((n, 2), 9)
    return make_labels(ONE, FileSource(folder, list(images)), ids, size, group, poses, np.arange(n), ids, **how)


def changed(image: np.ndarray) -> dict[str, np.ndarray | bytes]:
    """Copies of an image that are not its bytes."""
    return {
        "quality.jpg": cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 30])[1].tobytes(),
        "half.png": cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        "brighter.png": np.clip(image * 0.8 + 30, 0, 255).astype(np.uint8),
        "blurred.png": cv2.GaussianBlur(image, (0, 0), 1.5),
        "grey.png": cv2.cvtColor(image, cv2.COLOR_BGR2GRAY),
    }


def test_planted_leaks_are_counted_by_kind(tmp_path: Path) -> None:
    train = dataset(tmp_path / "train", {f"{i}.png": scene(i) for i in range(30)})
    test = dataset(
        tmp_path / "test",
        {**{f"new{i}.png": scene(100 + i) for i in range(20)}, "copy.png": scene(3), **changed(scene(7))},
    )
    empty = train.select([])
    (leak,) = find_leaks({"train": train, "test": test, "none": empty})[:1]
    assert (leak.one, leak.other, leak.images) == ("train", "test", 26)
    assert (leak.same, leak.near, leak.neighbours) == (1, 5, 0)
    assert leak.examples["same"] == [("3.png", "copy.png")]
    assert {one for one, _ in leak.examples["near"]} == {"7.png"}
    assert leak.record()["near"] == 5
    assert "1 are the same as in train, 5 near-identical" in leak.line()


def test_hashes_that_are_known_are_used(tmp_path: Path) -> None:
    train, test = (dataset(tmp_path / name, {"0.png": scene(i)}) for i, name in enumerate(("a", "b")))
    (leak,) = find_leaks({"train": train, "test": test}, {"train": ["x"], "test": ["x"]})
    assert leak.same == 1
    assert not find_leaks({"train": train, "test": test})[0]


@pytest.mark.parametrize(("gap", "neighbours"), [(5, 6), (10, 1), (11, 0)])
def test_neighbours_in_a_video_are_within_ten_frames(tmp_path: Path, gap: int, neighbours: int) -> None:
    """Frames 0 to 9 train, then a gap, then ten frames: those up to frame 19 are neighbours of frame 9."""
    images = {f"v/img{i:04d}.png": scene(i) for i in [*range(10), *range(9 + gap, 19 + gap)]}
    labels = dataset(tmp_path, images, ["v"] * 20)
    (leak,) = find_leaks({"train": labels.select(range(10)), "test": labels.select(range(10, 20))})
    assert (leak.same, leak.near, leak.neighbours, leak.groups) == (0, 0, neighbours, 1)
    # of another video the numbers mean nothing
    labels.group[:10] = "w"
    (leak,) = find_leaks({"train": labels.select(range(10)), "test": labels.select(range(10, 20))})
    assert (leak.neighbours, leak.groups) == (0, 0)


def test_without_numbers_neighbours_are_next_in_order(tmp_path: Path) -> None:
    labels = dataset(tmp_path, {f"{c}.png": scene(i) for i, c in enumerate("abcdef")}, ["v"] * 6)
    (leak,) = find_leaks({"train": labels.select([0, 1, 2]), "test": labels.select([3, 4, 5])})
    assert leak.neighbours == 1
    assert leak.examples == {"neighbours": [("c.png", "d.png")]}


def test_the_hash_is_that_of_the_cosine_transform() -> None:
    """Oracle: SciPy's transform of the same reduced image."""
    grey = cv2.cvtColor(scene(5), cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(float)
    low = scipy.fft.dctn(small, norm="ortho")[:LOW, :LOW].ravel()
    expected = int("".join(str(int(v > np.median(low))) for v in low), 2)
    assert (expected ^ fingerprint(grey)[0]).bit_count() <= 1, "one bit may be at the median, by rounding"


def test_correlations_of_thumbnails() -> None:
    """Oracle: NumPy's correlation of the reduced images; the rounding to int8 is the tolerance."""
    grey = [cv2.cvtColor(scene(i), cv2.COLOR_BGR2GRAY) for i in range(2)]
    half = [cv2.resize(g, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32) for g in grey]
    small = [cv2.resize(h, (16, 16), interpolation=cv2.INTER_AREA) for h in half]
    expected = np.corrcoef(small[0].ravel(), small[1].ravel())[0, 1]
    assert correlation(fingerprint(grey[0])[1], fingerprint(grey[1])[1]) == pytest.approx(expected, abs=0.01)
    flat = fingerprint(np.full((50, 50), 7, np.uint8))[1]
    assert correlation(flat, flat) == 1
    assert correlation(flat, fingerprint(grey[0])[1]) == 0


@pytest.mark.parametrize(("side", "by"), [(63, 1), (128, 2), (300, 4), (600, 8)])
def test_small_copies_are_reductions(tmp_path: Path, side: int, by: int) -> None:
    image = scene(1, (side + 40, side))
    for name in ("a.png", "a.jpg"):
        cv2.imwrite(str(tmp_path / name), image)
        small = read_small(tmp_path / name)
        assert small.shape == (-(-side // by), -(-(side + 40) // by))
        grey = cv2.cvtColor(read_image(tmp_path / name), cv2.COLOR_RGB2GRAY)
        expected = cv2.resize(grey, small.shape[::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(small.astype(int) - expected).mean() < 3


def test_photographs_that_differ_are_not_reported(real_data: Path) -> None:
    """The two splits of COCO's sample; and frames of one fixed camera are near-identical."""
    folder = real_data / "coco_mini"
    parts = {
        name: dataset_of(folder / name) for name in sorted(p.name for p in folder.iterdir() if any(p.glob("*.jpg")))
    }
    assert len(parts) == 2
    (leak,) = find_leaks(parts)
    assert not leak


def dataset_of(folder: Path) -> Labels:
    """The images of a folder."""
    names = sorted(path.name for path in folder.glob("*.jpg"))
    n = len(names)
    ids, how = np.arange(1, n + 1), {"box_source": "none", "area_source": "none"}
    poses = Poses.make(np.ones((n, 1, 2)))
    return make_labels(ONE, FileSource(folder, names), ids, np.full((n, 2), 9), None, poses, np.arange(n), ids, **how)


def test_fingerprints_are_kept_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = {f"{i}.png": scene(i) for i in range(5)}
    labels = dataset(tmp_path / "images", images)
    cache = FingerprintCache(tmp_path / "data" / "cache.sqlite")
    expected = fingerprints(labels)
    read: list[str] = []
    monkeypatch.setattr(module, "read_small", lambda path: read.append(path.name) or read_small(path))
    fingerprints(labels, cache)
    assert len(fingerprints(labels, cache).hashes) == 5
    assert len(read) == 10, "files that were just changed are not kept"
    for name in images:
        os.utime(tmp_path / "images" / name, (1e9, 1e9))
    for _ in range(2):
        read.clear()
        again = fingerprints(labels, cache)
        np.testing.assert_array_equal(again.hashes, expected.hashes)
        np.testing.assert_array_equal(again.thumbnails, expected.thumbnails)
    assert not read
    cv2.imwrite(str(tmp_path / "images" / "3.png"), scene(7))
    changed = fingerprints(labels, cache)
    assert read == ["3.png"]
    assert changed.hashes[3] != expected.hashes[3]
    assert [leak.near for leak in find_leaks({"a": labels, "b": labels}, cache=cache)] == [0]


@pytest.mark.parametrize("damage", ["no database", "half of it", "a folder", "another table"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, damage: str) -> None:
    labels = dataset(tmp_path / "images", {f"{i}.png": scene(i) for i in range(3)})
    for path in (tmp_path / "images").iterdir():
        os.utime(path, (1e9, 1e9))
    cache = FingerprintCache(tmp_path / "cache.sqlite")
    expected = fingerprints(labels, cache)
    if damage == "a folder":
        cache.path.unlink()
        cache.path.mkdir()
    elif damage == "another table":
        with sqlite3.connect(cache.path) as connection:
            connection.execute("DROP TABLE fingerprint_1")
            connection.execute("CREATE TABLE fingerprint_1 (path TEXT)")
    else:
        whole = cache.path.read_bytes()
        cache.path.write_bytes(b"x" * 9000 if damage == "no database" else whole[: len(whole) // 2])
    np.testing.assert_array_equal(fingerprints(labels, cache).hashes, expected.hashes)
    if damage in ("no database", "half of it"):
        stamps = {p: s for p in (tmp_path / "images").iterdir() if (s := stamp(p))}
        assert len(cache.known(stamps)) == 3


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    """Four processes add 300 fingerprints each to one new file."""
    code = """
import sys
from pathlib import Path
import numpy as np
from kplab.data.fingerprint_cache import FingerprintCache
cache, number = FingerprintCache(Path(sys.argv[1])), int(sys.argv[2])
for i in range(0, 300, 30):
    cache.add([(Path(f"/{number}/{j}"), (j, 1), (j, np.full(256, number, np.int8))) for j in range(i, i + 30)])
"""
    path = tmp_path / "cache" / "cache.sqlite"
    processes = [subprocess.Popen([sys.executable, "-c", code, str(path), str(n)]) for n in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    known = FingerprintCache(path).known({Path(f"/{n}/{j}"): (j, 1) for n in range(4) for j in range(300)})
    assert len(known) == 1200
    assert all(value == int(place.name) and set(t) == {int(place.parts[1])} for place, (value, t) in known.items())


def test_fingerprints_of_images_in_memory_and_in_files_agree(tmp_path: Path) -> None:
    labels = dataset(tmp_path, {"0.png": scene(0, (50, 40))})
    found = fingerprints(labels)
    grey = cv2.cvtColor(read_image(tmp_path / "0.png"), cv2.COLOR_RGB2GRAY)
    assert int(found.hashes[0]) == fingerprint(grey)[0]
