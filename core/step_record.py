"""The control record of a training step, and the masks of elements that an update touches: every optimizer's inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from core.expr import cdiv

Array = np.ndarray[Any, Any]

# The control record: one small f64 tensor that changes between steps (`t.step`). The host writes lr, the limits (a loss
# or norm above its own is not ok) and the rules of the loss scale before a step; the device writes the rest.
# loss_scale: the factor of this step's gradients; the verdict leaves that of the next step. good_steps: steps in a row
# with finite gradients, which doubles it after growth_steps of them (0: it stays); an overflow halves it, down to
# least_scale. Its slots:
CONTROL = (
    "lr", "step", "loss_scale", "loss", "norm", "scale", "ok", "halted", "loss_limit", "norm_limit",
    "good_steps", "growth_steps", "least_scale",
)  # fmt: skip
SLOT = {name: index for index, name in enumerate(CONTROL)}
GROUP = 64  # elements of the flat arenas per byte of `group`
CHUNK = 16_384  # elements with a partial sum of their own in a number over an arena; slices begin at its multiples
MASKS = {"decays": 1, "trains": 2}  # bits of such a byte: weight decay applies to its elements; they train at all


class StepRecord(np.ndarray[Any, Any]):
    """The control record on the cpu, with its slots as fields: `t.step.lr`, `t.step.ok`, each a float."""

    def __getattr__(self, name: str) -> float:
        if name in SLOT:
            return float(self[SLOT[name]])
        raise AttributeError(f"the control record has no {name!r}; it has {', '.join(CONTROL)}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in SLOT:
            self[SLOT[name]] = value
        else:
            super().__setattr__(name, value)

    def correction(self, beta: float) -> float:
        """1 - beta^k, for k updates with this one: the divisor of the mean of a moment that began at 0 (Adam)."""
        return float(1 - beta**self.step)


def mask(group: Array, name: str, n: int) -> Array:
    """(n,) bool: the elements for which the bit of that name is set in `group`, (n / GROUP,) u8."""
    whole: Array = np.repeat((group & MASKS[name]) != 0, GROUP)
    return whole[:n]


def stretches(group: Array, lo: int, hi: int) -> Iterator[tuple[slice, bool]]:
    """(elements, whether they decay) of the stretches of [lo, hi) that train; lo is a multiple of GROUP.

    group: (ceil(n / GROUP),) u8, the mask bits of each GROUP elements of a parameter of n elements.
    """
    first = lo // GROUP
    bits = group[first : cdiv(hi, GROUP)]
    cuts = [0, *(np.flatnonzero(bits[1:] != bits[:-1]) + 1).tolist(), len(bits)]
    for a, b in zip(cuts, cuts[1:], strict=False):
        if bits[a] & MASKS["trains"]:
            part = slice(max(lo, (first + a) * GROUP), min(hi, (first + b) * GROUP))
            yield part, bool(bits[a] & MASKS["decays"])
