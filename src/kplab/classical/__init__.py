"""Keypoints without learning: detectors, descriptors, and the changes of an image that they should survive."""
