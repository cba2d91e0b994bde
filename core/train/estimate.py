"""How long a run will take on this machine's cpu, before anything heavy: a guess good to a factor of two."""

from __future__ import annotations

import time

import numpy as np

from core.errors import UsageError
from core.train.report import duration

LONG = 3600.0  # seconds: a run estimated longer than this is not started by accident
PROBE = 0.05  # seconds that the measurement may take
SLOW = ("cpu", "sim")  # devices on which a run may take hours without being meant to


def gemm_rate(seconds: float = PROBE, size: int = 384) -> float:
    """FLOP/s of f32 matrix products here; the best of as many as fit into `seconds`, after one to warm up."""
    a = np.ones((size, size), np.float32)
    out = np.empty_like(a)
    np.matmul(a, a, out=out)
    best, end = float("inf"), time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        np.matmul(a, a, out=out)
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best


def estimate_seconds(parameters: int, tokens: int, rate: float) -> float:
    """6 FLOPs a parameter and token, forward and backward (arXiv:2001.08361), at `rate` FLOP/s."""
    return 6.0 * parameters * tokens / rate


def refuse_long(seconds: float, device: str, *, steps: int, allowed: bool, where: str) -> None:
    """UsageError when a run on a slow device would take more than an hour and nobody said that it may."""
    if device in SLOW and seconds > LONG and not allowed:
        raise UsageError(
            f"{where}: {steps:,} steps would take about {duration(seconds)} on the {device}; more than "
            f"{duration(LONG)} is not started unasked",
            hint="lower train.steps or train.tokens_per_step, train on a GPU, or pass --long",
        )
