"""Plans for unusual datasets: each one is sensible, composes, and its training takes steps; or it is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from kplab.data.traits import Traits
from kplab.errors import KplabError
from kplab.tasks import compose
from kplab.tasks.planning import plan
from kplab.tasks.planning.stopwatch import Timing, measure

#: 20 views a second.
TIMING = Timing(view=0.05, validation=0.0, epoch=0.1, memory=900.0, views=8, validated=0)


@dataclass(frozen=True)
class Scene:
    """Images of crosses: a centre and four ends.

    Args:
        sizes: (width, height) of the images.
        sides: of the crosses, pixels.
        crosses: in each image.
        keypoints: that are labelled; the others are missing everywhere.
        names: keypoints of the skeleton.
    """

    sizes: tuple[tuple[int, int], ...] = ((160, 120),) * 6
    sides: tuple[float, ...] = (50.0,)
    crosses: int = 1
    keypoints: int = 5
    names: int = 5

    def write(self, folder: Path) -> Path:
        """Write images and COCO annotations.

        Returns:
            the annotation file.
        """
        rng = np.random.default_rng(0)
        ends = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]]) / 2
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for i, (w, h) in enumerate(self.sizes):
            pixels = rng.integers(0, 60, (h, w, 3), dtype=np.uint8)
            for c in range(self.crosses):
                side = self.sides[(i + c) % len(self.sides)]
                points = rng.uniform(side / 2, [w - side / 2, h - side / 2]) + side * ends
                for x, y in points[: self.names]:
                    pixels[max(0, int(y) - 1) : int(y) + 2, max(0, int(x) - 1) : int(x) + 2] = 255
                visible = [2 if k < self.keypoints else 0 for k in range(self.names)]
                triples = [
                    [float(x) * bool(v), float(y) * bool(v), v] for (x, y), v in zip(points, visible, strict=False)
                ]
                corner = [float(v) for v in points.mean(0) - side / 2]
                annotations.append(
                    {
                        "id": len(annotations) + 1, "image_id": i + 1, "category_id": 1, "iscrowd": 0,
                        "keypoints": [v for triple in triples for v in triple], "num_keypoints": sum(map(bool, visible)),
                        "bbox": [*corner, side, side], "area": side * side,
                    }
                )  # fmt: skip
            Image.fromarray(pixels).save(folder / f"{i}.png")
            images.append({"id": i + 1, "file_name": f"{i}.png", "width": w, "height": h})
        category = {"id": 1, "name": "cross", "keypoints": [f"k{k}" for k in range(self.names)], "skeleton": []}
        path = folder / "annotations.json"
        path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [category]}))
        return path


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Plans a training for a scene, and takes nine of its steps."""

    def make(
        scene: Scene, budget: str = "10m", timing: Timing = TIMING
    ) -> tuple[Traits, dict[str, Any], dict[str, str]]:
        names = [f"k{k}" for k in range(scene.names)]
        skeleton = {"name": "cross", "keypoints": names, "edges": [], "flip_pairs": [], "sigmas": "uniform"}
        source = {
            "_target_": "kplab.data.formats.coco.read",
            "annotations": str(scene.write(tmp_path)),
            "images": str(tmp_path),
        }
        (tmp_path / "dataset").mkdir()
        (tmp_path / "dataset" / "crosses.yaml").write_text(
            yaml.safe_dump({"name": "crosses", "skeleton": skeleton, "sources": {"train": source}, "split": None})
        )
        given = [f"hydra.searchpath=[file://{tmp_path}]", "backbone=resnet10_half", "trainer=cpu", "workers=0"]
        made = plan.make_plan("crosses", budget, "auto", given, "p", lambda *_: timing)
        config = compose("train", [*plan.overrides_of(made.choices, "crosses"), *given])
        taken = measure(config, 0.01)
        assert taken.views == len(scene.sizes)
        values = {k: v for c in made.choices for k, v in c.values.items()}
        return made.traits, values, {k: v for c in made.choices for k, v in c.groups.items()}

    return make


@pytest.mark.slow
def test_one_image(planned: Any) -> None:
    traits, values, groups = planned(Scene(sizes=((160, 120),)))
    assert (traits.images, values["batch_size"], groups["head"]) == (1, 2, "heatmap")
    assert values["augment.flip"] == 0  # one pose does not show that mirrored ones occur


@pytest.mark.slow
def test_one_keypoint(planned: Any) -> None:
    traits, values, _ = planned(Scene(keypoints=1, names=1))
    assert traits.keypoints == 1
    assert traits.side == pytest.approx(50)  # that of the boxes
    assert all(t["_target_"] != "albumentations.CoarseDropout" for t in values["augment.transforms"])


@pytest.mark.slow
def test_a_keypoint_that_is_never_labelled(planned: Any) -> None:
    traits, *_ = planned(Scene(keypoints=4))
    assert (traits.keypoints, traits.labelled) == (4, 1.0)


@pytest.mark.slow
def test_images_of_all_sizes(planned: Any) -> None:
    sizes = ((40, 300), (300, 40), (64, 64), (700, 500), (90, 120), (33, 47))
    traits, values, _ = planned(Scene(sizes=sizes, sides=(30.0,)))
    assert not traits.one_size
    assert all(64 <= s <= 256 for s in values["size"])


@pytest.mark.slow
def test_a_subject_as_large_as_the_image(planned: Any) -> None:
    _, values, _ = planned(Scene(sizes=((800, 800),) * 4, sides=(798.0,)))
    assert values["window"] is None
    assert values["size"] == [128, 128]  # keypoints 400 px apart need no more


@pytest.mark.slow
def test_a_subject_of_ten_pixels(planned: Any) -> None:
    _, values, _ = planned(Scene(sizes=((320, 240),) * 6, sides=(10.0,)))
    assert 10 * values["size"][0] / 320 >= 30  # enlarged, since the coarsest stride is 32
    assert max(values["window"]) <= 0.5 * min(values["size"])


@pytest.mark.slow
def test_a_hundred_subjects(planned: Any) -> None:
    _, values, groups = planned(Scene(sizes=((400, 300),) * 3, sides=(20.0,), crosses=100))
    assert (groups["head"], values["rescore"]) == ("centernet", 0.0)
    assert 20 * values["size"][0] / 400 >= 32


@pytest.mark.slow
def test_a_few_subjects_of_very_different_sizes(planned: Any) -> None:
    traits, values, groups = planned(Scene(sizes=((160, 120),) * 2, sides=(12.0, 60.0), crosses=2))
    assert (groups["model"], values["rescore"]) == ("cascade", 0.0)
    assert traits.side_low * values["detector.size"][0] / 160 >= 20


def test_a_budget_below_one_epoch(planned: Any) -> None:
    with pytest.raises(
        KplabError, match=r"a budget of 1 s is too small: one epoch of 2000 views takes 100 s.*Give 17m or"
    ):
        planned(Scene(), "1s", Timing(view=0.05, validation=0.0, epoch=0.1, memory=900.0, views=2000, validated=0))


def test_no_label_at_all(planned: Any) -> None:
    with pytest.raises(KplabError, match="crosses"):
        planned(Scene(keypoints=0))
