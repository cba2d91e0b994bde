"""The sum of a flat tensor over all ranks, each rank keeping its own slice.

    part[i] = sum over ranks r of flat_r[cuts[rank] + i], added in the order of ranks

`cuts`: size + 1 offsets in elements, where each rank's slice begins and the last one ends; without them the slices are
equal. `part` may be that slice of `flat` itself.
"""

import numpy as np

from core import Op, Reference

reduce_scatter = Op(
    "reduce_scatter",
    inputs={"flat": "n : acc", "part": "m : acc"},
    attrs={"cuts": []},
    uses=("ranks",),
    collective="scatter",
    gradient=False,
    mutates=("part",),
    examples=[{"flat": (192,), "part": (192,)}, {"flat": (64 * 1031,), "part": (64 * 1031,)}],
    doc="The sum over ranks, a slice of it on each.",
)


class ReduceScatterReference(Reference):
    op = "reduce_scatter"
    made_of = {"part": "flat"}

    def forward(self, t):
        cuts, rank = t.cuts or t.ranks.cuts(t.n), t.ranks.rank
        wholes = [np.frombuffer(data, t.flat.dtype) for data in t.ranks.gather(np.ascontiguousarray(t.flat).tobytes())]
        t.part[...] = 0
        for whole in wholes:
            t.part += whole[cuts[rank] : cuts[rank + 1]]
