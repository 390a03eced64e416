"""Objects of memory: rendered cards with exact corners, and real pictures with a known homography and distractors."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from kplab.classical import changes
from kplab.classical.recognition import UNKNOWN, ObjectMemory
from kplab.data.sources.arrays import ArraySource
from kplab.errors import DataError, ModelError
from kplab.synthetic.cards import card, show

CARDS = {f"card {i}": card(i, seed=1) for i in range(5)}


@pytest.fixture(scope="module")
def memory() -> ObjectMemory:
    distractors = [show(None, np.random.default_rng([5, i]))[0] for i in range(5)]
    return ObjectMemory.learn({name: [print_] for name, print_ in CARDS.items()}, distractors)


def test_cards_are_recognised_where_they_are(memory: ObjectMemory) -> None:
    """Most cards that are tilted by up to 30 degrees and rotated by any angle, with their corners; never a wrong name.

    Of other seeds 82 % are recognised (docs), and errors of corners are 0.5 px (median).
    """
    names, errors = [], []
    truth = list(CARDS) * 2
    for n, name in enumerate(truth):
        image, corners = show(CARDS[name], np.random.default_rng([9, n]), tilt=30.0)
        best = memory.recognise(image)[0]
        names.append(memory.name_of(image))
        if names[-1] != UNKNOWN:
            errors.append(np.abs(best.outline - corners).max())
    assert all(found in (name, UNKNOWN) for name, found in zip(truth, names, strict=True))
    assert sum(found != UNKNOWN for found in names) >= 7
    assert np.median(errors) < 1.0


def test_unknown_cards_and_backgrounds_are_unknown(memory: ObjectMemory) -> None:
    for n in range(6):
        image, _ = show(card(100 + n, seed=2) if n % 2 else None, np.random.default_rng([11, n]))
        assert memory.name_of(image) == UNKNOWN, n


def test_two_objects_in_a_picture(memory: ObjectMemory) -> None:
    """Each is listed with its own place: the prints side by side have their corners where they were put."""
    image = np.concatenate([CARDS["card 1"], CARDS["card 4"]], axis=1)
    found = memory.recognise(image)[:2]
    assert {f.name for f in found} == {"card 1", "card 4"}
    for f in found:
        left = 0 if f.name == "card 1" else 200
        border = np.array([[left, 0], [left + 200, 0], [left + 200, 150], [left, 150]])
        np.testing.assert_allclose(f.outline, border, atol=0.5)
    table = memory.table(ArraySource([image, np.zeros((50, 50, 3), np.uint8)]))
    assert sorted(table.object) == ["card 1", "card 4", UNKNOWN]


def test_an_outline_limits_what_is_remembered() -> None:
    """Only the part of the picture within the outline is the object: the other part alone is not recognised."""
    both = np.concatenate([CARDS["card 1"], CARDS["card 4"]], axis=1)
    half = np.array([[0, 0], [200, 0], [200, 150], [0, 150]])
    distractors = [show(None, np.random.default_rng([5, i]))[0] for i in range(3)]
    memory = ObjectMemory.learn({"left": [both]}, distractors, {"left": [half]})
    tilted, matrix = changes.perspective(both, 20)
    (found,) = [f for f in memory.recognise(tilted) if f.score >= 0.5]
    true = cv2.perspectiveTransform(half[None].astype(float), matrix)[0]
    np.testing.assert_allclose(found.outline, true, atol=1.5)
    assert memory.name_of(CARDS["card 4"]) == UNKNOWN


def test_a_memory_is_kept(memory: ObjectMemory, tmp_path: Path) -> None:
    path = memory.write(tmp_path / "objects.npz")
    again = ObjectMemory.read(path)
    image, _ = show(CARDS["card 2"], np.random.default_rng(3), tilt=10.0)
    for a, b in zip(memory.recognise(image), again.recognise(image), strict=True):
        assert (a.name, a.score, a.matches) == (b.name, b.score, b.matches)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ModelError, match=r"objects\.npz"):
        ObjectMemory.read(path)
    np.savez(path, names=np.array([print], dtype=object))
    with pytest.raises(ModelError, match=r"objects\.npz"):
        ObjectMemory.read(path)


def test_what_cannot_be_remembered_is_refused() -> None:
    grey = np.full((60, 80, 3), 128, np.uint8)
    with pytest.raises(DataError, match="one object alone"):
        ObjectMemory.learn({"a": [CARDS["card 0"]]})
    with pytest.raises(DataError, match="no SIFT feature"):
        ObjectMemory.learn({"a": [CARDS["card 0"]], "b": [grey]})
    with pytest.raises(DataError, match="0 outlines"):
        ObjectMemory.learn({"a": [CARDS["card 0"]], "b": [grey]}, outlines={})
    with pytest.raises(DataError, match="one picture or more"):
        ObjectMemory.learn({"a": []})


def test_real_pictures(real_data: Path) -> None:
    """A painted wall, with its corners by the known homographies, and photographs that are not in memory.

    The corners lie outside of the pictures, up to 80 px, so that errors are extrapolated.
    """
    read = lambda path: cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)  # noqa: E731
    graf = real_data / "oxford_graf"
    photographs = [read(path) for path in sorted((real_data / "dlib_faces").glob("*.jpg"))]
    objects = {"wall": [read(graf / "img1.png")], "people": photographs[:1]}
    memory = ObjectMemory.learn(objects, photographs[1:2], points=500)
    height, width = read(graf / "img1.png").shape[:2]
    border = np.array([[[0, 0], [width, 0], [width, height], [0, height]]], dtype=float)
    for number, tolerance in ((2, 3.0), (3, 8.0)):
        best = memory.recognise(read(graf / f"img{number}.png"))[0]
        true = cv2.perspectiveTransform(border, np.loadtxt(graf / f"H1to{number}p"))[0]
        assert (best.name, best.score > 0.5) == ("wall", True)
        np.testing.assert_allclose(best.outline, true, atol=tolerance)
    assert [memory.name_of(picture) for picture in photographs[3:5]] == [UNKNOWN] * 2
