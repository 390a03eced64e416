"""Drawing of poses on images, with an accuracy of a tenth of a pixel; left and right have different colours."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont
from scipy.optimize import linear_sum_assignment

from kplab.ops import affine
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton
from kplab.viz import look
from kplab.viz.look import write_png

__all__ = ["contact_sheet", "draw", "overlay", "pair", "sides", "with_legend", "write_png"]

RGB = tuple[int, int, int]

LEFT, RIGHT, MIDDLE = look.rgb(look.SKY), look.rgb(look.ORANGE), (120, 230, 140)
TRUTH, ERROR, CASING = (255, 255, 255), (230, 60, 140), (20, 20, 20)
# fixed-point bits of OpenCV's line coordinates
_SHIFT = 6
# coordinates are clipped to this value, pixels, so that fixed-point numbers don't overflow
_FAR = 1e5


def sides(skeleton: Skeleton) -> list[str]:
    """For each keypoint "left", "right" or "middle".

    The side of a keypoint of a mirror pair is the first letter in which the two names differ (``left_eye``, ``eyeL``).
    Where names don't contain the side, as for numbered landmarks, the first of the pair is left.
    """
    out = ["middle"] * len(skeleton)
    for first, second in enumerate(skeleton.flip):
        if first < second:
            letters = zip(skeleton.keypoints[first].lower(), skeleton.keypoints[second].lower(), strict=False)
            differing = next(((a, b) for a, b in letters if a != b), ("", ""))
            swapped = differing == ("r", "l")
            out[first], out[second] = ("right", "left") if swapped else ("left", "right")
    return out


def draw(
    image: np.ndarray,
    poses: Poses,
    skeleton: Skeleton,
    *,
    scale: float = 1.0,
    min_score: float = 0.0,
    colour: str | RGB = "sides",
    mark: float | None = None,
    boxes: bool = False,
) -> np.ndarray:
    """Draw skeletons: limbs as lines, visible keypoints as discs, hidden ones as rings.

    Args:
        image: (H, W, 3) uint8 RGB; it is not changed.
        poses: instances, pixels of the image.
        skeleton: names, sides and edges of the keypoints.
        scale: output pixels per image pixel; small views are easier to read enlarged.
        min_score: minimum score of the keypoints that are drawn; limbs need both ends.
        colour: "sides" (left, right, middle), "instances" (one colour each), "tracks" (one colour each, the same in all
            frames; grey without a track), or one RGB triple.
        mark: radius of a keypoint, output pixels; None chooses it by the size of the image.
        boxes: whether boxes are drawn too.

    Returns:
        (round(H * scale), round(W * scale), 3) uint8 RGB.
    """
    canvas, poses = _enlarged(image, poses, scale)
    radii = _radii(canvas, poses, mark)
    keypoint_colours = _colours(poses, skeleton, colour)
    shown = poses.labelled & (poses.keypoint_score >= min_score)
    if boxes:
        for box, colours in zip(poses.box, keypoint_colours, strict=True):
            if np.isfinite(box).all():
                _box(canvas, box, TRUTH if colour == "sides" else colours[0])
    _limbs(canvas, poses, shown, skeleton, keypoint_colours, radii * 0.7)
    _dots(canvas, poses, shown, poses.visible == 1, keypoint_colours, radii)
    return canvas


def overlay(
    image: np.ndarray,
    true: Poses,
    predicted: Poses,
    skeleton: Skeleton,
    *,
    scale: float = 1.0,
    min_score: float = 0.0,
    mark: float | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
) -> np.ndarray:
    """Truth and prediction on one image: truth in white rings, prediction in colour, and a line for each error.

    Args:
        image: (H, W, 3) uint8 RGB; it is not changed.
        true: true instances, pixels of the image.
        predicted: predicted instances, pixels of the image.
        skeleton: names, sides and edges of the keypoints.
        scale: output pixels per image pixel.
        min_score: minimum score of the predicted keypoints that are drawn.
        mark: radius of a keypoint, output pixels; None chooses it by the size of the image.
        pairs: (true, predicted) indices of paired instances; None pairs the nearest, see ``pair``.

    Returns:
        (round(H * scale), round(W * scale), 3) uint8 RGB.
    """
    pairs = pair(true, predicted) if pairs is None else pairs
    canvas, true = _enlarged(image, true, scale)
    predicted = predicted.transform(affine.scaling(scale, scale))
    true_radii, radii = _radii(canvas, true, mark), _radii(canvas, predicted, mark)
    white = [[TRUTH] * len(skeleton)] * len(true)
    keypoint_colours = _colours(predicted, skeleton, "sides")
    shown = predicted.labelled & (predicted.keypoint_score >= min_score)
    _limbs(canvas, true, true.labelled, skeleton, white, true_radii * 0.4)
    _limbs(canvas, predicted, shown, skeleton, keypoint_colours, radii * 0.6)
    _dots(canvas, true, true.labelled, true.labelled, white, true_radii)
    for i, j in pairs:
        for k in np.flatnonzero(true.labelled[i] & shown[j]):
            _line(canvas, true.xy[i, k], predicted.xy[j, k], ERROR, max(1, round(radii[j] * 0.6)))
    _dots(canvas, predicted, shown, np.zeros_like(shown), keypoint_colours, radii * 0.8)
    return canvas


def pair(true: Poses, predicted: Poses) -> list[tuple[int, int]]:
    """Pairs of nearest true and predicted instances, for drawing (scores have their own matching).

    The Hungarian method minimises the sum over pairs of the mean distance of labelled keypoints. The mean distance of a
    pair is at most the diagonal of the box around the true keypoints.
    """
    if not len(true) or not len(predicted):
        return []
    both = true.labelled[:, None] & predicted.labelled[None]
    distance = np.linalg.norm(true.xy[:, None] - predicted.xy[None], axis=-1)
    mean = np.where(both, distance, 0.0).sum(-1) / np.maximum(both.sum(-1), 1)
    hull = true.extent()
    limit = np.nan_to_num(np.hypot(hull[:, 2] - hull[:, 0], hull[:, 3] - hull[:, 1]))
    # a single keypoint has no extent, and may be paired at any distance
    limit = np.where(true.labelled.sum(1) == 1, np.inf, limit)
    possible = both.any(-1) & (mean <= limit[:, None])
    cost = np.where(possible, mean, 1e9)
    return [(int(i), int(j)) for i, j in zip(*linear_sum_assignment(cost), strict=True) if possible[i, j]]


def contact_sheet(
    images: Sequence[np.ndarray],
    columns: int = 4,
    labels: Sequence[str] | None = None,
    *,
    cell: tuple[int, int] | None = None,
    gap: int = 8,
) -> np.ndarray:
    """A grid of images on white, each scaled to fit a cell at its own aspect; a row is as high as its highest image.

    Args:
        images: (H, W, 3) uint8 RGB each, of any sizes; at least one.
        columns: cells per row.
        labels: a line of text under each image; long lines are truncated.
        cell: (width, height) of a cell, pixels; None is the largest width and height, at most 320.
        gap: white space around each cell, pixels.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        ValueError: there are no images, or the number of labels differs from the number of images.
    """
    if not len(images):
        raise ValueError("a contact sheet needs at least one image, but got none.")
    if labels is not None and len(labels) != len(images):
        raise ValueError(
            f"a contact sheet has {len(images)} images but {len(labels)} labels. Give one label per image."
        )
    columns = min(columns, len(images))
    if cell is None:
        cell = min(320, max(i.shape[1] for i in images)), min(320, max(i.shape[0] for i in images))
    pictures = [_fitted(image, cell) for image in images]
    text = 18 if labels is not None else 0
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    heights = [max(p.shape[0] for p in row) + text + gap for row in rows]
    page = Image.new("RGB", (columns * (cell[0] + gap) + gap, sum(heights) + gap), "white")
    pen = ImageDraw.Draw(page)
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        x, bottom = gap + column * (cell[0] + gap), sum(heights[: row + 1]) - text
        page.paste(Image.fromarray(picture), (x, bottom - picture.shape[0]))
        if labels is not None:
            pen.text((x, bottom + 2), _truncated(labels[i], cell[0]), fill=look.INK, font=_font())
    return np.array(page)


def with_legend(picture: np.ndarray, skeleton: Skeleton, note: str = "") -> np.ndarray:
    """The picture with a legend below it: the keypoints of each colour, in one line each, and a note.

    Args:
        picture: (H, W, 3) uint8 RGB.
        skeleton: names and sides of the keypoints.
        note: a last line, without a colour.

    Returns:
        (H + height of the legend, W, 3) uint8 RGB.
    """
    side_of, line = sides(skeleton), 18
    entries: list[tuple[RGB | None, str]] = []
    for side, colour in (("left", LEFT), ("right", RIGHT), ("middle", MIDDLE)):
        names = [name for name, s in zip(skeleton.keypoints, side_of, strict=True) if s == side]
        if names:
            entries.append((colour, f"{side} ({len(names)}): {', '.join(names)}"))
    entries += [(None, note)] if note else []
    width = picture.shape[1]
    strip = Image.new("RGB", (width, len(entries) * line + 6), "white")
    pen = ImageDraw.Draw(strip)
    for i, (side_colour, text) in enumerate(entries):
        if side_colour is not None:
            pen.ellipse((9, i * line + 3, 19, i * line + 13), fill=side_colour, outline=CASING)
        pen.text((26, i * line), _truncated(text, width - 34), fill=look.INK, font=_font())
    return np.concatenate([picture, np.array(strip)])


def _fitted(image: np.ndarray, cell: tuple[int, int]) -> np.ndarray:
    """The image scaled to fit a cell."""
    height, width = image.shape[:2]
    scale = min(cell[0] / width, cell[1] / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return affine.warp(image, affine.scaling(size[0] / width, size[1] / height), size)


def _enlarged(image: np.ndarray, poses: Poses, scale: float) -> tuple[np.ndarray, Poses]:
    if scale == 1:
        return np.array(image, order="C"), poses
    matrix = affine.scaling(scale, scale)
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    return affine.warp(image, matrix, size), poses.transform(matrix)


def _radii(canvas: np.ndarray, poses: Poses, mark: float | None) -> np.ndarray:
    """(N,) radius of each instance's keypoints: by the size of the image, and smaller on small instances."""
    if mark is not None:
        return np.full(len(poses), float(mark))
    default = float(np.clip(0.006 * np.sqrt(canvas.shape[0] * canvas.shape[1]), 1.5, 8.0))
    hull = poses.extent()
    diagonal = np.hypot(hull[:, 2] - hull[:, 0], hull[:, 3] - hull[:, 1])
    # without an extent (a single keypoint, or all at one position) the size is unknown
    return np.where(diagonal > 0, np.clip(0.03 * diagonal, 1.2, default), default)


def _colours(poses: Poses, skeleton: Skeleton, colour: str | RGB) -> list[list[RGB]]:
    """One colour for each instance and keypoint."""
    if colour == "sides":
        of_side = {"left": LEFT, "right": RIGHT, "middle": MIDDLE}
        return [[of_side[s] for s in sides(skeleton)]] * len(poses)
    if colour == "instances":
        return [[look.rgb(c)] * len(skeleton) for c in look.colours(len(poses))]
    if colour == "tracks":
        return [[track_colour(track)] * len(skeleton) for track in poses.track.tolist()]
    if isinstance(colour, str):
        raise ValueError(f"colour is '{colour}'. Use 'sides', 'instances', 'tracks' or an RGB triple.")
    return [[colour] * len(skeleton)] * len(poses)


def track_colour(track: int) -> RGB:
    """The colour of a track, the same in all frames; grey without one."""
    return look.rgb(look.SERIES[track % len(look.SERIES)]) if track >= 0 else (150, 150, 150)


def _limbs(
    canvas: np.ndarray,
    poses: Poses,
    shown: np.ndarray,
    skeleton: Skeleton,
    colours: Sequence[Sequence[RGB]],
    widths: np.ndarray,
) -> None:
    limbs = [
        (poses.xy[i, a], poses.xy[i, b], _limb_colour(colours[i][a], colours[i][b]), max(1, round(widths[i])))
        for i in range(len(poses))
        for a, b in skeleton.edges
        if shown[i, a] and shown[i, b]
    ]
    if not limbs:
        return
    # only the part of the picture that shows limbs is copied and blended
    ends = np.clip([point for start, end, _, _ in limbs for point in (start, end)], -_FAR, _FAR)
    margin = max(width for *_, width in limbs) + 4
    x0, y0 = np.maximum(np.floor(ends.min(0)) - margin, 0).astype(int)
    x1, y1 = np.minimum(np.ceil(ends.max(0)) + margin, [canvas.shape[1], canvas.shape[0]]).astype(int)
    if x0 >= x1 or y0 >= y1:
        return
    part, corner = canvas[y0:y1, x0:x1], np.array([x0, y0])
    # a half-transparent dark outline keeps limbs visible on any background
    shade = part.copy()
    for start, end, _, width in limbs:
        _line(shade, start - corner, end - corner, CASING, width + 2)
    part[:] = cv2.addWeighted(shade, 0.5, part, 0.5, 0)
    for start, end, colour, width in limbs:
        _line(part, start - corner, end - corner, colour, width)


def _limb_colour(a: RGB, b: RGB) -> RGB:
    """The colour of a limb: of its left or right end; middle where both ends are, or where they differ."""
    ends = {a, b} - {MIDDLE}
    return ends.pop() if len(ends) == 1 else MIDDLE


def _line(canvas: np.ndarray, start: np.ndarray, end: np.ndarray, colour: RGB, width: int) -> None:
    # OpenCV's pixel centres are at whole numbers
    a, b = (np.rint(np.clip(p - 0.5, -_FAR, _FAR) * 2**_SHIFT).astype(int).tolist() for p in (start, end))
    cv2.line(canvas, a, b, colour, width, cv2.LINE_AA, _SHIFT)


def _dots(
    canvas: np.ndarray,
    poses: Poses,
    shown: np.ndarray,
    hollow: np.ndarray,
    colours: Sequence[Sequence[RGB]],
    radii: np.ndarray,
) -> None:
    for i, k in np.argwhere(shown).tolist():
        hole = 0.5 * radii[i] if hollow[i, k] else 0.0
        _disc(canvas, poses.xy[i, k], radii[i] + 1, CASING, hole - 1)
        _disc(canvas, poses.xy[i, k], radii[i], colours[i][k], hole)


def _disc(canvas: np.ndarray, centre: np.ndarray, outer: float, colour: RGB, inner: float = 0.0) -> None:
    """Blend a disc or a ring, with subpixel accuracy: a pixel's coverage depends on its distance from the rim."""
    centre = np.clip(centre, -_FAR, _FAR)
    x0, y0 = np.maximum(np.floor(centre - outer - 1), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(centre + outer + 1), [canvas.shape[1], canvas.shape[0]]).astype(int)
    if x0 >= x1 or y0 >= y1:
        return
    x, y = np.arange(x0, x1) + 0.5 - centre[0], np.arange(y0, y1) + 0.5 - centre[1]
    distance = np.hypot(x[None, :], y[:, None])
    cover = np.clip(outer + 0.5 - distance, 0, 1)
    if inner > 0:
        cover -= np.clip(inner + 0.5 - distance, 0, 1)
    patch = canvas[y0:y1, x0:x1]
    patch[:] = np.rint(patch + cover[..., None] * (np.asarray(colour, dtype=np.float64) - patch)).astype(np.uint8)


def _box(canvas: np.ndarray, box: np.ndarray, colour: RGB) -> None:
    corners = [box[[0, 1]], box[[2, 1]], box[[2, 3]], box[[0, 3]]]
    for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
        _line(canvas, start, end, colour, 1)


@lru_cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 12)


def _truncated(text: str, width: int) -> str:
    """The text, truncated with an ellipsis to fit a width in pixels."""
    if _font().getlength(text) <= width:
        return text
    while text and _font().getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
