"""The same bits in every run: no order of arrival in a sum of floats."""

from core.judge import KernelCase, KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer


def uneven(rng, dims):
    """Rows of very different sizes: the order of their additions shows in the last bits."""
    scale = 10.0 ** rng.integers(-3, 4, (dims["rows"], 1))
    return {"dy": rng.standard_normal((dims["rows"], dims["C"])) * scale}


TOGETHER = """    parts[blockIdx.x * C + c] = sum;
    __syncthreads();
    if (c == 0) {
        __threadfence();  // after the barrier: so it covers the writes of the whole block
        last = atomicAdd(&arrived, 1) == gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    if (!last) return;
    float all = 0;
    for (int b = 0; b < gridDim.x; b++) all += parts[b * C + c];
    dw[c] = all;
    if (c == 0) arrived = 0;
"""
LATE = """    __syncthreads();
    if (c == 0) {
        __threadfence();  // after the barrier: so it covers the writes of the whole block
"""

PUZZLE = Puzzle(
    "The same bits in every run",
    KernelTask(
        lambda dy: dy.sum(0),
        inputs={"dy": "rows C"},
        outputs={"dw": "C"},
        zeroed=["dw"],
        scratch={"parts": "4 C"},
        launches=KernelLaunch("dweight", "dw parts dy rows C", grid=4, block="C"),
        cases=[KernelCase({"rows": 40, "C": 64}, contents=uneven)],
    ),
    minutes=30,
    hints=[
        ("^right: order", "Right within rounding, but (a + b) + c and a + (b + c) differ in the last bits, and an "
                          "atomic takes whichever block is first. Where could each block leave its sum, so that ONE "
                          "block adds the four in the order of their numbers?"),
        ("race", "The block that adds must be ordered behind the writes of all others: what does a fence before the "
                 "counter cover, and what one after it?"),
        ("uninit", "`last` is read by all threads: behind which barrier?"),
        ("wrong|not written", "A block's part is missing, or dw was read before all had written."),
    ],
    wrong={
        "atomicAdd of floats": WrongAnswer("^right: order", (TOGETHER, "    atomicAdd(&dw[c], sum);\n")),
        "+= without atomics": WrongAnswer("race", (TOGETHER, "    dw[c] += sum;\n")),
        "no fence behind": WrongAnswer("race", ("gridDim.x - 1;\n        __threadfence();", "gridDim.x - 1;")),
        "the fence before the barrier": WrongAnswer(
            "race", (LATE, "    __threadfence();\n    __syncthreads();\n    if (c == 0) {\n")
        ),
        "each block adds": WrongAnswer("race", ("    if (!last) return;\n", "")),
    },
    why="A sum of floats has the bits of its order. The blocks' sums have places of their own, and the last block adds "
        "them by number: the same order in every run, whichever block is the last.",
)  # fmt: skip
