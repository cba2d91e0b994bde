"""KernelDevice, the base of all devices of kernels: it records launchers and its own primitives as launches.

Memory and replay are the device's own. `as_command` makes the entry of a launch in its list of commands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from core.device import primitives
from core.device.launch import Host, Recorded, Scratch, UpdateRecorder, record
from core.device.measured import MeasuredTensor
from core.device.nested import InOrder, Pick
from core.device.statistics import statistics, workspace_bytes
from core.kernels.tensors import DeviceTensor
from core.op import Tensors, Variant


class KernelDevice(InOrder):
    """Recording, for devices whose variants launch kernels. `model`: a chip's name, where there is a chip."""

    runs = "cuda"  # the `device` of the variants that run here
    arch: str
    compiles = True
    model = ""
    real_time = False
    scratch_bytes = 0

    @property
    def tuned_arch(self) -> str:
        return self.arch

    @property
    def tuned_sms(self) -> int:
        return self.host.sms

    def memory(self) -> tuple[int, int] | None:
        """(free, total) bytes of the device's own memory; None where there is none."""
        return None

    def describe(self) -> str:
        """The device in a line."""
        return f"{self.runs}, {self.arch}"

    def tensor(self, memory: Any, offset: int, shape: Sequence[int], dtype: str) -> DeviceTensor:
        """A tensor in `memory`, `offset` bytes from its start."""
        return DeviceTensor(memory.pointer + offset, tuple(int(n) for n in shape), dtype, memory, offset)

    @property
    def host(self) -> Host:
        """The facts of the device that launchers may use."""
        raise TypeError(f"{type(self).__name__} has no facts of its host")

    @cached_property
    def scratch(self) -> Scratch | None:
        """The workspaces of all nested launches: they run one after another."""
        return Scratch(self.host.zeros) if self.host.zeros is not None else None

    @property
    def sharing(self) -> Host:
        """The host, with the workspaces that nested launches share."""
        return replace(self.host, scratch=self.scratch)

    def multiplies(self, form: str) -> bool:
        """Whether its chip has a number format, such as bf16 or tf32."""
        chip = self.host.chip
        return chip is None or chip.multiplies(form)

    def depends(self) -> dict[str, str]:
        """The facts that a run's bits depend on, by name."""
        return {"device": self.describe()}

    def as_command(self, launch: Recorded) -> Any:
        return launch

    def record(
        self,
        variant: Variant,
        method: str,
        t: Tensors,
        pick: Pick | None,
        workspace: DeviceTensor | None,
        counters: DeviceTensor | None = None,
    ) -> list[Any]:
        """The launches of one launcher."""
        launches = record(variant, method, t, pick, workspace, counters, host=self.sharing)
        return [self.as_command(launch) for launch in launches]

    def record_calls(self, calls: Callable[[Any], None], pick: Pick | None) -> list[Any]:
        """The launches of the ops that `calls(launch)` names: an optimizer's step."""
        launch = UpdateRecorder(pick, self.sharing)
        calls(launch)
        return [self.as_command(record) for record in launch.records]

    def fill(self, target: DeviceTensor, value: float) -> list[Any]:
        return [self.as_command(primitives.fill(target, value))]

    def copy(self, target: DeviceTensor, source: DeviceTensor) -> list[Any]:
        return [self.as_command(primitives.copy(target, source))]

    def add(self, target: DeviceTensor, source: DeviceTensor) -> list[Any]:
        return [self.as_command(primitives.add(target, source))]

    def scale_by(self, target: DeviceTensor, control: DeviceTensor) -> list[Any]:
        return [self.as_command(primitives.scale_by(target, control))]

    def dot_into(self, control: DeviceTensor, slot: int, a: DeviceTensor, b: DeviceTensor) -> list[Any]:
        """control[slot] += sum(a * b) / loss scale, in f64."""
        return [self.as_command(primitives.dot(control, slot, a, b))]

    # --- statistics --------------------------------------------------------------------------------------------

    def upload(self, tensor: DeviceTensor, values: Any) -> None:
        """Write an array into a tensor."""
        raise TypeError(f"{type(self).__name__} writes no memory")

    def statistics_bytes(self, shapes: Sequence[Sequence[int]]) -> int:
        """Bytes of workspace that `statistics` of tensors of these shapes needs."""
        return workspace_bytes(shapes)

    def statistics(self, measured: Sequence[MeasuredTensor], out: DeviceTensor, workspace: DeviceTensor) -> list[Any]:
        """The launch that writes a row of statistics for each tensor into `out`, (tensors, 8) f64."""
        launch, entries = statistics(measured, out, workspace)
        self.upload(workspace.part(0, entries.shape), entries)
        return [self.as_command(launch)]
