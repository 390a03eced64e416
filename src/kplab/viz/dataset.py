"""The figure of a dataset's statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from kplab.structures.skeleton import Skeleton
from kplab.viz import look
from kplab.viz.poses import sides as sides_of

#: Names of keypoints that an axis shows at most.
NAMED = 40
SIDE_COLOURS = {"left": look.BLUE, "right": look.ORANGE, "middle": look.GREEN}


def statistics(
    skeleton: Skeleton,
    *,
    title: str,
    visibility: np.ndarray,
    per_image: np.ndarray,
    scale: np.ndarray,
    poses: np.ndarray,
    co_occurrence: np.ndarray,
    sides: Sequence[Mapping[str, Any]],
) -> Figure:
    """Six panels: visibility, co-occurrence, spread of poses, scale, instances of an image, left and right.

    Args:
        skeleton: names of the keypoints.
        title: of the figure.
        visibility: (K, 3) shares of not labelled, hidden and visible.
        per_image: (I,) instances of each image.
        scale: (n,) square root of the area, pixels.
        poses: (m, K, 2) keypoints relative to their centre, in units of scale.
        co_occurrence: (K, K) share of the instances with i in which j is labelled.
        sides: pairs, with ``first``, ``second``, ``only_first`` and ``only_second``.
    """
    keypoints = len(skeleton)
    height = 4.0 + 0.16 * min(keypoints, NAMED)
    plot, panels = look.figure(2, 3, size=(15.0, height * 1.3))
    plot.suptitle(title, fontsize=11, x=0.01, ha="left", color=look.INK)
    _visibility(panels[0], skeleton, visibility)
    _matrix(panels[1], skeleton, co_occurrence)
    _spread(panels[2], skeleton, poses)
    _scale(panels[3], scale)
    _numbers(panels[4], per_image)
    _sides(panels[5], sides)
    return plot


def _name_rows(panel: Axes, names: Sequence[str]) -> None:
    """Names on the vertical axis, as many as can be read."""
    step = -(-len(names) // NAMED)
    panel.set_yticks(range(0, len(names), step), names[::step], fontsize=7)
    panel.set_ylim(len(names) - 0.5, -0.5)


def _legend_above(panel: Axes) -> None:
    panel.legend(frameon=False, fontsize=8, labelcolor=look.INK, loc="lower right", bbox_to_anchor=(1, 0.99), ncols=3)


def _visibility(panel: Axes, skeleton: Skeleton, visibility: np.ndarray) -> None:
    rows, left = np.arange(len(skeleton)), np.zeros(len(skeleton))
    for column, name, colour in (
        (2, "visible", look.BLUE),
        (1, "hidden", look.SKY),
        (0, "not labelled", look.FAINT),
    ):
        panel.barh(rows, visibility[:, column], left=left, color=colour, height=0.8, label=name)
        left = left + visibility[:, column]
    _name_rows(panel, skeleton.keypoints)
    panel.set_xlim(0, 1)
    look.label(panel, "visibility", "share of instances")
    _legend_above(panel)


def _matrix(panel: Axes, skeleton: Skeleton, values: np.ndarray) -> None:
    shown = panel.imshow(values, vmin=0, vmax=1, cmap="viridis", aspect="auto", interpolation="nearest")
    _name_rows(panel, skeleton.keypoints)
    panel.set_xticks([])
    look.label(panel, "labelled together", "column, given that the row is labelled")
    bar = panel.figure.colorbar(shown, ax=panel, fraction=0.046)
    bar.ax.tick_params(labelsize=8)


def _spread(panel: Axes, skeleton: Skeleton, poses: np.ndarray) -> None:
    alpha = float(np.clip(300 / max(1, len(poses)), 0.15, 0.6))
    for k, side in enumerate(sides_of(skeleton)):
        points = poses[:, k][np.isfinite(poses[:, k]).all(-1)]
        colour = SIDE_COLOURS.get(side, look.GREEN)
        panel.scatter(points[:, 0], points[:, 1], s=3, color=colour, alpha=alpha, linewidths=0)
        if len(points):
            panel.plot(*np.median(points, axis=0), "o", color=colour, mec=look.INK, mew=0.6, ms=4)
    finite = poses[np.isfinite(poses).all(-1)]
    reach = float(np.quantile(np.abs(finite), 0.995)) if len(finite) else 1.0
    panel.set_xlim(-reach, reach)
    panel.set_ylim(reach, -reach)
    panel.set_aspect("equal")
    panel.xaxis.set_major_locator(MaxNLocator(5))
    look.label(panel, "poses about their centre; discs: medians", "units of the square root of the area", grid="both")
    for side, colour in SIDE_COLOURS.items():
        if side in sides_of(skeleton):
            panel.plot([], [], "o", color=colour, ms=4, label=side)
    look.legend(panel)


def _scale(panel: Axes, scale: np.ndarray) -> None:
    values = scale[np.isfinite(scale) & (scale > 0)]
    if len(values):
        low, high = float(values.min()), float(values.max())
        bins = int(np.clip(np.sqrt(len(values)) * 2, 8, 40))
        edges = np.geomspace(low, high, bins) if high > low * 1.01 else np.linspace(low * 0.9, low * 1.1, bins)
        panel.hist(values, bins=edges.tolist(), color=look.BLUE)
        panel.set_xscale("log")
        panel.axvline(float(np.median(values)), color=look.VERMILLION, lw=1.4)
        # ticks at 10, 20, 50, 100, …, and more of them where the range is narrow
        panel.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if high > 5 * low else (1, 1.5, 2, 3, 4, 6, 8)))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
    look.label(panel, "scale of instances; line: median", "square root of the area, pixels", "instances", grid="y")


def _numbers(panel: Axes, per_image: np.ndarray) -> None:
    top = int(per_image.max(initial=0))
    panel.hist(per_image, bins=(np.arange(top + 2) - 0.5).tolist(), color=look.BLUE, rwidth=0.9)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    look.label(panel, "instances of an image", "instances", "images", grid="y")


def _sides(panel: Axes, sides: Sequence[Mapping[str, Any]]) -> None:
    if not sides:
        panel.axis("off")
        panel.text(0, 1, "the skeleton has no left and right", fontsize=9, color=look.INK, va="top")
        return
    rows = np.arange(len(sides))
    panel.barh(rows, [-int(s["only_first"]) for s in sides], color=look.BLUE, height=0.8, label="first")
    panel.barh(rows, [int(s["only_second"]) for s in sides], color=look.ORANGE, height=0.8, label="second")
    panel.axvline(0, color=look.INK, lw=0.8)
    _name_rows(panel, [f"{s['first']} | {s['second']}" for s in sides])
    panel.xaxis.set_major_formatter(lambda v, _: f"{abs(v):g}")
    look.label(panel, "one side only", "instances", grid="x")
    _legend_above(panel)
