"""An embedding's gradient with repeated tokens, without float atomics."""

import numpy as np

from core.judge import KernelCase, KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer


def truth(dE, ids, dy):
    dE = dE.copy()
    np.add.at(dE, ids, dy)
    return dE


def uneven(rng, dims):
    return {"dy": rng.standard_normal((dims["T"], dims["C"])) * 10.0 ** rng.integers(-3, 4, (dims["T"], 1))}


BODY = """    float sum = 0;
    for (int t = 0; t < T; t++)
        if (ids[t] == v) sum += dy[t * C + c];
    dE[v * C + c] += sum;
"""

PUZZLE = Puzzle(
    "An embedding's gradient",
    KernelTask(
        truth,
        inputs={"dE": "V C", "ids": "T : i32 < V", "dy": "T C"},
        outputs={"dE": "V C"},
        launches=KernelLaunch("gather", "dE ids dy T C", grid="V", block="C"),
        cases=[{"V": 7, "T": 1, "C": 32}, KernelCase({"V": 5, "T": 40, "C": 32}, "tokens repeat", contents=uneven)],
    ),
    minutes=20,
    hints=[
        ("order", "Right within rounding, but the additions happen in the order of arrival. Which thread could own an "
                  "element of dE, so that it alone adds to it, in the order of positions?"),
        ("race", "Two thread blocks add to one row, since a token repeats. Which block should own the row?"),
        ("wrong.*tokens repeat", "Right for one position. What if the same token stands at two positions, or a row "
                                 "has none?"),
        ("wrong", "dE held something before. What must be left of it, and in which row?"),
        ("out of bounds", "dE has V rows, dy has T rows: which of the two does your index walk?"),
    ],
    wrong={
        "float atomics": WrongAnswer(
            "right: order",
            (BODY, "    for (int t = v; t < T; t += gridDim.x) atomicAdd(&dE[ids[t] * C + c], dy[t * C + c]);\n"),
        ),
        "a block adds its positions": WrongAnswer(
            "race", (BODY, "    for (int t = v; t < T; t += gridDim.x) dE[ids[t] * C + c] += dy[t * C + c];\n")
        ),
        "= for +=": WrongAnswer("wrong", ("dE[v * C + c] += sum", "dE[v * C + c] = sum")),
        "the first position only": WrongAnswer(
            "wrong.*tokens repeat", ("if (ids[t] == v) sum", "if (ids[t] == v && sum == 0) sum")
        ),
        "rows of positions": WrongAnswer("runs: out of bounds", ("dy[t * C + c]", "dy[v * C + c]")),
    },
    why="Who writes owns: a block per row of the result reads all positions and adds in their order. Sorting the "
        "tokens first saves the reads; docs/kernels.md has the product's way.",
)  # fmt: skip
