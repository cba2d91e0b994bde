"""DPO's loss on CUDA: a warp a row, then one warp adds the rows in their order. Kernels: dpo_loss.cu."""

from core import Variant, cdiv, f32, i32

from ..preference import ANSWERS, SIGNS

WARPS = 4


class DpoLossWarp(Variant):
    op, name = "dpo_loss", "warp"
    saved = {"margin": "B : acc"}
    examples = [dict.fromkeys(ANSWERS, (9, 40))]  # more tokens than lanes, more rows than warps

    def forward(self, t, launch):
        losses = (t.chosen, t.rejected, t.chosen_reference, t.rejected_reference)
        sizes = (i32(t.B), i32(t.T), f32(t.beta))
        launch("margins", t.margin, *losses, *sizes, grid=cdiv(t.B, WARPS), block=(32, WARPS))
        launch("mean", t.loss, t.margin, i32(t.B), grid=1, block=32)

    def backward(self, t, launch):
        gradients = (t.dchosen, t.drejected, t.dchosen_reference, t.drejected_reference)
        for gradient, sign in zip(gradients, SIGNS.values(), strict=True):
            if gradient is not None:
                arguments = (gradient, t.dloss, t.margin, i32(t.T), f32(sign * t.beta / t.B))
                launch("slope", *arguments, grid=t.B, block=128)
