"""Plans a training from a dataset's traits and the speed of this machine: rules, stopwatch, and the experiment they make."""
