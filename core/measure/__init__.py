"""Measurements of a model on a machine: step times by op, the fastest variants, a step's estimate, token losses."""
