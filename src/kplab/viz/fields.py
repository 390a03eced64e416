"""What a network says, laid over what it sees."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kplab.structures.skeleton import Skeleton
from kplab.viz import look


def heatmaps(
    image: np.ndarray,
    maps: np.ndarray,
    skeleton: Skeleton,
    stride: float,
    *,
    columns: int = 6,
    top: float | None = None,
) -> Figure:
    """The maps of all keypoints over the image: first the largest of all, then one panel a keypoint.

    A map of stride s covers [0, s * w] x [0, s * h] of the image, see ``ops.affine``. Each title tells the peak.

    Args:
        image: (H, W, 3) uint8 RGB, as the network sees it.
        maps: (K, h, w) heatmaps; negative values are drawn as 0.
        skeleton: names of the K keypoints.
        stride: image pixels per map pixel.
        columns: panels in a row.
        top: the value that is drawn opaque; None takes the largest of all maps.

    Raises:
        ValueError: the maps are not one a keypoint.
    """
    maps = np.asarray(maps, dtype=np.float64)
    if maps.ndim != 3 or len(maps) != len(skeleton):
        raise ValueError(
            f"maps of shape {maps.shape} were given, but skeleton '{skeleton.name}' wants "
            f"({len(skeleton)}, height, width). Give the maps of one view."
        )
    peak = float(maps.max()) if top is None else top
    panels_wanted = 1 + len(maps)
    columns = min(columns, panels_wanted)
    rows = -(-panels_wanted // columns)
    aspect = image.shape[0] / image.shape[1]
    plot, panels = look.figure(rows, columns, size=(1.75 * columns, rows * (1.75 * aspect + 0.3)))
    titles = ["all", *skeleton.keypoints]
    for panel, title, field in zip(panels, titles, [maps.max(0), *maps], strict=False):
        _field(panel, image, field, stride, peak)
        panel.set_title(f"{title} {field.max():.2f}", fontsize=8, loc="left", color=look.INK, pad=2)
    for panel in panels[panels_wanted:]:
        panel.set_axis_off()
    return plot


def _field(panel: Axes, image: np.ndarray, field: np.ndarray, stride: float, peak: float) -> None:
    height, width = image.shape[:2]
    # grey, so that all colour is the network's
    panel.imshow(image.mean(-1), cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    strength = np.clip(field / peak if peak > 0 else field * 0, 0, 1)
    panel.imshow(
        strength,
        cmap="inferno",
        vmin=0,
        vmax=1,
        alpha=np.sqrt(strength) * 0.85,
        extent=(0, field.shape[1] * stride, field.shape[0] * stride, 0),
        interpolation="nearest",
    )
    panel.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
