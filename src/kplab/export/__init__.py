"""Trained models as files of other runtimes: graphs from the pixels of an image to keypoints, and their comparison."""
