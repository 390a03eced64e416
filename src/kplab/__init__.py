"""kplab: a keypoint-detection research workspace."""
