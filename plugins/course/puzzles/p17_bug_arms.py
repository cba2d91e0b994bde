"""A bug: a barrier in each arm of an if."""

import numpy as np

from core.judge import KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer

BODY = """    s[threadIdx.x] = threadIdx.x < 32 ? 2 * x[threadIdx.x] : x[threadIdx.x] * x[threadIdx.x];
    __syncthreads();
"""
EACH = """    if (threadIdx.x < 32) { s[threadIdx.x] = 2 * x[threadIdx.x]; __syncthreads(); }
    else { s[threadIdx.x] = x[threadIdx.x] * x[threadIdx.x]; __syncthreads(); }
"""
VALUE = "s[threadIdx.x] = threadIdx.x < 32 ? 2 * x[threadIdx.x] : x[threadIdx.x] * x[threadIdx.x];"
WITHIN = f"""    if (threadIdx.x % 2) {{ {VALUE} __syncthreads(); }}
    else {{ {VALUE} __syncthreads(); }}
"""
ONE = f"""    {VALUE}
    if (threadIdx.x < 32) __syncthreads();
"""

PUZZLE = Puzzle(
    "Find the bug: a barrier in each arm",
    KernelTask(
        lambda x: np.concatenate([2 * x[:32], x[32:] ** 2])[::-1],
        inputs={"x": "n"},
        outputs={"y": "n"},
        launches=KernelLaunch("mirror", "y x", grid=1, block=64),
        cases=[{"n": 64}],
    ),
    minutes=10,
    start="a barrier in each arm",
    hints=[
        ("divergent|barrier", "Two barriers in two arms are two barriers: each waits for ALL threads of the block, and "
                              "neither gets them. Where could one barrier serve both halves?"),
        ("race", "No thread waits, or only half of them do."),
    ],
    wrong={
        "a barrier in each arm": WrongAnswer("runs: divergent", (BODY, EACH)),
        "arms within a warp": WrongAnswer("runs: divergent", (BODY, WITHIN)),
        "one arm only": WrongAnswer("runs: race", (BODY, ONE)),
    },
    why="__syncthreads() is one place in the program that all threads of the block reach. GPUs may count the arrivals "
        "of both arms together, so the bug often shows nothing: until a compiler turns the arms.",
)  # fmt: skip
