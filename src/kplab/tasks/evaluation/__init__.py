"""Scores of predictions, comparisons of runs, and pictures of both."""
