"""Several processes in one run, a rank each: what a launcher says, and what the ranks do together."""
