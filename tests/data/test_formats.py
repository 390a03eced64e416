"""The contract of label formats: every module in ``data/formats`` is found and put through the same tests.

A format brings an example ``tests/data/formats/<name>.py``: ``make(folder)`` writes a small dataset and returns the arguments
of ``read``, with the skeleton; its images are dark, but for one lit pixel at every labelled keypoint. A format with a writer
has ``rewrite(labels, folder, arguments)`` as well, which writes labels and returns the arguments that read them again. A
format ``read(file, images, skeleton, …)`` with ``write(labels, path)`` needs no example: its writer makes one.
"""

from __future__ import annotations

import importlib.util
import pickle
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from omegaconf import OmegaConf

from kplab.cli import main
from kplab.data import formats
from kplab.data.holds import losses
from kplab.data.images import IMAGE_SUFFIXES
from kplab.errors import ConfigError, DataError
from kplab.ops import affine
from kplab.structures.image_source import ImageSource
from kplab.structures.labels import Labels
from kplab.structures.skeleton import Skeleton
from kplab.tasks.wiring.datasets import check_source

EXAMPLES = Path(__file__).parent / "formats"
FORMATS = formats.find_formats()
WRITTEN = [name for name in FORMATS if hasattr(formats.load_format(name), "write")]
#: Formats with a label file for each image, of which any may be missing.
PER_IMAGE = ("labelme", "panoptic_hand", "pts", "yolo")
NAMED = [name for name in FORMATS if formats.load_format(name).HOLDS.names]
MEDIA = (*IMAGE_SUFFIXES, ".avi", ".mp4")


def example(name: str) -> ModuleType:
    path = EXAMPLES / f"{name}.py"
    if not path.is_file() and name in WRITTEN and [k.name for k in keys(name) if k.required][1:] == ["images"]:
        return written_example(name)
    if not path.is_file():
        pytest.fail(f"format '{name}' has no example: add tests/data/formats/{name}.py with make(folder) ({__file__}).")
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    wanted = ["make", "rewrite"] if name in WRITTEN else ["make"]
    lacking = [function for function in wanted if not hasattr(module, function)]
    if lacking:
        pytest.fail(f"tests/data/formats/{name}.py lacks {', '.join(lacking)}: see {__file__}.")
    return module


def keys(name: str) -> list[formats.Key]:
    return formats.keys_of(formats.load_format(name).read)


def written_example(name: str) -> ModuleType:
    """The images of the COCO example, with labels written by the format's own writer."""
    module, form = ModuleType(f"example_{name}"), formats.load_format(name)
    file = keys(name)[0].name

    def make(folder: Path) -> dict[str, Any]:
        arguments = example("coco").make(folder)
        labels = replace(read("coco", arguments), extras=None)
        arguments["annotations"].unlink()
        written = form.write(labels, folder / "labels")
        return {file: written, "images": arguments["images"], "skeleton": arguments["skeleton"]}

    def rewrite(labels: Labels, folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
        folder.mkdir(parents=True, exist_ok=True)
        return {**arguments, file: form.write(labels, folder / "again")}

    vars(module).update(make=make, rewrite=rewrite)
    return module


def made(name: str, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    return example(name).make(folder)


def read(name: str, arguments: dict[str, Any]) -> Labels:
    return formats.load_format(name).read(**arguments)


def assert_same(a: Labels, b: Labels) -> None:
    """Images in the same order with the same pixels and the same instances in any order."""
    assert len(a) == len(b)
    for i in range(len(a)):
        np.testing.assert_array_equal(a.read(i), b.read(i))
        p, q = (poses[np.lexsort(np.nan_to_num(poses.xy[:, :, 0]).T)] for poses in (a.poses_of(i), b.poses_of(i)))
        for column in ("xy", "visible", "box", "area", "ignore", "track"):
            # half a pixel added and taken away costs a last digit
            np.testing.assert_allclose(getattr(p, column), getattr(q, column), atol=1e-9, err_msg=column)


def assert_lit(image: np.ndarray, xy: np.ndarray) -> None:
    """Each point is the centre of a lit pixel: a shift of half a pixel, or of one, is noticed."""
    points = xy[np.isfinite(xy).all(-1)]
    assert len(points)
    np.testing.assert_allclose(points % 1, 0.5, atol=1e-6)
    columns, rows = np.floor(points).astype(int).T
    assert (image[rows, columns] >= 200).all()
    assert (image >= 100).all(-1).sum() == len({(x, y) for x, y in points.tolist()})


@pytest.mark.parametrize("name", FORMATS)
def test_every_key_is_described(name: str) -> None:
    """The list of formats and the messages are made from signature and docstring."""
    module = formats.load_format(name)
    assert "skeleton" in formats.argument_texts(module.read)
    lacking = [key.name for key in formats.keys_of(module.read) if not key.text]
    assert not lacking, f"data/formats/{name}.py: describe {', '.join(lacking)} under Args: of read"
    listed = formats.describe_formats()
    assert f"_target_: kplab.data.formats.{name}.read" in listed
    assert all(f"    {key.name}" in listed for key in formats.keys_of(module.read))


@pytest.mark.parametrize("name", FORMATS)
def test_keypoints_lie_on_their_pixels(name: str, tmp_path: Path) -> None:
    labels = read(name, made(name, tmp_path))
    assert len(labels) > 1
    assert isinstance(labels.source, ImageSource)
    assert len(set(labels.names)) == len(labels)
    for ids in (labels.image_id, labels.instance_id):
        assert ids.dtype == np.int64
        assert ids.min() > 0
        assert len(set(ids.tolist())) == len(ids)
    assert not labels.notes, "a whole example leaves nothing out"
    assert labels.box_source
    assert labels.area_source
    assert labels.files, "a run records the hashes of the files that labels are read from"
    assert all(path.is_file() for path in labels.files)
    for i in range(len(labels)):
        image = labels.read(i)
        assert tuple(labels.size[i]) == image.shape[1::-1]
        assert_lit(image, labels.poses_of(i).xy)


@pytest.mark.parametrize("name", FORMATS)
def test_mirrored_keypoints_lie_on_mirrored_pixels(name: str, tmp_path: Path) -> None:
    labels = read(name, made(name, tmp_path))
    for i in range(len(labels)):
        poses, matrix = labels.poses_of(i), affine.mirror(float(labels.size[i, 0]))
        mirrored = poses.transform(matrix).permute_keypoints(labels.skeleton.flip_array)
        assert_lit(labels.read(i)[:, ::-1], mirrored.xy)
        back = mirrored.transform(matrix).permute_keypoints(labels.skeleton.flip_array)
        np.testing.assert_allclose(back.xy, poses.xy, atol=1e-12)
        np.testing.assert_allclose(back.box, poses.box, atol=1e-12)


@pytest.mark.parametrize("name", NAMED)
def test_keypoints_are_matched_by_name(name: str, tmp_path: Path) -> None:
    arguments = made(name, tmp_path)
    skeleton: Skeleton = arguments["skeleton"]
    order = np.arange(len(skeleton))[::-1]
    flip = tuple(int(len(order) - 1 - skeleton.flip[i]) for i in order)
    other = Skeleton("other", tuple(skeleton.keypoints[i] for i in order), (), flip, skeleton.sigmas, "made up")
    labels, permuted = read(name, arguments), read(name, {**arguments, "skeleton": other})
    np.testing.assert_array_equal(permuted.poses.xy, labels.poses.xy[:, order])


@pytest.mark.parametrize("name", FORMATS)
def test_selected_images_keep_all_that_they_had(name: str, tmp_path: Path) -> None:
    labels = read(name, made(name, tmp_path))
    chosen = [len(labels) - 1, 0]
    part = pickle.loads(pickle.dumps(labels.select(chosen)))  # as a loader's worker gets it
    assert list(part.names) == [labels.names[i] for i in chosen]
    assert list(part.group) == [labels.group[i] for i in chosen]
    for i, row in enumerate(chosen):
        np.testing.assert_array_equal(part.read(i), labels.read(row))
        for column in ("xy", "visible", "box", "area", "ignore", "track"):
            np.testing.assert_array_equal(getattr(part.poses_of(i), column), getattr(labels.poses_of(row), column))
    again = part.select([1])
    np.testing.assert_array_equal(again.read(0), labels.read(0))
    assert again.path(0) == labels.path(0)
    if labels.extras is not None:
        assert part.extras is not None
        assert set(part.extras.image) == set(labels.extras.image) & set(part.image_id.tolist())
        assert set(part.extras.instance) == set(labels.extras.instance) & set(part.instance_id.tolist())


@pytest.mark.parametrize("extras", [True, False])
@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_reads_back_the_same(name: str, extras: bool, tmp_path: Path) -> None:
    arguments = made(name, tmp_path / "a")
    labels = read(name, arguments)
    for number, part in enumerate((labels, labels.select([0]), labels.select([1, 2]))):
        kept = part if extras else replace(part, extras=None)
        folder = tmp_path / f"b{number}"
        assert_same(read(name, example(name).rewrite(kept, folder, arguments)), part)


@pytest.mark.parametrize("name", FORMATS)
def test_labels_of_other_formats_can_be_written(name: str, tmp_path: Path) -> None:
    """Extras of another format are not used."""
    labels = read(name, made(name, tmp_path / "a"))
    for writer in WRITTEN:
        plain = replace(labels, extras=None)
        written = []
        holds = formats.load_format(writer).HOLDS
        if writer == "nwb" and name != "coco":  # pynwb takes a second for each file
            continue
        if holds.keypoints not in ((), labels.skeleton.keypoints) or any(
            loss.instances for loss in losses(labels, holds)
        ):
            continue
        for number, what in enumerate((labels, plain)):
            if writer != name:
                folder = tmp_path / f"{writer}{number}"
                folder.mkdir()
                formats.load_format(writer).write(what, folder / "labels")
                written.append({p.relative_to(folder): p.stat().st_size for p in folder.rglob("*") if p.is_file()})
        assert not written or written[0] == written[1]


def label_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix not in MEDIA)


@pytest.mark.parametrize("name", FORMATS)
def test_broken_files_are_named(name: str, tmp_path: Path) -> None:
    """A truncated file is refused, unless nothing was lost with what is missing."""
    arguments = made(name, tmp_path)
    whole = read(name, arguments)
    files = label_files(tmp_path)
    assert files
    png = cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes()
    for path in files:
        data = path.read_bytes()
        damaged: dict[str, bytes | None] = {"missing": None} if name not in PER_IMAGE else {}
        damaged |= {"an image": png, "text": b"nothing\n"}
        damaged |= {} if name == "yolo" and path.suffix == ".txt" else {"empty": b""}  # an image without a subject
        damaged |= {f"cut at {share}": data[: int(len(data) * share)] for share in (0.02, 0.3, 0.6, 0.9, 0.999)}
        for damage, content in damaged.items():
            path.unlink() if content is None else path.write_bytes(content)
            labels, message = None, ""
            try:
                labels = read(name, arguments)
            except DataError as error:
                message = str(error)
            if labels is None:
                assert str(tmp_path if content is None else path) in message, f"{damage}: {message}"
            else:
                assert damage.startswith("cut"), f"{path.name}, {damage}: read without an error"
                assert_same(labels, whole)
            path.write_bytes(data)
        assert_same(read(name, arguments), whole)


@pytest.mark.parametrize("name", NAMED)
def test_an_unknown_keypoint_is_named(name: str, tmp_path: Path) -> None:
    arguments = made(name, tmp_path)
    skeleton: Skeleton = arguments["skeleton"]
    other = replace(skeleton, keypoints=("tail_tip", *skeleton.keypoints[1:]))
    with pytest.raises(DataError, match="tail_tip") as caught:
        read(name, {**arguments, "skeleton": other})
    assert any(str(path) in str(caught.value) for path in [*label_files(tmp_path), *arguments.values()])


def test_a_format_without_an_example_says_what_to_add(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(globals(), "EXAMPLES", tmp_path)
    with pytest.raises(pytest.fail.Exception, match=r"add tests/data/formats/lsp\.py with make\(folder\)"):
        example("lsp")
    (tmp_path / "coco.py").write_text("def make(folder): ...\n")
    with pytest.raises(pytest.fail.Exception, match="lacks rewrite"):
        example("coco")


def test_the_verb_lists_all_formats(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--formats"]) == 0
    out = capsys.readouterr().out
    assert all(f"_target_: kplab.data.formats.{name}.read" in out for name in FORMATS)
    assert '    area = "annotation": annotation, or box' in out
    assert max(map(len, out.splitlines())) <= 120


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (
            {"_target_": "kplab.data.formats.yolo9.read"},
            ["no reader 'kplab.data.formats.yolo9.read'", ", ".join(FORMATS)],
        ),
        ({"images": "x"}, ["no reader ''", ", ".join(FORMATS)]),
        (
            {"_target_": "kplab.data.formats.lsp.read", "folder": "x", "colour": 1},
            [
                "has no key 'colour'. Its keys:",
                'images = "images": name of the image folder, where im<number>.jpg lie.',
            ],
        ),
        (
            {"_target_": "kplab.data.formats.lsp.read"},
            ["needs the key 'folder'. Its keys:", "folder: folder that holds"],
        ),
    ],
)
def test_wrong_sources_name_formats_and_keys(node: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        check_source(OmegaConf.create(node), "dataset 'mine', source 'all'")
    assert str(caught.value).startswith("dataset 'mine', source 'all': ")
    assert all(word in str(caught.value) for word in words)


def test_half_a_pixel_is_converted_in_one_place(root: Path) -> None:
    files = [*(root / "src/kplab/data/formats").glob("*.py"), root / "src/kplab/structures/predictions.py"]
    bare = [
        f"{path.name}: {line}"
        for path in files
        for line in path.read_text().splitlines()
        if re.search(r"\b0?\.5\b", line)
    ]
    assert not bare


def test_documented_keys_exist(root: Path) -> None:
    """docs/formats.md lists the keys of each format that it describes."""
    sections = re.split(r"^## ", (root / "docs/formats.md").read_text(), flags=re.MULTILINE)
    documented = {m[1]: s for s in sections if (m := re.match(r"[^\n]+\n`kplab\.data\.formats\.(\w+)\.read`", s))}
    assert set(documented) <= set(FORMATS)
    assert documented
    for name, section in documented.items():
        keys = [key.name for key in formats.keys_of(formats.load_format(name).read)]
        assert re.findall(r"^- `(\w+)`", section, flags=re.MULTILINE) == keys, name
