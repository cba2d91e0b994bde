"""The sum of a flat tensor over all ranks, in its place on every rank.

flat[i] = sum over ranks r of flat_r[i], added in the order of ranks
"""

import numpy as np

from core import Op, Reference

all_reduce = Op(
    "all_reduce",
    inputs={"flat": "n : acc"},
    uses=("ranks",),
    collective="sum",
    gradient=False,
    mutates=("flat",),
    examples=[{"flat": (191,)}, {"flat": (1,)}, {"flat": (64 * 1031,)}],
    doc="The sum over ranks, on every rank.",
)


class AllReduceReference(Reference):
    op = "all_reduce"
    made_of = {"flat": "flat"}

    def forward(self, t):
        parts = t.ranks.gather(np.ascontiguousarray(t.flat).tobytes())
        t.flat[...] = 0
        for part in parts:
            t.flat += np.frombuffer(part, t.flat.dtype)
