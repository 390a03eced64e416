"""Round trips: what a format holds is read again as it was written, and the losses that it states are all there are."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from tests import strategies
from tests.data.formats._spots import PET
from tests.data.test_formats import WRITTEN, example

from kplab.data import formats
from kplab.data.holds import Holds, losses, reduced
from kplab.data.sources.files import FileSource
from kplab.errors import DataError
from kplab.structures.labels import Labels
from kplab.structures.skeleton import Skeleton

SIZES = [(160, 120), (90, 128), (160, 120)]
NAMES = ["a/0.png", "a/1.png", "b/2.png"]
EVERYTHING = Holds(visibility=True, boxes=True, areas=True, crowds=True, bare=True, tracks=True, groups=True)
COUNTER = itertools.count()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, (name, (width, height)) in enumerate(zip(NAMES, SIZES, strict=True)):
        (folder / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / name), np.full((height, width), 40 * number, np.uint8))
    return folder


def skeleton_for(holds: Holds) -> Skeleton:
    """A skeleton that the format has a place for."""
    if not holds.keypoints:
        return PET
    count = len(holds.keypoints)
    return Skeleton("own", holds.keypoints, (), tuple(range(count)), (0.1,) * count, "made up")


def source_for(holds: Holds, images: Path) -> tuple[FileSource, list[tuple[int, int]]]:
    """Images that the format has a place for."""
    places = range(3) if holds.sizes else (0, 2)
    return FileSource(images, [NAMES[i] for i in places]), [SIZES[i] for i in places]


def read_again(name: str, labels: Labels, folder: Path, images: Path) -> Labels:
    folder.mkdir(parents=True)
    arguments = example(name).rewrite(labels, folder, {"skeleton": labels.skeleton, "images": images})
    module = formats.load_format(name)
    known = {key.name for key in formats.keys_of(module.read)} | {"skeleton"}
    return module.read(**{key: value for key, value in arguments.items() if key in known})


def assert_held(found: Labels, expected: Labels, holds: Holds) -> None:
    """Images and instances in the same order, to the precision of the format."""
    assert len(found) == len(expected)
    p, q = found.poses, expected.poses
    np.testing.assert_array_equal(found.size, expected.size)
    np.testing.assert_array_equal(found.start, expected.start)
    np.testing.assert_array_equal(p.visible, q.visible)
    np.testing.assert_array_equal(p.ignore, q.ignore)
    np.testing.assert_array_equal(p.track, q.track)
    np.testing.assert_array_equal(found.crowd, expected.crowd)
    np.testing.assert_allclose(p.xy, q.xy, rtol=0, atol=holds.precision)
    # a box from keypoints is their extent times a margin of 1.2, and a tenth of its other side at least
    np.testing.assert_allclose(p.box, q.box, rtol=0, atol=holds.precision * (1 if holds.boxes else 2))
    if holds.areas:
        np.testing.assert_allclose(p.area, q.area, rtol=1e-8)
    if holds.groups:
        np.testing.assert_array_equal(found.group, expected.group)
    for i in range(len(found)):
        np.testing.assert_array_equal(found.read(i), expected.read(i))


@pytest.mark.parametrize("name", WRITTEN)
def test_what_a_format_holds_survives(name: str, images: Path, tmp_path: Path) -> None:
    holds = formats.load_format(name).HOLDS
    source, sizes = source_for(holds, images)

    def check(labels: Labels) -> None:
        expected = reduced(labels, holds)
        assert not losses(expected, replace(holds, names=True, precision=0)), "what is reduced loses no more"
        folder = tmp_path / str(next(COUNTER))
        if any(loss.instances for loss in losses(labels, holds)):
            with pytest.raises(DataError, match="several"):
                read_again(name, labels, folder / "whole", images)
            labels = reduced(labels, replace(EVERYTHING, several=holds.several, bare=False, crowds=False))
        assert_held(read_again(name, labels, folder / "part", images), expected, holds)

    drawn = strategies.labels(skeleton_for(holds), source, sizes)
    count = 2 if name == "nwb" else 6  # pynwb takes a second for each file
    settings(max_examples=count, suppress_health_check=[HealthCheck.too_slow])(given(drawn)(check))()
