"""Faster cpu variants of the built-in ops: the references' formulas, in blocks that stay in cache, rows over threads.

Each writes into the plan's memory; intermediate values are in a worker's scratch.
"""

from . import adamw, attention, cross_entropy, gelu, layernorm, matmul

MODULES = (layernorm, matmul, attention, gelu, cross_entropy, adamw)
