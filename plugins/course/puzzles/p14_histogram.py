"""Counts by atomics, in shared memory first."""

import numpy as np

from core.judge import KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer

PUZZLE = Puzzle(
    "A histogram by atomics",
    KernelTask(
        lambda x: np.bincount(x, minlength=32),
        inputs={"x": "n : i32 < 32"},
        outputs={"counts": "32 : i32"},
        zeroed=["counts"],
        launches=KernelLaunch("histogram", "counts x n", grid=3, block=128),
        cases=[{"n": 50}, {"n": 900}],
    ),
    minutes=20,
    hints=[
        ("uninitialised", "What does shared memory hold at the start?"),
        ("race", "Two threads change one counter: read, add, write are three steps, and another thread may come "
                 "between. Or a thread counts before all is zeroed, or adds before all have counted."),
        ("wrong", "Counts are missing or doubled: does each element have exactly one thread, over ALL blocks?"),
    ],
    wrong={
        "++ without atomics": WrongAnswer("race", ("atomicAdd(&mine[x[i]], 1)", "mine[x[i]]++")),
        "not zeroed": WrongAnswer("uninit", ("    if (threadIdx.x < 32) mine[threadIdx.x] = 0;\n", "")),
        "no barrier after zeroing": WrongAnswer(
            "race", ("mine[threadIdx.x] = 0;\n    __syncthreads();", "mine[threadIdx.x] = 0;")
        ),
        "adds without atomics": WrongAnswer(
            "race", ("atomicAdd(&counts[threadIdx.x], mine[threadIdx.x])", "counts[threadIdx.x] += mine[threadIdx.x]")
        ),
        "every block counts all": WrongAnswer(
            "wrong",
            ("blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x",
             "threadIdx.x; i < n; i += blockDim.x"),
        ),
    },
    why="An atomic is one step for all others. Whole numbers have the same sum in any order, so the result does not "
        "depend on it; floats do not.",
)  # fmt: skip
