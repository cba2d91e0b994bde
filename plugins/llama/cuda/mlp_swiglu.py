"""LLaMA's MLP on CUDA, composed of other ops' launches and one kernel between them: vector_again in gated.cu."""

from core import Variant, cdiv, i32
from core.kernels.width import defined, width

from .gated import THREADS


class MlpSwigluComposed(Variant):
    """The matmul variants that are best on the chip make its products. The kernel of swiglu's gradient recomputes
    swiglu's output: the MLP saves a third less for backward, for one more write and no more launches."""

    op, name = "mlp_swiglu", "composed"
    source = "gated.cu"
    saved = {"f": "... hidden"}
    reads = ("x", "weight1", "weight2")
    can_add = ("x", "r")
    alias = {"dr": "dy"}
    examples = [{"x": (129, 8), "r": (129, 8), "weight1": (16, 8)}]  # two thread blocks, on 16 bytes

    def workspace(self, t):
        return self.half_bytes(t) + max(t.rows * t.hidden, t.rows * t.features) * (t.x.nbytes // t.x.size)

    def half_bytes(self, t):
        """Bytes of swiglu's output, up to an aligned start of the next tensor."""
        return cdiv(t.rows * t.hidden // 2 * (t.x.nbytes // t.x.size), 256) * 256

    def parts(self, t, launch, columns):
        """Two tensors in the workspace: (..., hidden/2), and (..., columns)."""
        rows, work = t.x.shape[:-1], launch.workspace
        first = work.part(0, (*rows, t.hidden // 2), t.x.dtype)
        return first, work.part(self.half_bytes(t), (*rows, columns), t.x.dtype)

    def forward(self, t, launch):
        a, d = self.parts(t, launch, t.features)
        launch.op("matmul", x=t.x, weight=t.weight1, y=t.f)
        launch.op("swiglu", x=t.f, y=a)
        if t.x.dtype != "f32":  # tensor cores add the residual on the way
            launch.op("matmul_add", x=a, r=t.r, weight=t.weight2, y=t.y)
            return
        launch.op("matmul", x=a, weight=t.weight2, y=d)
        launch.op("add", a=d, b=t.r, y=t.y)

    def backward(self, t, launch):
        if t.dr is not None:
            launch.op("add", "backward", a=t.dy, b=t.dy, dy=t.dy, da=t.dr, add_da=t.add_dr)
        a, df = self.parts(t, launch, t.hidden)
        launch.op("matmul", "backward", x=a, weight=t.weight2, dy=t.dy, dx=a)  # x gives only its shape; a now holds da
        self.again(t, launch, df, a)  # and here a again
        if t.dweight2 is not None:
            operands = {"x": a, "weight": t.weight2, "dy": t.dy}
            launch.op("matmul", "backward", **operands, dweight=t.dweight2, add_dweight=t.add_dweight2)
        if t.dx is not None or t.dweight1 is not None:
            wanted = {"dx": t.dx, "add_dx": t.add_dx, "dweight": t.dweight1, "add_dweight": t.add_dweight1}
            launch.op("matmul", "backward", x=t.x, weight=t.weight1, dy=df, **wanted)

    def again(self, t, launch, df, a):
        half = t.hidden // 2
        pack = width(half, t.x)
        grid = cdiv(t.rows * half, THREADS * pack)
        launch("vector_again", df, a, t.f, i32(t.rows), i32(half), grid=grid, block=THREADS, define=defined(pack))
