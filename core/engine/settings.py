"""The settings of an engine, and the record of a training step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.devices import AUTO
from core.dtypes import check_precision
from core.errors import DeviceError
from core.plan.choose import ChoiceSettings
from core.plan.layout import ParameterGroup

if TYPE_CHECKING:
    from core.device.protocol import Device

NO_LIMITS = (math.inf, math.inf)


SEED = 8.0  # the gradient of a token's loss, times the loss scale that a run begins with


@dataclass(frozen=True)
class LossScale:
    """The rules of the factor of gradients in fp16. start: at first; 0: the power of two that makes a token's part of
    the loss SEED or a little less. growth_steps: steps in a row with finite gradients before it doubles; an overflow
    halves it, down to `floor`."""

    start: float = 0.0
    growth_steps: int = 2000
    floor: float = 1.0

    def first(self, count: int) -> float:
        """The scale of a run's first step, of `count` targets."""
        return self.start or max(self.floor, 2.0 ** math.floor(math.log2(SEED * max(count, 1))))


@dataclass(frozen=True)
class Settings(ChoiceSettings):
    """The settings of an engine: device, precision, chosen variants, fusion, trainable parameters, optimizer.

    fusion: fused op -> False or its attrs. optimizer: name; options: its options, and "clip"; groups: parameters with a
    learning rate or weight decay of their own.
    dims: overrides of the model's dims. alias, in_place: False only in tests. capture: replay recorded launches as
    CUDA graphs, where the device has them; the same bits either way. health: how many steps' statistics the device
    keeps until they are taken. shard: over several ranks, each has optimizer state and master weights of a slice alone.
    overlap: gradients are summed over ranks beside the last backward, where the device can. loss_scale: fp16's rules.
    """

    device: str = "cpu"
    precision: str = "f32"
    dims: Mapping[str, Any] = field(default_factory=dict)
    fusion: Mapping[str, Any] = field(default_factory=dict)
    recompute: Sequence[str] = ()
    freeze: Sequence[str] = ()
    optimizer: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    groups: Sequence[ParameterGroup] = ()
    seed: int = 1337
    alias: bool = True
    in_place: bool = True
    capture: bool = True
    health: int = 0
    shard: bool = True
    overlap: bool = True
    loss_scale: LossScale = LossScale()


@dataclass(frozen=True)
class Record:
    """The record of a training step. loss: the objective, a mean over targets >= 0. ok: False if nothing was updated:
    loss or norm was above its limit, gradients overflowed or, if `halted`, one of lr, loss and norm not finite. step:
    the updates so far. loss_scale: of this step's gradients; None in a precision without one. losses: each term's own
    value, by its key in the model's [loss], of a loss of several terms; those of one key are added, and one of weight 0
    is left out."""

    loss: float
    norm: float
    ok: bool
    step: int
    halted: bool
    losses: Mapping[str, float] = field(default_factory=dict)
    loss_scale: float | None = None

    @property
    def overflow(self) -> bool:
        """Whether gradients under a loss scale were not finite, so that nothing was updated and the scale is lower."""
        return self.loss_scale is not None and not (self.ok or self.halted or math.isfinite(self.norm))


BEST = ("bf16", "fp16", "f32")  # "auto" is the first that the device computes in


def precision_on(device: Device, precision: str) -> str:
    """The precision, one that the device computes in; "auto": the first of BEST. UsageError for an unknown word,
    DeviceError for any other."""
    if precision == AUTO:
        return next((one for one in BEST if one in device.precisions), device.precisions[0])
    if check_precision(precision) not in device.precisions:
        raise DeviceError(
            f"{device.name} does not compute in {precision}",
            hint=f"it computes in {', '.join(device.precisions)}; precision auto takes the best of them",
        )
    return precision
