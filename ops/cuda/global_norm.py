"""The gradient's norm on CUDA: one thread block, and a fixed number of them. Kernels: global_norm.cu."""

from core import Variant, cdiv, f32, i32, u64

THREADS = 256
BLOCKS = 512  # at most: enough for any GPU's memory, and the same everywhere, so that the sum's order is


class GlobalNormNaive(Variant):
    """One thread block for all of it: far too few loads under way for the memory."""

    op, name, priority = "global_norm", "naive", 0

    def forward(self, t, launch):
        launch("naive_norm", t.step, t.grad, u64(t.n), f32(t.clip), grid=1, block=THREADS)


class GlobalNormBlocks(Variant):
    """As many thread blocks as fill a chip, 16 bytes a thread; a second launch adds up their sums in a fixed order."""

    op, name = "global_norm", "blocks"
    examples = [{"grad": (4 * THREADS * BLOCKS + 1027,)}]  # more than all thread blocks take in one turn
    uncovered = {
        "for (u64 j = i; j < n; j++) sum += (double)grad[j] * grad[j];":
            "at most three elements are left: the loop that the compiler unrolls by four never has a turn",
    }  # fmt: skip

    def blocks(self, t):
        return min(BLOCKS, cdiv(t.n, 4 * THREADS))

    def workspace(self, t):
        return 8 * BLOCKS

    def forward(self, t, launch):
        sums, blocks = launch.workspace, self.blocks(t)
        launch("blocks_sums", sums, t.grad, u64(t.n), grid=blocks, block=THREADS)
        launch("blocks_norm", t.step, sums, i32(blocks), f32(t.clip), grid=1, block=THREADS)
