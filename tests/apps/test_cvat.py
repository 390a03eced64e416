"""CVAT's own driver takes the function of a run: the specification is valid, and skeletons map onto a task's label."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from kplab.apps.cvat import Function
from kplab.errors import ConfigError
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

SKELETON = Skeleton.from_config({"name": "bug", "keypoints": ["head", "body", "tail"], "sigmas": "uniform"})


class Sees:
    """Stands for a run that predicts two subjects, one of which lacks a keypoint."""

    skeleton = SKELETON

    def new_regions(self, source) -> None:
        return None

    def stream(self, source, regions, *, batch_size: int, workers: int):
        assert source.read(0).shape == (6, 8, 3)
        xy = np.array([[[1.25, 2], [3, 4], [5, 6]], [[1, 1], [np.nan, np.nan], [2, 2]]])
        yield 0, Poses.make(xy, score=np.array([0.9, 0.2]))


def test_without_the_package_the_remedy_is_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cvat_sdk", None)
    with pytest.raises(ConfigError, match="pip install cvat-sdk"):
        Function(Sees())  # type: ignore[arg-type]


def test_cvat_takes_the_skeletons() -> None:
    pytest.importorskip("cvat_sdk", reason="needs the package cvat-sdk")
    from cvat_sdk import models
    from cvat_sdk.auto_annotation import driver

    function = Function(Sees(), "insect")  # type: ignore[arg-type]
    grey = Image.fromarray(np.zeros((6, 8), dtype=np.uint8))
    assert len(function.detect(SimpleNamespace(conf_threshold=0.5), grey)) == 1
    found = function.detect(SimpleNamespace(conf_threshold=None), grey)
    sublabels = [
        models.Sublabel(name=name, id=100 + k, type="points") for k, name in enumerate(["tail", "head", "body"])
    ]
    label = models.Label(name="insect", id=7, type="skeleton", sublabels=sublabels, attributes=[])
    for sublabel in sublabels:
        sublabel.attributes = []
    options = {"allow_unmatched_labels": False, "conv_mask_to_poly": False}
    mapper = driver._AnnotationMapper(logging.getLogger("cvat"), function.spec.labels, [label], **options)
    mapper.validate_and_remap(found, 3)
    first, second = ({e.label_id: (e.points, bool(e.get("outside"))) for e in one.elements} for one in found)
    assert first == {101: ([1.25, 2.0], False), 102: ([3.0, 4.0], False), 100: ([5.0, 6.0], False)}
    assert second[102][1]
    assert [one.frame for one in found] == [3, 3]
