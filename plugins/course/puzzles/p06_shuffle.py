"""A warp's sum by shuffles."""

from core.judge import KernelCase, KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer


def positive(rng, dims):
    return {"x": rng.random((dims["rows"], 32)) + 0.5}


PUZZLE = Puzzle(
    "A warp's sum by shuffles",
    KernelTask(
        lambda x: (x.sum(1), x / x.sum(1, keepdims=True)),
        inputs={"x": "rows 32"},
        outputs={"y": "rows", "z": "rows 32"},
        launches=KernelLaunch("normalise", "y z x rows", grid="cdiv(rows, 4)", block=(32, 4)),
        cases=[
            KernelCase({"rows": 1}, contents=positive),
            KernelCase({"rows": 6}, contents=positive, budget={"shared": 0}),
        ],
    ),
    minutes=20,
    hints=[
        (r"wrong: z", "y is right, z is not: lane 0 has the sum and the others have something else. Which exchange "
                      "gives the sum to all lanes?"),
        (r"wrong: y", "Some lane is missing or counted twice. With 4 lanes: exchange at distance 2, then 1. How far "
                      "apart does the first exchange reach with 32?"),
        ("race", "More than one lane writes y[row]."),
        ("absent|lane|mask", "The mask must name exactly the lanes that come to this shuffle. Which lanes come, and "
                             "which does your mask name?"),
        ("out of bounds", "A thread block has 4 warps, and rows may be no multiple of 4."),
        ("shared", "Right, but no shared memory is needed: lanes of a warp can read each other's registers."),
        ("not written", "Which lane writes y[row], and which z?"),
    ],
    wrong={
        "shuffle down": WrongAnswer("wrong: z", ("__shfl_xor_sync", "__shfl_down_sync")),
        "starts at 8": WrongAnswer("wrong: y", ("o = 16", "o = 8")),
        "half a warp": WrongAnswer(
            "member absent", ("for (int o = 16; o > 0; o /= 2) sum", "if (threadIdx.x < 16) for (int o = 16; o > 0; "
                                                                        "o /= 2) sum")
        ),
        "a mask of 16 lanes": WrongAnswer("runs: not named", ("0xffffffff", "0x0000ffff")),
    },
    why="After the exchange at distance 16 a lane has the sum of 2 lanes, then of 4, 8, 16 and 32. With xor both "
        "partners add each other's number, so all lanes end with the same sum, in the same order of additions.",
)  # fmt: skip
