"""A sum as a tree, with a barrier in every turn."""

import numpy as np

from core.judge import KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer


def truth(x):
    return np.pad(x, (0, -len(x) % 256)).reshape(-1, 256).sum(1)


STEP = "if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];"

PUZZLE = Puzzle(
    "A sum as a tree",
    KernelTask(
        truth,
        inputs={"x": "n"},
        outputs={"y": "cdiv(n,256)"},
        launches=KernelLaunch("tree_sum", "y x n", grid="cdiv(n, 256)", block=256),
        cases=[{"n": 256}, {"n": 700}],
    ),
    minutes=25,
    hints=[
        ("race", "A thread reads a partial sum before another has written it, or while. Mark in each turn of the loop "
                 "which thread writes the number that the next turn reads: what stands between?"),
        ("divergent|barrier", "__syncthreads() is for ALL threads of the block, and here some never come to it. Does "
                              "it stand in an if, or behind a return?"),
        ("uninitialised", "A place of shared memory is read that no thread has filled. What do threads beyond n put "
                          "there?"),
        ("out of bounds", "The last block sticks out beyond n, or a thread reads beyond the tree. What does a thread "
                          "without an element add?"),
        ("endless", "The loop must end: what follows after half = 1?"),
        ("not written", "One thread must write the block's sum."),
        ("wrong", "Some summand is missing or counted twice. Draw the tree for 4 threads."),
    ],
    wrong={
        "no barrier in the loop": WrongAnswer("race", ("        __syncthreads();\n    }", "    }")),
        "no barrier before it": WrongAnswer("race", ("    __syncthreads();\n    for", "    for")),
        "barrier in the if": WrongAnswer(
            "runs: divergent",
            (f"{STEP}\n        __syncthreads();", f"if (threadIdx.x < half) {{ {STEP} __syncthreads(); }}"),
        ),
        "returns early": WrongAnswer(
            "runs: uninitialised",
            ("    part[threadIdx.x] = i < n ? x[i] : 0;", "    if (i >= n) return;\n    part[threadIdx.x] = x[i];"),
        ),
        "stops at two": WrongAnswer("wrong", ("half > 0", "half > 1")),
        "every thread adds": WrongAnswer("runs: out of bounds", ("if (threadIdx.x < half) ", "")),
    },
    why="Every turn reads numbers that other threads wrote in the turn before, so a barrier stands between two turns, "
        "outside of the if: all 256 threads must reach it.",
)  # fmt: skip
