"""AdamW on CUDA: one or four elements a thread, all parameters in one launch. Kernels: adamw_update.cu."""

import numpy as np

from core import Variant, cdiv, f32, f64, u64

THREADS = 256
NUMBERS = 32  # bytes of the numbers that all elements share


class AdamWNaive(Variant):
    """One element a thread, which works out the bias corrections for itself."""

    op, name, priority = "adamw_update", "naive", 0

    def forward(self, t, launch):
        arguments = (*flat(t), t.step, u64(t.n), *betas(t), f32(t.eps), f32(t.weight_decay), f32(t.lr_factor))
        launch("naive_update", *arguments, grid=cdiv(t.n, THREADS), block=THREADS)


class AdamWVector(Variant):
    """Four elements a thread, the bias corrections once a step; all parameters in one launch."""

    op, name, priority = "adamw_update", "vector", 10
    examples = [  # a tail of elements with a master
        {**dict.fromkeys(("param", "grad", "m", "v", "master"), (67,)), "group": np.array([3, 3], np.uint8)}
    ]

    def workspace(self, t):
        return NUMBERS

    def forward(self, t, launch):
        numbers = launch.workspace
        launch("vector_numbers", numbers, t.step, *betas(t), f32(t.lr_factor), grid=1, block=1)
        factors = (f32(t.beta1), f32(1 - t.beta1), f32(t.beta2), f32(1 - t.beta2))
        arguments = (*flat(t), numbers, u64(t.n), *factors, f32(t.eps), f32(t.weight_decay))
        launch("vector_update", *arguments, grid=cdiv(t.n, 4 * THREADS), block=THREADS)


def flat(t):
    return t.param, t.master, t.grad, t.m, t.v, t.group


def betas(t):
    return f64(t.beta1), f64(t.beta2)  # in double: the corrections need all their digits
