"""Which images a selection has and in which order, against a plain loop; their pixels; heatmaps in the frame of the image."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from kplab.apps.dashboard import jobs, maps
from kplab.apps.dashboard.images import ImageTable, Pictures, Selection, describe, select
from kplab.data.regions import annotated_regions
from kplab.errors import ConfigError, DataError, ModelError
from kplab.metrics.score import Scores
from kplab.runs.run import Run
from kplab.structures.labels import Labels
from kplab.tasks.wiring.datasets import read_split
from kplab.tasks.wiring.nodes import load_config

SET = "dots-test"


@pytest.fixture(scope="module")
def tables(made, tmp_path_factory: pytest.TempPathFactory) -> list[ImageTable]:
    folder = tmp_path_factory.mktemp("tables")
    found = []
    for name in (made.a, made.b):
        jobs.image_table(str(made.runs_dir / name), SET, str(folder / f"{name}.npz"))
        found.append(ImageTable.read(folder / f"{name}.npz"))
    return found


@pytest.fixture(scope="module")
def labels(made) -> Labels:
    return read_split(load_config(Run.open(made.runs_dir / made.a)).dataset, "test")


def costs(
    table: ImageTable, i: int, keypoint: int | None = None, visible: tuple[int, ...] = (1, 2)
) -> tuple[int, float]:
    """Missed instances and mean error of an image, by a loop."""
    missed, errors = 0, []
    for m in np.flatnonzero(table.image == i):
        marked = [k for k in range(4) if table.visible[m, k] in visible and (keypoint is None or k == keypoint)]
        missed += bool(marked) and not table.matched[m]
        errors += [float(table.error[m, k]) for k in marked if np.isfinite(table.error[m, k])]
    return missed, float(np.mean(errors)) if errors else float("nan")


def test_the_table_is_that_of_the_scores(tables: list[ImageTable], made) -> None:
    scores = Scores.read(made.runs_dir / made.a / "scores" / f"{SET}.json")
    table = tables[0]
    np.testing.assert_array_equal(table.n_extra, scores.per_image["n_extra"])
    np.testing.assert_allclose(table.error.ravel(), scores.keypoints["error_px"], rtol=1e-5)
    assert (np.bincount(table.extra_image, minlength=len(table.image_id)) == table.n_extra).all()
    assert table.n_extra.sum() > 5
    assert (np.diff(table.image) >= 0).all()


@pytest.mark.parametrize("keypoint", [None, 2])
@pytest.mark.parametrize("visibility", ["any", "hidden"])
def test_orders_are_those_of_a_loop(tables: list[ImageTable], keypoint: int | None, visibility: str) -> None:
    marks = {"any": (1, 2), "hidden": (1,)}[visibility]
    a, b = ([costs(t, i, keypoint, marks) for i in range(len(t.image_id))] for t in tables)
    orders = ("worst", "best", "changed", "improved", "regressed")
    chosen = {order: select(tables, Selection(order, keypoint, visibility=visibility)) for order in orders}

    def in_order(key, indices: np.ndarray) -> bool:
        values = [key(i) for i in indices]
        values = [v for v in values if not np.isnan(v[1])]
        return values == sorted(values)

    assert in_order(lambda i: (-a[i][0], -a[i][1]), chosen["worst"])
    assert in_order(lambda i: (a[i][0], a[i][1]), chosen["best"])
    assert in_order(lambda i: (-abs(b[i][0] - a[i][0]), -abs(b[i][1] - a[i][1])), chosen["changed"])
    assert in_order(lambda i: (b[i][0] - a[i][0], b[i][1] - a[i][1]), chosen["improved"])
    assert in_order(lambda i: (a[i][0] - b[i][0], a[i][1] - b[i][1]), chosen["regressed"])
    assert len({tuple(sorted(c)) for c in chosen.values()}) == 1, "an order leaves nothing out"


def test_filters_are_those_of_a_loop(tables: list[ImageTable]) -> None:
    a, b = tables
    count = range(len(a.image_id))
    assert set(select(tables, Selection(missed=True))) == {i for i in count if a.n_missed[i] or b.n_missed[i]}
    assert set(select(tables, Selection(extra=True))) == {i for i in count if a.n_extra[i] or b.n_extra[i]}
    worst = {i: np.nanmax(a.error[a.image == i], initial=-1) for i in count}
    assert set(select(tables, Selection(min_error=4))) == {i for i in count if worst[i] >= 4}
    assert set(select(tables, Selection(min_error=2, max_error=4))) == {i for i in count if 2 <= worst[i] <= 4}
    size = {i: np.sqrt(a.area[a.image == i]) for i in count}
    middle = float(np.median(np.sqrt(a.area)))
    assert set(select(tables, Selection(min_size=middle))) == {i for i in count if (size[i] >= middle).any()}
    assert set(select(tables, Selection(max_size=middle))) == {i for i in count if (size[i] <= middle).any()}
    assert set(select(tables, Selection(group="video2"))) == {i for i in count if a.group[i] == "video2"}
    hidden = set(select(tables, Selection(visibility="hidden", keypoint=1)))
    assert hidden == {i for i in count if (a.visible[a.image == i][:, 1] == 1).any()}
    assert 0 < len(hidden) < len(count)
    lowest = select(tables, Selection("lowest score"))
    counted = a.matched[:, None] & (a.visible > 0)
    found = [i for i in lowest if counted[a.image == i].any()]
    mean = [np.mean(a.keypoint_score[a.image == i][counted[a.image == i]], dtype=np.float64) for i in found]
    assert mean == sorted(mean)


@pytest.mark.parametrize("wrong", [{"order": "random"}, {"visibility": "often"}])
def test_unknown_choices_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="Use one of"):
        Selection(**wrong)


def test_what_needs_two_runs_or_another_keypoint_is_refused(tables: list[ImageTable]) -> None:
    with pytest.raises(ConfigError, match="compares two runs"):
        select(tables[:1], Selection("changed"))
    with pytest.raises(ConfigError, match="there are 4"):
        select(tables, Selection(keypoint=4))


def test_a_described_image_has_its_points(tables: list[ImageTable], labels: Labels) -> None:
    for i in (0, 5, 8):
        found = describe(tables, i)
        row = int(np.flatnonzero(labels.image_id == found["id"])[0])
        true = labels.poses_of(row)
        assert len(found["truth"]) == len(true)
        np.testing.assert_allclose(found["truth"][0]["xy"], true.xy[0].ravel(), atol=0.051, equal_nan=True)
        assert found["truth"][0]["visible"] == true.visible[0].tolist()
        for run, table in zip(found["runs"], tables, strict=True):
            assert len(run["poses"]) == sum(table.image[table.matched] == i) + run["extra"]
            for pose in run["poses"]:
                if pose["of"] is not None:
                    target = np.array(found["truth"][pose["of"]]["xy"]).reshape(-1, 2)
                    distance = np.linalg.norm(np.array(pose["xy"]).reshape(-1, 2) - target, axis=1)
                    np.testing.assert_allclose(pose["error"], distance, atol=0.16)  # points are rounded to 0.1


def test_pixels_are_those_of_the_source(made, labels: Labels) -> None:
    pictures = Pictures.open(Run.open(made.runs_dir / made.a), "dots", "test")
    image_id = int(labels.image_id[3])
    decode = lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]  # noqa: E731
    whole = decode(pictures.jpeg(image_id, 0))
    original = labels.read(3)
    assert whole.shape == original.shape
    assert np.abs(whole.astype(int) - original).mean() < 4  # noise, at JPEG's quality 95
    assert decode(pictures.jpeg(image_id, 48)).shape == (36, 48, 3)
    part = decode(pictures.jpeg(image_id, 0, (10, 20, 50, 60)))
    assert part.shape == (40, 40, 3)
    assert np.abs(part.astype(int) - original[20:60, 10:50]).mean() < 4
    with pytest.raises(DataError, match="outside image"):
        pictures.jpeg(image_id, 0, (500, 500, 600, 600))
    with pytest.raises(DataError, match="has no image"):
        pictures.jpeg(10**9, 0)
    with pytest.raises(DataError, match="was trained on another one"):
        Pictures.open(Run.open(made.runs_dir / made.a), "other", "test")


class OnePeak:
    """A model whose map of keypoint k is 1 at the true point, as far as a view shows it, and 0 elsewhere."""

    size = (64, 48)
    heatmap_stride = 4
    colours = ((230, 40, 40), (40, 220, 40), (60, 60, 235), (230, 220, 0))

    def for_regions(self, kind: str) -> OnePeak:
        return self

    def heatmaps(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images[0].permute(1, 2, 0).double()
        out = torch.zeros(1, 4, 12, 16)
        for k, colour in enumerate(self.colours):
            near = torch.exp(-((pixels - torch.tensor(colour)) ** 2).sum(-1) / 2000)
            out[0, k] = torch.nn.functional.avg_pool2d(near[None, None], 4)[0, 0]
        return out


def test_heatmaps_lie_over_the_points_that_they_show(
    made, labels: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peak of each map is within one cell of the map, 4 view pixels, of the dot that the model sees."""
    regions = annotated_regions(labels)
    monkeypatch.setattr(maps, "loaded", lambda *_: (OnePeak(), labels, regions))
    whole = (i for i in range(len(labels)) if labels.poses_of(i).labelled.all() and len(labels.poses_of(i)) == 1)
    single = list(whole)[4]
    image_id, true = int(labels.image_id[single]), labels.poses_of(single)
    width = int(labels.size[single, 0])
    cell = 4 * 1.25 * float((true.box[0, 2:] - true.box[0, :2]).max()) / 48
    for k in range(4):
        maps.heatmaps.cache_clear()
        maps.write(str(made.runs_dir / made.a), "test", image_id, k, tmp_path / "map.png")
        picture = cv2.imread(str(tmp_path / "map.png"), cv2.IMREAD_UNCHANGED)
        assert picture.shape[1] == maps.SIDE
        y, x = np.unravel_index(picture[..., 3].argmax(), picture.shape[:2])
        found = (np.array([x, y]) + 0.5) * width / maps.SIDE
        assert np.linalg.norm(found - true.xy[0, k]) < cell, k


def test_which_part_of_a_model_has_heatmaps(made, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cascade has none for whole images; its pose model has them for boxes. A model without any is named."""

    class Cascade(OnePeak):
        heatmap_stride = None  # type: ignore[assignment]

        def for_regions(self, kind: str) -> OnePeak:
            return OnePeak() if kind == "annotated" else self

    plain = OnePeak()
    plain.heatmap_stride = None  # type: ignore[assignment]
    folder = str(made.runs_dir / made.a)
    config = load_config(Run.open(made.runs_dir / made.a))
    config.regions = "image"
    monkeypatch.setattr(maps, "load_config", lambda _: config)
    maps.loaded.cache_clear()
    monkeypatch.setattr(maps, "load_model", lambda *_, **__: (Cascade(), None))
    model, labels, regions = maps.loaded(folder, "test", 0.0)
    assert (model.heatmap_stride, regions.kind) == (4, "annotated")
    assert len(regions) == len(labels.poses)
    monkeypatch.setattr(maps, "load_model", lambda *_, **__: (plain, None))
    with pytest.raises(ModelError, match="has no heatmaps"):
        maps.loaded(folder, "test", 1.0)
    maps.loaded.cache_clear()
