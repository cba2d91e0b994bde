"""A tile in shared memory, without bank conflicts."""

from core.judge import KernelCase, KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer

SWAP = "c = blockIdx.y * 32 + threadIdx.x, r = blockIdx.x * 32;"
SAME = "c = blockIdx.x * 32 + threadIdx.x, r = blockIdx.y * 32;"

PUZZLE = Puzzle(
    "Transpose by a tile",
    KernelTask(
        lambda x: x.T,
        inputs={"x": "n n"},
        outputs={"y": "n n"},
        launches=KernelLaunch("transpose", "y x n", grid=("cdiv(n, 32)", "cdiv(n, 32)"), block=(32, 8)),
        # 64 x 64 floats are 512 sectors, read once and written once
        cases=[{"n": 32}, {"n": 40}, KernelCase({"n": 64}, budget={"sectors": 1024, "conflicts": 0})],
    ),
    minutes=30,
    hints=[
        ("race", "One warp reads of the tile what another has not written yet. What makes all threads of a block wait "
                 "for each other?"),
        ("uninitialised", "A place of the tile is read that no thread has filled. Compare the loop that fills it with "
                          "the loop that empties it."),
        ("conflicts", "Right, and coalesced. But the lanes of a warp read one column of the tile: 32 words that are 32 "
                      "words apart, all in one bank. How long must a row be so that a column lives in 32 banks?"),
        ("sectors", "Right, but either reading or writing walks down a column of global memory. Which memory does not "
                    "mind columns?"),
        ("out of bounds", "n = 40 has tiles that stick out: guard row and column, both times."),
        ("not written", "32 x 8 threads have 32 x 32 elements: how many turns is that?"),
        ("wrong", "Each tile is right in itself, or in the wrong place. Where does the tile of block (bx, by) belong "
                  "in y?"),
    ],
    wrong={
        "no barrier": WrongAnswer("runs: race", ("__syncthreads();", "")),
        "no padding": WrongAnswer("cheap: conflicts", ("PAD = 1", "PAD = 0")),
        "tile not swapped": WrongAnswer("runs: uninitialised", (SWAP, SAME)),
        "writes down a column": WrongAnswer(
            "cheap: sectors",
            ("y[(r + k) * n + c] = tile[threadIdx.x][k]", "y[c * n + r + k] = tile[k][threadIdx.x]"), (SWAP, SAME),
        ),
        "one turn": WrongAnswer("runs: uninitialised", ("k += 8", "k += 32")),
    },
    why="Global memory is walked by rows both times; the turn happens in shared memory. With 33 words a row, word "
        "(k, l) is in bank (k + l) % 32, so a column is in 32 banks.",
)  # fmt: skip
