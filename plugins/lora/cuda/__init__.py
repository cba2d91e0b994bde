"""lora_add on CUDA: one thread an element. Kernels: lora_add.cu."""

from math import prod

from core import Variant, cdiv, f32, i32, u64

THREADS = 256


class LoraAddNaive(Variant):
    op, name = "lora_add", "naive"
    can_add = ("a", "b")
    alias = {"da": "dy"}

    def forward(self, t, launch):
        n = prod(t.y.shape)
        launch("lora_forward", t.y, t.a, t.b, u64(n), f32(t.scale), grid=cdiv(n, THREADS), block=THREADS)

    def backward(self, t, launch):
        n = prod(t.dy.shape)
        for gradient, scale, add in ((t.da, 1.0, t.add_da), (t.db, t.scale, t.add_db)):
            if gradient is not None:
                arguments = (gradient, t.dy, u64(n), f32(scale), i32(add))
                launch("lora_backward", *arguments, grid=cdiv(n, THREADS), block=THREADS)
