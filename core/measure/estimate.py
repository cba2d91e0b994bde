"""A lower bound on the time of a run on this machine, before any heavy work: FLOPs of its steps at a measured rate.

On the cpu that is the rate of its matrix products: elementwise work, validation and small matrices add a quarter for
GPT-2 124M, and double the time of a toy. `core.measure.simulator_pace` has the simulator's rate.
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from core.devices import Pace
from core.errors import UsageError
from core.threads import cores
from core.words import duration

if TYPE_CHECKING:
    from core.device.protocol import Device

LONG = 3600.0  # seconds: a run estimated longer than this is not started by accident
PROBE = 0.05  # seconds that the measurement takes on a quiet machine
TRIES = 24  # products at least: on a busy machine most of them wait for a core, and the best one counts
LEAST = 20e9  # FLOP/s of a core: other work on the machine must not make a run look longer than it is


def gemm_rate() -> float:
    """FLOP/s of f32 matrix products here, measured once in a process; LEAST a core at least."""
    return max(best_rate(), LEAST * cores())


@cache
def best_rate(seconds: float = PROBE, size: int = 256) -> float:
    """FLOP/s of the fastest of as many f32 matrix products as fit into `seconds`."""
    a = np.ones((size, size), np.float32)
    out = np.empty_like(a)
    np.matmul(a, a, out=out)
    best, tries, began = float("inf"), 0, time.perf_counter()
    while (start := time.perf_counter()) < began + seconds or (tries < TRIES and start < began + 2.0):
        np.matmul(a, a, out=out)
        best, tries = min(best, time.perf_counter() - start), tries + 1
    return 2.0 * size**3 / best


def cpu_pace(device: Device) -> Pace:
    """The cpu's. device: the open one, which is not needed."""
    return Pace(gemm_rate(), 0.0, "or more, for matrix products alone")


def estimate_seconds(parameters: int, tokens: int, rate: float, extra: float = 0.0) -> float:
    """6 FLOPs a parameter and token, forward and backward (arXiv:2001.08361), and `extra`, at `rate` FLOP/s."""
    return (6.0 * parameters * tokens + extra) / rate


def refuse_long(seconds: float, device: str, *, steps: int, allowed: bool, where: str) -> None:
    """UsageError when a run on a device would take more than an hour and `allowed` is false."""
    if seconds > LONG and not allowed:
        raise UsageError(
            f"{where}: {steps:,} steps would take {duration(seconds)} or more on the {device}; "
            f"a run of over {duration(LONG)} starts only with --long",
            hint="lower train.steps or train.tokens_per_step, train on a GPU, or pass --long",
        )
