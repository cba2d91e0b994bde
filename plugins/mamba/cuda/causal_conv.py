"""The causal convolution on CUDA: one thread an element. Kernels: causal_conv.cu."""

from core import Variant, cdiv, i32, u64

THREADS = 128
SLICE = 128  # tokens of one part of the parameters' gradients


class CausalConvNaive(Variant):
    op, name = "causal_conv", "naive"
    reads = ("x", "weight")
    can_add = ("x",)
    examples = [{"x": (2, 150, 3)}, {"x": (1, 3, 4), "width": 9}]  # two slices of tokens; a longer window

    def workspace(self, t):
        return 4 * slices(t) * (t.width + 1) * t.E

    def forward(self, t, launch):
        n, sizes = t.B * t.T * t.E, (i32(t.T), i32(t.E), i32(t.width))
        launch("forward", t.y, t.x, t.kept, t.weight, t.bias, u64(n), *sizes, **over(n))
        if t.kept is not None:
            launch("keep", t.kept, t.x, t.counts, u64(t.B * t.E), *sizes, **over(t.B * t.E))

    def backward(self, t, launch):
        n, sizes = t.B * t.T * t.E, (i32(t.T), i32(t.E), i32(t.width))
        if t.dx is not None:
            launch("dx", t.dx, t.dy, t.weight, u64(n), *sizes, i32(t.add_dx), **over(n))
        if t.dweight is None and t.dbias is None:
            return
        columns = (t.width + 1) * t.E
        parts = launch.workspace.part(0, (slices(t), columns), "f32")
        grid = (cdiv(columns, THREADS), slices(t))
        launch("parts", parts, t.dy, t.x, u64(t.B * t.T), *sizes, i32(SLICE), grid=grid, block=THREADS)
        flags = (i32(t.add_dweight), i32(t.add_dbias))
        launch("sum_parts", t.dweight, t.dbias, parts, i32(slices(t)), *sizes[1:], *flags, **over(columns))


def slices(t):
    return cdiv(t.B * t.T, SLICE)


def over(elements):
    return {"grid": cdiv(elements, THREADS), "block": THREADS}
