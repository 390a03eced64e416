"""Evaluation: scores of predictions, comparisons of runs, benchmarks and pictures."""
