"""A bug: scratch that is used twice."""

import numpy as np

from core.judge import KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer


def truth(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


STORE = "    if (threadIdx.x % 32 == 0)"

PUZZLE = Puzzle(
    "Find the bug: scratch that is used twice",
    KernelTask(
        truth,
        inputs={"x": "rows n"},
        outputs={"y": "rows n"},
        launches=KernelLaunch("softmax", "y x n", grid="rows", block=256),
        cases=[{"rows": 1, "n": 100}, {"rows": 2, "n": 600}],
    ),
    minutes=20,
    start="one barrier",
    place="llm.c, dev/cuda/softmax_forward.cu, kernel 4 (docs/races.md, Scratch that is used twice)",
    hints=[
        ("race.*(writ.*not ordered after a read|this write)", "A fast warp comes round with its SUM while a slow warp "
         "still reads the MAXIMA out of the same scratch. Where do the reads of the first call end, and what keeps the "
         "second call's writes behind them?"),
        ("race", "A warp reads scratch before another one has written its part. A barrier before the write is needed; "
                 "is the one behind it still there?"),
        ("divergent", "Every thread must come to the barrier."),
        ("wrong", "The race is gone, and so is the result: the sum of which numbers?"),
    ],
    wrong={
        "one barrier": WrongAnswer("race", (f"    __syncthreads();\n{STORE}", STORE)),
        "only a warp waits": WrongAnswer("race", (f"    __syncthreads();\n{STORE}", f"    __syncwarp();\n{STORE}")),
        "moved, not added": WrongAnswer(
            "race", ("scratch[threadIdx.x / 32] = v;\n    __syncthreads();", "scratch[threadIdx.x / 32] = v;")
        ),
        "a fence is no barrier": WrongAnswer(
            "race", (f"    __syncthreads();\n{STORE}", f"    __threadfence_block();\n{STORE}")
        ),
    },
    why="A barrier is needed before the second WRITE of scratch, not only between a write and its reads. The kernels "
        "of most hardware runs hide it: all warps have the same work between the two.",
)  # fmt: skip
