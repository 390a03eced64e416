"""Checks of datasets and the image reader: every planted fault is found, intact data has none."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile

from kplab.data.check import check_labels
from kplab.data.damage import find_damaged
from kplab.data.formats import coco, dlc
from kplab.data.images import few_bits, find_images, read_header, read_image
from kplab.data.sources.files import FileSource, UprightFiles, check_files
from kplab.errors import DataError
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

TWO = Skeleton("two", ("a", "b"), (), (0, 1), (0.05, 0.05), "made up")
CONFIG = Path(__file__).resolve().parents[2] / "conf" / "skeleton"
RNG = np.random.default_rng(0)


def dataset(folder: Path, count: int = 3) -> Labels:
    names = [f"{i}.jpg" for i in range(count)]
    for name in names:
        Image.fromarray(RNG.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(folder / name, quality=95)
    xy = np.tile(np.array([[10.0, 10.0], [30.0, 20.0]]), (count, 1, 1))
    poses = Poses.make(xy, box=np.tile([5.0, 5, 40, 30], (count, 1)), area=np.full(count, 500.0))
    ids = np.arange(1, count + 1)
    how = {"box_source": "annotation", "area_source": "annotation"}
    size = np.tile([60, 40], (count, 1))
    return make_labels(TWO, FileSource(folder, names), ids, size, None, poses, np.arange(count), ids, **how)


def test_a_whole_dataset_is_clean(tmp_path: Path) -> None:
    report = check_labels(dataset(tmp_path), deep=True, max_poses=1)
    assert (report.errors, report.warnings) == ([], [])
    assert report.counts == {"images": 3, "instances": 3, "labelled instances": 3, "labelled keypoints": 6}
    report.raise_if_errors()


@pytest.mark.parametrize("part", ["train", "val"])
def test_coco_mini_has_no_errors(real_data: Path, part: str) -> None:
    folder = real_data / "coco_mini"
    skeleton = Skeleton.from_config(yaml.safe_load((CONFIG / "coco17.yaml").read_text()))
    labels = coco.read(folder / "annotations" / f"person_keypoints_{part}2017.json", folder / f"{part}2017", skeleton)
    report = check_labels(labels, deep=True)
    assert report.errors == []
    assert any("too many poses" in e for e in check_labels(labels, max_poses=1).errors)


def test_the_openfield_mouse_has_no_errors(real_data: Path) -> None:
    skeleton = Skeleton.from_config(yaml.safe_load((CONFIG / "mouse4.yaml").read_text()))
    report = check_labels(dlc.read(real_data / "dlc_openfield_mouse", skeleton), deep=True, max_poses=1)
    assert report.errors == []


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    labels = dataset(tmp_path, 12)
    (tmp_path / "0.jpg").unlink()
    whole = (tmp_path / "1.jpg").read_bytes()
    (tmp_path / "1.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "2.jpg").write_bytes(b"nothing")
    labels.size[3] = [61, 40]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "4.jpg", exif=exif)
    Image.new("RGB", (60, 40)).save(tmp_path / "5.jpg", exif=exif)
    labels.size[5] = [40, 60]
    labels.poses.xy[6, 0] = [61.5, 3]
    labels.poses.area[7] = np.nan
    labels.poses.box[8] = np.nan
    labels.poses.xy[9] = 12.0
    labels.poses.box[10] = [70, 5, 90, 30]
    labels.poses.xy[11, 0] = [60.5, 3]
    report = check_labels(labels, deep=True)
    errors, warnings = "\n".join(report.errors), "\n".join(report.warnings)
    for words in (
        f"1 missing images: {tmp_path / '0.jpg'}",
        "2 unreadable images",
        "the JPEG is truncated",
        f"1 images of another size: {tmp_path / '3.jpg'} (file (60, 40), labels (61, 40))",
        f"1 turned images: {tmp_path / '5.jpg'}",
        f"1 instances with keypoints outside: {tmp_path / '6.jpg'} instance 7",
        f"1 instances without an area: {tmp_path / '7.jpg'} instance 8",
        f"1 instances without a box: {tmp_path / '8.jpg'} instance 9",
        f"1 instances with a box outside: {tmp_path / '10.jpg'} instance 11",
    ):
        assert words in errors
    for words in (
        f"1 images with EXIF orientation: {tmp_path / '4.jpg'}",
        f"1 instances with all keypoints in one place: {tmp_path / '9.jpg'}",
        f"1 instances with keypoints on the edge: {tmp_path / '11.jpg'}",
    ):
        assert words in warnings
    assert (len(report.errors), len(report.warnings)) == (8, 3)
    assert report.counts["unreadable images"] == 2
    with pytest.raises(DataError) as caught:
        report.raise_if_errors()
    assert all(e in str(caught.value) for e in report.errors)
    shallow = "\n".join(check_labels(labels).errors)
    assert "1 unreadable images" in shallow, "headers alone do not show a file cut short"


def test_many_of_one_kind_are_counted_but_ten_are_named(tmp_path: Path) -> None:
    labels = dataset(tmp_path, 14)
    for i in range(14):
        labels.path(i).unlink()
    (error,) = check_labels(labels).errors
    assert error.startswith("14 missing images")
    assert error.count(".jpg") == 10
    assert "and 4 more" in error


def test_labels_without_a_keypoint_are_an_error(tmp_path: Path) -> None:
    labels = dataset(tmp_path)
    labels.poses = Poses.make(np.full((3, 2, 2), np.nan), ignore=np.ones(3, dtype=bool))
    (error,) = check_labels(labels).errors
    assert "no labelled keypoint in 3 images and 3 instances" in error
    labels = dataset(tmp_path)
    labels.poses = Poses.make(np.where([[True], [False]], labels.poses.xy, np.nan), box=labels.poses.box)
    assert any("1 keypoints that are never labelled: b" in w for w in check_labels(labels).warnings)


def test_too_many_poses_for_the_head(tmp_path: Path) -> None:
    labels = dataset(tmp_path)
    labels.start[:] = [0, 0, 3, 3]
    (error,) = check_labels(labels, max_poses=2).errors
    assert f"{tmp_path / '1.jpg'} (3)" in error
    labels.poses.ignore[0] = True
    assert check_labels(labels, max_poses=2).errors == []
    labels.start[:] = [0, 0, 0, 3]
    labels.poses.ignore[0] = False
    assert f"{tmp_path / '2.jpg'} (3)" in check_labels(labels, max_poses=2).errors[0]


def test_images_of_every_kind_become_8_bit_rgb(tmp_path: Path) -> None:
    """Oracle: Pillow's own decoding, and the arithmetic of the stated rule for 16 bits."""
    rgb = RNG.integers(0, 255, (9, 7, 3), dtype=np.uint8)
    grey = RNG.integers(0, 65535, (9, 7), dtype=np.uint16)
    alpha = np.concatenate([rgb, rgb[..., :1]], axis=2)
    Image.fromarray(rgb).save(tmp_path / "rgb.png")
    Image.fromarray(rgb).save(tmp_path / "rgb.bmp")
    Image.fromarray(rgb[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    Image.fromarray(rgb).quantize(16).save(tmp_path / "palette.png")
    cv2.imwrite(str(tmp_path / "deep.png"), grey)
    cv2.imwrite(str(tmp_path / "deep_rgb.png"), np.stack([grey, grey // 2, grey // 3], axis=2))
    for name in ("rgb.png", "rgb.bmp", "alpha.png"):
        np.testing.assert_array_equal(read_image(tmp_path / name), rgb)
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.repeat(rgb[..., :1], 3, axis=2))
    np.testing.assert_array_equal(
        read_image(tmp_path / "palette.png"), np.array(Image.open(tmp_path / "palette.png").convert("RGB"))
    )
    deep = np.round(grey / 257.0).astype(np.uint8)
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), np.stack([deep] * 3, axis=2))
    np.testing.assert_array_equal(read_image(tmp_path / "deep_rgb.png")[..., 2], deep)


def test_the_header_of_a_png_is_read_without_its_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EXIF data before the pixels, behind them, and none."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = Image.fromarray(RNG.integers(0, 255, (16, 24, 3), dtype=np.uint8))
    pixels.save(tmp_path / "before.png", exif=exif)
    pixels.save(tmp_path / "none.png")
    whole = (tmp_path / "before.png").read_bytes()
    at = whole.index(b"eXIf") - 4
    end = at + 12 + int.from_bytes(whole[at : at + 4], "big")
    behind = whole[:at] + whole[end:-12] + whole[at:end] + whole[-12:]  # IEND takes 12 bytes
    (tmp_path / "behind.png").write_bytes(behind)
    loaded = []
    load = PngImageFile.load
    monkeypatch.setattr(PngImageFile, "load", lambda self: loaded.append(Path(self.filename).name) or load(self))
    found = {name: read_header(tmp_path / f"{name}.png") for name in ("before", "behind", "none")}
    assert found == {"before": ((24, 16), 6), "behind": ((24, 16), 6), "none": ((24, 16), 1)}
    assert loaded == ["behind.png"]


def test_exif_orientation_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RNG.integers(0, 255, (16, 24, 3), dtype=np.uint8)).save(tmp_path / "t.jpg", exif=exif)
    assert read_image(tmp_path / "t.jpg").shape == (16, 24, 3)
    assert read_header(tmp_path / "t.jpg") == ((24, 16), 6)


@pytest.mark.parametrize("name", ["x.jpg", "x.png"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_file_cut_short_is_refused(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    Image.fromarray(RNG.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    read_image(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match="truncated") as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_a_thumbnail_does_not_hide_that_a_photograph_is_cut_short(tmp_path: Path) -> None:
    """The thumbnail in EXIF is a whole JPEG with an end marker of its own."""
    small, path = tmp_path / "small.jpg", tmp_path / "x.jpg"
    Image.new("RGB", (8, 8)).save(small)
    Image.fromarray(RNG.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path, exif=b"Exif\0\0" + small.read_bytes())
    read_image(path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(DataError, match="truncated"):
        read_image(path)


def test_missing_empty_and_foreign_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("hello")
    for name, words in (
        ("gone.jpg", "no such image"),
        ("empty.jpg", "not an image"),
        ("text.jpg", "not an image"),
        ("", "cannot be read"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_real_files_with_libjpeg_warnings_are_read(real_data: Path) -> None:
    """34 of these JPEGs end a data segment early, yet have their end marker: they decode."""
    files = sorted((real_data / "tiger_pose_val").rglob("*.jpg"))
    assert len(files) == 53
    assert {read_image(f).shape for f in files[:12]} == {(720, 1280, 3)}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_without_labels_can_be_read_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    """Oracle: Pillow's own turning. A header has the size of what is read as stored."""
    path, exif = tmp_path / f"t{suffix}", Image.Exif()
    exif[0x0112] = orientation
    pixels = RNG.integers(0, 255, (3, 5, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(pixels).save(path, exif=exif, quality=95, subsampling=0)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    found = read_image(path, upright=True)
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).max() <= 3
    np.testing.assert_array_equal(UprightFiles(tmp_path, [path.name]).read(0), found)
    assert read_header(path)[0] == read_image(path).shape[1::-1]


def test_files_that_may_surprise_are_counted(tmp_path: Path) -> None:
    """Before a prediction, and by the linter of a dataset."""
    labels = dataset(tmp_path, 5)
    assert check_files(FileSource(tmp_path, [f"{i}.jpg" for i in range(5)])) == []
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "1.jpg", exif=exif)
    data = bytearray((tmp_path / "2.jpg").read_bytes())
    middle = len(data) // 2
    del data[middle : middle + 64]
    (tmp_path / "2.jpg").write_bytes(data)
    names = [f"{i}.jpg" for i in range(5)]
    notes = check_files(UprightFiles(tmp_path, names))
    assert notes[0].startswith("1 images have an EXIF orientation: turned upright")
    assert notes[0].endswith(": 1.jpg")
    assert notes[1].startswith("1 JPEG images have damaged data, and may be wrong in part: 2.jpg (")
    assert len(notes) == 2
    warnings = check_labels(labels, deep=True).warnings
    assert any(w.startswith(f"1 JPEG images with damaged data: {tmp_path / '2.jpg'} (") for w in warnings)


def test_damage_in_many_files_is_found_with_their_names(tmp_path: Path) -> None:
    """More files than one process gets, names that are not UTF-8, and files that are no JPEG."""
    dataset(tmp_path, 40)
    data = (tmp_path / "0.jpg").read_bytes()
    cut = data[: len(data) // 2] + data[len(data) // 2 + 64 :]
    bad = [tmp_path / "7.jpg", tmp_path / "33.jpg", tmp_path / "n\udcff.jpeg"]
    for path in bad:
        path.write_bytes(cut)
    (tmp_path / "text.jpg").write_text("hello")
    paths = [*sorted(tmp_path.iterdir()), tmp_path / "gone.jpg"]
    assert set(find_damaged(paths)) == set(bad)


@pytest.mark.parametrize(("bits", "found"), [(8, None), (12, 12), (14, 14), (16, None)])
@pytest.mark.parametrize("name", ["a.png", "rgb.png", "a.tif"])
def test_16_bit_images_that_hold_fewer_bits_are_found(tmp_path: Path, name: str, bits: int, found: int | None) -> None:
    grey = np.full((6, 6), 2**bits - 1, dtype=np.uint8 if bits == 8 else np.uint16)
    cv2.imwrite(str(tmp_path / name), np.dstack([grey] * 3) if name.startswith("rgb") else grey)
    assert few_bits(tmp_path / name) == found
    notes = check_files(FileSource(tmp_path, [name]))
    assert [n.startswith("1 images of 16 bits use 14 or fewer, and appear dark") for n in notes] == [True] * bool(found)


def test_images_above_the_limit_of_pixels_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (60, 40)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"a\.png: too large: .*up to 2000 pixels: cut it into tiles"):
        read_header(tmp_path / "a.png")


def test_an_orientation_that_does_not_exist_is_none(tmp_path: Path) -> None:
    for value in (0, 9, 65535):
        exif = Image.Exif()
        exif[0x0112] = value
        Image.new("L", (6, 4)).save(tmp_path / "a.jpg", exif=exif)
        assert read_header(tmp_path / "a.jpg") == ((6, 4), 1)


def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    Image.new("L", (6, 4)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "b\udcff.png")
    with pytest.raises(DataError, match=r"1 images have a name that is not UTF-8: '.*b\\udcff\.png'"):
        find_images(str(tmp_path))
