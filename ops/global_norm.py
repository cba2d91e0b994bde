"""The gradient's 2-norm over all parameters, and the update's scale and permission that follow from it.

norm = sqrt(sum of grad^2) / loss_scale; ok = lr, loss and norm are finite, loss and norm are not above their limits,
and no earlier step set `halted`; scale = min(1, clip / (norm + 1e-6)) / loss_scale, whose first factor is that of
PyTorch's clip_grad_norm_, 1 without clip. If ok, `step` advances. A non-finite number sets `halted`, which stays, so
that queued steps change nothing; a number above a limit skips its own step only. These numbers are in
the control record, `t.step`.

A loss scale that changes (growth_steps > 0; Micikevicius et al., arXiv:1710.03740, section 3.2) has a further case: a
norm alone that is not finite is an overflow, which skips its step and halves the scale, and halts only where the scale
is at least_scale already. growth_steps steps in a row with finite gradients double it.

The sum adds f64 numbers, one for each chunk of elements, in their order. In an update of which each rank has a slice
(`t.slices`) the ranks gather these numbers: where slices are cut at chunks, the norm has the same bits as on one rank.
"""

import math

import numpy as np

from core import CHUNK, Op, Reference, cdiv

global_norm = Op(
    "global_norm",
    inputs={"grad": "n : acc"},
    attrs={"clip": 0.0},
    uses=("step", "slices"),
    gradient=False,
    examples=[
        {"grad": (191,), "clip": 1.0},
        {"grad": (64 * 2053,)},
        {"grad": (64,), "clip": 12.0},  # not clipped
        {"grad": 1e25 * np.cos(np.arange(191.0))},  # their squares are beyond f32's range, above and below
        {"grad": 1e-25 * np.cos(np.arange(191.0))},
        {"grad": np.zeros(64), "clip": 5e-7},  # a norm of 0 is above no limit, and is clipped
        {"grad": np.where(np.arange(191) == 70, np.inf, 1.0), "clip": 1.0},  # an overflow
    ],
    doc="Norm, clipping and the verdict on a step.",
)


def settle_step(control, squares, clip):
    """Write norm, scale, ok, halted and step into the control record, from the sum of grad^2."""
    norm = math.sqrt(squares) / control.loss_scale if squares >= 0 else math.nan
    sound = math.isfinite(control.loss) and math.isfinite(control.lr)
    finite = sound and math.isfinite(norm)
    below = control.loss <= control.loss_limit and norm <= control.norm_limit
    ok = finite and below and not control.halted
    control.norm = norm
    control.ok = ok
    control.scale = (min(1.0, clip / (norm + 1e-6)) if clip and ok else 1.0) / control.loss_scale
    if ok:
        control.step += 1
    overflow = sound and not finite and control.growth_steps and control.loss_scale > control.least_scale
    if not finite and not overflow:
        control.halted = 1
    if control.growth_steps:
        rescale(control, finite, overflow)


def rescale(control, finite, overflow):
    """The loss scale of the next step."""
    if overflow:
        control.loss_scale = max(control.loss_scale / 2, control.least_scale)
    control.good_steps = control.good_steps + 1 if finite else 0
    if control.good_steps >= control.growth_steps:
        control.loss_scale *= 2
        control.good_steps = 0


def cuts_of(t, grain):
    """Offsets of each rank's numbers among those of all elements, one number for every `grain` of a slice; and the
    rank. Without slices, (0, all) and 0."""
    if t.slices is None:
        return [0, cdiv(t.n, grain)], 0
    return t.slices.cut_by(grain), t.slices.ranks.rank


class GlobalNormReference(Reference):
    op = "global_norm"
    made_of = {"step": "grad"}  # the norm in it, and the numbers that follow from the norm
    slices = True

    def forward(self, t):
        parts = [t.grad[lo : lo + CHUNK].astype(np.float64) for lo in range(0, t.n, CHUNK)]
        sums = np.array([part @ part for part in parts])
        if t.slices is not None:
            sums = np.frombuffer(b"".join(t.slices.ranks.gather(sums.tobytes())))
        settle_step(t.step, float(np.add.reduce(sums)), t.clip)
