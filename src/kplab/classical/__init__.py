"""Keypoints without learning: detectors, descriptors, the changes that they should survive, and named keypoints by memory."""
