"""The file of every family finds the poses of its model, in the pixels of views and of images."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

# tests are no package
sys.path.append(str(Path(__file__).resolve().parents[1]))

from contract.cases import heads, settings_of
from kplab.errors import ConfigError
from kplab.export.formats import SUFFIXES, load, write
from kplab.export.graphs import graphs_of
from kplab.export.parity import ImageParity
from kplab.export.predictor import ExportedModel
from kplab.ops import affine
from kplab.structures.poses import Poses
from kplab.structures.predictor import Model
from kplab.structures.sample import Batch, Sample
from kplab.tasks import compose
from kplab.tasks.wiring.models import build_model

SIZE = (64, 96)
NETWORK = [
    "dataset=synthetic_person",
    "backbone=resnet10_half",
    "neck.channels=16",
    "regions=image",
    f"size={list(SIZE)}",
]
CASCADE = ["head=heatmap", "model=cascade", "model.crop=[32,32]", "detector.size=[32,64]", "size=[96,192]"]
#: Options that give random networks some poses.
MORE = {
    "rcnn": ["neck.levels=[4,8]", "head.anchor_sizes=[[16],[32]]", "head.min_score=0.3"],
    "paf": ["head.peak=0.05", "head.min_score=0.01"],
    "cascade": [
        "model.min_score=0.0",
        "detector.head.max_poses=3",
        "model.hull=keypoints",
        "model.passes=2",
        "model.nms_threshold=0.5",
        "model.turns=[45,90]",
        "model.turned=last",
    ],
    "snapping": ["head=yolo", "model.auxiliary={sigma:1.0,snap:9,snap_score:0.05}"],
}
#: Family, format. All families are tested as ONNX, and different kinds of graph in the other formats.
CASES = [
    *((name, "onnx") for name in [*heads(), "cascade", "snapping"]),
    *((name, "openvino") for name in ("heatmap", "query_set")),
    *((name, "torchscript") for name in ("simcc", "cascade")),
]


def build(family: str) -> Model:
    """A network of random weights, whose scores differ enough that rounding does not change their order."""
    torch.manual_seed(1)
    own = settings_of(family).get("options", {})
    chosen = CASCADE if family == "cascade" else [] if family == "snapping" else [f"head={family}"]
    options = [f"head.{key}={value}".replace(" ", "") for key, value in own.items()]
    model = build_model(compose("train", [*NETWORK, *chosen, *options, *MORE.get(family, [])]), pretrained=False).eval()
    with torch.no_grad():
        for name, values in model.named_parameters():
            if values.dim() > 1 and ("head" in name or "auxiliary" in name):
                values.mul_(1.5)
                values.add_(torch.randn_like(values) * 0.1)
    return model


def exported(model: Model, folder: Path, format: str) -> ExportedModel:
    """Its files, loaded."""
    sessions = {}
    for name, graph in graphs_of(model, False).items():
        path = folder / f"{name}{SUFFIXES[format]}"
        write(graph, path, {"precision": "f32", "flip_test": False})
        sessions[name] = load(path)
    return ExportedModel(model, sessions, False)


def scene() -> np.ndarray:
    """An image of blobs, (H, W, 3)."""
    image = np.random.default_rng(3).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return cv2.resize(image, (203, 151), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize(("family", "format"), CASES)
def test_a_file_finds_the_poses_of_its_model(family: str, format: str, tmp_path: Path) -> None:
    model = build(family)
    file = exported(model, tmp_path, format)
    image, region = scene(), np.array([10.0, -5.0, 180.0, 140.0])
    view = affine.fit_box(region, model.size)
    sample = Sample(affine.warp(image, view, model.size), Poses.empty(17), view, 0, region)
    batch = Batch.collate([sample, sample])
    expected = model.predict(batch)[0]
    assert len(expected) > 0
    if family == "snapping":
        regressed = model.head.decode(model(batch.images))[0]  # type: ignore
        assert (np.abs(regressed.xy - expected.xy) > 0.1).any(), "nothing snapped, so that the agreement proves nothing"
    with_views = file.predict(batch)
    assert len(with_views) == 2
    compared = ImageParity.of("views", expected, with_views[1])
    assert not compared.counts_differ
    assert len(compared.distances) > 0
    assert compared.worst < 0.01
    assert compared.score < 1e-4
    whole = ImageParity.of("image", expected.transform(np.linalg.inv(view)), file.read(image, region))
    assert not whole.counts_differ
    assert whole.worst < 0.05


def test_an_exemplar_is_refused() -> None:
    model = build_model(compose("train", ["experiment=sift_exemplar_synthetic"]), pretrained=False)
    with pytest.raises(ConfigError, match="'Exemplar' can't be exported: it matches the descriptors"):
        graphs_of(model, False)


def test_a_cascade_refuses_given_boxes() -> None:
    model = build("cascade")
    with pytest.raises(ConfigError, match="finds its boxes itself and can't read annotated ones"):
        ExportedModel(model, {"detector": _Stated()}, False).for_regions("annotated")  # type: ignore[dict-item]


class _Stated:
    metadata = {"precision": "f32"}  # noqa: RUF012
