"""The language-model head with its loss on CUDA, in chunks of rows. Kernels: matmul_mma.cu and cross_entropy.cu."""

from core import Variant, cdiv, i32
from core.kernels.width import width

from .cross_entropy import THREADS
from .matmul_mma import candidates, launch_dweight, launch_dx, launch_forward, partial_bytes, tiles

CHUNK_BYTES = 2 * 16384 * 50304  # of logits at a time, at most: 16,384 rows for GPT-2, whose products fill a chip
ROUND = 128  # rows of a large tile: chunks are multiples of it
UNRECORDED = 16384  # rows, in runs from before a chunk was part of the recorded config


class HeadLossMma(Variant):
    """A chunk's logits are written once, become their own gradient with one read and one write, and are read by the two
    products of backward. Training only: loss and gradients come together."""

    op, name, priority = "head_loss", "mma", 20
    source = ("matmul_mma.cu", "cross_entropy.cu")
    dtypes = ("bf16",)
    arch = "sm_80+"
    reads = ("x", "weight", "targets")
    examples = [
        {"x": (67, 72), "targets": (67,), "features": 136, "classes": 131, "chunk": 66},
        {"x": (515, 8), "targets": (515,), "features": 16, "classes": 13},  # two slices of rows
        {"x": (2, 1), "targets": (2,), "features": 769, "classes": 767},  # three rounds of a row, of near numbers
    ]
    uncovered = {
        "if (add) place.add(values, dx + place.at);": "the gradient of x comes once, with the loss: nothing adds to it",
        "return out;": "elements are read where there is a bias, a residual, or a gradient of x to add to: not here",
        "u32 n = i + warp_i() + r * 8 + lane / 4;": "the head has no bias",
    }

    def configs(self, t):
        rows = min(t.rows, t.chunk or rows_of(CHUNK_BYTES, t.features))
        return [{**tile, "chunk": rows} for tile in candidates(rows, t.features)]

    def workspace(self, t):
        return logits_bytes(t) + lse_bytes(t) + partial_bytes(tile(t), chunk(t), t.features, t.K)

    def counters(self, t):
        return tiles(tile(t), t.features, t.K)

    def chunks(self, t, launch):
        """For each chunk: its rows, and its logits as they come from the head."""
        x = t.x.reshape(-1, t.K)
        for first in range(0, t.rows, chunk(t)):
            rows = slice(first, min(first + chunk(t), t.rows))
            logits = launch.workspace.part(0, (rows.stop - first, t.features), t.x.dtype)
            launch_forward(launch, tile(t), logits, x[rows], t.weight)
            yield rows, logits

    def forward(self, t, launch):
        targets, loss = t.targets.reshape(-1), t.loss.reshape(-1)
        for rows, logits in self.chunks(t, launch):
            lse = launch.workspace.part(logits_bytes(t), (len(logits),), "f32")
            launch("block_forward", loss[rows], lse, logits, targets[rows], *columns(t), **a_block_each(t, logits))

    def forward_backward(self, t, launch):
        x, targets, loss, dloss = t.x.reshape(-1, t.K), t.targets.reshape(-1), t.loss.reshape(-1), t.dloss.reshape(-1)
        partial = launch.workspace[logits_bytes(t) + lse_bytes(t) :]
        for rows, logits in self.chunks(t, launch):
            arguments = (loss[rows], None, logits, logits, targets[rows], dloss[rows])
            launch("block_both", *arguments, *columns(t), **a_block_each(t, logits))
            if t.dx is not None:
                launch_dx(launch, tile(t), t.dx.reshape(-1, t.K)[rows], logits, t.weight)
            add = t.add_dweight or rows.start > 0
            launch_dweight(launch, tile(t), t.dweight, None, logits, x[rows], add, partial=partial)


def columns(t):
    return i32(t.features), i32(t.classes)


def a_block_each(t, logits):
    """A thread block for each row of logits."""
    return {"grid": len(logits), "block": THREADS, "define": {"WIDTH": width(t.features, t.x)}}


def chunk(t):
    """Rows of a chunk; the last may have fewer. The op's attribute, else what the config has, as a run records it."""
    return min(t.rows, t.chunk or t.config.get("chunk", UNRECORDED))


def tile(t):
    """The config without the chunk: what the products are compiled with."""
    return {name: size for name, size in t.config.items() if name != "chunk"}


def rows_of(nbytes, features):
    """Rows of bf16 logits in so many bytes, in whole tiles and at least one."""
    return max(nbytes // (2 * features) // ROUND, 1) * ROUND


def logits_bytes(t):
    return cdiv(2 * chunk(t) * t.features, 256) * 256


def lse_bytes(t):
    return cdiv(4 * chunk(t), 256) * 256
