"""Matmul with a 4 x 4 of results a thread."""

from core.judge import KernelCase, KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer

LOAD = "            for (int i = 0; i < 4; i++) u[i] = left[d][ty + 16 * i], v[i] = right[d][tx + 16 * i];\n"

PUZZLE = Puzzle(
    "Matmul, rung 2: registers",
    KernelTask(
        lambda a, b: a @ b,
        inputs={"a": "M K", "b": "K N"},
        outputs={"c": "M N"},
        launches=KernelLaunch("matmul", "c a b M N K", grid=("N // 64", "M // 64"), block=256),
        cases=[
            # a slice of a warp: 8 stores of the tiles, 16 steps with 4 + 4 loads
            KernelCase({"M": 64, "N": 64, "K": 16}, budget={"shared": 8 * (8 + 16 * 8), "conflicts": 0}),
            {"M": 64, "N": 128, "K": 16},
        ],
    ),
    minutes=40,
    hints=[
        ("conflicts", "Right, but lanes of a warp meet in a bank. A warp has 16 tx and 2 ty: which words do they read "
                      "in one instruction, and would neighbouring tx better have neighbouring words?"),
        ("shared", "Right, but shared memory is read twice for each multiply-add. How many values feed 16 products, "
                   "and where could a thread keep them?"),
        ("not written", "Each of the 256 threads writes 16 results: which of them has no thread?"),
        ("race", "Two threads write the same result: do the rows and columns of the 4 x 4 overlap with a neighbour's?"),
        ("out of bounds", "A block has 64 rows and 64 columns: how large may ty + 16 i become?"),
        ("wrong", "Are the rows and columns that are summed also those that are written?"),
    ],
    wrong={
        "four neighbours": WrongAnswer(
            "cheap: conflicts",
            ("right[d][tx + 16 * i]", "right[d][4 * tx + i]"),
            ("blockIdx.x * 64 + tx + 16 * j] = sum", "blockIdx.x * 64 + 4 * tx + j] = sum"),
        ),
        "no registers": WrongAnswer(
            "cheap: shared",
            ("float u[4], v[4];", "const volatile float *u = left[d], *v = right[d];"), (LOAD, ""),
            ("u[i] * v[j]", "u[ty + 16 * i] * v[tx + 16 * j]"),
        ),
        "written elsewhere": WrongAnswer("wrong", ("ty + 16 * i) * N", "4 * ty + i) * N")),
        "overlapping": WrongAnswer("runs: race", ("ty + 16 * i", "ty + 4 * i")),
    },
    why="8 loads feed 16 multiply-adds; one result a thread needs 32 loads for 16. Columns 16 apart keep neighbouring "
        "lanes on neighbouring words, in different banks.",
)  # fmt: skip
