"""Applications of predicted keypoints: pure functions on ``Predictions`` and arrays. They draw nothing and load no model."""
