"""Interest points: their repeatability, and peaks of a trained model's heatmaps."""
