"""Coalescing: neighbouring lanes read neighbouring elements."""

from core.judge import KernelCase, KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer

PUZZLE = Puzzle(
    "Column sums, coalesced",
    KernelTask(
        lambda x: x.sum(0),
        inputs={"x": "rows C"},
        outputs={"y": "C"},
        launches=KernelLaunch("column_sums", "y x rows C", grid="cdiv(C, 32)", block=32),
        cases=[
            {"rows": 5, "C": 40},
            # 64 rows of 96 numbers are 768 sectors, the sums 12 more
            KernelCase({"rows": 64, "C": 96}, budget={"sectors": 780}),
        ],
    ),
    minutes=15,
    hints=[
        ("sectors", "Right, but the lanes of a warp touch addresses that are far apart: a load moves 32 sectors of 32 "
                    "bytes and uses 4 bytes of each. Which index must differ by one between neighbouring lanes?"),
        ("out of bounds", "x has rows * C elements. How far apart are two rows, and does every thread have a column?"),
        ("not written", "Some column has no thread."),
        ("wrong", "Take x = [[1, 2], [3, 4]]: y is [4, 6]. Which elements does your thread 0 add?"),
    ],
    wrong={
        "stride of rows": WrongAnswer("wrong", ("x[r * C + c]", "x[c * rows + r]")),
        "a block's threads far apart": WrongAnswer(
            "cheap: sectors", ("blockIdx.x * blockDim.x + threadIdx.x", "threadIdx.x * gridDim.x + blockIdx.x")
        ),
        "no guard": WrongAnswer("out of bounds", ("if (c >= C) return;\n", "\n")),
        "row sums": WrongAnswer("out of bounds", ("x[r * C + c]", "x[c * C + r]"), ("r < rows", "r < C")),
    },
    why="Lane l reads x[r * C + c + l]: 32 neighbours are 128 bytes, four sectors, all of which are used. With lanes a "
        "column apart the same load moves 32 sectors.",
)  # fmt: skip
