"""A bug: the last block reads sums that no fence has published."""

import numpy as np

from core.judge import KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer

PUZZLE = Puzzle(
    "Find the bug: the last thread block adds up",
    KernelTask(
        lambda x: np.array([x.sum()]),
        inputs={"x": "n"},
        outputs={"y": "1"},
        scratch={"parts": "cdiv(n,128)"},
        launches=KernelLaunch("sum_all", "y parts x n", grid="cdiv(n, 128)", block=128),
        cases=[{"n": 100}, {"n": 600}],
    ),
    minutes=30,
    start="no fences",
    place="llm.c, llmc/layernorm.cuh, layernorm_backward_kernel10 "
    "(docs/races.md, The last block adds up the others' sums)",
    hints=[
        ("race.*parts", "The last block reads sums that other blocks wrote. An atomic orders nothing but itself. What "
                        "must stand between the write and the counter in EVERY block, and what between the counter "
                        "and the reads in the last one?"),
        ("race", "Two blocks change the same word with nothing between them: is the counter counted atomically?"),
        ("uninitialised", "`last` is read by all threads: which one writes it, and when?"),
        ("not written", "No block took itself for the last: does atomicAdd give the value before the addition, or "
                        "after it?"),
        ("wrong", "Some block's sum is missing, or the block that added them up was not the last."),
    ],
    wrong={
        "no fences": WrongAnswer("race", ("        __threadfence();\n", "")),
        "the writer's only": WrongAnswer(
            "race", ("== gridDim.x - 1;\n        __threadfence();", "== gridDim.x - 1;")
        ),
        "the reader's only": WrongAnswer("race", ("        __threadfence();\n        last", "        last")),
        "a count without atomics": WrongAnswer("race", ("atomicAdd(&done, 1)", "done++")),
        "off by one": WrongAnswer("written: not written", ("gridDim.x - 1", "gridDim.x")),
    },
    why="A fence makes a thread's earlier writes visible before its later ones; the atomic carries the order to the "
        "thread that reads the count; a second fence keeps its reads behind it.",
)  # fmt: skip
