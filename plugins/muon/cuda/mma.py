"""Muon's update on tensor cores, in bf16 or fp16. Kernels: muon_mma.cu, and muon_update.cu for the momentum."""

from core import f32, i32, u64
from core.kernels.mma_product import aligned, candidates, over

from ..muon import COEFFICIENTS
from . import MuonNaive


class MuonMma(MuonNaive):
    """The iteration in 16 bits, as its author has it: products on tensor cores, and half the bytes of each matrix."""

    name, priority = "mma", 20
    source = ("muon_mma.cu", "muon_update.cu")
    dtypes = ("bf16", "fp16")
    tolerance = {"bf16": 2e-2, "fp16": 4e-3}
    tolerance_why = "each round of the iteration rounds X and both squares to 16 bits"
    examples = [  # two tiles each way of any size, on 16 bytes: as it is, and turned; more than two stages
        {"param": (136, 200), "grad": (136, 200), "m": (136, 200), "iterations": 1},
        {"param": (200, 136), "grad": (200, 136), "m": (200, 136), "iterations": 1},
    ]

    def configs(self, t):
        """The best tiles of each product by its own size, then the others; all give the same bits."""
        return [{"tile": i} for i, _ in enumerate(candidates(t.A, t.B, t.param.dtype, self.aligned(t)))]

    def aligned(self, t):
        return aligned(t.param, t.A, t.B)

    def matrices(self, t):
        """(elements, dtype) of the direction in float; of X twice, of S and its polynomial in 16 bits."""
        direction, following, *squares = super().matrices(t)
        return [direction, *((size, t.param.dtype) for size, _ in (following, following, *squares))]

    def orthogonal(self, t, launch, total, each, direction, x, y, s, poly):
        small, large = sorted((t.A, t.B))
        square = self.product(t, small, small)
        launch("mma_unit", x, direction, total, u64(t.A * t.B), **each, define=square["define"])
        wide = self.product(t, *((large, small) if t.A > t.B else (small, large)))
        a, b, c = (f32(value) for value in COEFFICIENTS)
        for _ in range(t.iterations):
            launch("mma_square", s, x, i32(small), i32(large), **square)
            launch("mma_poly", poly, s, b, c, i32(small), **square)
            launch("mma_blend", y, x, poly, a, i32(small), i32(large), **wide)
            x, y = y, x
        return x

    def step(self, t, launch, *arguments, **each):
        square = self.product(t, min(t.A, t.B), min(t.A, t.B))  # for the macros: a compilation that S has too
        launch("mma_step", *arguments, **each, define=square["define"])

    def product(self, t, rows, columns):
        """A thread block for each tile of a product."""
        tile = candidates(rows, columns, t.param.dtype, self.aligned(t))[t.config["tile"]]
        how = over(tile, rows, columns, t.param, t.A, t.B)
        return {**how, "define": {**how["define"], "ACROSS": int(t.A > t.B)}}
