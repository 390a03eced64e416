"""Keypoints without learning: nothing here has a gradient."""
