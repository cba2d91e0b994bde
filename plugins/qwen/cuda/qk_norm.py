"""qk_norm on CUDA: one thread a group, and one warp a group. Kernels and shapes: qk_norm.cu."""

from core import Variant, cdiv, f32, i32
from core.kernels.columns import by_column, by_slice, partial_bytes
from core.kernels.width import WIDEST

WARPS = 4  # groups of a thread block
SLICE = 64  # rows whose part of the weights' gradients one thread block sums


class QkNormNaive(Variant):
    op, name, priority = "qk_norm", "naive", 0
    saved = {"rstd": "... queries+keys : acc"}
    reads = ("qkv", "q_weight", "k_weight")
    inplace = {"dqkv": "dy"}

    def forward(self, t, launch):
        arguments = (t.y, t.rstd, t.qkv, t.q_weight, t.k_weight, *sizes(t), f32(t.eps), f32(t.offset))
        launch("naive_forward", *arguments, grid=cdiv(groups(t), 64), block=64)

    def backward(self, t, launch):
        for dweight, add, *which in weights(t):
            arguments = (dweight, t.dy, t.qkv, t.rstd, *columns(t, *which), i32(add))
            launch("naive_dweight", *arguments, grid=cdiv(which[-1], 64), block=64)
        if t.dqkv is not None:
            arguments = (t.dqkv, t.dy, t.qkv, t.q_weight, t.k_weight, t.rstd, *sizes(t), f32(t.offset))
            launch("naive_dx", *arguments, grid=cdiv(groups(t), 64), block=64)


class QkNormWarp(Variant):
    op, name = "qk_norm", "warp"
    saved = {"rstd": "... queries+keys : acc"}
    reads = ("qkv", "q_weight", "k_weight")
    inplace = {"dqkv": "dy"}
    examples = [
        {"qkv": (SLICE + 3, 15), "heads": 1, "kv_heads": 2},
        {"qkv": (3, 4 * 264), "heads": 2, "kv_heads": 1},
    ]

    def forward(self, t, launch):
        arguments = (t.y, t.rstd, t.qkv, t.q_weight, t.k_weight, *sizes(t), f32(t.eps), f32(t.offset))
        launch("warp_forward", *arguments, **self.by_group(t))

    def workspace(self, t):
        return partial_bytes(t.rows, max(t.Q, t.K), SLICE)

    def backward(self, t, launch):
        slices, sums = cdiv(t.rows, SLICE), launch.workspace
        for dweight, add, *which in weights(t):
            size = which[-1]
            arguments = (sums, t.dy, t.qkv, t.rstd, *columns(t, *which), i32(SLICE))
            launch("warp_partials", *arguments, **by_slice(t.rows, size, SLICE))
            arguments = (dweight, sums, i32(slices), i32(size), i32(add))
            launch("warp_dweight", *arguments, **by_column(size))
        if t.dqkv is not None:
            arguments = (t.dqkv, t.dy, t.qkv, t.q_weight, t.k_weight, t.rstd, *sizes(t), f32(t.offset))
            launch("warp_dx", *arguments, **self.by_group(t))

    def by_group(self, t):
        wide = WIDEST[t.qkv.dtype]
        define = {"WIDTH": wide} if t.Q % wide == t.K % wide == 0 else {}
        return {"grid": cdiv(groups(t), WARPS), "block": (32, WARPS), "define": define}


def groups(t):
    """Groups of all rows, those of the values included."""
    return t.rows * (t.queries + 2 * t.keys)


def sizes(t):
    return tuple(i32(n) for n in (t.rows, t.queries, t.keys, t.Q, t.K))


def weights(t):
    """For each weight that trains: its gradient, whether to add to it, its groups' first, count, start in a row, size.

    The gradient of the queries' weight comes before that of the keys'; both read dy.
    """
    both = (
        (t.dq_weight, t.add_dq_weight, 0, t.queries, 0, t.Q),
        (t.dk_weight, t.add_dk_weight, t.queries, t.keys, t.queries * t.Q, t.K),
    )
    return [one for one in both if one[0] is not None]


def columns(t, *which):
    return tuple(i32(n) for n in (t.rows, t.E, t.queries + t.keys, *which))
