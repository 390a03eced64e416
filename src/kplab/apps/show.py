"""``kplab.show``: the dashboard's image view in a notebook."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import msgspec
import traitlets

from kplab import config as configs
from kplab.apps.dashboard import jobs
from kplab.apps.dashboard.images import ORDERS, ImageTable, Pictures, Selection, check_alike, describe, select
from kplab.apps.dashboard.server import STATIC
from kplab.apps.dashboard.views import shared_sets
from kplab.errors import ConfigError
from kplab.runs.run import Run
from kplab.runs.table import labels_of
from kplab.viz.chart import PALETTE

TRUTH = "#FFFFFF"


class PoseView(anywidget.AnyWidget):
    """One image with poses over it; the traits are those of ``pose_view.js``."""

    _esm = STATIC / "pose_view.js"
    _css = STATIC / "pose_view.css"
    image = traitlets.Unicode("").tag(sync=True)
    heatmap = traitlets.Unicode("").tag(sync=True)
    size = traitlets.List([1, 1]).tag(sync=True)
    skeleton: Any = traitlets.Dict({"keypoints": [], "edges": [], "colours": []}).tag(sync=True)
    layers: Any = traitlets.List([]).tag(sync=True)
    keypoint = traitlets.Int(None, allow_none=True).tag(sync=True)
    lines = traitlets.Bool(True).tag(sync=True)
    names = traitlets.Bool(False).tag(sync=True)
    zoom = traitlets.Float(1.0).tag(sync=True)
    centre: Any = traitlets.List(None, allow_none=True).tag(sync=True)


class Shown(ipywidgets.VBox):
    """The view with its controls: order, image, keypoint, and which layers are drawn.

    Args:
        tables: truth and predictions of each run.
        pictures: their images.
        skeleton: names, edges and colours of the keypoints.
        labels: of the runs.
    """

    def __init__(
        self, tables: Sequence[ImageTable], pictures: Pictures, skeleton: dict[str, Any], labels: Sequence[str]
    ) -> None:
        self.tables, self.pictures, self.labels = list(tables), pictures, list(labels)
        self.view = PoseView(skeleton=skeleton)
        orders = [o for o in ORDERS if len(tables) > 1 or o not in ("changed", "improved", "regressed")]
        keypoints = [("all", None), *((name, k) for k, name in enumerate(skeleton["keypoints"]))]
        self.order = ipywidgets.Dropdown(options=orders, description="order")
        self.keypoint = ipywidgets.Dropdown(options=keypoints, description="keypoint")
        self.number = ipywidgets.IntSlider(min=0, max=0, description="image")
        self.drawn = [ipywidgets.Checkbox(True, description=name, indent=False) for name in ("truth", *labels)]
        self.names = ipywidgets.Checkbox(False, description="names", indent=False)
        self.caption = ipywidgets.Label()
        for control in (self.order, self.keypoint):
            control.observe(lambda _: self.choose(), "value")
        for control in (self.number, *self.drawn, self.names):
            control.observe(lambda _: self.draw(), "value")
        top = ipywidgets.HBox([self.order, self.keypoint, self.number])
        super().__init__([top, ipywidgets.HBox([*self.drawn, self.names]), self.caption, self.view])
        self.choose()

    def choose(self) -> None:
        """Take over order and keypoint."""
        self.chosen = select(self.tables, Selection(self.order.value, self.keypoint.value))
        self.number.value = 0
        self.number.max = max(0, len(self.chosen) - 1)
        self.draw()

    def draw(self) -> None:
        """Show the image."""
        item = describe(self.tables, int(self.chosen[min(self.number.value, self.number.max)]))
        place = self.pictures.place(item["id"])
        layers = [{"name": "truth", "colour": TRUTH, "truth": True, "poses": item["truth"]}]
        for i, (label, run) in enumerate(zip(self.labels, item["runs"], strict=True)):
            layers.append({"name": label, "colour": PALETTE[i % len(PALETTE)], "poses": run["poses"]})
        for layer, box in zip(layers, self.drawn, strict=True):
            layer["shown"] = box.value
        pixels = base64.b64encode(self.pictures.jpeg(item["id"], 0)).decode()
        errors = (f"{n}: {r['mean_px']:.1f} px" for n, r in zip(self.labels, item["runs"], strict=True) if r["mean_px"])
        self.caption.value = f"{item['file']}   {'   '.join(errors)}"
        with self.view.hold_sync():
            self.view.size = [int(v) for v in self.pictures.size[place]]
            # a point that is not labelled is null: messages of a kernel can't hold NaN
            self.view.layers = msgspec.json.decode(msgspec.json.encode(layers))
            self.view.keypoint, self.view.names = self.keypoint.value, self.names.value
            if (image := f"data:image/jpeg;base64,{pixels}") != self.view.image:
                self.view.image, self.view.zoom, self.view.centre = image, 1.0, None


def show(*runs: Any, split: str | None = None, runs_dir: str | Path | None = None) -> Shown:
    """Images of a run with truth and predictions, to look through in a notebook.

    Args:
        runs: one run, or several with the same scores: ``kplab.load``'s, names as it takes them, or records.
        split: of the scores; None is the first that all runs have.
        runs_dir: folder of all runs; None is ``runs`` of the workspace.

    Raises:
        ConfigError: the runs share no scores of this split.
        KplabError: predictions or images can't be read.
    """
    root = Path(runs_dir or configs.workspace() / "runs")
    records = [getattr(run, "run", run) for run in runs]
    found = [run if isinstance(run, Run) else Run.find(str(run), root) for run in records]
    names = [n for n in shared_sets(found) if split is None or n == split or n.endswith(f"-{split}")] if found else []
    if not names:
        raise ConfigError("these runs share no scores of this split. Run kplab evaluate with the same split for each.")
    with tempfile.TemporaryDirectory() as folder:
        made = [jobs.image_table(str(run.folder), names[0], f"{folder}/{i}.npz") for i, run in enumerate(found)]
        tables = [ImageTable.read(Path(folder) / f"{i}.npz") for i in range(len(found))]
    check_alike(tables)
    card = made[0]["card"]
    pictures = Pictures.open(found[0], str(card["dataset"]), str(card["split"]))
    return Shown(tables, pictures, made[0]["skeleton"], labels_of(found))
