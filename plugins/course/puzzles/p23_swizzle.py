"""A swizzle: no bank conflicts and no padding."""

from core.judge import KernelCase, KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer

PUZZLE = Puzzle(
    "Matmul, rung 4: a swizzle",
    KernelTask(
        lambda x: x.T,
        inputs={"x": "n n"},
        outputs={"y": "n n"},
        launches=KernelLaunch("turn", "y x", grid=1, block=(32, 8), smem="4 * n * n"),
        cases=[KernelCase({"n": 32}, budget={"conflicts": 0, "sectors": 256})],
    ),
    minutes=40,
    hints=[
        ("out of bounds", "The tile has 1,024 words and no room for padding. Which other places of its own row may a "
                          "word take?"),
        ("conflicts", "Right, but the lanes of a column still meet in a bank. The bank is the place in the row. What "
                      "must the place depend on, so that 32 rows give 32 banks?"),
        ("wrong|uninit", "A word is read from another place than it was written to. Is the rule of the reader that of "
                         "the writer, with row and column of the SAME word?"),
        ("race", "All rows must be there before a column is read."),
        ("sectors", "Global memory is walked by columns now; only the tile should be."),
        ("not written", "32 x 8 threads have 32 x 32 elements: four turns each."),
    ],
    wrong={
        "no swizzle": WrongAnswer("cheap: conflicts", ("c ^ r", "c"), ("k ^ c", "k")),
        "half a swizzle": WrongAnswer("cheap: conflicts", ("c ^ r", "c ^ r / 2"), ("k ^ c", "k ^ c / 2")),
        "forgets it on reading": WrongAnswer("wrong", ("k ^ c", "k")),
        "padding": WrongAnswer(
            "out of bounds",
            ("tile[r * 32 + (c ^ r)]", "tile[r * 33 + c]"),
            ("tile[c * 32 + (k ^ c)]", "tile[c * 33 + k]"),
        ),
        "no barrier": WrongAnswer("runs: race", ("    __syncthreads();\n", "")),
    },
    why="c ^ r is another place of the same row for every r, so a row stays a row and a column is spread over all "
        "banks. Tensor-core kernels store their tiles so, in pieces of 16 bytes.",
)  # fmt: skip
