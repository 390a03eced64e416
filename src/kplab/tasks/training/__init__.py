"""Training runs: the loop, its callbacks, optimisers, and sweeps."""
