"""A bug: a remainder that several threads compute."""

from core.judge import KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer

REST = "for (int i = whole + threadIdx.x; i < n; i += blockDim.x) y[i]"

PUZZLE = Puzzle(
    "Find the bug: right results, and yet",
    KernelTask(
        lambda x: 2 * x,
        inputs={"x": "n"},
        outputs={"y": "n"},
        launches=KernelLaunch("twice", "y x n", grid=1, block=64),
        cases=[{"n": 8}, {"n": 129}, {"n": 515}],
    ),
    minutes=10,
    start="several owners",
    place="llm.c, llmc/fused_classifier.cuh:122 (docs/races.md, A remainder that every thread computes)",
    hints=[
        ("race", "Right by luck: with n = 515 three elements are left, and two threads write the same one. By how much "
                 "must i grow if 64 threads share a loop?"),
        ("not written", "The rest is left out, or a part of it."),
        ("out of bounds", "Does every thread have an element whole + threadIdx.x?"),
    ],
    wrong={
        "several owners": WrongAnswer("race", ("i += blockDim.x) y[i]", "i++) y[i]")),
        "all threads do the rest": WrongAnswer(
            "race", ("whole + threadIdx.x; i < n; i += blockDim.x", "whole; i < n; i++")
        ),
        "no rest": WrongAnswer("not written", (f"    {REST} = 2 * x[i];\n", "")),
        "no bound": WrongAnswer("out of bounds", (REST, "int i = whole + threadIdx.x; y[i]")),
    },
    why="Two threads that write the same number to one element do no harm until a kernel works in place: then the "
        "later one reads the earlier one's result. One element, one owner.",
)  # fmt: skip
