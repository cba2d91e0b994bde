"""Rotary positions: pairs that turn."""

import numpy as np

from core.judge import KernelCase, KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer


def truth(x):
    T, D = x.shape
    turn = np.exp(1j * np.arange(T)[:, None] * 10000.0 ** (-np.arange(0, D, 2) / D))
    z = (x[:, ::2] + 1j * x[:, 1::2]) * turn
    return np.stack([z.real, z.imag], -1).reshape(T, D)


PUZZLE = Puzzle(
    "RoPE: pairs that turn",
    KernelTask(
        truth,
        inputs={"x": "T D"},
        outputs={"y": "T D"},
        launches=KernelLaunch("rope", "y x T D", grid="cdiv(T * D // 2, 64)", block=64),
        cases=[
            KernelCase({"T": 1, "D": 8}, "the first position: nothing turns"),
            KernelCase({"T": 5, "D": 2}, "one pair: the angle is t"),
            KernelCase({"T": 9, "D": 48}, "24 pairs, each at its speed"),
        ],
        tolerance=1e-5,
    ),
    minutes=20,
    hints=[
        ("out of bounds", "There are T * D / 2 pairs, and the grid is rounded up."),
        ("race", "Two threads turn the same pair."),
        ("not written", "A pair has two numbers, and a thread turns both. Which pair has no thread?"),
        ("wrong.*first position", "At position 0 the angle is 0: the cosine is 1, the sine is 0, and y is x. Which two "
                                  "numbers are this thread's pair?"),
        ("wrong.*one "
         "pair", "Turn (1, 0) by a quarter on paper: it becomes (0, 1). Does yours? And is the OLD a used for "
                            "the second number?"),
        ("wrong", "Right where there is one pair, so the speed is wrong. Which of T and D is a row's length? And is "
                  "every quotient in the exponent one of floats?"),
    ],
    wrong={
        "whole-number division": WrongAnswer("wrong.*24 pairs", ("-2.0f * pair / D", "-2 * pair / D")),
        "turns backwards": WrongAnswer(
            "wrong.*one pair", ("a * c - b * s", "a * c + b * s"), ("a * s + b * c", "b * c - a * s")
        ),
        "the new a in b": WrongAnswer(
            "wrong.*one pair", ("    y[2 * i + 1] = a * s", "    a = y[2 * i];\n    y[2 * i + 1] = a * s")
        ),
        "halves for pairs": WrongAnswer(
            "wrong.*first position", ("b = x[2 * i + 1]", "b = x[t * D + pair + D / 2]")
        ),
        "no guard": WrongAnswer("out of bounds", ("    if (i >= T * D / 2) return;\n", "")),
        "all pairs at one speed": WrongAnswer("wrong.*24 pairs", ("t * powf(10000, -2.0f * pair / D)", "t")),
    },
    why="A query turned by i and a key turned by j have the dot product of the two, turned by i - j: the score knows "
        "the distance and nothing else. Fast pairs distinguish neighbours, slow ones distant tokens.",
)  # fmt: skip
