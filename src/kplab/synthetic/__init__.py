"""Rendered subjects with exact keypoints: a dataset of any size, without a download."""

from kplab.synthetic.generate import generate
from kplab.synthetic.scene import render, subjects

__all__ = ["generate", "render", "subjects"]
