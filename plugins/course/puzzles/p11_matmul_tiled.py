"""Matmul with tiles in shared memory."""

from core.judge import KernelCase, KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer

PUZZLE = Puzzle(
    "Matmul, rung 1: a tile",
    KernelTask(
        lambda a, b: a @ b,
        inputs={"a": "M K", "b": "K N"},
        outputs={"c": "M N"},
        launches=KernelLaunch("matmul", "c a b M N K", grid=("cdiv(N, 16)", "cdiv(M, 16)"), block=(16, 16)),
        cases=[
            KernelCase({"M": 16, "N": 16, "K": 16}, "one slice"),
            KernelCase({"M": 16, "N": 16, "K": 32}, "two slices"),
            KernelCase({"M": 20, "N": 13, "K": 21}, "odd sizes"),
            # a and b once for each of 2 tiles of c beside each other, c once
            KernelCase({"M": 32, "N": 32, "K": 32}, "budget", budget={"sectors": 2 * 32 * 32 * 2 // 8 + 32 * 32 // 8}),
        ],
    ),
    minutes=40,
    hints=[
        ("race.*(read.*after a write|this read)", "A thread multiplies with elements that another thread has not "
         "fetched yet. What stands between fetch and product?"),
        ("race", "A fast warp fetches the NEXT slice over elements that a slow one still multiplies with, or reads "
                 "before all have fetched. Which wait is missing?"),
        ("out of bounds", "Tiles stick out at the right and below, and the last slice of K sticks out too: what should "
                          "be fetched there?"),
        ("divergent|uninit", "Must a thread whose element is outside of c fetch, and come to every barrier?"),
        ("wrong.*(odd sizes|two slices)", "Right for one slice, wrong for more: what has to be 0 where a tile sticks "
                                            "out, and which index moves with k?"),
        ("wrong", "Wrong even for a single tile: c[0][0] is the sum of left[0][d] * right[d][0]. Which index does d "
                  "run over in each tile?"),
        ("sectors", "Right, but more is read than a tile's worth: does each thread fetch its own row and column?"),
        ("not written", "c is not written everywhere: is a guard too strict?"),
    ],
    wrong={
        "no wait after the fetch": WrongAnswer(
            "race", ("        __syncthreads();\n        for (int d", "        for (int d")
        ),
        "no wait after the product": WrongAnswer(
            "race", ("right[d][threadIdx.x];\n        __syncthreads();", "right[d][threadIdx.x];")
        ),
        "K not guarded": WrongAnswer(
            "runs: out of bounds", ("m < M && ka < K", "m < M"), ("n < N && kb < K", "n < N")
        ),
        "right tile turned": WrongAnswer("wrong", ("* right[d][threadIdx.x]", "* right[threadIdx.x][d]")),
        "outside returns": WrongAnswer(
            "runs: uninitialised", ("    float sum = 0;\n", "    float sum = 0;\n    if (m >= M || n >= N) return;\n")
        ),
        "slices of one": WrongAnswer("wrong", ("k += 16", "k += 1")),
        "no tile": WrongAnswer(
            "cheap: sectors",
            ("sum += left[threadIdx.y][d] * right[d][threadIdx.x]",
             "if (m < M && n < N && k + d < K) sum += a[m * K + k + d] * b[(k + d) * N + n]"),
        ),
    },
    why="A tile of 16 x 16 is read by 16 threads a row and 16 a column, so each element of a and b comes from global "
        "memory once for 16 uses.",
)  # fmt: skip
