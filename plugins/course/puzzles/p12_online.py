"""An online softmax: top and sum in one pass."""

import numpy as np

from core.judge import KernelCase, KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer


def truth(x):
    top = x.max(1, keepdims=True)
    return (top + np.log(np.exp(x - top).sum(1, keepdims=True)))[:, 0]


def around(shift):
    return lambda rng, dims: {"x": rng.standard_normal((dims["rows"], dims["n"])) * 3 + shift}


PUZZLE = Puzzle(
    "Softmax in one pass",
    KernelTask(
        truth,
        inputs={"x": "rows n"},
        outputs={"y": "rows"},
        launches=KernelLaunch("lse", "y x n", grid="rows", block=32),
        cases=[
            KernelCase({"rows": 2, "n": 32}, "one element a lane", around(0)),
            KernelCase({"rows": 2, "n": 20}, "lanes without an element", around(0)),
            KernelCase({"rows": 2, "n": 400}, "many elements", around(0), budget={"sectors": 2 * 50 + 2}),
            KernelCase({"rows": 2, "n": 100}, "far above zero", around(200)),
            KernelCase({"rows": 2, "n": 100}, "far below zero", around(-200)),
        ],
    ),
    minutes=30,
    hints=[
        ("wrong.*above zero", "exp of 200 is infinite in float. What must be taken off every exponent?"),
        ("wrong.*below zero", "exp of -200 is 0 in float, and log of 0 is -infinity. Where should top begin, if all "
                              "elements may be below 0?"),
        ("is -inf.*one element", "The log of a sum of 0. Has each element changed top and sum, those of its lane?"),
        (r"is nan.*one element", "Not a number: an infinity minus an infinity, or 0 times an infinity. In the first "
                                 "turn top is -infinity: which exponent is -infinity then, and which should be?"),
        ("wrong.*without an element", "A lane without an element has top = -infinity: exp(-inf - all) is 0, but "
                                      "exp(-inf - -inf) is not a number."),
        ("wrong.*many", "Right while each lane has one element. With more: which part of the sum belongs to the old "
                        "top when top grows?"),
        ("wrong.*one element", "Each lane's sum belongs to its own top. What must happen before they are added?"),
        ("sectors", "Right, but the row is read twice. Can top and sum be kept together?"),
        ("not written", "Lane 0 writes the result."),
    ],
    wrong={
        "no correction": WrongAnswer("wrong.*many", ("sum * expf(top - higher)", "sum")),
        "correction upside down": WrongAnswer("is nan", ("expf(top - higher)", "expf(higher - top)")),
        "lanes not corrected": WrongAnswer(
            "wrong.*one element", ("    if (sum > 0) sum *= expf(top - all);\n", "")
        ),
        "top begins at 0": WrongAnswer("wrong.*below zero", ("float top = -INFINITY", "float top = 0")),
        "plain exp": WrongAnswer(
            "wrong.*above zero",
            ("sum * expf(top - higher) + expf(row[i] - higher)", "sum + expf(row[i])"),
            ("if (sum > 0) sum *= expf(top - all);", "sum *= expf(-all);"),
        ),
        "two passes": WrongAnswer(
            "cheap: sectors",
            ("    for (int i = threadIdx.x; i < n; i += 32) {", "    for (int i = threadIdx.x; i < n; i += 32) top = "
             "fmaxf(top, row[i]);\n    for (int i = threadIdx.x; i < n; i += 32) {"),
        ),
    },
    why="The pair (top, sum) stands for sum * exp(top). Two pairs are added by bringing both to the larger top, so the "
        "order of elements does not matter, and one pass is enough.",
)  # fmt: skip
