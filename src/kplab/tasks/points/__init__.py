"""Interest points: repeatability under changes, and peaks of a trained model."""
