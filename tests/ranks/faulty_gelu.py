"""A plugin for tests of runs on several ranks: a gelu that goes wrong on one rank, in its fourth call.

FAULT names what happens there: "raise", "exit", "kill", "stop", "hang", "nan", "spike", "term", or
"launcher" and "mpiexec", SIGUSR1 and SIGTERM to mpiexec. "late": the rank stops before all have joined.
"""

import os
import signal
import sys
import time
from functools import partial

import numpy as np

from core import Variant

CALL = 4
SLOPE, CUBIC = 0.7978845608028654, 0.044715
RANK = int(os.environ.get("OMPI_COMM_WORLD_RANK", "0"))
ON = int(os.environ.get("FAULT_RANK", "1"))


def fail():
    raise ValueError("the fault of a test")


def kill(number):
    os.kill(os.getpid(), number)


FAULTS = {
    "raise": fail,
    "exit": lambda: sys.exit(0),
    "kill": lambda: kill(signal.SIGKILL),
    "stop": lambda: kill(signal.SIGSTOP),
    "term": lambda: kill(signal.SIGTERM),
    "launcher": lambda: (os.kill(os.getppid(), signal.SIGUSR1), time.sleep(0.5)),
    "mpiexec": lambda: (os.kill(os.getppid(), signal.SIGTERM), time.sleep(1)),
    "hang": lambda: time.sleep(600),
}


class Faulty(Variant):
    op, name, device, reads = "gelu", "faulty", "cpu", ("x",)
    calls = 0

    def forward(self, t, launch):
        launch.call(partial(forward, t.x, t.y))

    def backward(self, t, launch):
        launch.call(partial(backward, t.x, t.dy, t.dx))


def forward(x, y):
    y[...] = x * (1 + np.tanh(SLOPE * (x + CUBIC * x**3))) / 2
    Faulty.calls += 1
    fault = os.environ.get("FAULT", "")
    if ON == RANK and fault == "nan" and Faulty.calls >= CALL:
        y[0, 0, 0] = np.nan
    elif ON == RANK and fault == "spike" and Faulty.calls == CALL:
        y += 1e4
    elif ON == RANK and fault in FAULTS and Faulty.calls == CALL:
        FAULTS[fault]()


def backward(x, dy, dx):
    h = np.tanh(SLOPE * (x + CUBIC * x**3))
    dx[...] = dy * ((1 + h) / 2 + x * (1 - h * h) / 2 * SLOPE * (1 + 3 * CUBIC * x * x))


def core_variants():
    if os.environ.get("FAULT") == "late" and ON == RANK:  # before all ranks have joined
        kill(signal.SIGSTOP)
    return [Faulty]
