"""The cpu device: NumPy arrays for tensors, a small thread pool for rows and products, BLAS on one thread.

Launchers are recorded here and replayed later, exactly as on a GPU: `record` calls a variant's launcher once and
returns the commands that a step replays. It knows no op and no plan.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from core import blas, processor
from core.device.available import zeros
from core.device.nested import InOrder, Pick
from core.dtypes import NUMPY
from core.errors import BuildError
from core.op import Reference, Tensors, Variant
from core.pool import ALIGN, aligned_empty, pool
from core.products import Product
from core.step_record import SLOT

if TYPE_CHECKING:
    from core.device.measured import MeasuredTensor
    from core.op import CpuLaunch

Array = np.ndarray[Any, Any]
Command = Callable[[], None]


@dataclass(frozen=True)
class RowsCommand:
    """`f` over ranges of `grain` rows of [0, n): a record of `launch.rows`."""

    n: int
    grain: int
    f: Callable[..., None]
    scratch: int

    def __call__(self) -> None:
        pool().rows(self.n, self.grain, self.f, self.scratch)


class CpuRecorder:
    """The recorder of a cpu launcher. Nothing is computed while recording."""

    def __init__(self, commands: list[Command], workspace: Array | None, pick: Pick | None) -> None:
        self.commands = commands
        self.workspace = workspace
        self._pick = pick

    def rows(self, n: int, f: Callable[..., None], grain: int = 1, scratch: int = 0) -> None:
        """Run `f(lo, hi)` over ranges of `grain` rows of [0, n), on several threads.

        With `scratch` > 0 it is `f(lo, hi, bytes)`: that many bytes (uint8) of the worker's own. Neither `grain` nor a
        sum's order may follow from the number of threads: bits would too. A product in `f` runs on `f`'s thread.
        """
        pool().reserve(scratch)
        self.commands.append(RowsCommand(n, grain, f, scratch))

    def product(self, a: Array, b: Array, out: Array, add: bool = False) -> None:
        """out = a b, or out += a b, on several threads: a (rows, inner), b (inner, columns), out (rows, columns)."""
        caller = sys._getframe(1)
        product = Product(a, b, out, add, f"{caller.f_code.co_filename}:{caller.f_lineno}")
        pool().reserve(product.scratch)
        self.commands.append(product)

    def call(self, f: Command) -> None:
        """Run `f()` once."""
        self.commands.append(f)

    def op(self, name: str, method: str = "forward", /, **values: Any) -> None:
        """Launch another op's chosen variant; the values are those of `Nested`."""
        if self._pick is None:
            raise BuildError(f'launch.op("{name}"): no registry to choose a variant from')
        variant, t = self._pick(name, method, values)
        self.commands += record(variant, method, t, self._pick)


def record(
    variant: Variant, method: str, t: Tensors, pick: Pick | None = None, workspace: Array | None = None
) -> list[Command]:
    """The commands of one launcher: `method` is "forward", "backward" or "forward_backward".

    `workspace` is the variant's scratch (uint8); without one, it is allocated here, once.
    """
    launcher = getattr(variant, method)
    if isinstance(variant, Reference):
        return [partial(launcher, t)]
    if workspace is None and (nbytes := variant.workspace(t)):
        workspace = aligned_empty(nbytes)
    commands: list[Command] = []
    launcher(t, CpuRecorder(commands, workspace, pick))
    return commands


class CpuDevice(InOrder):
    """Memory, primitives and replay of the cpu."""

    name = "cpu"
    runs = "cpu"  # the `device` of the variants that run here
    precisions = ("f32", "f64")
    arch = model = tuned_arch = ""
    tuned_sms = 0
    compiles = False
    real_time = True
    scratch_bytes = 0

    def describe(self) -> str:
        return f"cpu, {pool().workers} cores"

    def depends(self) -> dict[str, str]:
        """The facts that a run's bits depend on: the processor's kind and the BLAS library, but not threads or
        cores."""
        return {"device": self.name, "cpu": processor.describe(), "blas": blas.describe()}

    def memory(self) -> None:
        """The operating system manages the memory of the cpu."""
        return

    def unbacked(self) -> CpuDevice:
        """The device itself: memory costs nothing until it is touched."""
        return self

    def prepare(self, commands: Sequence[Command]) -> None:
        """No-op: there is nothing to compile."""

    def can_run(self, variant: Variant) -> str | None:
        """Why a variant cannot run on this machine; None when it can."""
        return None

    def multiplies(self, form: str) -> bool:
        """Whether products can have this number format."""
        return form in self.precisions

    def allocate(self, nbytes: int) -> Array:
        """Zeroed memory; its pages are allocated at their first use. OutOfMemory beyond the machine's memory."""
        raw = zeros(nbytes + ALIGN, "a smaller B, T or model needs less; `core plan` lists its use")
        start = -raw.ctypes.data % ALIGN
        return raw[start : start + nbytes]

    def tensor(self, memory: Array, offset: int, shape: Sequence[int], dtype: str) -> Array:
        """A tensor in `memory`, `offset` bytes from its start."""
        kind = NUMPY[dtype]
        nbytes = math.prod(shape) * kind.itemsize
        return memory[offset : offset + nbytes].view(kind).reshape(tuple(shape))

    def upload(self, tensor: Array, values: Array) -> None:
        tensor[...] = values

    def download(self, tensor: Array) -> Array:
        """A copy that later steps do not change."""
        return tensor.copy()

    def record(
        self,
        variant: Variant,
        method: str,
        t: Tensors,
        pick: Pick | None,
        workspace: Array | None,
        counters: Array | None = None,
    ) -> list[Command]:
        """The commands of one launcher; nothing here waits for another, so there are no counters."""
        return record(variant, method, t, pick, workspace)

    def record_calls(self, calls: Callable[[CpuLaunch], None], pick: Pick | None) -> list[Command]:
        """The commands that `calls(launch)` launches: an optimizer's step."""
        commands: list[Command] = []
        calls(CpuRecorder(commands, None, pick))
        return commands

    # primitives, recorded like launches

    def fill(self, target: Array, value: float) -> list[Command]:
        return [lambda: target.fill(value)]

    def copy(self, target: Array, source: Array) -> list[Command]:
        return [lambda: np.copyto(target, source)]

    def add(self, target: Array, source: Array) -> list[Command]:
        def add() -> None:
            np.add(target, source, out=target)

        return [add]

    def scale_by(self, target: Array, control: Array) -> list[Command]:
        """target *= loss scale."""

        def scale() -> None:
            target[...] *= control[SLOT["loss_scale"]]

        return [scale]

    def dot_into(self, control: Array, slot: int, a: Array, b: Array) -> list[Command]:
        """control[slot] += sum(a * b) / loss scale, in f64."""
        x, y = a.reshape(-1), b.reshape(-1)

        def dot() -> None:
            control[slot] += float(np.dot(x.astype(np.float64), y.astype(np.float64))) / control[SLOT["loss_scale"]]

        return [dot]

    def statistics_bytes(self, shapes: Sequence[Sequence[int]]) -> int:
        """Bytes of workspace that `statistics` of tensors of these shapes needs."""
        from core.device import cpu_statistics  # of runs with [train] health_every

        return cpu_statistics.workspace_bytes(shapes)

    def statistics(self, measured: Sequence[MeasuredTensor], out: Array, workspace: Array) -> list[Command]:
        """Commands that write a row of statistics for each tensor into `out`, (tensors, 8) f64."""
        from core.device import cpu_statistics

        commands: list[Command] = []
        cpu_statistics.record(measured, out, workspace, CpuRecorder(commands, None, None))
        return commands

    def run(self, commands: Sequence[Command]) -> None:
        """Replay, without NumPy's warnings: non-finite numbers show in the loss and the norm."""
        with np.errstate(all="ignore"), blas.one_thread():
            for command in commands:
                command()
