"""The settings of an engine, and the record of a training step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.dtypes import check_precision
from core.errors import DeviceError
from core.op import Variant
from core.plan import Chooser, TunedChoice
from core.ranks.group import Ranks
from core.registry import Registry

if TYPE_CHECKING:
    from core.device.protocol import Device

NO_LIMITS = (math.inf, math.inf)


@dataclass(frozen=True)
class Settings:
    """The settings of an engine: device, precision, chosen variants, fusion, what trains and how.

    ops, generate: op -> variant. nodes: glob -> variant. recorded, configs: node -> variant, and its tiles, of the run
    that is resumed. tuned, shipped: choices of `core tune` and of the plugins' files, `core.plan.tuning_key` ->
    variant and tiles. tf32: f32 may be multiplied as TF32.
    failed(variant): what the op check found wrong with it where this runs, or None. resumes: whether a recorded choice
    that failed is an error; else another one takes its place.
    fusion: fused op -> False or its attrs. optimizer: name; options: its options, and "clip".
    dims: overrides of the model's dims. alias, in_place: False only in tests. capture: replay recorded launches as
    CUDA graphs, where the device has them; the same bits either way. health: how many steps' statistics the device
    keeps until they are taken. shard: over several ranks, each has optimizer state and master weights of a slice alone.
    overlap: gradients are summed over ranks beside the last backward, where the device can.
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
    seed: int = 1337
    failed: Callable[[Variant], str | None] = lambda variant: None
    alias: bool = True
    in_place: bool = True
    capture: bool = True
    health: int = 0
    shard: bool = True
    overlap: bool = True


@dataclass(frozen=True)
class Record:
    """The record of a training step. loss: the objective, a mean over targets >= 0. ok: False if nothing was updated:
    loss or norm was above its limit or, if `halted`, one of lr, loss and norm not finite. step: the updates so far."""

    loss: float
    norm: float
    ok: bool
    step: int
    halted: bool


def precision_on(device: Device, precision: str) -> str:
    """The precision, one that the device computes in. UsageError for a word that is none, DeviceError for another."""
    if check_precision(precision) not in device.precisions:
        raise DeviceError(
            f"{device.name} does not compute in {precision}",
            hint=f"it computes in {', '.join(device.precisions)}: --set precision=f32",
        )
    return precision


def chooser_of(settings: Settings, registry: Registry, device: Device, ranks: Ranks) -> Chooser:
    """Chooses variants for that device and those ranks under these settings."""
    return Chooser(
        registry,
        device.runs,
        settings.precision,
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
    )
