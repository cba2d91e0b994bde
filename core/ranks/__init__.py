"""Several processes in one run, a rank each: the launcher's variables, and the ranks' common operations."""
