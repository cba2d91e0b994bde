"""The selective scan in NumPy by blocks of channels, over threads. Formulas: selective_scan.py.

The exponentials of a chunk of tokens are computed at once; only h = a h + input goes token by token, over a block's
channels and states. Forward saves h before each chunk, from which backward computes a chunk's h again: memory grows
with T / CHUNK times the states. Each block has its own part of the sums that blocks share, summed in order.
"""

import numpy as np

from core import Variant, cdiv
from core.kernels.blocks import bytes_of, carve

from .selective_scan import softplus

CHUNK = 16  # tokens
WIDE = 8192  # channels times states of a block: an array of a chunk stays in a core's L2


class SelectiveScanBlocked(Variant):
    op, name, device = "selective_scan", "blocked", "cpu"
    dtypes = ("f32", "f64")
    base = "reference"
    saved = {"states": "B cdiv(T,16) E N : acc"}  # h before each chunk
    reads = ("x", "dt", "bc", "A_log", "D")
    examples = [{"x": (2, 40, 19), "dt": (2, 40, 19), "bc": (2, 40, 1024)}]  # two blocks, three chunks

    def workspace(self, t):
        return bytes_of(np.float64, *self.shapes(t))

    def shapes(self, t):
        """Shapes of the parts of dA_log, of dD and of dbc."""
        blocks = cdiv(t.E, width(t))
        return (t.B, t.E, t.N), (t.B, t.E), (blocks, t.B, t.T, 2 * t.N)

    def forward(self, t, launch):
        def block(row):
            b, at = place(t, row)
            A, D, h = -np.exp(t.A_log[at]), t.D[at], np.zeros((at.stop - at.start, t.N), t.x.dtype)
            if t.h is not None:
                h[...] = t.h[b, at]
            count = t.T if t.counts is None else int(t.counts[b])
            for number, tokens in enumerate(chunks(t)):
                t.states[b, number, at] = h
                x = t.x[b, tokens, at]
                s = softplus(t.dt[b, tokens, at])
                s[max(0, count - tokens.start) :] = 0  # a step of 0 changes no state: padding
                _, hs = states(t, b, tokens, s, x, A, h)
                h = hs[-1]
                t.y[b, tokens, at] = (hs @ t.bc[b, tokens, t.N :, None])[..., 0] + D * x
            if t.h is not None and count:
                t.h[b, at] = h

        launch.rows(rows(t), over_rows(block))

    def backward(self, t, launch):
        dA_log, dD, dbc = carve(launch.workspace, t.x.dtype, *self.shapes(t))

        def block(row):
            b, at = place(t, row)
            number, A, D = row // t.B, -np.exp(t.A_log[at]), t.D[at]
            passed = np.zeros((at.stop - at.start, t.N), t.x.dtype)  # to the chunk before
            dA_log[b, at], dD[b, at] = 0, 0
            for index, tokens in reversed(list(enumerate(chunks(t)))):
                x, dy, s = t.x[b, tokens, at], t.dy[b, tokens, at], softplus(t.dt[b, tokens, at])
                before = t.states[b, index, at]
                a, hs = states(t, b, tokens, s, x, A, before)
                g = dy[:, :, None] * t.bc[b, tokens, None, t.N :]
                for i in range(len(g) - 1, -1, -1):
                    g[i] += passed
                    passed = a[i] * g[i]
                dbc[number, b, tokens, : t.N] = np.matmul((s * x)[:, None], g)[:, 0]
                dbc[number, b, tokens, t.N :] = np.matmul(dy[:, None], hs)[:, 0]
                gb = (g @ t.bc[b, tokens, : t.N, None])[..., 0]
                g *= a
                g[0] *= before
                g[1:] *= hs[:-1]
                g *= A
                dA_log[b, at] += np.einsum("lgn,lg->gn", g, s)
                dD[b, at] += np.einsum("lg,lg->g", dy, x)
                add_part(t, "dx", (b, tokens, at), D * dy + s * gb)
                add_part(t, "ddt", (b, tokens, at), -np.expm1(-s) * (x * gb + g.sum(-1)))

        def finish():
            for name, parts in (("dA_log", dA_log), ("dD", dD), ("dbc", dbc)):
                t.add(name, parts.sum(0))

        launch.rows(rows(t), over_rows(block))
        launch.call(finish)


def states(t, b, tokens, s, x, A, h):
    """a and h of a chunk's tokens, (tokens, channels, N), from the h before it."""
    a = s[:, :, None] * A
    np.exp(a, out=a)
    hs = (s * x)[:, :, None] * t.bc[b, tokens, None, : t.N]
    for i in range(len(hs)):
        hs[i] += a[i] * h
        h = hs[i]
    return a, hs


def add_part(t, name, place, value):
    """Write a part of a gradient, or add to it, or drop it, by the plan."""
    gradient = getattr(t, name)
    if gradient is None:
        return
    if getattr(t, "add_" + name):
        gradient[place] += value
    else:
        gradient[place] = value


def width(t):
    """Channels of a block."""
    return max(1, min(t.E, WIDE // t.N))


def rows(t):
    """Blocks of all sequences."""
    return t.B * cdiv(t.E, width(t))


def place(t, row):
    """The sequence and the channels of a block."""
    first = row // t.B * width(t)
    return row % t.B, slice(first, min(t.E, first + width(t)))


def chunks(t):
    return [slice(first, min(t.T, first + CHUNK)) for first in range(0, t.T, CHUNK)]


def over_rows(block):
    """`block` of each row of a range."""

    def several(lo, hi):
        for row in range(lo, hi):
            block(row)

    return several
