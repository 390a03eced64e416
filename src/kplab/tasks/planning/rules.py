"""The rules of a plan: each one decides keys of a training config from the traits of the data, and states why.

A rule is a function of a ``Draft`` that returns a ``Choice``; later rules see the choices of earlier ones. What the rules have
in common: a subject is shown as large as its closest keypoints need, and an image is changed only in ways in which the data
vary themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from kplab.data.traits import Traits
from kplab.errors import ConfigError
from kplab.structures.poses import HULL_MARGIN
from kplab.tasks.planning.draft import PADDED, Choice, Draft
from kplab.tasks.planning.families import FAMILIES

#: Pixels of a view, and of a crop, that the closest keypoints of a subject should be apart; a cell of a heatmap has 4.
APART, CROP_APART = 4.0, 6.0
#: Smallest and largest side of a subject in a view, pixels.
SUBJECT = (64, 256)
#: Pixels of the smallest subjects in the view of a detector.
FOUND = 24
#: Largest side of a view, pixels.
LARGEST = 1024
#: Sides of views are multiples of it, the coarsest stride of the backbones.
MULTIPLE = 32
#: More subjects in an image, on average, than a cascade crops one by one.
CROWD = 12
#: Ratio of the largest to the smallest subjects, their share of the image's side, and their number, from which on a single
#: subject is cropped, too, if the time suffices.
VARIED, CROPPED, ENOUGH = 1.8, 0.6, 200
#: Range of the sides of the holes of cutout, as parts of a subject's longer side.
HIDDEN = (0.1, 0.3)
#: Share of the views of a step that a detector is trained on.
DETECTED = 0.5
#: Of a single subject the detector's three best boxes are read, whatever their score, and the best pose is kept.
ALONE = {"detector.head.max_poses": 3, "model.keep": 1, "model.min_score": 0.0}
#: Boxes of an image that a cascade reads for each subject that training images have at most, and the fewest: a detector that has
#: learnt little has dozens of uncertain ones, which take nearly all of the time of a prediction.
PROPOSED, FEWEST_PROPOSED = 4, 12
#: How much more than subjects do two poses must overlap to be taken for one subject, and the limits of that IoU.
CLOSER, SAME = 0.2, (0.5, 0.9)
#: Share of keypoints that are labelled below which uncertain ones are not in the image, rather than wrong, and the score below which
#: they do not count in that of a pose.
ALL, UNCERTAIN = 0.9, 0.2
#: Share of the longer side of a subject's box that the hull of its keypoints must cover to take its place.
HULLS = 0.6
#: Range of rotation in training from which on predictions turn views, too, and their angles if all are trained on, degrees.
TURNED, EIGHTHS = 30, [45, 90, 135, 180, 225, 270, 315]
#: How much farther a mirrored pose must be from the nearest one than poses are to be taken as one that does not occur: without and
#: with left and right. The second needs some distinct poses, as the frames of a subject that keeps still are all alike.
UNLIKE, UNLIKE_SIDES, DISTINCT = 1.5, 5.0, 10
#: Correlation of thumbnails above which a camera is taken to be fixed.
STILL = 0.9


def family(draft: Draft) -> Choice:
    """Model and head, by the number of subjects of an image.

    Raises:
        ConfigError: the family that the user asks for is unknown, or predicts one subject and images have several.
    """
    t, asked = draft.traits, draft.family
    if asked != "auto" and asked not in FAMILIES:
        raise ConfigError(f"family is '{asked}'. Use auto, {', '.join(FAMILIES)}.")
    figure = f"at most {t.most} subjects in an image, {t.usual:.1f} on average"
    if asked != "auto" and FAMILIES[asked].single and t.most > 1:
        several = ", ".join(name for name, kind in FAMILIES.items() if not kind.single)
        raise ConfigError(
            f"family={asked} predicts one subject of an image, and images have up to {t.most}. Use {several}."
        )
    if asked != "auto":
        chosen, reason = asked, "as asked for"
    elif (
        t.most == 1
        and not draft.short  # a detector takes time of its own
        and t.side_high > VARIED * t.side_low
        and t.share < CROPPED
        and t.subjects >= ENOUGH
    ):
        chosen, reason = "topdown", "subjects of different sizes: a detector finds them, and crops show them alike"
        figure += f", of {t.side_low:.0f} to {t.side_high:.0f} px; {t.share:.0%} of the image's side"
    elif t.most == 1:
        chosen, reason = "heatmap", "one subject in each image: heatmaps of the whole image need no detector"
    elif t.usual <= CROWD:
        chosen, reason = (
            "topdown",
            "several subjects: a detector finds them, and crops show each one with all its pixels",
        )
    else:
        chosen = "centernet"
        reason = f"more than {CROWD} subjects on average: one pass over the image takes the same time for any number"
    kind = FAMILIES[chosen]
    groups = {"model": kind.model, "head": kind.head, "neck": kind.neck}
    return Choice("family", figure, reason, {"regions": "image"}, groups)


def view(draft: Draft) -> Choice:
    """Size of the view, by how large a subject must be so that its closest keypoints can be told apart."""
    t = draft.traits
    low, high = SUBJECT
    nearest = t.nearest if math.isfinite(t.nearest) and t.nearest > 0 else t.side
    told_apart = (CROP_APART if draft.cascade else APART) * t.side / nearest
    wanted = min(max(128.0, told_apart), high / (1 + 2 * HULL_MARGIN) if draft.cascade else high)
    # more pixels than the image has add nothing, unless keypoints of a crop would share a cell of a heatmap, or the subject
    # would be smaller than the network's coarse strides
    most = max(t.side, told_apart) if draft.cascade else t.side
    shown = max(min(wanted, most) * draft.shrink, min(low, wanted))
    figure = f"a subject's longer side is {t.side:.0f} px, its closest keypoints are {nearest:.1f} px apart"
    if draft.cascade:
        crop = max(2 * MULTIPLE, int(shown * PADDED) // MULTIPLE * MULTIPLE)
        # the detector sees the smallest subjects with FOUND px; the view has all pixels of the image, for the crops
        full = max(t.width, t.height)
        finding = min(max(FOUND / t.side_low, 128 / full), LARGEST / full)
        scale = max(min(1.0, LARGEST / full), finding)
        found = sides(t, finding)
        several = {
            "detector.head.max_poses": max(FEWEST_PROPOSED, PROPOSED * t.most),
            "model.nms_threshold": round(min(max(t.overlap + CLOSER, SAME[0]), SAME[1]), 2),
        }
        read = ALONE if t.most == 1 else several
        if t.most > 1:
            figure += f", and overlaps another subject by an IoU of {t.overlap:.2f} at most, but for 1 %"
        return Choice(
            "view",
            figure,
            f"crops show a subject with {crop / PADDED:.0f} px; the detector needs {FOUND} px of the smallest ones, and "
            f"trains on {DETECTED:.0%} of the views, as boxes are easier to learn than keypoints; of an image at most "
            f"{read['detector.head.max_poses']} boxes are read"
            + ("" if t.most == 1 else "; poses that overlap more than subjects do are of one subject"),
            {
                "size": same_aspect(t, found, scale),
                "model.crop": [crop, crop],
                "detector.size": found,
                "model.detector_share": DETECTED,
                "window": None,
                **read,
            },
        )
    scale = min(shown / t.side, LARGEST / max(t.width, t.height))
    size = sides(t, scale)
    side = multiple(1.5 * t.side_high * scale + MULTIPLE)
    window = [side, side] if side < 0.8 * min(size) and draft.kind.windows else None
    reason = f"views show a subject with {t.side * scale:.0f} px"
    if window:
        reason += f"; it fills {t.share:.0%} of the image's side, so training sees windows around it"
    values: dict[str, Any] = {"size": size, "window": window}
    if window and (t.most > 1 or t.images >= 200):
        values["window_anywhere"] = 0.2
    return Choice("view", figure, reason, values)


def head(draft: Draft) -> Choice:
    """Maps that the head reads, its losses, its size, and what counts in scores."""
    kind, shown = draft.kind, draft.shown
    values = kind.values | (kind.fitted(draft.traits, shown) if kind.fitted else {})
    if "rescore" in values and draft.traits.labelled < ALL:
        values["rescore"] = UNCERTAIN
    return Choice("head", f"a subject is shown with {shown.side:.0f} px", kind.reason, values)


def rotation(draft: Draft) -> Choice:
    """Range of rotation, from the orientations of the subjects."""
    t = draft.traits
    figure = f"90 % of the subjects are turned by {t.turned:.0f} degrees at most, in {t.distinct} distinct poses"
    if t.still > STILL and t.share < 0.25 and (t.distinct < 30 or t.turned > 60):
        return Choice("rotation", figure, "a small subject before a fixed camera may face any direction", turns(180))
    if t.turned > 90:
        return Choice("rotation", figure, "the data have nearly all orientations", turns(45))
    degrees = int(min(max(10.0, 0.75 * t.turned), 45.0))
    reason = "three quarters of the data's own range, between 10 and 45 degrees"
    return Choice("rotation", figure, reason, turns(degrees))


def boxes(draft: Draft) -> Choice:
    """What the boxes of subjects are in training: annotated ones grow as views are rotated, hulls of keypoints do not."""
    keys = ["detector.head.boxes", "model.hull"] if draft.cascade else ["head.boxes"] if draft.kind.boxed else []
    # the one subject that is kept is cheap to read again
    again = {"model.passes": 3 if draft.traits.most == 1 else 2} if draft.cascade else {}
    covered = draft.traits.covered
    figure = f"hulls of the keypoints cover {covered:.0%} of the boxes' longer sides or more, in 90 % of the subjects"
    if covered < HULLS:
        return Choice("boxes", figure, "annotated boxes show more than the keypoints", dict.fromkeys(keys, "annotated"))
    reason = "the hull of a rotated subject is as tight as that of an upright one, its annotated box is not"
    if draft.cascade:
        reason += "; the pose of a crop shows where to read the subject again"
    return Choice("boxes", figure, reason, dict.fromkeys(keys, "keypoints") | again)


def turns(degrees: int) -> dict[str, Any]:
    """Keys of a range of rotation."""
    return {"augment.rotate": degrees, "augment.rotate_prob": 1.0 if degrees == 180 else 0.7}


def turn_test(draft: Draft) -> Choice:
    """Whether turned views are read in prediction, too, and the heatmaps averaged."""
    degrees = draft.value("augment.rotate")
    figure = f"training turns views by up to {degrees} degrees"
    if draft.groups["head"] != "heatmap":
        return Choice("turn test", figure, "only heatmaps can be turned back", {})
    if degrees < TURNED:
        return Choice("turn test", figure, f"below {TURNED} degrees turned views are too much alike", {})
    angles = EIGHTHS if degrees == 180 else [-(degrees // 2), degrees // 2]
    reason = f"such views are read as well as upright ones; the errors of {len(angles) + 1} views average out"
    values: dict[str, Any] = {"model.turns": angles}
    if draft.cascade and draft.traits.most > 1:
        values["model.turned"] = "last"
        reason += "; where a subject is, upright ones show as well"
    return Choice("turn test", figure, reason, values)


def scale(draft: Draft) -> Choice:
    """Range of scale, from the sizes of the subjects."""
    t = draft.traits
    ratio = t.side_high / t.side_low
    factor = round(min(max(1.15, ratio**0.25), 1.4), 2)
    return Choice(
        "scale",
        f"90 % of the subjects have sides of {t.side_low:.0f} to {t.side_high:.0f} px",
        "the fourth root of their ratio either way, between 1.15 and 1.4: the data vary themselves",
        {
            "augment.scale": [round(1 / factor, 2), factor],
            "augment.shift": 0.0 if draft.value("window") else 0.08,
        },
    )


def mirroring(draft: Draft) -> Choice:
    """Whether images are mirrored in training and for the flip test."""
    t = draft.traits
    alike = math.isfinite(t.mirrored) and t.mirrored < UNLIKE
    one_way = draft.value("augment.rotate") < TURNED and t.distinct >= DISTINCT and t.mirrored > UNLIKE_SIDES
    figure = (
        "too few subjects to compare mirrored poses"
        if not math.isfinite(t.mirrored)
        else f"a mirrored pose is {t.mirrored:.2f} times as far from the nearest one as a pose is"
    )
    if t.sides and one_way:
        mirror, reason = (
            False,
            "the skeleton has sides, but subjects face the same way, and mirrored poses do not occur",
        )
    elif t.sides:
        mirror, reason = True, "the skeleton pairs left and right, which are exchanged in a mirrored image"
    elif alike:
        mirror, reason = True, "the skeleton has no sides, and mirrored poses look like the others"
    else:
        mirror, reason = False, "the skeleton has no sides, and mirrored poses do not occur"
    return Choice(
        "mirroring", figure, reason, {"augment.flip": 0.5 if mirror else 0.0, "flip_test": mirror and draft.kind.flips}
    )


def appearance(draft: Draft) -> Choice:
    """Changes of colour, by how images differ; blur, noise and cutout, where the time suffices to learn from such images."""
    t = draft.traits
    light = round(min(max(0.15, 2 * t.light / 255), 0.35), 2)
    transforms: list[dict[str, Any]] = [
        {
            "_target_": "albumentations.ColorJitter",
            "brightness": [round(1 - light, 2), round(1 + light, 2)],
            "contrast": [round(1 - light, 2), round(1 + light, 2)],
            "saturation": [0.7, 1.3] if t.colour else [1.0, 1.0],
            "hue": [-0.02, 0.02] if t.colour and t.still < STILL else [0.0, 0.0],
            "p": 0.7,
        },
    ]
    if not draft.short:
        transforms += [
            {"_target_": "albumentations.GaussianBlur", "blur_limit": [3, 5], "p": 0.15},
            {"_target_": "albumentations.GaussNoise", "std_range": [0.01, 0.05], "per_channel": False, "p": 0.2},
        ]
    if not draft.short and t.distinct < 2000 and t.keypoints > 1:
        # a tenth to a third of a subject is hidden, as parts of the view's sides
        shown = t.side * draft.value("size")[0] / t.width
        holes = [[round(part * shown / s, 4) for part in HIDDEN] for s in draft.value("window") or draft.value("size")]
        transforms.append(
            {
                "_target_": "albumentations.CoarseDropout",
                "num_holes_range": [1, 3],
                "hole_height_range": holes[1],
                "hole_width_range": holes[0],
                "fill": "random_uniform",
                "p": 0.3,
            }
        )
    kind = "in colour" if t.colour else "grey"
    return Choice(
        "appearance",
        f"images are {kind}, their mean brightness differs by {t.light:.0f} of 255 (standard deviation)",
        f"brightness and contrast by {light:.0%}; hue only where cameras differ; "
        + ("no more, as the time is short" if draft.short else "blur, noise, and cutout with few distinct poses"),
        {"augment.transforms": transforms},
        {"augment": "none"},
    )


def batches(draft: Draft) -> Choice:
    """Views of a step."""
    t = draft.traits
    size = min(8 if t.images < 400 else 16, max(2, t.images))
    return Choice(
        "batches",
        f"{t.images} training images",
        "small batches where there are few images, so that an epoch has many steps",
        {"batch_size": size},
    )


def sides(t: Traits, scale: float) -> list[int]:
    """Width and height of a view at a scale, as multiples."""
    return [multiple(t.width * scale), multiple(t.height * scale)]


def same_aspect(t: Traits, small: list[int], scale: float) -> list[int]:
    """Width and height of a view into which an image fits at a scale, of the aspect of a smaller view."""
    cells = [s // MULTIPLE for s in small]
    unit = max(t.width * scale / cells[0], t.height * scale / cells[1])
    return [c * max(MULTIPLE, round(unit)) for c in cells]


def multiple(length: float) -> int:
    """The nearest multiple that networks accept, at least two.

    >>> multiple(100)
    96
    """
    return MULTIPLE * max(2, round(length / MULTIPLE))


#: The rules that need the data alone, in order.
RULES: tuple[Callable[[Draft], Choice], ...] = (
    family,
    view,
    head,
    rotation,
    turn_test,
    boxes,
    scale,
    mirroring,
    appearance,
    batches,
)


def decide(draft: Draft) -> None:
    """Apply all rules anew."""
    draft.choices = []
    for rule in RULES:
        draft.choices.append(rule(draft))
