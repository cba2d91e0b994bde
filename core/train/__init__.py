"""Training: the loop, the run's folder, and what people see of it."""
