"""One element a thread, and a guard: the grid is rounded up."""

from core.judge import KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer

PUZZLE = Puzzle(
    "One element a thread, and a guard",
    KernelTask(
        lambda x: x + 10,
        inputs={"x": "n"},
        outputs={"y": "n"},
        launches=KernelLaunch("add_ten", "y x n", grid="cdiv(n, 128)", block=128),
        cases=[{"n": 1}, {"n": 128}, {"n": 300}],
    ),
    minutes=10,
    hints=[
        ("out of bounds", "The grid is rounded up: with n = 1 there are 128 threads. What should 127 of them do?"),
        ("race", "Two threads have the same element. Which of blockIdx, blockDim and threadIdx differ between two "
                 "thread blocks?"),
        (r"not written: y\[0\]", "Nothing is written at the start. Which element does thread 0 of block 0 take?"),
        ("not written", "Some elements have no thread. Write down i for the last thread of block 0 and the first "
                        "thread of block 1."),
        ("wrong", "Every element is written, but with a wrong value. Compute y[0] by hand."),
    ],
    wrong={
        "no guard": WrongAnswer("out of bounds", ("if (i < n) ", "")),
        "forgets the block": WrongAnswer("race", ("blockIdx.x * blockDim.x + ", "")),
        "forgets blockDim": WrongAnswer("race", ("blockIdx.x * blockDim.x", "blockIdx.x")),
        "guard off by one": WrongAnswer("out of bounds", ("i < n", "i <= n")),
    },
    why="A grid has whole thread blocks, so it has more threads than elements. A thread's element follows from its "
        "block and its place there, and a thread without an element does nothing.",
)  # fmt: skip
