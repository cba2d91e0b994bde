"""Training: the loop, the run's folder, and its display."""
