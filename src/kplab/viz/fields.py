"""Outputs of a network drawn over the image: heatmaps, vector fields, links and interest points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from kplab.viz import look


def heatmaps(
    image: np.ndarray,
    maps: np.ndarray,
    titles: Sequence[str],
    stride: float,
    *,
    columns: int = 6,
    top: float | None = None,
) -> Figure:
    """Heatmaps over the image: first the maximum of all, then one panel each, with the peak's value in the title.

    A map of stride s covers [0, s * w] x [0, s * h] of the image, see ``ops.affine``.

    Args:
        image: (H, W, 3) uint8 RGB input of the network.
        maps: (M, h, w) heatmaps; negative values are drawn as 0.
        titles: M names, such as the skeleton's keypoints.
        stride: image pixels per map pixel.
        columns: panels per row.
        top: the value that is drawn opaque; None is the maximum of all maps.

    Raises:
        ValueError: the number of titles differs from the number of maps.
    """
    maps = np.asarray(maps, dtype=np.float64)
    _check(maps, 3, titles)
    peak = float(maps.max()) if top is None else top
    plot, panels = _panels(image, ["all", *titles], columns)
    for panel, title, field in zip(panels, ["all", *titles], [maps.max(0), *maps], strict=False):
        strength = np.clip(field / peak if peak > 0 else field * 0, 0, 1)
        _lay(panel, image, strength, stride, cmap="inferno", vmin=0, vmax=1, alpha=np.sqrt(strength) * 0.85)
        panel.set_title(f"{title} {field.max():.2f}", fontsize=8, loc="left", color=look.INK, pad=2)
    return plot


def heatmap(image: np.ndarray, values: np.ndarray, title: str, stride: float, *, width: float = 4.0) -> Figure:
    """One heatmap over the image, large, with the peak's value in the title.

    Args:
        image: (H, W, 3) uint8 RGB input of the network.
        values: (h, w); negative ones are drawn as 0, and 1 or the maximum, if it is larger, is drawn opaque.
        title: such as the keypoint.
        stride: image pixels per map pixel.
        width: of the figure, inches.
    """
    plot, (panel,) = _panels(image, [title], 1, width)
    strength = np.clip(values / max(1.0, float(values.max())), 0, 1)
    _lay(panel, image, strength, stride, cmap="inferno", vmin=0, vmax=1, alpha=np.sqrt(strength) * 0.85)
    panel.set_title(f"{title} {values.max():.2f}", fontsize=9, loc="left", color=look.INK, pad=2)
    return plot


def vectors(image: np.ndarray, maps: np.ndarray, titles: Sequence[str], stride: float, *, columns: int = 4) -> Figure:
    """Vector fields over the image, one panel each: the hue is the direction, the opacity the length.

    Args:
        image: (H, W, 3) uint8 RGB input of the network.
        maps: (M, 2, h, w) vectors (x right, y down); length 1 is drawn opaque.
        titles: M names, such as the limbs of part affinity fields.
        stride: image pixels per map pixel.
        columns: panels per row.

    Raises:
        ValueError: the number of titles differs from the number of fields.
    """
    maps = np.asarray(maps, dtype=np.float64)
    _check(maps, 4, titles)
    plot, panels = _panels(image, titles, columns, width=2.6)
    rows, across = (np.mgrid[: maps.shape[2], : maps.shape[3]] + 0.5) * stride
    for panel, title, (x, y) in zip(panels, titles, maps, strict=False):
        length = np.hypot(x, y)
        colour = colormaps["hsv"](np.arctan2(y, x) / (2 * np.pi) % 1.0)
        colour[..., 3] = np.clip(length, 0, 1) * 0.85
        _lay(panel, image, colour, stride)
        strong = length > 0.3
        panel.quiver(
            across[strong], rows[strong], x[strong], y[strong], angles="xy", scale_units="xy", scale=1 / (1.2 * stride),
            color="white", width=0.004,
        )  # fmt: skip
        panel.set_title(f"{title} {length.max():.2f}", fontsize=8, loc="left", color=look.INK, pad=2)
    return plot


def links(
    image: np.ndarray, groups: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], *, columns: int = 3
) -> Figure:
    """Lines over the image, one panel per group, such as limbs between peaks, or from centres to keypoints.

    Args:
        image: (H, W, 3) uint8 RGB.
        groups: title to starts (M, 2), ends (M, 2), both image pixels, and strengths (M,) in [0, 1]; starts are dots.
        columns: panels per row.
    """
    plot, panels = _panels(image, list(groups), columns, width=3.0)
    for panel, (title, (start, end, strength)) in zip(panels, groups.items(), strict=False):
        _lay(panel, image)
        for (x0, y0), (x1, y1), s in zip(start, end, np.clip(strength, 0, 1), strict=True):
            panel.plot([x0, x1], [y0, y1], color=colormaps["viridis"](s), alpha=0.3 + 0.7 * float(s), linewidth=0.9)
        panel.plot(*np.reshape(start, (-1, 2)).T, "o", color=look.VERMILLION, markersize=2.5)
        panel.set_title(f"{title} ({len(start)})", fontsize=8, loc="left", color=look.INK, pad=2)
    return plot


def points(
    image: np.ndarray, groups: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], *, columns: int = 3
) -> Figure:
    """Interest points over the image, one panel per group: a circle shows the size, a radius the direction.

    Args:
        image: (H, W, 3) uint8 RGB.
        groups: title to positions (N, 2) and diameters (N,), image pixels, and directions (N,), degrees from x towards y,
            NaN for none.
        columns: panels per row.
    """
    plot, panels = _panels(image, list(groups), columns, width=3.0)
    for panel, (title, (xy, size, angle)) in zip(panels, groups.items(), strict=False):
        _lay(panel, image)
        for place, diameter, turn in zip(xy, size, angle, strict=True):
            panel.add_patch(Circle(tuple(place), diameter / 2, fill=False, color=look.VERMILLION, linewidth=0.8))
            if np.isfinite(turn):
                end = place + diameter / 2 * np.array([np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))])
                panel.plot([place[0], end[0]], [place[1], end[1]], color=look.VERMILLION, linewidth=0.8)
        panel.set_title(f"{title} ({len(xy)})", fontsize=8, loc="left", color=look.INK, pad=2)
    return plot


def _check(maps: np.ndarray, axes: int, titles: Sequence[str]) -> None:
    if maps.ndim != axes or len(maps) != len(titles):
        raise ValueError(
            f"maps of shape {maps.shape} have {len(titles)} titles, but one title for each map is needed, and {axes} axes. Give "
            "the maps of one view."
        )


def _panels(
    image: np.ndarray, titles: Sequence[str], columns: int, width: float = 1.75
) -> tuple[look.Plot, list[Axes]]:
    """A panel for each title, with the image's aspect; surplus panels are empty."""
    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)
    aspect = image.shape[0] / image.shape[1]
    plot, panels = look.figure(rows, columns, size=(width * columns, rows * (width * aspect + 0.3)))
    for panel in panels[len(titles) :]:
        panel.set_axis_off()
    return plot, panels


def _lay(panel: Axes, image: np.ndarray, field: np.ndarray | None = None, stride: float = 1.0, **how: object) -> None:
    """Draw the image in grey, so that all colour belongs to the field, and a field (h, w[, 4]) over it."""
    height, width = image.shape[:2]
    panel.imshow(image.mean(-1), cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    if field is not None:
        extent = (0, field.shape[1] * stride, field.shape[0] * stride, 0)
        panel.imshow(field, extent=extent, interpolation="nearest", **how)  # type: ignore[arg-type]
    panel.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
