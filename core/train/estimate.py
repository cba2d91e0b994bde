"""How long a run takes on this machine's cpu at least, before anything heavy: the time of its matrix products.

Elementwise work, validation and small matrices come on top: a quarter for GPT-2 124M, as much again for a toy.
"""

from __future__ import annotations

import time

import numpy as np

from core.device.cpu import cores
from core.errors import UsageError
from core.train.report import duration

LONG = 3600.0  # seconds: a run estimated longer than this is not started by accident
PROBE = 0.05  # seconds that the measurement takes on a quiet machine
TRIES = 24  # products at least: on a busy machine most of them wait for a core, and the best one counts
LEAST = 20e9  # FLOP/s of a core: other work on the machine must not make a run look longer than it is
SLOW = ("cpu", "sim")  # devices on which a run may take hours without being meant to


def gemm_rate(seconds: float = PROBE, size: int = 256) -> float:
    """FLOP/s of f32 matrix products here; the best of as many as fit into `seconds`, and LEAST a core at least."""
    a = np.ones((size, size), np.float32)
    out = np.empty_like(a)
    np.matmul(a, a, out=out)
    best, tries, began = float("inf"), 0, time.perf_counter()
    while (start := time.perf_counter()) < began + seconds or (tries < TRIES and start < began + 2.0):
        np.matmul(a, a, out=out)
        best, tries = min(best, time.perf_counter() - start), tries + 1
    return max(2.0 * size**3 / best, LEAST * cores())


def estimate_seconds(parameters: int, tokens: int, rate: float) -> float:
    """6 FLOPs a parameter and token, forward and backward (arXiv:2001.08361), at `rate` FLOP/s."""
    return 6.0 * parameters * tokens / rate


def refuse_long(seconds: float, device: str, *, steps: int, allowed: bool, where: str) -> None:
    """UsageError when a run on a slow device would take more than an hour and nobody said that it may."""
    if device in SLOW and seconds > LONG and not allowed:
        raise UsageError(
            f"{where}: {steps:,} steps would take {duration(seconds)} or more on the {device}; what "
            f"takes over {duration(LONG)} is not started unasked",
            hint="lower train.steps or train.tokens_per_step, train on a GPU, or pass --long",
        )
