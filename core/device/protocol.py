"""Device, the type that plans, the engine and the trainer use, capabilities included.

A capability is a field: no code compares the name of a device or probes for a method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from core.device.measured import MeasuredTensor
from core.device.nested import Pick
from core.op import Tensors, Variant

# Memory, tensor and command are the device's own: an array or a pointer; a function or a recorded launch.
Memory = Any
DeviceArray = Any
Command = Any


class Device(Protocol):
    """Memory, recorded launches and their replay.

    name: for messages and records. runs: the `device` of the variants that run here. precisions: dtypes of
    activations. arch: the architecture that kernels are compiled for, "" where none are. compiles: kernels are
    compiled before they run (`prepare`). model: the chip's name, "" where there is no chip. real_time: seconds here are
    those of a chip, so that variants can be timed. tuned_arch: the architecture whose shipped choices of variants
    apply, "" for none. scratch_bytes: bytes of nested launches in addition to the plan's arena.
    """

    name: str
    runs: str
    arch: str
    compiles: bool
    model: str
    real_time: bool
    scratch_bytes: int

    @property
    def precisions(self) -> tuple[str, ...]:
        """The values of `precision` that plans for this device may have, such as ("f32", "bf16")."""
        ...

    @property
    def tuned_arch(self) -> str:
        """The architecture under which tuned choices are shipped, such as "sm_90"; "" for a device without any."""
        ...

    @property
    def tuned_sms(self) -> int:
        """Its multiprocessors; of choices shipped for an architecture, those for the nearest number are taken."""
        ...

    def describe(self) -> str:
        """One line for people: chip, cores or driver."""
        ...

    def depends(self) -> dict[str, str]:
        """The facts that a run's bits depend on, by name."""
        ...

    def can_run(self, variant: Variant) -> str | None:
        """Why a variant cannot run here; None when it can."""
        ...

    def multiplies(self, form: str) -> bool:
        """Whether products can have this number format here: a dtype, or "tf32"."""
        ...

    def memory(self) -> tuple[int, int] | None:
        """(free, total) bytes of the device's own memory; None where the operating system manages it."""
        ...

    def unbacked(self) -> Any:
        """A device on which plans of this one are recorded without memory; itself where memory costs nothing."""
        ...

    def allocate(self, nbytes: int) -> Memory:
        """Zeroed memory. Raises DeviceError where there is not as much."""
        ...

    def tensor(self, memory: Any, offset: int, shape: Sequence[int], dtype: str) -> DeviceArray:
        """A tensor of `dtype` at `offset` bytes of `memory`."""
        ...

    def upload(self, tensor: Any, values: Any) -> None:
        """Write an array into a tensor, rounded to its dtype."""
        ...

    def download(self, tensor: Any) -> Any:
        """A copy of a tensor as a NumPy array."""
        ...

    def record(
        self, variant: Variant, method: str, t: Tensors, pick: Pick | None, workspace: Any, counters: Any = None
    ) -> list[Command]:
        """The commands of one launcher: `method` is "forward", "backward" or "forward_backward"."""
        ...

    def record_calls(self, calls: Callable[[Any], None], pick: Pick | None) -> list[Command]:
        """The commands that `calls(launch)` launches: an optimizer's step."""
        ...

    def fill(self, target: Any, value: float) -> list[Command]:
        """Commands for target[...] = value."""
        ...

    def copy(self, target: Any, source: Any) -> list[Command]:
        """Commands for target[...] = source."""
        ...

    def add(self, target: Any, source: Any) -> list[Command]:
        """Commands for target += source."""
        ...

    def scale_by(self, target: Any, control: Any) -> list[Command]:
        """Commands for target *= the loss scale in the control record."""
        ...

    def dot_into(self, control: Any, slot: int, a: Any, b: Any) -> list[Command]:
        """Commands for control[slot] += sum(a * b), in f64."""
        ...

    def statistics_bytes(self, shapes: Sequence[Sequence[int]]) -> int:
        """Bytes of workspace that `statistics` of tensors of these shapes needs."""
        ...

    def statistics(self, measured: Sequence[MeasuredTensor], out: Any, workspace: Any) -> list[Command]:
        """Commands that write a row of statistics, `core.device.measured.VALUES`, for each tensor into `out`,
        (tensors, 8) f64: one pass, in an order that follows from the sizes alone. workspace: `statistics_bytes` of u8,
        zeroed, that nothing else writes. Raises BuildError."""
        ...

    def allow_dependent_launch(self) -> None:
        """Let kernels that can do so start before the kernel in front of them has ended, where the chip can; results
        have the same bits. Raises DeviceError."""
        ...

    def captured(self, commands: Sequence[Any]) -> Sequence[Command]:
        """Commands in the form that replays fastest."""
        ...

    def beside(self, parts: Sequence[Sequence[Any]]) -> list[list[Command]]:
        """For each part commands that start it beside the commands that follow them, and last those that wait for all
        parts; [] where parts cannot run so."""
        ...

    def prepare(self, commands: Sequence[Any]) -> Any:
        """Compile the kernels of the commands. Raises BuildError."""
        ...

    def run(self, commands: Sequence[Any]) -> None:
        """Replay commands."""
        ...

    def elapsed(self, groups: Sequence[Sequence[Any]]) -> list[float]:
        """Run groups of commands in order; seconds of each."""
        ...
