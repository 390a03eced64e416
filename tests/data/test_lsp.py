"""LSPET: its joints against the MATLAB file, and messages of wrong files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import yaml
from PIL import Image

from kplab.data.formats import lsp
from kplab.errors import DataError
from kplab.structures.skeleton import Skeleton

CONFIG = Path(__file__).resolve().parents[2] / "conf" / "skeleton" / "lsp14.yaml"
LSP = Skeleton.from_config(yaml.safe_load(CONFIG.read_text()))


def dataset(folder: Path, joints: Any, numbers: tuple[int, ...] = (1, 3)) -> Path:
    (folder / "images").mkdir(parents=True)
    for number in numbers:
        Image.new("RGB", (50, 40)).save(folder / "images" / f"im{number:05d}.jpg")
    scipy.io.savemat(folder / "joints.mat", {"joints": joints})
    return folder


def joints_of(count: int) -> np.ndarray:
    joints = np.ones((14, 3, count))
    joints[:, 0] = np.arange(14)[:, None] + np.arange(count) + 1
    joints[:, 1] = 20
    return joints


def test_columns_belong_to_the_images_of_their_number(tmp_path: Path) -> None:
    joints = joints_of(4)
    joints[2, :, 2] = [-7, -9, 0]
    joints[3, :2, 0] = [51.6, 20]
    labels = lsp.read(dataset(tmp_path, joints), LSP)
    assert list(labels.names) == ["images/im00001.jpg", "images/im00003.jpg"]
    # MATLAB's pixel 3 (column 2, joint 0) has its centre at 2.5
    assert labels.poses.xy[1, 0].tolist() == [2.5, 19.5]
    assert labels.poses.visible[1].tolist() == [2, 2, 0] + [2] * 11
    assert labels.poses.visible[0].tolist() == [2, 2, 2, 0] + [2] * 10
    assert labels.notes[0].startswith("2 of 4 labelled images are not in")
    assert labels.notes[1].startswith("1 labelled keypoints of 1 instances lie more than 1 px outside")
    np.testing.assert_allclose(labels.poses.area, 0.53 * np.prod(labels.poses.box[:, 2:] - labels.poses.box[:, :2], 1))


def test_the_original_set_flags_hidden_joints(tmp_path: Path) -> None:
    extended = joints_of(3)
    original = np.moveaxis(extended, 1, 0).copy()
    original[2] = 0
    original[2, 4, 2] = 1
    labels = lsp.read(dataset(tmp_path / "original", original), LSP)
    assert labels.poses.visible[1].tolist() == [2] * 4 + [1] + [2] * 9
    assert (labels.poses.visible[0] == 2).all()
    same = lsp.read(dataset(tmp_path / "extended", extended), LSP)
    np.testing.assert_array_equal(labels.poses.xy, same.poses.xy)


def test_the_real_set(real_data: Path) -> None:
    folder = real_data / "lspet_1000"
    labels = lsp.read(folder, LSP)
    joints = scipy.io.loadmat(folder / "joints.mat")["joints"][:, :, :1000]
    flagged = joints[:, 2].T == 1
    assert len(labels) == len(labels.poses) == 1000
    # one joint is labelled at y = -1.17, and one more than 1 px beyond its image's other edge
    assert int(flagged.sum()) - int(labels.poses.labelled.sum()) == 2
    assert not (labels.poses.labelled & ~flagged).any()
    both = labels.poses.labelled
    np.testing.assert_allclose(labels.poses.xy[both] + 0.5, np.moveaxis(joints[:, :2], -1, 0)[both])
    with Image.open(labels.path(123)) as image:
        assert image.size == tuple(labels.size[123])


@pytest.mark.parametrize(
    ("joints", "numbers", "words"),
    [
        (np.ones((14, 2, 5)), (1,), r"is \(14, 2, 5\), expected \(14, 3, N\)"),
        (joints_of(2), (1, 7), "2 columns, but there are images 7"),
        (joints_of(2), (), "no images im<number>.jpg"),
        (joints_of(2) * np.nan, (1,), "not finite, or flags besides 0 and 1"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, joints: np.ndarray, numbers: tuple[int, ...], words: str) -> None:
    with pytest.raises(DataError, match=words):
        lsp.read(dataset(tmp_path, joints, numbers), LSP)


def test_missing_and_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"joints\.mat: no such file"):
        lsp.read(tmp_path, LSP)
    (tmp_path / "joints.mat").write_bytes(b"no matlab file, but long enough for a header" * 9)
    with pytest.raises(DataError, match="no array 'joints' can be read"):
        lsp.read(tmp_path, LSP)
