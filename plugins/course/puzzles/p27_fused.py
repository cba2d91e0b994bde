"""Add and layernorm in one launch: half of the sectors."""

import numpy as np

from core.judge import KernelCase, KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer


def truth(x, r):
    s = x + r
    c = s - s.mean(1, keepdims=True)
    return s, c / np.sqrt((c * c).mean(1, keepdims=True) + 1e-5)


def distant(rng, dims):
    return {"x": rng.standard_normal((dims["rows"], 128)) + 1000}


def equal(dims):
    return np.full((dims["rows"], 128), 0.5)


FIRST = "    for (int i = 0; i < 4; i++) squares += (v[i] - mean) * (v[i] - mean);\n"

PUZZLE = Puzzle(
    "Two layers in one launch",
    KernelTask(
        truth,
        inputs={"x": "rows 128", "r": "rows 128"},
        outputs={"s": "rows 128", "y": "rows 128"},
        launches=KernelLaunch("add_norm", "s y x r rows", grid="cdiv(rows, 4)", block=(32, 4)),
        cases=[
            KernelCase({"rows": 1}),
            # four tensors of 6 rows, 16 sectors each
            KernelCase({"rows": 6}, budget={"sectors": 4 * 6 * 16, "shared": 0}),
            KernelCase({"rows": 2}, "rows far from zero", distant),
            KernelCase({"rows": 1}, "a row of equal numbers", lambda rng, dims: {"x": equal(dims), "r": equal(dims)}),
        ],
    ),
    minutes=30,
    hints=[
        ("sectors", "Right, but memory is read twice. A lane has only four numbers of the row: where can they stay?"),
        ("shared", "Right, but a row belongs to one warp: how do its lanes add without shared memory?"),
        ("wrong.*far from zero", "The mean of the squares less the square of the mean are two numbers near 1,000,000 "
                                 "whose difference is near 1: which digits are left? What could be squared instead?"),
        ("wrong.*a row of equal numbers", "The variance of this row is 0. What keeps the root from being 0 too?"),
        ("not written: s", "The sum is a result too: the next layer adds to it."),
        ("not written", "Which numbers of the row has lane 0, and which has no lane?"),
        ("wrong", "Compute a row of 128 equal numbers by hand: y is 0. Then check the 128 and the 1e-5."),
        ("race", "The lanes of a warp do not run in step: what one stores, another may read too early. Which "
                 "instruction hands a register from lane to lane, without memory?"),
        ("out of bounds", "A row has 128 numbers, 32 lanes have four each: which four?"),
    ],
    wrong={
        "the sum read back": WrongAnswer(
            "cheap: sectors",
            (FIRST, "    for (int i = 0; i < 4; i++) v[i] = *(volatile float*)&s[at + 32 * i];\n" + FIRST),
        ),
        "s not written": WrongAnswer("not written: s", ("        s[at + 32 * i] = v[i];\n", "")),
        "two passes over x and r": WrongAnswer(
            "cheap: sectors",
            (FIRST, "    for (int i = 0; i < 4; i++) v[i] = *(const volatile float*)&x[at + 32 * i] + "
                    "*(const volatile float*)&r[at + 32 * i];\n" + FIRST),
        ),
        "mean of squares less square of mean": WrongAnswer(
            "wrong.*far from zero",
            ("squares += (v[i] - mean) * (v[i] - mean)", "squares += v[i] * v[i]"),
            ("squares / 128 + 1e-5f", "squares / 128 - mean * mean + 1e-5f"),
        ),
        "eps forgotten": WrongAnswer("wrong.*equal numbers", ("squares / 128 + 1e-5f", "squares / 128")),
        "eps forgotten, n - 1": WrongAnswer("wrong", ("squares / 128 + 1e-5f", "squares / 127")),
    },
    why="Apart, the two layers move x, r, s, then s again and y; together they move x, r, s and y. A number in a "
        "register need not be read again.",
)  # fmt: skip
