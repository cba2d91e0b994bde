"""Wide loads: 16 bytes a lane."""

from core.judge import KernelCase, KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer

PUZZLE = Puzzle(
    "Sixteen bytes a lane",
    KernelTask(
        lambda x: 3 * x,
        inputs={"x": "n"},
        outputs={"y": "n"},
        launches=KernelLaunch("triple", "y x n", grid="cdiv(n, 256)", block=64),
        # 512 floats are 4 warps: a load and a store each
        cases=[{"n": 1}, {"n": 7}, KernelCase({"n": 512}, budget={"requests": 8}), {"n": 515}],
    ),
    minutes=15,
    hints=[
        ("out of bounds", "The last thread's four elements are not all there. What must be below n for a wide load?"),
        ("misaligned|alignment", "A 16-byte load wants an address that is a multiple of 16 bytes. Of what must i be a "
                                 "multiple?"),
        ("requests", "Right, but each warp moves 4 bytes a lane, four times. How few instructions move 16 bytes a "
                     "lane?"),
        ("not written", "The rest, n % 4 elements, has no thread."),
        ("wrong|race", "Which four elements belong to this thread? They begin at four times its number."),
    ],
    wrong={
        "one by one": WrongAnswer(
            "cheap: requests", ("if (i + 4 <= n) {", "if (i < 0) {"), ("k < n;", "k < n && k < i + 4;")
        ),
        "no rest": WrongAnswer(
            "not written", ("} else\n        for (int k = i; k < n; k++) y[k] = 3 * x[k];", "}")
        ),
        "too wide at the end": WrongAnswer("out of bounds", ("i + 4 <= n", "i < n")),
        "one element apart": WrongAnswer("runs: race", ("threadIdx.x) * 4", "threadIdx.x)")),
    },
    why="A warp's load of 16 bytes a lane moves 512 bytes with one instruction. The sectors are the same; the "
        "instructions are a quarter.",
)  # fmt: skip
