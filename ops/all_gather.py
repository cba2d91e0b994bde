"""A flat tensor put together from the slices of all ranks, on every rank.

    flat[cuts[r] + i] = part_r[i] for every rank r

`cuts`: as in reduce_scatter.py. `part` may be the rank's own slice of `flat`.
"""

import numpy as np

from core import Op, Reference

all_gather = Op(
    "all_gather",
    inputs={"part": "m", "flat": "n"},
    attrs={"cuts": []},
    uses=("ranks",),
    collective="gather",
    gradient=False,
    mutates=("flat",),
    examples=[{"part": (192,), "flat": (192,)}, {"part": (64 * 1031,), "flat": (64 * 1031,)}],
    doc="The slices of all ranks, on every rank.",
)


class AllGatherReference(Reference):
    op = "all_gather"
    made_of = {"flat": "part"}

    def forward(self, t):
        cuts = t.cuts or t.ranks.cuts(t.n)
        parts = t.ranks.gather(np.ascontiguousarray(t.part).tobytes())
        for rank, data in enumerate(parts):
            t.flat[cuts[rank] : cuts[rank + 1]] = np.frombuffer(data, t.flat.dtype)
