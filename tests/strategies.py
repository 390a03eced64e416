"""Hypothesis strategies of poses and labels."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kplab.structures.image_source import ImageSource
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton


@st.composite
def poses(
    draw: st.DrawFn,
    keypoints: int,
    size: tuple[int, int],
    min_instances: int = 0,
    max_instances: int = 4,
    all_labelled: bool = False,
) -> Poses:
    """Instances that do not overlap, at most four, in a view.

    Each lies in its own quarter of the view. Its box has at least half that quarter's sides and contains its keypoints;
    at least one keypoint is labelled.

    Args:
        draw: the function that Hypothesis passes.
        keypoints: K.
        size: (width, height) of the view, pixels.
        min_instances: smallest number of instances.
        max_instances: largest number of instances, four at most.
        all_labelled: whether every keypoint is labelled.
    """
    count = draw(st.integers(min_instances, max_instances))
    quarters = draw(st.permutations(range(4)))[:count]
    half = np.array(size) / 2
    unit = st.floats(0, 1, width=32)
    xy = np.zeros((count, keypoints, 2))
    visible = np.full((count, keypoints), 2)
    box = np.zeros((count, 4))
    for i, quarter in enumerate(quarters):
        corner, side = draw(arrays.arrays(float, 2, elements=unit)), draw(arrays.arrays(float, 2, elements=unit))
        extent = half * (0.5 + side * 0.4)
        start = np.array([quarter % 2, quarter // 2]) * half + corner * (half - extent)
        box[i] = [*start, *(start + extent)]
        xy[i] = start + draw(arrays.arrays(float, (keypoints, 2), elements=unit)) * extent
        if not all_labelled:
            visible[i] = draw(arrays.arrays(np.int64, keypoints, elements=st.integers(0, 2)))
            visible[i, draw(st.integers(0, keypoints - 1))] = 2
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    return Poses.make(xy, visible, box=box, area=area)


@st.composite
def labels(draw: st.DrawFn, skeleton: Skeleton, source: ImageSource, sizes: list[tuple[int, int]]) -> Labels:
    """Labels of all images of a source, with everything that labels can hold.

    Images without a subject, subjects without a labelled keypoint, crowds, tracks, groups, boxes and areas. At least one
    subject has a labelled keypoint.

    Args:
        draw: the function that Hypothesis passes.
        skeleton: K keypoints.
        source: the images.
        sizes: (width, height) of each image, pixels.
    """
    parts, image_of, crowd, track = [], [], [], []
    for i, size in enumerate(sizes):
        found = draw(poses(len(skeleton), size, min_instances=int(i == 0)))
        for row in range(len(found)):
            kind = "subject" if not parts else draw(st.sampled_from(["subject", "subject", "bare", "crowd"]))
            if kind != "subject":
                found.xy[row], found.visible[row], found.ignore[row] = np.nan, 0, True
            found.area[row] *= draw(st.floats(0.1, 1))
            image_of.append(i)
            crowd.append(kind == "crowd")
            track.append(draw(st.integers(-1, 3)))
        parts.append(found)
    whole = Poses.concat(parts)
    whole.track[:] = track
    groups = [draw(st.sampled_from(["a", "b", source.name(i)])) for i in range(len(sizes))]
    return make_labels(
        skeleton,
        source,
        np.arange(1, len(sizes) + 1),
        np.array(sizes),
        groups,
        whole,
        np.array(image_of, dtype=np.int64),
        np.arange(1, len(whole) + 1),
        np.array(crowd, dtype=bool),
        box_source="annotation",
        area_source="annotation",
    )
