"""The gradient's norm on CUDA: a sum of squares for each chunk of elements, then their sum. Kernels: global_norm.cu."""

from core import CHUNK, Variant, cdiv, f32, i32, u64

from ..global_norm import cuts_of

THREADS = 256
DEFINE = {"CHUNK": CHUNK}  # of all kernels: one module


TURNS = "for (int i = threadIdx.x; i < count; i += blockDim.x) sum += sums[i];"


class _Norm(Variant):
    """`sums` launches a kernel that writes one f64 sum for each chunk of this rank's elements."""

    op = "global_norm"
    slices = True
    uncovered = {TURNS: "a second turn has 4 million elements; tests/sim/test_cuda_kernels.py gives it the sums alone"}

    def workspace(self, t):
        return 8 * cuts_of(t, CHUNK)[0][-1]

    def forward(self, t, launch):
        cuts, rank = cuts_of(t, CHUNK)
        sums = launch.workspace.part(0, (cuts[-1],), "f64")
        own = sums[cuts[rank] : cuts[rank + 1]]
        self.sums(t, launch, own)
        if t.slices is not None and t.slices.gather:
            launch.op(t.slices.gather, part=own, flat=sums, cuts=cuts)
        launch("verdict", t.step, sums, i32(cuts[-1]), f32(t.clip), grid=1, block=THREADS, define=DEFINE)


class GlobalNormNaive(_Norm):
    """One thread block for all elements: far too few loads in flight to saturate the memory."""

    name, priority = "naive", 0

    def sums(self, t, launch, sums):
        launch("naive_sums", sums, t.grad, u64(t.n), grid=1, block=THREADS, define=DEFINE)


class GlobalNormBlocks(_Norm):
    """One thread block a chunk, 16 bytes a thread."""

    name = "blocks"
    examples = [{"grad": (2 * CHUNK + 1027,)}]  # whole chunks, and a remainder shorter than a vector
    uncovered = {
        **_Norm.uncovered,
        "for (u64 j = i; j < last; j++) sum += (double)grad[j] * grad[j];":
            "at most three elements are left: the loop that the compiler unrolls by four never has a turn",
    }  # fmt: skip

    def sums(self, t, launch, sums):
        launch("blocks_sums", sums, t.grad, u64(t.n), grid=cdiv(t.n, CHUNK), block=THREADS, define=DEFINE)
