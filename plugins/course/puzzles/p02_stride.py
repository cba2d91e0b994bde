"""More elements than threads: a loop with the thread block's stride."""

from core.judge import KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer

LOOP = "for (int i = threadIdx.x; i < n; i += blockDim.x)"

PUZZLE = Puzzle(
    "A long row, few threads: the stride loop",
    KernelTask(
        lambda x, n: x / n,
        inputs={"x": "n"},
        outputs={"y": "n"},
        launches=KernelLaunch("shrink", "y x n", grid=1, block=128),
        cases=[{"n": 7}, {"n": 128}, {"n": 300}],
        branches=1000,
    ),
    minutes=10,
    hints=[
        ("endless", "i never reaches n. By how much does it grow in each turn?"),
        (r"not written: y\[128\]", "128 threads wrote 128 elements. The row has more: what does a thread do after its "
                                   "first element?"),
        (r"not written", "Element 0 has no thread, or no thread comes so far. Where does thread 0 begin?"),
        ("race", "Several threads write the same element, and the result is right by luck. Where must two threads "
                 "begin, and how far must they step, so that they never meet?"),
        ("out of bounds", "The last turn passes the end for some threads. Which condition is missing?"),
        ("wrong", "How much is 1 / n in C++ if n is an int?"),
    ],
    wrong={
        "one element a thread": WrongAnswer(r"not written: y\[128\]", (LOOP, "int i = threadIdx.x; if (i < n)")),
        "steps by one": WrongAnswer("race", ("i += blockDim.x", "i++")),
        "each thread does all": WrongAnswer("race", ("i = threadIdx.x", "i = 0"), ("i += blockDim.x", "i++")),
        "never steps": WrongAnswer("endless", ("i += blockDim.x", "i += 0")),
        "divides whole numbers": WrongAnswer("wrong", ("x[i] / n", "x[i] * (1 / n)")),
    },
    why="Thread t has the elements t, t + 128, t + 256, ...: no two threads share one, neighbours have neighbours, and "
        "the row may have any length. The same loop over blocks is a grid-stride loop.",
)  # fmt: skip
