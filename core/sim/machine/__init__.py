"""The state of a launch: memory, thread blocks that are resident together, groups of threads in lockstep."""
