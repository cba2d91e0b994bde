"""The settings of an engine, and the record of a training step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.devices import AUTO
from core.dtypes import check_precision
from core.errors import DeviceError
from core.op import Variant
from core.plan import Chooser, TunedChoice
from core.plan.layout import ParameterGroup
from core.ranks.group import Ranks
from core.registry import Registry

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
class Settings:
    """The settings of an engine: device, precision, chosen variants, fusion, trainable parameters, optimizer.

    ops, generate: op -> variant. nodes: glob -> variant. recorded, configs: node -> variant, and its tiles, of the run
    that is resumed. tuned, shipped: choices of `core tune` and of the plugins' files, `core.plan.tuning_key` ->
    variant and tiles. tf32: f32 may be multiplied as TF32.
    failed(variant): its fault by the op check on this device, or None. resumes: whether a recorded choice
    that failed is an error; else another one takes its place.
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
    ops: Mapping[str, str] = field(default_factory=dict)
    generate: Mapping[str, str] = field(default_factory=dict)
    nodes: Mapping[str, str] = field(default_factory=dict)
    recorded: Mapping[str, str] = field(default_factory=dict)
    resumes: bool = True
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tuned: Mapping[str, TunedChoice] = field(default_factory=dict)
    shipped: Mapping[str, TunedChoice] = field(default_factory=dict)
    tf32: bool = False
    fusion: Mapping[str, Any] = field(default_factory=dict)
    recompute: Sequence[str] = ()
    freeze: Sequence[str] = ()
    optimizer: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    groups: Sequence[ParameterGroup] = ()
    seed: int = 1337
    failed: Callable[[Variant], str | None] = lambda variant: None
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


BEST = ("bf16", "fp16", "f32")  # what "auto" takes: the first that the device computes in


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


def chooser_of(settings: Settings, registry: Registry, device: Device, ranks: Ranks, precision: str) -> Chooser:
    """Chooses variants for that device, those ranks and a precision under these settings."""
    return Chooser(
        registry,
        device.runs,
        precision,
        settings.ops,
        settings.nodes,
        settings.generate,
        {node: TunedChoice(name, settings.configs.get(node)) for node, name in settings.recorded.items()},
        settings.tuned,
        settings.shipped,
        settings.tf32,
        device.can_run,
        settings.failed,
        settings.resumes,
        ranks,
        multiplies=device.multiplies,
    )
