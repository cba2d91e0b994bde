"""The loss scale of a run: its state between steps, which the device's verdict on each step changes.

fp16 has no number below 2^-24 and none above 65,504: gradients are computed times a power of two, which follows them
(Micikevicius et al., arXiv:1710.03740).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from core.dtypes import SCALED
from core.engine.settings import LossScale
from core.op import SLOT


class Scaling:
    """The loss scale of the next step, how many steps in a row had finite gradients, and how many steps of the run were
    skipped, since theirs overflowed. `factor` is 0 before the first step."""

    def __init__(self, rules: LossScale, precision: str) -> None:
        self.rules, self.changes = rules, precision in SCALED
        self.factor, self.good_steps, self.overflows = 0.0, 0, 0

    def of(self, count: int) -> float:
        """The scale of a step of `count` targets: 1 in a precision without one."""
        return (self.factor or self.rules.first(count)) if self.changes else 1.0

    def retries(self, scale: float) -> bool:
        """Whether gradients that are not finite under `scale` may be so under a lower one."""
        return self.changes and scale > self.rules.floor

    @property
    def slots(self) -> dict[str, float]:
        """The rules and the state, as the control record has them."""
        good, growth = float(self.good_steps), float(self.rules.growth_steps)
        return {"good_steps": good, "growth_steps": growth, "least_scale": self.rules.floor} if self.changes else {}

    def follow(self, record: np.ndarray[Any, Any]) -> None:
        """Take over the scale that the last step left in the control record."""
        if not self.changes:
            return
        self.factor, self.good_steps = float(record[SLOT["loss_scale"]]), int(record[SLOT["good_steps"]])
        self.overflows += not (record[SLOT["halted"]] or math.isfinite(record[SLOT["norm"]]))

    def state(self) -> dict[str, Any]:
        """For a checkpoint: {"loss_scale": {"factor": 65536.0, "good_steps": 12, "overflows": 1}}; nothing without a
        scale."""
        state = {"factor": self.factor, "good_steps": self.good_steps, "overflows": self.overflows}
        return {"loss_scale": state} if self.changes else {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over the state of a checkpoint, of any precision."""
        held = state.get("loss_scale") or {}
        scale = float(held.get("factor", 0.0))
        self.factor = scale if self.rules.floor <= scale < math.inf else 0.0
        self.good_steps, self.overflows = int(held.get("good_steps", 0)), int(held.get("overflows", 0))
