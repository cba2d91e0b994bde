"""The language-model head with its loss on CUDA, in chunks of rows. Kernels: those of matmul and cross_entropy."""

from core import Variant, cdiv, i32
from core.kernels.mma_product import aligned, candidates, lower, square, tiles

from .cross_entropy import blocks_of_rows
from .matmul_mma import KERNELS, launch_dweight, launch_dx, launch_forward, partial_bytes

CHUNK_BYTES = 2 * 16384 * 50304  # of logits at a time, at most: 16,384 rows for GPT-2, whose products fill a chip
ROUND = 128  # rows of a large tile: chunks are multiples of it
UNRECORDED = 16384  # rows, in runs from before a chunk was part of the recorded config


class HeadLossMma(Variant):
    """A chunk's logits are written once, become their own gradient with one read and one write, and are read by the two
    products of backward. Training only: loss and gradients come together."""

    op, name, priority = "head_loss", "mma", 20
    source = (*KERNELS, "cross_entropy.cu")
    dtypes = ("bf16", "fp16")
    reads = ("x", "weight", "targets")
    examples = [
        {"x": (263, 72), "targets": (263,), "features": 136, "classes": 131, "chunk": 130},
        {"x": (515, 8), "targets": (515,), "features": 16, "classes": 13},  # two slices of rows
        {"x": (2, 1), "targets": (2,), "features": 769, "classes": 767},  # four packs of a row, of near numbers
        {"x": (2, 1), "targets": (2,), "features": 11401, "classes": 10301},  # more than registers keep; long padding
    ]
    uncovered = {
        **dict.fromkeys(
            (
                "if (TOTALS && warp_j() == 0) {",
                "u32 n = i + warp_i() + r * 8 + lane / 4;",
                "for (int e = 0; e < 4 / sizeof(elem); e++) rows[r][n % 2] += held[e];",
                "sum += __shfl_xor_sync(ALL, sum, 1);",
                "return sum + __shfl_xor_sync(ALL, sum, 2);",
            ),
            "the head has no bias",
        ),
        "for (int c = threadIdx.x * WIDTH; c < P; c += PASS) store(dlogits + c, Pack<elem, WIDTH>{});": (
            "an ignored row of several passes: examples of cross_entropy have them"
        ),
    }

    def configs(self, t):
        rows = min(t.rows, t.chunk or rows_of(CHUNK_BYTES, t.features))
        return [{**tile, "chunk": rows} for tile in tiles_of(t, rows)]

    def workspace(self, t):
        return logits_bytes(t) + lse_bytes(t) + partial_bytes(tile(t), chunk(t), t.features, t.K)

    def counters(self, t):
        return tiles(square(tile(t)), t.features, t.K)

    def chunks(self, t, launch):
        """Each chunk's rows and its logits, as computed by the head."""
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
    return blocks_of_rows(len(logits), t.features, logits)


def chunk(t):
    """Rows of a chunk; the last may have fewer. The op's attribute comes first, then the recorded config."""
    return min(t.rows, t.chunk or t.config.get("chunk", UNRECORDED))


def tiles_of(t, rows):
    """Tile candidates of the products of a chunk of `rows`."""
    return lower(candidates(rows, t.features, t.x.dtype, aligned(t.x, t.features, t.K)))


def tile(t):
    """The config without the chunk: compile-time constants of the products."""
    return {name: size for name, size in t.config.items() if name != "chunk"}


def rows_of(nbytes, features):
    """The number of rows of 16-bit logits in `nbytes` bytes: whole tiles, at least one."""
    return max(nbytes // (2 * features) // ROUND, 1) * ROUND


def logits_bytes(t):
    return cdiv(2 * chunk(t) * t.features, 256) * 256


def lse_bytes(t):
    return cdiv(4 * chunk(t), 256) * 256
