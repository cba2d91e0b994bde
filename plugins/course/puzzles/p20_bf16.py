"""A float rounded to bf16 by hand."""

import numpy as np

from core.judge import KernelCase, KernelLaunch, KernelTask
from core.testing.puzzle import Puzzle, WrongAnswer


def nearest(value):
    if value != value:
        return 0x7FFF
    bits = int(np.float32(value).view(np.uint32))
    low, rest = bits >> 16, bits & 0xFFFF
    return low + (rest > 0x8000 or (rest == 0x8000 and low % 2))


def truth(x):
    return np.array([nearest(value) for value in x], np.uint32)


def exact(rng, dims):
    return {"x": np.array([1, -2, 0.5, 0, 3], np.float32)}


def between(rng, dims):
    x = (rng.standard_normal(dims["n"]) * 10.0 ** rng.integers(-20, 20, dims["n"])).astype(np.float32)
    halfway = x.view(np.uint32) & 0xFFFF == 0x8000
    return {"x": np.where(halfway, np.float32(1), x)}


def ties(rng, dims):
    return {"x": (np.arange(0x3F80, 0x3F80 + dims["n"], dtype=np.uint32) << 16 | 0x8000).view(np.float32)}


def infinite(rng, dims):
    return {"x": np.array([np.inf, -np.inf], np.float32)}


def no_number(rng, dims):
    return {"x": np.array([0x7F800001, 0x7FFFFFFF], np.uint32).view(np.float32)}


PUZZLE = Puzzle(
    "A float rounded to bf16 by hand",
    KernelTask(
        truth,
        inputs={"x": "n"},
        outputs={"y": "n : u32"},
        launches=KernelLaunch("to_bf16", "y x n", grid="cdiv(n, 64)", block=64),
        cases=[
            KernelCase({"n": 5}, "exact in bf16", exact),
            KernelCase({"n": 100}, "between two", between),
            KernelCase({"n": 32}, "ties", ties),
            KernelCase({"n": 2}, "infinity", infinite),
            KernelCase({"n": 2}, "not a number", no_number),
        ],
        without={"cvt.rn.bf16": "by hand, please"},
    ),
    minutes=20,
    hints=[
        ("by hand", "The GPU has an instruction for it. Which bits does it look at?"),
        ("wrong.*exact", "1.0 is 0x3f800000, and its upper half is 0x3f80. Where do these 16 bits belong in y?"),
        ("wrong.*between", "Cutting off rounds towards zero. How much must be added before the cut, so that everything "
                           "above the middle carries into the upper half?"),
        ("wrong.*ties", "Exactly half-way between two: always up makes sums drift. Which last bit has the even one, "
                        "and can the number that you add depend on it?"),
        ("wrong.*infinity", "Infinity is 0x7f800000. May anything carry into it, or out of it?"),
        ("wrong.*not a number", "0x7f800001 is not a number, and its upper half is 0x7f80, which is infinity. Which "
                                "comparison is true of NaN alone?"),
        ("not written", "y[i] takes the 16 bits, in its lower half. Which number is it?"),
    ],
    wrong={
        "cut off": WrongAnswer("wrong.*between", ("(all + 0x7fff + (all >> 16 & 1)) >> 16", "all >> 16")),
        "half up": WrongAnswer("wrong.*ties", ("(all + 0x7fff + (all >> 16 & 1)) >> 16", "(all + 0x8000) >> 16")),
        "no care for NaN": WrongAnswer("wrong.*not a number", ("x[i] != x[i] ? 0x7fff : ", "")),
        "in the upper half": WrongAnswer("wrong.*exact", ("(all >> 16 & 1)) >> 16", "(all >> 16 & 1)) & 0xffff0000")),
        "half down": WrongAnswer("wrong.*ties", ("0x7fff + (all >> 16 & 1)", "0x7fff")),
    },
    why="Half of the cut part less one, plus the last bit that stays: above the middle it carries, below it does not, "
        "and on the middle it carries only into an odd number, which becomes even.",
)  # fmt: skip
