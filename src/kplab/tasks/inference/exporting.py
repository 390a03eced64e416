"""Exports a run, and compares the file with the model on images before it can be used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kplab import config as configs
from kplab.data.images import find_images
from kplab.data.regions import Regions
from kplab.data.sources.files import UprightFiles
from kplab.errors import ConfigError
from kplab.export.formats import PRECISIONS, SUFFIXES, files_of, load, write
from kplab.export.graphs import STAGES, ViewGraph, graphs_of
from kplab.export.parity import ImageParity, Parity
from kplab.export.predictor import ExportedModel
from kplab.models.pose_model import leaves, predicting
from kplab.runs import provenance
from kplab.runs.records import check_inside, write_record
from kplab.runs.run import Run
from kplab.structures.image_source import ImageSource
from kplab.structures.poses import Poses
from kplab.structures.predictions import PIXEL_CONVENTION
from kplab.structures.predictor import Model
from kplab.structures.sample import Batch
from kplab.tasks.inference.exported import FAILED, export_folder, graph_files
from kplab.tasks.inference.loading import LoadedRun
from kplab.tasks.inference.progress import track_images
from kplab.tasks.inference.stream import Views
from kplab.tasks.wiring.datasets import check_regions, read_split, regions_for
from kplab.tasks.wiring.models import check_flip_test

#: Largest difference of a pixel, grey levels, and of an output, share of the largest one, of a stage that is the same.
SAME_LEVELS, SAME_OUTPUTS = 1.5, 1e-3


@dataclass(frozen=True)
class Images:
    """What both sides predict.

    Args:
        source: the images.
        regions: parts of them; None: whole images.
        name: for messages.
    """

    source: ImageSource
    regions: Regions | None
    name: str

    @property
    def kind(self) -> str:
        """Of the regions."""
        return "image" if self.regions is None else self.regions.kind


def export_run(
    run: Run,
    format: str = "onnx",
    checkpoint: str = "auto",
    flip_test: bool | None = None,
    precision: str = "f32",
    images: int | str = 32,
    split: str | None = None,
) -> tuple[Path, bool]:
    """Export a run's model into ``exports/<format>/``, or ``exports/<format>-failed/`` if it differs from the model.

    Args:
        format: onnx, openvino or torchscript.
        checkpoint: see ``load_model``.
        flip_test: whether the graph averages with the mirrored view; None is as trained, False is without turned views, too.
        precision: of OpenVINO: f32, bf16, f16, or default, which is its own choice.
        images: number of images of the split to compare on, or a folder or glob of images.
        split: of the run's dataset; None is the first of ``test_on``.

    Returns:
        the folder, and whether file and model are equal within the tolerances.

    Raises:
        ConfigError: an option is unknown, or the model can't be exported.
        DataError: there are no images, or they are damaged.
    """
    check_options(format, precision)
    loaded = LoadedRun.load(run, checkpoint, "cpu", flip_test)
    model = loaded.model
    assert isinstance(model, Model)
    graphs = graphs_of(model, loaded.flip_test)
    check_flip_test(model, loaded.flip_test)
    compared = images_of(loaded, images, split)
    done = export_folder(run, format)
    made = done.with_name(f".{format}.new")
    check_inside(run.folder, done, made)
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    files = graph_files(made, format, model)
    metadata = describe(loaded, compared.kind, precision)
    for name, graph in graphs.items():
        print(f"exporting {name} to {format}", flush=True)
        write(graph, files[name], metadata | described_graph(graph, name))
    exported = ExportedModel(model, {name: load(path) for name, path in files.items()}, loaded.flip_test)
    parities = compare(loaded, exported, compared, ("torch", format))
    passed = not any(parity.faults() for parity in parities)
    where = (
        None
        if passed
        else failing_stage(loaded, graphs, metadata, compared, parities, made / f"stage{SUFFIXES[format]}")
    )
    text = "\n".join([*(parity.text() for parity in parities), *([f"  differs first in: {where}"] if where else [])])
    report = {
        "passed": passed,
        "differs_first_in": where,
        "images": compared.name,
        "comparisons": [p.content() for p in parities],
    }
    (made / "parity.json").write_text(json.dumps(report, indent=1))
    (made / "parity.txt").write_text(text + "\n")
    print(text, flush=True)
    folder = done if passed else done.with_name(done.name + FAILED)
    check_inside(run.folder, folder)
    shutil.rmtree(folder, ignore_errors=True)
    made.rename(folder)
    main, *others = [file for path in graph_files(folder, format, model).values() for file in files_of(path)]
    write_record(
        main,
        configs.workspace(),
        loaded.made_from(),
        [*others, folder / "parity.json", folder / "parity.txt"],
        run=run.name,
        passed=passed,
    )
    return folder, passed


def check_options(format: str, precision: str) -> None:
    """Refuse unknown options, and a precision of formats that have none.

    Raises:
        ConfigError: says which there are.
    """
    if format not in SUFFIXES:
        raise ConfigError(f"format is '{format}'. Use {', '.join(SUFFIXES)}.")
    if precision not in PRECISIONS:
        raise ConfigError(f"precision is '{precision}'. Use {', '.join(PRECISIONS)}.")
    if precision != "f32" and format != "openvino":
        raise ConfigError(f"precision={precision} is for format=openvino; {format} computes in f32. Leave it out.")


def images_of(loaded: LoadedRun, images: int | str, split: str | None) -> Images:
    """The images to compare on.

    Raises:
        ConfigError: the number is below 1, or a split is named beside a folder.
        DataError: there are none.
    """
    config = loaded.config
    if isinstance(images, str):
        if split is not None:
            raise ConfigError("images=DIR and split=NAME exclude each other. Leave one out.")
        source = UprightFiles.of(find_images(images)[0])
        return Images(source, loaded.new_regions(source), images)
    if images < 1:
        raise ConfigError(f"images is {images}, but must be at least 1, or a folder.")
    if split is None and not config.test_on:
        raise ConfigError("the run has no split to test on. Name one: split=NAME, or images: images=DIR.")
    name = split or str(config.test_on[0])
    labels = read_split(config.dataset, name)
    labels = labels.select(np.arange(min(images, len(labels))))
    regions = regions_for(config, labels, name)
    assert isinstance(loaded.model, Model)
    check_regions(regions, labels, name, config, loaded.model.for_regions(regions.kind).max_poses)
    return Images(labels.source, regions, f"{config.dataset.name}, split {name}")


def describe(loaded: LoadedRun, kind: str, precision: str) -> dict[str, Any]:
    """The metadata that the files of a run share."""
    skeleton, config = loaded.skeleton, loaded.config
    return {
        "kplab": provenance.packages()["kplab"],
        "run": loaded.run.name,
        "checkpoint": {"file": loaded.checkpoint.name, "sha256": provenance.file_sha256(loaded.checkpoint)},
        "card": loaded.card(kind),
        "skeleton": {
            "name": skeleton.name,
            "keypoints": list(skeleton.keypoints),
            "edges": [list(edge) for edge in skeleton.edges],
            "flip": list(skeleton.flip),
            "sigmas": list(skeleton.sigmas),
            "sigma_source": skeleton.sigma_source,
        },
        "flip_test": loaded.flip_test,
        "precision": precision,
        "regions": kind,
        "padding": 1.0 if kind == "image" else float(config.padding),
        "pixel_convention": PIXEL_CONVENTION,
        "config": {
            name: configs.plain(config[name]) for name in ("model", "head", "detector") if config.get(name) is not None
        },
    }


def described_graph(graph: ViewGraph, name: str) -> dict[str, Any]:
    """The metadata of one graph."""
    backbone, head = graph.model.backbone, graph.model.head
    return {
        "graph": name,
        "family": type(head).__name__,
        "size": list(graph.size),
        "network_size": list(graph.model.size),
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "decode": f"after the graph: {after}" if (after := graph.model.after_graph) else "in the graph",
        "min_score": head.min_score,
        "turns": list(graph.model.turns),
    }


def compare(loaded: LoadedRun, exported: ExportedModel, images: Images, sides: tuple[str, str]) -> list[Parity]:
    """Compare a model with its file on images that the file resamples, and on the views of ``kplab predict``."""
    source, regions = images.source, images.regions
    expected = dict(track_images(loaded.stream(source, regions), len(source), f"predicting by {sides[0]}"))
    by_views = replace(loaded, model=exported).stream(source, regions)
    by_images = stream_images(exported, loaded, images)
    return [
        Parity(
            sides,
            path,
            [
                ImageParity.of(source.name(i), expected[i], poses)
                for i, poses in track_images(found, len(source), f"predicting by {sides[1]}, {path}")
            ],
        )
        for path, found in (("whole images", by_images), ("views of kplab predict", by_views))
    ]


def stream_images(exported: ExportedModel, loaded: LoadedRun, images: Images) -> Iterator[tuple[int, Poses]]:
    """The poses of every image, where the file reads images and not views; see ``stream_poses``."""
    model, assembly = exported.for_regions(images.kind), loaded.assembly(images.kind)

    def parts() -> Iterator[tuple[int, Poses]]:
        views = Views(images.source, images.regions, exported.size, len(exported.skeleton))
        for index in range(len(views)):
            i, given, score, padding = views.region(index)
            image = images.source.read(i)
            box = whole(image) if given is None else given
            poses = model.read(image, padded(box, padding))
            # the poses are in pixels of the image already
            one = Batch(torch.empty(1, 0), [], np.eye(3)[None], np.array([i]), box[None], np.array([score]))
            yield i, assembly.to_source(one, [poses])[0]

    return assembly.by_image(parts(), range(len(images.source)), exported.skeleton)


def whole(image: np.ndarray) -> np.ndarray:
    """The box (4,) of an image."""
    return np.array([0.0, 0.0, image.shape[1], image.shape[0]])


def padded(box: np.ndarray, padding: float) -> np.ndarray:
    """A box (4,) with sides that are multiplied by a factor, about its centre."""
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * padding
    return np.concatenate([centre - half, centre + half])


def failing_stage(
    loaded: LoadedRun,
    graphs: dict[str, ViewGraph],
    metadata: dict[str, Any],
    images: Images,
    parities: list[Parity],
    path: Path,
) -> str:
    """Where a file differs first from the model: one of ``STAGES``, with the name of the graph of a cascade.

    The first graph is exported once more up to each stage, and compared on the first region of the worst image.

    Args:
        path: of a temporary file, whose suffix names the format.
    """
    model: Any = loaded.model
    name, graph = next(iter(graphs.items()))
    worst = next(p for p in parities if p.faults()).worst_image
    names = [images.source.name(i) for i in range(len(images.source))]
    wanted = names.index(worst.name) if worst is not None else 0
    views = Views(images.source, images.regions, graph.size, len(loaded.skeleton))
    index = next((i for i in range(len(views)) if views.region(i)[0] == wanted), 0)
    i, given, _, padding = views.region(index)
    image = images.source.read(i)
    region = padded(whole(image) if given is None else given, padding)
    batch = Batch.collate([views[index, 0]])
    network: Any = next(iter(model.networks.values()))
    seen = model.seen(batch).images
    with predicting(network):
        pixels = network.normalised(seen).numpy()
        outputs = [leaf.numpy() for leaf in leaves(network.outputs(seen, loaded.flip_test))]
    view = batch.images[0].permute(1, 2, 0).contiguous().numpy()
    of_image = {"images": image[None], "regions": region[None]}
    of_view = {"images": view[None], "regions": whole(view)[None]}
    prefix = f"{name}: " if len(graphs) > 1 else ""
    try:
        levels = 255 * np.array(network.backbone.std).reshape(1, 3, 1, 1)
        (found,) = partial_outputs(graph.until(STAGES[0]), path, metadata, of_image)
        if not np.abs((found - pixels) * levels).max() <= SAME_LEVELS:
            return prefix + STAGES[0]
        for a, b in zip(partial_outputs(graph.until(STAGES[1]), path, metadata, of_view), outputs, strict=True):
            if a.shape != b.shape or not np.abs(a - b).max(initial=0) <= SAME_OUTPUTS * np.abs(b).max(initial=0):
                return prefix + STAGES[1]
    finally:
        for file in files_of(path):
            file.unlink(missing_ok=True)
    return prefix + STAGES[2] if len(graphs) == 1 else f"{prefix}{STAGES[2]}, or {list(graphs)[1]}"


def partial_outputs(
    graph: ViewGraph, path: Path, metadata: dict[str, Any], inputs: dict[str, np.ndarray]
) -> list[np.ndarray]:
    """The outputs of a graph that ends at a stage, computed from its file."""
    write(graph, path, metadata)
    return list(load(path).run(**inputs).values())
