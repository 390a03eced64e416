"""Labels over any source of images: selection, tracks in the hash, extras."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from kplab.data.check import check_labels
from kplab.data.datamodule import PoseDataset
from kplab.data.regions import detected_regions, image_regions
from kplab.data.split import make_split
from kplab.errors import DataError
from kplab.structures.image_source import ImageSource, Subset
from kplab.structures.labels import Extras, Labels, make_labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

ONE = Skeleton("one", ("a",), (), (0,), (0.05,), "made up")


class Frames:
    """A source without files: image i is grey of level 10 i, but for the last, which is a copy of the first."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __str__(self) -> str:
        return "camera"

    def name(self, i: int) -> str:
        return f"frame {i}"

    def read(self, i: int) -> np.ndarray:
        return np.full((20, 30, 3), 10 * (i % (self.count - 1)), dtype=np.uint8)


def dataset(count: int = 5) -> Labels:
    poses = Poses.make(
        np.tile([[15.5, 10.5]], (count, 1, 1)), box=np.tile([10.0, 5, 20, 15], (count, 1)), area=np.full(count, 50.0)
    )
    ids = np.arange(1, count + 1)
    size = np.tile([30, 20], (count, 1))
    how = {"box_source": "annotation", "area_source": "annotation"}
    return make_labels(ONE, Frames(count), ids, size, None, poses, np.arange(count), ids, **how)


def test_images_need_not_be_files() -> None:
    """Selection, checks, splits and samples of a source that has no path."""
    labels = dataset()
    assert isinstance(labels.source, ImageSource)
    assert (labels.path(1), labels.where(1)) == (None, "frame 1")
    part = labels.select([3, 1]).select([1, 0])
    assert isinstance(part.source, Subset)
    assert isinstance(part.source.source, Frames), "a selection of a selection refers to the first source"
    assert list(part.names) == list(part.group) == ["frame 1", "frame 3"]
    assert [int(part.read(i)[0, 0, 0]) for i in range(2)] == [10, 30]
    assert check_labels(labels, deep=True).errors == []
    wrong = dataset()
    wrong.size[4] = [31, 20]
    (error,) = check_labels(wrong).errors
    assert "frame 4 (file (30, 20), labels (31, 20))" in error
    parts = make_split(labels, {"a": 0.5, "b": 0.5}, "image")
    assert any({"frame 0", "frame 4"} <= set(names) for names in parts.values()), "copies are in one part"
    sample = PoseDataset(labels, image_regions(labels), (30, 20))[2]
    np.testing.assert_array_equal(sample.image, labels.read(2))
    with pytest.raises(DataError, match="frame 0: the detector's predictions do not cover"):
        detected_regions(labels, {})


def test_the_hash_covers_tracks_and_is_the_old_one_without() -> None:
    """Oracle: the columns that the hash is stated to cover."""
    labels = dataset()
    h = hashlib.sha256(b"a")
    h.update("\n".join(f"frame {i}" for i in range(5)).encode())
    p = labels.poses
    for column in (labels.image_id, labels.start, p.visible, p.ignore, p.xy, p.box, p.area):
        h.update(column.tobytes())
    assert labels.digest() == h.hexdigest()
    labels.poses.track[2] = 0
    assert labels.digest() != h.hexdigest()


def test_extras_follow_their_images_and_instances() -> None:
    labels = dataset()
    labels.extras = Extras("some", "head", {1: "first", 3: "third"}, {2: "second", 3: "third"})
    part = labels.select([2, 0])
    assert part.extras == Extras("some", "head", {1: "first", 3: "third"}, {3: "third"})
    assert labels.extras.instance == {2: "second", 3: "third"}


def test_a_source_of_files(tmp_path: Path) -> None:
    from PIL import Image

    from kplab.data.sources.files import FileSource

    for name in ("b.png", "a/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 3), (len(name), 0, 0)).save(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    for source in (FileSource.find(str(tmp_path)), FileSource.of([tmp_path / "a/c.png", tmp_path / "b.png"])):
        assert [source.name(i) for i in range(len(source))] == ["a/c.png", "b.png"]
        assert source.path(0) == tmp_path / "a/c.png"
        assert source.read(1)[0, 0].tolist() == [5, 0, 0]
    assert len(FileSource.find(str(tmp_path / "*.png"))) == 1
    with pytest.raises(DataError, match=r"gone\.png: no such image"):
        FileSource(tmp_path, ["gone.png"]).read(0)
    with pytest.raises(DataError, match="no image found"):
        FileSource.find(str(tmp_path / "nothing"))


def test_image_files_are_read_through_sources_alone(root: Path) -> None:
    places = {
        path.relative_to(root / "src/kplab").as_posix()
        for path in (root / "src/kplab").rglob("*.py")
        if "read_image(" in path.read_text()
    }
    assert places == {"data/images.py", "data/sources/files.py"}
