"""A tensor core: which lane holds which element."""

import numpy as np

from core.judge import KernelCase, KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer

DIMS = {"M": 16, "N": 8, "K": 16}
RAMP = (np.arange(16)[:, None] + np.arange(8)[None] / 8).T  # of b, by columns; exact in bf16
ONE_HOT = np.zeros((16, 16))
ONE_HOT[3, 5] = 1


def small(rng, dims):
    return {"a": rng.integers(-4, 5, (16, 16)), "b": rng.integers(-4, 5, (8, 16))}


PUZZLE = Puzzle(
    "Matmul, rung 3: a tensor core",
    KernelTask(
        lambda a, b: a @ b.T,
        inputs={"a": "M K : bf16", "b": "N K : bf16"},
        outputs={"d": "M N"},
        launches=KernelLaunch("product", "d a b", grid=1, block=32),
        cases=[
            KernelCase(DIMS, "a picks row 5 of b into row 3", {"a": ONE_HOT, "b": RAMP}),
            KernelCase(DIMS, "a is the unit matrix", {"a": np.eye(16), "b": RAMP}),
            KernelCase(DIMS, "whole numbers", small),
        ],
    ),
    minutes=45,
    hints=[
        ("race", "Two lanes write one element of d, and each of the 128 elements has one lane. Which rows and columns "
                 "does lane l own?"),
        ("not written", "Some of d has no lane, and 32 lanes with 4 elements each are exactly 128."),
        ("wrong.*picks", "a has a single 1, at row 3, column 5, so d's row 3 must be b's row 5. Which register of "
                         "which lane holds that 1? Did it go astray, or did b?"),
        ("wrong.*unit", "With the unit matrix d must be b: if rows or columns come permuted, the registers are."),
        ("wrong", "All special matrices are right: which elements of a do they not test?"),
        ("misaligned|out of bounds", "Count the elements: a row of a has 16, a column of b has 16, a row of d has 8."),
    ],
    wrong={
        "a1 and a2 swapped": WrongAnswer(
            "wrong",
            ("a1 = pair(a + (g + 8) * 16 + 2 * t)", "a2 = pair(a + (g + 8) * 16 + 2 * t)"),
            ("a2 = pair(a + g * 16 + 2 * t + 8)", "a1 = pair(a + g * 16 + 2 * t + 8)"),
        ),
        "g and t swapped": WrongAnswer(
            "runs: race",
            ("int g = threadIdx.x / 4, t = threadIdx.x % 4", "int t = threadIdx.x / 4, g = threadIdx.x % 4"),
        ),
        "b by rows": WrongAnswer(
            "right: wrong",
            ("b0 = pair(b + g * 16 + 2 * t), b1 = pair(b + g * 16 + 2 * t + 8)",
             "b0 = pair(b + 2 * t * 8 + g / 2 * 2), b1 = pair(b + (2 * t + 8) * 8 + g / 2 * 2)"),
        ),
        "d in neighbouring rows": WrongAnswer("runs: race", ("d[(g + 8) * 8", "d[(g + 1) * 8")),
    },
    why="The layout is the instruction's, from the PTX manual: 8 groups of 4 lanes, a group for a row of a and a "
        "column of b. core/mma.cuh of the product has the same maps as functions.",
)  # fmt: skip
