"""The sim device: the launches that kernels' launchers record, run by the simulator on flat simulated memory.

It is the cuda device without a GPU: the same kernels, the same launchers, the same records.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from core import blas, processor
from core.device.launch import Host, HostRecord, LaunchRecord
from core.device.planned import PlannedDevice, unbacked
from core.device.recording import KernelDevice
from core.dtypes import NUMPY
from core.kernels.arguments import bytes_of
from core.kernels.chips import chip_of, runs_on
from core.kernels.nvrtc import SIMULATED, Compiled, Kernel, compile_all, missing
from core.kernels.nvrtc_library import nvrtc_version
from core.kernels.sources import read_source
from core.kernels.tensors import DeviceTensor, TensorMap, decode, encode
from core.op import Variant
from core.sim.faults import KernelError
from core.sim.instructions import tensormap
from core.sim.launching.launch_report import Report
from core.sim.launching.simulator import Simulator
from core.sim.launching.thread_order import SEEDS
from core.sim.launching.watchers import Taped
from core.sim.machine.address_space import Memory
from core.sim.machine.budget import default_limit
from core.sim.native.choice import described
from core.sim.ptx.cuda_source import Sources

Array = np.ndarray[Any, Any]
SMS = 4  # multiprocessors as launchers see them: few, so that grids stay small


class SimMemory:
    """An allocation in simulated memory; its addresses become invalid when the last tensor in it is gone."""

    def __init__(self, memory: Memory, nbytes: int, name: str) -> None:
        self.nbytes = nbytes
        self.pointer = memory.allocate(nbytes, name)
        weakref.finalize(self, memory.free, self.pointer).atexit = False


class SimDevice(KernelDevice):
    """Memory, primitives and replay in the simulator.

    strict: also report races and reads of uninitialised memory; some ten times slower. It may be changed between runs.
    seeds: of the orders that strict mode tries after its first one.
    limit: branches of a thread block after which a kernel counts as endless; by default that of budget.py.
    executor: "native" or "interpreter", None for the default (core/sim/native/choice.py).
    screens: the machine screens launches for strict mode (core/sim/launching/screened.py).
    count, tape: have the reports count in full (core/sim/counting.py), and tape all thread blocks, or those of some
    numbers (core/sim/tape.py).
    on_report: called with each launch and its counts.
    """

    name = "sim"
    sms = SMS
    tuned_arch = ""  # few multiprocessors, and no time: choices for chips do not apply
    arch = SIMULATED.replace("compute_", "sm_")

    def __init__(self, strict: bool = False, limit: int | None = None, target: str = SIMULATED) -> None:
        """target: the PTX that kernels are compiled to, that of an older chip to see their work there."""
        self.strict, self.seeds, self.target = strict, SEEDS, target
        self.arch = target.replace("compute_", "sm_")
        self.limit = default_limit() if limit is None else limit
        self.count = False
        self.tape: Taped = False
        self.executor: str | None = None
        self.screens = False
        self.space = Memory()
        self.on_report: Callable[[LaunchRecord, Report], None] | None = None
        self._simulators: dict[Kernel, Simulator] = {}
        self._by_file: dict[Hashable, Simulator] = {}
        self._by_ptx: dict[Compiled, Simulator] = {}
        self._scratch: list[DeviceTensor] = []
        self._allocations = 0

    @property
    def precisions(self) -> tuple[str, ...]:
        return chip_of(self.arch).precisions

    def unbacked(self) -> PlannedDevice:
        """A device like this one without memory, for plans."""
        return unbacked(self)

    def describe(self) -> str:
        return f"sim, the kernels' PTX ({self.target}, NVRTC {nvrtc_version()}) {described(self.executor)}"

    def depends(self) -> dict[str, str]:
        """The facts that a run's bits depend on: NumPy computes the instructions, and its loops follow from the cpu."""
        return {**super().depends(), "cpu": processor.describe()}

    def can_run(self, variant: Variant) -> str | None:
        """Why a variant's kernels cannot be simulated; None when they can."""
        if variant.library:
            return f"it calls {variant.library}, whose kernels are the vendor's own: it runs on a GPU"
        if runs_on(variant.arch, self.arch):
            return None
        return f"it needs {variant.arch}, and the simulator is an {self.arch}"

    # --- memory ------------------------------------------------------------------------------------------------

    def allocate(self, nbytes: int) -> SimMemory:
        """Zeroed memory."""
        self._allocations += 1
        return SimMemory(self.space, nbytes, f"allocation {self._allocations} ({nbytes} bytes)")

    def upload(self, tensor: DeviceTensor, values: Any) -> None:
        """Write an array into a tensor, rounded to nearest even where the tensor is bf16 or fp16."""
        self.space.write(tensor.pointer, encode(values, tensor.dtype, tensor.shape))

    def download(self, tensor: DeviceTensor) -> Array:
        """A copy of a tensor, bf16 and fp16 as f32."""
        stored = self.space.read(tensor.pointer, tensor.nbytes)
        return decode(stored.view(NUMPY[tensor.dtype]).reshape(tensor.shape), tensor.dtype)

    def synchronize(self) -> None:
        """No-op: no launch runs asynchronously."""

    # --- recording ---------------------------------------------------------------------------------------------

    @property
    def host(self) -> Host:
        return Host(self.sms, None, self._zeros, chip=chip_of(self.arch))

    def _zeros(self, nbytes: int) -> DeviceTensor:
        """Scratch of a nested launch; kept as long as the device."""
        self._scratch.append(self.tensor(self.allocate(nbytes), 0, (nbytes,), "u8"))
        return self._scratch[-1]

    # --- running -----------------------------------------------------------------------------------------------

    def run(self, commands: Sequence[LaunchRecord | HostRecord]) -> None:
        """Simulate launches, one after the other, and work of the host between them."""
        self.prepare(commands)
        with blas.one_thread():  # tensor cores' products are NumPy's
            for record in commands:
                if isinstance(record, HostRecord):
                    record.run(self)
                    continue
                report = self._run(record)
                if self.on_report is not None:
                    self.on_report(record, report)

    def prepare(self, commands: Sequence[LaunchRecord | HostRecord]) -> None:
        """Compile and read new kernels. Raises BuildError."""
        launched = dict.fromkeys(c.kernel for c in commands if isinstance(c, LaunchRecord))
        kernels = {k: _file_of(k) for k in launched if k not in self._simulators}
        files = {file: kernel for kernel, file in kernels.items() if file not in self._by_file}
        compilations = compile_all((k, self.target) for k in files.values())
        for (file, kernel), compiled in zip(files.items(), compilations, strict=True):
            if compiled not in self._by_ptx:
                self._by_ptx[compiled] = Simulator(compiled.ptx, self.space, self.limit, _sources(kernel))
            self._by_file[file] = self._by_ptx[compiled]
        for kernel, file in kernels.items():
            program = self._by_file[file]
            if kernel.name not in program.kernels:
                raise missing(kernel, program.kernels)
            self._simulators[kernel] = program

    def _run(self, record: LaunchRecord) -> Report:
        simulator = self._simulators[record.kernel]
        arguments = [_encoded(argument) for argument in record.args]
        try:
            sizes = (record.grid, record.block, arguments, record.smem, record.cluster)
            return simulator.launch(
                record.kernel.name, *sizes, strict=self.strict, count=self.count, executor=self.executor,
                tape=self.tape, reach=self.on_report is not None, seeds=self.seeds, screens=self.screens,
            )  # fmt: skip
        except KernelError as error:
            raise error.within(record.where) from None


def _file_of(kernel: Kernel) -> Hashable:
    """The same for kernels that are compiled together."""
    text = read_source(kernel.source) if kernel.text is None else kernel.text
    return kernel.source, kernel.defines, text


def _sources(kernel: Kernel) -> Sources:
    texts = {} if kernel.text is None else {kernel.source.name: kernel.text}
    return Sources(texts, dict(kernel.defines))


def _encoded(argument: Any) -> bytes:
    """An argument's bytes; a tensor map has the simulator's own form."""
    return tensormap.bytes_of(argument) if isinstance(argument, TensorMap) else bytes_of(argument)
