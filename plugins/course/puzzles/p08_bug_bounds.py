"""A bug: one row too many."""

from core.judge import KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer

PUZZLE = Puzzle(
    "Find the bug: a guard",
    KernelTask(
        lambda a, b: a + b,
        inputs={"a": "rows C", "b": "rows C"},
        outputs={"y": "rows C"},
        launches=KernelLaunch("add_rows", "y a b rows C", grid="cdiv(rows, 64)", block=64),
        cases=[{"rows": 64, "C": 5}, {"rows": 70, "C": 5}],
    ),
    minutes=5,
    start="one row too many",
    place="llm.c, dev/cuda/fused_residual_forward.cu:122 (docs/races.md, One row too many)",
    hints=[
        ("out of bounds", "Rows have the numbers 0 to rows - 1. The report names a thread: is its row one of them?"),
        ("not written", "The last rows are left out now: too many threads return."),
    ],
    wrong={
        "one row too many": WrongAnswer("out of bounds", ("row >= rows", "row > rows")),
        "one row too few": WrongAnswer("not written", ("row >= rows", "row >= rows - 1")),
        "no guard": WrongAnswer("out of bounds", ("    if (row >= rows) return;\n", "")),
    },
    why="With a multiple of 64 rows no thread has the number `rows`, so the bug shows at other sizes only. Test sizes "
        "that no thread block divides.",
)  # fmt: skip
