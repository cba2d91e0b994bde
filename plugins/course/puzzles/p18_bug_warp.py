"""A bug: lanes of a warp that are thought to run in step."""

import numpy as np

from core.judge import KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer

LOOP = """        float v = s[threadIdx.x] + s[threadIdx.x + 32];
        __syncwarp();
        s[threadIdx.x] = v;
        __syncwarp();
        for (int o = 16; o > 0; o /= 2) {
            v += s[threadIdx.x + o];
            __syncwarp();
            s[threadIdx.x] = v;
            __syncwarp();
        }
"""
VOLATILE = """        volatile float* p = s;
        for (int o = 32; o > 0; o /= 2) p[threadIdx.x] += p[threadIdx.x + o];
"""
PLAIN = """        for (int o = 32; o > 0; o /= 2) s[threadIdx.x] += s[threadIdx.x + o];
"""
END = """        for (int o = 32; o > 0; o /= 2) { s[threadIdx.x] += s[threadIdx.x + o]; __syncwarp(); }
"""

PUZZLE = Puzzle(
    "Find the bug: lanes in step",
    KernelTask(
        lambda x: np.array([x.sum()]),
        inputs={"x": "n"},
        outputs={"y": "1"},
        launches=KernelLaunch("sum64", "y x", grid=1, block=64),
        cases=[{"n": 64}],
    ),
    minutes=15,
    start="volatile",
    place="llm.c, dev/cuda/attention_forward.cu:648, a fault by specification (docs/races.md)",
    hints=[
        ("race.*(writ.*after a read|this write|syncwarp)", "Lane 0 reads what lane 16 writes, in the same warp, with "
         "no order between the two. Each turn reads, then writes: what must stand between, and what behind?"),
        ("race", "Two lanes use one element of s, and no __syncwarp() stands between."),
        ("wrong", "A summand is missing or counted twice."),
        ("uninit|out of bounds", "s has 64 places."),
    ],
    wrong={
        "volatile": WrongAnswer("race", (LOOP, VOLATILE)),
        "plain": WrongAnswer("race", (LOOP, PLAIN)),
        "a wait only at the end of a turn": WrongAnswer("race", (LOOP, END)),
    },
    why="Since Volta each lane has a program counter of its own. `volatile` orders one thread's accesses and nothing "
        "between lanes; __syncwarp() does. Shuffles need no memory at all.",
)  # fmt: skip
