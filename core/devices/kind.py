"""DeviceKind, a row of the table of devices: the facts of a device before it is opened.

A plugin brings one by the hook `core_devices`. A capability is a field; no code compares the name of a device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from core.errors import UsageError, did_you_mean

AUTO = "auto"  # of --device: hardware that is found, else the first device


@dataclass(frozen=True)
class Pace:
    """The speed of a slow device, from which the duration of a run is estimated before it starts.

    flops: FLOP/s of training steps. per_launch: the fixed cost of a step of a plan, as the FLOPs of the same time.
    note: the parts that the estimate omits, printed after a duration.
    """

    flops: float
    per_launch: float
    note: str


@dataclass(frozen=True)
class DeviceKind:
    """A device by name, closed. `opener`, `detector`, `planner` and `pace` are functions, or their places in a module
    that is imported when they are called ("mine.device:MirrorDevice").

    name: of --device, `[on.NAME]` and records. runs: the `device` of the variants that run on it. precisions: dtypes of
    activations that it may compute in; an opened one may have fewer. opener(): the open Device (docs/devices.md), or
    DeviceError where there is none. detector(): the evidence that its hardware is in this machine, "" for nothing;
    `--device auto` takes the first device that is detected. None: it needs no hardware, and opens on every machine.
    compiles: its variants launch kernels, which are compiled; else its tensors are NumPy arrays. simulated: kernels run
    in `core.sim`. real_time: its seconds are those of real hardware, so that variants may be timed.
    planner(arch): a Device of that architecture that records and compiles, and runs nothing. default_arch: the
    architecture to plan for. pace(device): the Pace of an open one where a run may take hours without being meant to.
    place: a phrase, "in the simulator"; "on NAME" without it. numbered: a machine may have several, and opener takes
    the number of the one to open.
    """

    name: str
    runs: str
    precisions: tuple[str, ...]
    opener: str | Callable[[], Any]
    detector: str | Callable[[], str] | None = None
    compiles: bool = False
    simulated: bool = False
    real_time: bool = True
    planner: str | Callable[[str], Any] | None = None
    default_arch: str = ""
    pace: str | Callable[[Any], Pace] | None = None
    place: str = ""
    numbered: bool = False
    origin: str = field(default="", compare=False)  # the plugin that brought it; stamped when registered

    @property
    def everywhere(self) -> bool:
        """Whether every machine has it."""
        return self.detector is None

    @property
    def where(self) -> str:
        """The place as a phrase: "on cuda"."""
        return self.place or f"on {self.name}"

    def open(self, number: int = 0) -> Any:
        """The device, open: the one of that number, where a machine may have several. Raises DeviceError."""
        return _function(self.opener)(number) if self.numbered else _function(self.opener)()

    def detected(self) -> str:
        """The evidence of its hardware on this machine; "" without any, or for a device without hardware."""
        return "" if self.detector is None else str(_function(self.detector)())

    def planned(self, arch: str) -> Any:
        """A device of that architecture on which nothing runs; None where this kind has no architectures.

        Raises BuildError for an architecture that is not known.
        """
        return None if self.planner is None else _function(self.planner)(arch or self.default_arch)

    def measured_pace(self, opened: Any) -> Pace | None:
        """The pace of an open device of this kind, measured in less than a second; None for a kind that is fast."""
        return None if self.pace is None else _function(self.pace)(opened)


def choose(name: str, kinds: Mapping[str, DeviceKind]) -> DeviceKind:
    """The device for `--device NAME`: of that name, or with AUTO the first that is detected, else the first.

    Raises UsageError for a name that no device has.
    """
    if name == AUTO:
        detected = (kind for kind in kinds.values() if kind.detected())
        return next(detected, next(iter(kinds.values())))
    if name not in kinds:
        raise UsageError(
            f'there is no device "{name}"{did_you_mean(name, [AUTO, *kinds])}',
            hint=f"--device takes {', '.join([AUTO, *kinds])}; a plugin may add one",
        )
    return kinds[name]


def _function(place: str | Callable[..., Any]) -> Callable[..., Any]:
    if not isinstance(place, str):
        return place
    module, _, attribute = place.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), attribute)
    return function
