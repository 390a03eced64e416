"""Which image comes first, from predictions whose quality is known; and suggestions of a run."""

from __future__ import annotations

import numpy as np
import pytest

from kplab.apps.annotate import suggestions as module
from kplab.apps.annotate.jobs import predictions, variants
from kplab.apps.annotate.order import confidence, disagreement, teaching_order, thumbnail
from kplab.apps.annotate.suggestions import TEACHES, UNCERTAIN, UNSTABLE, Suggestions, spread, suggested
from kplab.apps.annotate.window import Windows
from kplab.errors import DataError
from kplab.ops import affine
from kplab.structures.poses import Poses


def poses(xy: np.ndarray, score: float = 1.0, keypoint_score: np.ndarray | None = None) -> Poses:
    n = len(xy)
    return Poses.make(xy, score=np.full(n, score), keypoint_score=keypoint_score)


def test_disagreement_is_a_share_of_the_size() -> None:
    square = np.array([[[0.0, 0], [100, 0], [100, 100], [0, 100]]])
    assert disagreement([poses(square), poses(square), poses(square)]) == 0
    assert disagreement([poses(square), poses(square + 3.0 * np.array([0.6, 0.8]))]) == pytest.approx(0.03)
    assert disagreement([poses(3 * square), poses(3 * square + np.array([9.0, 0]))]) == pytest.approx(0.03), (
        "of any size"
    )
    # one of two variants is right, the other 10 px off
    assert disagreement([poses(square), poses(square), poses(square + np.array([10.0, 0]))]) == pytest.approx(0.05)


def test_instances_are_paired_and_missing_ones_count() -> None:
    two = np.array([[[0.0, 0], [10, 10]], [[100, 100], [110, 110]]])
    assert disagreement([poses(two), poses(two[::-1].copy())]) == 0, "in any order"
    assert disagreement([poses(two), poses(two[:1])]) == pytest.approx(0.5)
    assert disagreement([poses(two[:1]), poses(two)]) == pytest.approx(0.5)
    assert disagreement([poses(two[:0]), poses(two)]) == 1
    assert disagreement([poses(two), poses(two[:0])]) == 1
    partly = two[:1].copy()
    partly[0, 1] = np.nan
    assert disagreement([poses(two[:1]), poses(partly)]) == pytest.approx(0.5), "one of two keypoints"
    assert disagreement([poses(partly), poses(partly)]) == 0


def test_confidence_is_the_mean_of_keypoints_weighted_by_instances() -> None:
    xy = np.zeros((2, 2, 2))
    found = Poses.make(xy, score=np.array([0.9, 0.1]), keypoint_score=np.array([[0.8, 0.6], [0.2, 0.2]]))
    assert confidence(found) == pytest.approx(0.9 * 0.7 + 0.1 * 0.2)
    assert confidence(found[:0]) == 0


def test_variants_show_the_same_places() -> None:
    """A bright pixel lies where the map of each variant says."""
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    image[10, 20] = 255
    for pixels, back in variants(image):
        row, column = np.argwhere(pixels[..., 0] == 255)[0]
        assert affine.apply(back, np.array([[column + 0.5, row + 0.5]])) == pytest.approx(np.array([[20.5, 10.5]]))


class SeesSpots:
    """Stands for a run whose model names two bright pixels by their side, and so makes no error in any variant."""

    def __init__(self, skeleton) -> None:
        self.skeleton = skeleton

    def new_regions(self, source) -> None:
        return None

    def stream(self, source, regions, *, batch_size: int, workers: int):
        for i in range(len(source)):
            row, column = np.nonzero(source.read(i)[..., 0] == 255)
            order = np.argsort(column)  # the right wing is on the left
            xy = np.full((1, 5, 2), np.nan)
            xy[0, [2, 1]] = np.stack([column, row], axis=1)[order] + 0.5
            yield i, Poses.make(xy, box=np.array([[*xy[0, 2], *xy[0, 1]]]))


def test_predictions_of_all_variants_are_in_the_pixels_of_the_image(skeleton) -> None:
    image = np.zeros((41, 60, 3), dtype=np.uint8)
    image[10, 20], image[30, 50] = 255, 255
    found = predictions(SeesSpots(skeleton), image)  # type: ignore[arg-type]
    for one in found:
        assert one.xy[0, [2, 1]] == pytest.approx(np.array([[20.5, 10.5], [50.5, 30.5]]))
        assert one.box[0] == pytest.approx([20.5, 10.5, 50.5, 30.5])
    assert disagreement(found) == pytest.approx(0)


def test_suggestions_and_orders_of_a_project(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that are asked for come first; what is predicted is announced once; an image that fails is no end."""
    project = opened()
    asked: list[np.ndarray] = []

    class FakeRun:
        folder, name = "run", "run"

    def call(worker, job: str, **arguments) -> dict:
        asked.append(arguments["keypoints"])
        n = len(asked)
        if n == 2:
            raise DataError("damaged")
        return {
            "xy": [[[n, n], None, None, None, None]],
            "score": [1.0],
            "disagreement": n / 10,
            "confidence": 1 - n / 10,
        }

    monkeypatch.setattr(module, "check_run", lambda *_: None)
    monkeypatch.setattr(module.Worker, "call", call)
    found = Suggestions(project, FakeRun())  # type: ignore[arg-type]
    windows = Windows(project, found)
    assert windows.answer({"kind": "show", "view": "v", "image": 3})["suggested"] is None
    found.start()
    found._thread.join(20)
    order = [3, *[i for i in spread(6).tolist() if i != 3]]
    assert found.done == [i for i in order if i != order[1]]
    assert windows.answer({"kind": "show", "view": "v", "image": 3})["suggested"][0]["xyv"][:3] == (1, 1, 2)
    news = windows.answer({"kind": "news", "view": "v"})["items"]
    assert [item["image"] for item in news if item["kind"] == "suggestion"] == found.done
    assert next(item for item in news if item["kind"] == "status")["fault"] == "damaged"
    # the last ones have the largest disagreement and the lowest confidence; the one that failed has neither
    expected = [*order[:1:-1], order[0], order[1]]
    assert found.order(UNSTABLE).tolist() == expected
    assert found.order(UNCERTAIN).tolist() == expected
    teaches = found.order(TEACHES).tolist()
    assert sorted(teaches) == list(range(6))
    assert teaches[-1] == 0, "labelled images come last"
    windows.close()


def test_uncertain_images_come_first_and_equal_ones_are_spread() -> None:
    """Three groups of equal images; the order takes one of each group, the most uncertain first, before a second of any."""
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(3), 4, axis=0)
    features = centres + rng.normal(0, 0.01, centres.shape)
    uncertain = np.array([0.1, 0.2, 0.3, 0.9, 0.1, 0.2, 0.3, 0.8, 0.1, 0.2, 0.3, 0.7])
    order = teaching_order(uncertain, 1 - uncertain, features, np.zeros(12, dtype=bool))
    assert order[:3].tolist() == [3, 7, 11]
    assert sorted(order.tolist()) == list(range(12))
    # with the first group labelled, its other images come after those of the others
    labelled = np.arange(12) < 1
    assert set(order_groups := (teaching_order(uncertain, 1 - uncertain, features, labelled)[:2] // 4).tolist()) == {
        1,
        2,
    }
    assert len(order_groups) == 2


def test_an_image_that_stands_for_many_precedes_an_outlier() -> None:
    """The first one has the least distance from all others; those that equal a labelled image come last."""
    line = np.array([0.0, 1, 2, 3, 4, 5, 6, 60])[:, None]
    equal = np.full(8, 0.5)
    none = np.zeros(8, dtype=bool)
    order = teaching_order(equal, equal, line, none)
    assert order[:2].tolist() == [3, 7]
    # by definition: each choice has the largest decrease of the summed distance to the nearest chosen image
    left, nearest = list(range(8)), np.full(8, 60.0)
    for chosen in order[:-1]:
        gain = {i: np.maximum(nearest - np.abs(line[:, 0] - line[i, 0]), 0).sum() for i in left}
        assert gain[chosen] == pytest.approx(max(gain.values()))
        left.remove(int(chosen))
        nearest = np.minimum(nearest, np.abs(line[:, 0] - line[chosen, 0]))
    # a labelled image in the middle of the many: the outlier is next
    assert teaching_order(equal, equal, line, np.arange(8) == 3)[0] == 7
    # an uncertain image precedes one of as large a coverage
    doubt = np.array([0.5, 0.9])
    assert teaching_order(doubt, 1 - doubt, np.eye(2), np.zeros(2, dtype=bool)).tolist() == [1, 0]


def test_more_images_than_are_compared_follow_by_their_uncertainty() -> None:
    doubt = np.linspace(0.1, 0.9, 9)
    order = teaching_order(doubt, 1 - doubt, np.eye(9), np.zeros(9, dtype=bool), most=3)
    assert order.tolist() == [8, 4, 0, 7, 6, 5, 3, 2, 1]


def test_images_without_a_prediction_come_last() -> None:
    unknown = np.array([np.nan, 0.1, np.nan, 0.4])
    order = teaching_order(unknown, 1 - unknown, np.eye(4), np.array([False, False, False, False]))
    assert order.tolist() == [3, 1, 0, 2]
    assert teaching_order(
        np.full(3, np.nan), np.full(3, np.nan), np.eye(3), np.array([True, False, False])
    ).tolist() == [1, 2]


def test_a_thumbnail_describes_the_image() -> None:
    left = np.zeros((80, 80, 3), dtype=np.uint8)
    left[:, :40] = 200
    assert np.linalg.norm(thumbnail(left) - thumbnail(left[:, ::-1])) > 5
    assert np.linalg.norm(thumbnail(left) - thumbnail(np.roll(left, 1, 0))) < 0.1


def test_suggestions_lie_in_the_image_and_have_a_score() -> None:
    answer = {"xy": [[[5, 6], [-3, 6], None], [[1, 1], [2, 2], [3, 3]]], "score": [0.9, 0.1]}
    (one,) = suggested(answer, (10, 10), 0.3)
    assert one.xyv == (5, 6, 2, 0, 0, 0, 0, 0, 0)


def test_the_first_images_are_spread_over_all() -> None:
    order = spread(1000)
    assert sorted(order.tolist()) == list(range(1000))
    assert np.diff(np.sort(order[:20])).max() <= 100
