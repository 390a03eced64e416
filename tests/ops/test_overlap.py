"""IoU of boxes in NumPy against torchvision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision

from kplab.ops.overlap import box_iou


def test_iou_is_that_of_torchvision() -> None:
    rng = np.random.default_rng(1)
    boxes, others = (np.sort(rng.uniform(0, 30, (n, 2, 2)), axis=1).reshape(n, 4) for n in (4, 6))
    expected = torchvision.ops.box_iou(torch.from_numpy(boxes), torch.from_numpy(others))
    assert box_iou(boxes, others) == pytest.approx(expected.numpy(), abs=1e-12)


def test_boxes_without_area_and_unknown_ones_overlap_nothing() -> None:
    assert box_iou(np.array([[1.0, 1, 1, 1], [np.nan] * 4]), np.array([[1.0, 1, 1, 1]])).tolist() == [[0], [0]]
