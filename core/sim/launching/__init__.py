"""A launch from its arguments to its report: batches of thread blocks, and the order in which groups run."""
