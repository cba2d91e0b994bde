"""AdamW on CUDA: one or four elements a thread, all parameters in one launch. Kernels: adamw_update.cu."""

from core import Variant, cdiv, f32, f64, u64

THREADS = 256


class AdamWNaive(Variant):
    """One element a thread, which works out the bias corrections for itself."""

    op, name, priority = "adamw_update", "naive", 0

    def forward(self, t, launch):
        launch("naive_update", *arguments(t), grid=cdiv(t.n, THREADS), block=THREADS)


class AdamWVector(Variant):
    """Four elements a thread, the bias corrections once a thread block; all parameters in one launch."""

    op, name, priority = "adamw_update", "vector", 10

    def forward(self, t, launch):
        launch("vector_update", *arguments(t), grid=cdiv(t.n, 4 * THREADS), block=THREADS)


def arguments(t):
    flat = (t.param, t.master, t.grad, t.m, t.v, t.group, t.step, u64(t.n))
    betas = (f64(t.beta1), f64(t.beta2))  # in double: the corrections need all their digits
    return *flat, *betas, f32(t.eps), f32(t.weight_decay)
