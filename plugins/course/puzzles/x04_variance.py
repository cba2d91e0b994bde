"""The variance of rows that are far from zero."""

import numpy as np

from core.testing.puzzle import FunctionCase, FunctionTask, Puzzle, WrongAnswer


def truth(x):
    wide = np.asarray(x, np.float64)
    return wide.var(-1)


def rows(mean, count):
    return lambda rng: {"x": (rng.standard_normal((3, count)) + mean).astype(np.float32)}


PUZZLE = Puzzle(
    "The variance of a row far from zero",
    FunctionTask(
        "variance",
        truth,
        cases=[
            FunctionCase({"x": np.array([[1, 2, 4, 9]], np.float32)}, "a row of four"),
            FunctionCase(rows(0, 50), "three rows"),
            FunctionCase(rows(1000, 50), "far from zero"),
        ],
        tolerance=1e-4,
    ),
    minutes=15,
    hints=[
        ("not written", "The mean of each row; the distance of each number from it; the mean of its square."),
        ("shape|ValueError", "Three rows have three variances. Along which axis is the mean, and does it still fit "
                             "beside x? keepdims=True keeps the axis."),
        ("far from zero", "f32 has seven digits. A square of 1,000 is 1,000,000: in which digit is a variance of 1? In "
                          "which order do the subtraction and the square lose nothing?"),
        ("a row of four", "By hand it is 9.5, from 9, 4, 0 and 25. By which number is their sum divided?"),
        ("three rows", "Right for one row. Is the mean that you subtract the row's own?"),
    ],
    wrong={
        "mean of the squares less square of the mean": WrongAnswer(
            "wrong.*far from zero",
            ("(centred * centred).mean(-1)", "(x * x).mean(-1) - x.mean(-1) * x.mean(-1)"),
        ),
        "sum for mean": WrongAnswer("wrong.*a row of four", ("centred).mean(-1)", "centred).sum(-1)")),
        "one mean for all rows": WrongAnswer("wrong.*three rows", ("x.mean(-1, keepdims=True)", "x.mean()")),
        "the distance without a square": WrongAnswer("wrong.*a row of four", ("centred * centred", "abs(centred)")),
        "one number for all rows": WrongAnswer("right: shape", ("centred).mean(-1)", "centred).mean()")),
    },
    why="The subtraction of two numbers near 1,000 is exact, and their squares are small. The other order squares "
        "first: 1,000,000 and 1,000,001 differ in the last digit that f32 has.",
)  # fmt: skip
