"""A bug, and flash attention around it."""

import numpy as np

from core.judge import KernelCase, KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer


def truth(q, k, v):
    T, D = q.shape
    s = np.where(np.tri(T, dtype=bool), q @ k.T / np.sqrt(D), -np.inf)
    p = np.exp(s - s.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True) @ v


def sharp(rng, dims):
    return {name: rng.standard_normal((dims["T"], 8)) * 4 for name in "qk"}


PUZZLE = Puzzle(
    "Find the bug: flash attention",
    KernelTask(
        truth,
        inputs={"q": "T 8", "k": "T 8", "v": "T 8"},
        outputs={"y": "T 8"},
        launches=KernelLaunch("flash", "y q k v T", grid="cdiv(T, 64)", block=64),
        cases=[
            KernelCase({"T": 1}, "one key"),
            # a lane's row of q and y is a sector, and 8 loads; keys and values come a tile at a time
            KernelCase({"T": 16}, "one tile", budget={"sectors": 2 * 16 * 8 + 2 * 16}),
            KernelCase({"T": 66}, "two blocks, large scores", sharp),
        ],
    ),
    minutes=60,
    start="one wait",
    place="gpu-mode/lectures, lecture_012/flash_attention.cu:98 (docs/races.md, The next tile over slow warps)",
    hints=[
        ("race.*(read.*after a write|this read)", "Keys are read that another thread has not fetched yet. What stands "
                                                  "behind the fetch?"),
        ("race", "A fast warp fetches the next tile over keys or values that a slow one still weighs. Where does the "
                 "loop let it pass?"),
        ("divergent", "Threads with few keys must wait with the others: which loop may a thread leave?"),
        ("out of bounds", "The last tile sticks out beyond T."),
        ("is nan|not written", "A query without any key divides 0 by 0: does each see itself?"),
        ("wrong.*one key", "With one key the softmax is 1, and y is v: nothing else can be right."),
        ("wrong.*one tile", "A single tile, and yet wrong: is it the mask (a query sees itself and all before it), the "
                            "scale, or what happens to sum AND output when top grows?"),
        ("wrong", "Right for one tile, wrong for more: which numbers belong to the old top?"),
        ("sectors", "Right, but keys and values are read again for each query. How many queries share a tile?"),
    ],
    wrong={
        "one wait": WrongAnswer(
            "race",
            ("            top = higher;\n        }\n        __syncthreads();", "            top = higher;\n        }"),
        ),
        "output not shrunk": WrongAnswer("wrong", ("out[d] * shrink", "out[d]")),
        "sees the future": WrongAnswer("wrong", ("r < 16 && first + r <= i", "r < 16 && first + r < T")),
        "does not see itself": WrongAnswer("is nan", ("first + r <= i", "first + r < i")),
        "no wait after the fetch": WrongAnswer(
            "race", ("        __syncthreads();\n        for (int r = 0; r < 16 && first",
                     "        for (int r = 0; r < 16 && first")
        ),
        "no tile": WrongAnswer("cheap: sectors", ("s += mine[d] * keys[r][d]",
                                                  "s += first + r < T ? mine[d] * k[(first + r) * 8 + d] : 0")),
        "scale forgotten": WrongAnswer("wrong", ("            s *= 0.35355339f;\n", "")),
    },
    why="A loop that loads and uses a tile needs two barriers a turn: one behind the load, one behind the use. The "
        "rest is the online softmax, with the output as a third number that shrinks when top grows.",
)  # fmt: skip
