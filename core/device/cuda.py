"""The cuda device: memory, compiled kernels, and replay of recorded launches on one NVIDIA GPU.

A recorded launch becomes a call whose parameters are packed once; a step replays the calls on one stream, or, where
the list was handed to `captured`, one CUDA graph of them: the same launches, without the host's time for each. Nothing
waits but `download`. An error that kills the context names the launches that may have caused it.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from core import variables
from core.device.driver import OUT_OF_MEMORY, Driver, StickyError
from core.device.launch import CallRecord, Host, HostRecord, LaunchRecord, Recorded
from core.device.loaded import LoadedKernels
from core.device.packed import Captured, CudaLaunch, LaunchPacker, Split, in_graphs, launch_in_order
from core.device.planned import PlannedDevice, unbacked
from core.device.recording import KernelDevice
from core.device.side_stream import SideStream
from core.device.staging import Staging
from core.device.watched_wait import WatchedWait
from core.dtypes import NUMPY
from core.errors import DeviceError, OutOfMemory
from core.kernels.c_text import c_string
from core.kernels.chips import PORTABLE_CLUSTER, Chip, architecture, runs_on
from core.kernels.nvrtc import Kernel
from core.kernels.nvrtc_library import supported
from core.kernels.tensors import DeviceTensor, decode, encode
from core.op import Variant
from core.words import human

Array = np.ndarray[Any, Any]

LOGGED = 64  # replayed lists that an error can still name
PROGRAMMATIC_EDGES = 12_030  # CUDA's release notes: from 12.3 on, stream capture makes edges of dependent launches
SYNC = "CORELM_SYNC"  # environment: wait after every launch, so that an error names the one that failed


class CudaMemory:
    """An allocation; its memory is freed with the last tensor in it."""

    def __init__(self, device: CudaDevice, nbytes: int) -> None:
        self.nbytes = nbytes
        self.pointer = device._allocate(nbytes) if nbytes else 0
        if nbytes:
            weakref.finalize(self, device._free, self.pointer).atexit = False  # at exit the driver frees all


class CudaDevice(KernelDevice):
    """Memory, primitives and replay of one GPU. `ordinal` counts the GPUs that the process can see, from 0; where it
    sees one alone, that one."""

    name = "cuda"
    real_time = True

    def __init__(self, ordinal: int = 0) -> None:
        self.driver = Driver()
        call = self.driver.call
        count = int(call("cuDeviceGetCount"))
        ordinal = 0 if count == 1 else ordinal
        if ordinal >= count:
            raise DeviceError(
                f"there is no GPU {ordinal}: the driver shows {count or 'none'}",
                hint="CUDA_VISIBLE_DEVICES and `nvidia-smi` list them; --device cpu works",
            )
        self._device = call("cuDeviceGet", ordinal)
        self.model = c_string(call("cuDeviceGetName", 256, self._device))
        major, minor = self._attribute("COMPUTE_CAPABILITY_MAJOR"), self._attribute("COMPUTE_CAPABILITY_MINOR")
        self.capability = (major, minor)
        self.arch = architecture(major, minor)
        self._check_architecture()
        self.sms = self._attribute("MULTIPROCESSOR_COUNT")
        self.chip = self._limits(major, minor)
        shared = self._attribute("MAX_SHARED_MEMORY_PER_BLOCK")
        call("cuCtxSetCurrent", call("cuDevicePrimaryCtxRetain", self._device))
        self._stream = call("cuStreamCreate", int(self.driver.api.CUstream_flags.CU_STREAM_NON_BLOCKING))
        self._staging = Staging(self.driver, self._stream)
        self._watched = WatchedWait(self.driver, self._stream)
        self._side = SideStream(self.driver)
        self.kernels = LoadedKernels(self.driver, self.arch, self.model, self.chip, shared)
        self._packer = LaunchPacker(self.driver, self._stream, self.kernels)
        self._log: deque[Sequence[CudaLaunch]] = deque(maxlen=LOGGED)  # replayed since the last wait
        self._waits = variables.flag(SYNC)
        self._scratch: list[DeviceTensor] = []

    def _attribute(self, name: str) -> int:
        kind = getattr(self.driver.api.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(self.driver.call("cuDeviceGetAttribute", kind, self._device))

    def _limits(self, major: int, minor: int) -> Chip:
        """The chip as its driver describes it: one that is in no table yet has limits too."""
        names = ("MULTIPROCESSOR", "BLOCK_OPTIN")
        sm_shared, shared = (self._attribute(f"MAX_SHARED_MEMORY_PER_{name}") for name in names)
        threads, blocks = (
            self._attribute("MAX_THREADS_PER_MULTIPROCESSOR"),
            self._attribute("MAX_BLOCKS_PER_MULTIPROCESSOR"),
        )
        cluster = PORTABLE_CLUSTER if self._attribute("CLUSTER_LAUNCH") else 1
        return Chip(10 * major + minor, self.model, sm_shared, shared, threads, blocks, cluster)

    def _check_architecture(self) -> None:
        architectures = supported()
        if self.arch.rstrip("a") in architectures:
            return
        major, minor = self.capability
        chip = f"{self.model} has compute capability {major}.{minor}"
        if major < 7 or (major, minor) < (7, 5):
            raise DeviceError(f"{chip}; kernels need 7.5 or newer", hint="--device cpu works")
        raise DeviceError(
            f"{chip}, which the compiler here does not know: it knows {', '.join(architectures)}",
            hint="pip install -U nvidia-cuda-nvrtc; --device cpu works",
        )

    @property
    def precisions(self) -> tuple[str, ...]:
        return self.chip.precisions

    def unbacked(self) -> PlannedDevice:
        """A device like this one without memory, for plans."""
        return unbacked(self)

    def describe(self) -> str:
        _, total = self.driver.memory()
        version = int(self.driver.call("cuDriverGetVersion"))
        driver = f"driver for CUDA {version // 1000}.{version % 1000 // 10}"
        return f"{self.model}, {self.arch}, {self.sms} multiprocessors, {human(total)}, {driver}"

    def can_run(self, variant: Variant) -> str | None:
        """Why a variant's kernels cannot run on this GPU; None when they can."""
        if runs_on(variant.arch, self.arch):
            return None
        return f"it needs {variant.arch}, and this GPU is {self.arch}"

    # --- memory ------------------------------------------------------------------------------------------------

    def allocate(self, nbytes: int) -> CudaMemory:
        """Zeroed memory. Raises DeviceError with the free bytes when there are too few."""
        return CudaMemory(self, nbytes)

    def _allocate(self, nbytes: int) -> int:
        driver = self.driver
        if driver.dead is not None:
            raise driver.dead
        status, pointer = driver.api.cuMemAlloc(nbytes)
        if int(status) == OUT_OF_MEMORY:
            free, total = driver.memory()
            raise OutOfMemory(
                f"out of memory on {self.model}: {human(nbytes)} requested, {human(free)} free of {human(total)}",
                hint="another process may hold the rest (`nvidia-smi`); a smaller B or [train] recompute needs less",
            )
        if int(status):
            raise driver.error(int(status), f"allocating {nbytes} bytes")
        driver.call("cuMemsetD8Async", pointer, 0, nbytes, self._stream)
        return int(pointer)

    def _free(self, pointer: int) -> None:
        if self.driver.dead is None:
            self.driver.api.cuMemFree(pointer)  # waits for running launches

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes."""
        return self.driver.memory()

    def upload(self, tensor: DeviceTensor, values: Any) -> None:
        """Write an array into a tensor, rounded to nearest even where the tensor is bf16 or fp16. Does not wait."""
        self._staging.upload(tensor.pointer, encode(values, tensor.dtype, tensor.shape).reshape(-1).view(np.uint8))

    def download(self, tensor: DeviceTensor) -> Array:
        """A copy of a tensor, bf16 and fp16 as f32. Waits for all that was launched."""
        stored = np.empty(tensor.shape, NUMPY[tensor.dtype])
        if stored.nbytes:
            self._wait_watched()
            self._wait("cuMemcpyDtoHAsync", stored.ctypes.data, tensor.pointer, stored.nbytes, self._stream)
        self.synchronize()
        return decode(stored, tensor.dtype)

    def synchronize(self) -> None:
        """Wait for all launches. Raises DeviceError for an error of one of them."""
        self._wait_watched()
        self._wait("cuStreamSynchronize", self._stream)
        self._log.clear()

    def _wait_watched(self) -> None:
        """Wait for libraries whose work needs other processes, with their watches."""
        try:
            self._watched.wait()
        except StickyError as error:
            raise self._with_launches(error) from None

    def _wait(self, function: str, *args: Any) -> None:
        try:
            self.driver.call(function, *args)
        except StickyError as error:
            raise self._with_launches(error) from None

    def _with_launches(self, error: StickyError) -> DeviceError:
        """Attach candidate launches to a sticky CUDA error; computed once, then re-raised."""
        launches = [command.record for commands in self._log for command in commands]
        self._log.clear()
        if not launches:
            return error
        shown = list(dict.fromkeys(launch.where for launch in launches))
        listed = "\n".join(f"  {where}" for where in shown[:8])
        more = f"\n  and {len(shown) - 8} more" if len(shown) > 8 else ""
        hint = "no checkpoint was written from this state: `--resume` continues from the last one"
        if not self._waits and len(launches) > 1:
            hint = f"run again with {SYNC}=1, which names the launch; {hint}"
        sticky = StickyError(f"{error.message}, in one of these launches:\n{listed}{more}", error.status, hint=hint)
        if len(launches) == 1:
            sticky = StickyError(f"{error.message} in {launches[0].where}", error.status, hint=hint)
        self.driver.dead = sticky
        return sticky

    # --- recording ---------------------------------------------------------------------------------------------

    @property
    def host(self) -> Host:
        return Host(self.sms, self.resident, self._zeros, chip=self.chip)

    def _zeros(self, nbytes: int) -> DeviceTensor:
        """Scratch of a nested launch; kept as long as the device."""
        self._scratch.append(self.tensor(self.allocate(nbytes), 0, (nbytes,), "u8"))
        return self._scratch[-1]

    def resident(self, kernel: Kernel, threads: int, smem: int) -> int:
        """The number of thread blocks of a kernel that the whole GPU holds at once. Raises BuildError where none
        fits."""
        return self.kernels.resident(kernel, threads, smem, self.sms)

    def allow_dependent_launch(self) -> None:
        """Let kernels that begin with `dependent_start()` start before the kernel in front of them has ended, from
        compute capability 9.0 on; older chips start them in full order. Raises DeviceError for a driver that has no
        such edges in CUDA graphs."""
        version = int(self.driver.call("cuDriverGetVersion"))
        if version < PROGRAMMATIC_EDGES:
            raise DeviceError(
                f"[train] dependent_launch needs a driver for CUDA 12.3 or newer, and this one is for CUDA "
                f"{version // 1000}.{version % 1000 // 10}",
                hint="update the driver to 545 or newer, or leave dependent_launch out",
            )
        self._packer.dependent_launch = True

    def as_command(self, launch: Recorded) -> CudaLaunch:
        return CudaLaunch(launch)

    # --- replay ------------------------------------------------------------------------------------------------

    def captured(self, commands: Sequence[CudaLaunch]) -> Sequence[CudaLaunch]:
        """The commands, to be run as one CUDA graph from now on; as several where the host works in between."""
        return in_graphs(commands)

    def beside(self, parts: Sequence[Sequence[CudaLaunch]]) -> list[list[CudaLaunch]]:
        """For each part, commands that start its libraries' calls on a second stream, and last those that wait for all
        of them; nothing where a part launches kernels or has the host work."""
        records = [[command.record for command in part] for part in parts]
        calls = [[record for record in part if isinstance(record, CallRecord)] for part in records]
        if not calls or calls != records:
            return []
        started = [[CudaLaunch(self._side.start(part))] for part in calls]
        return [*started, [CudaLaunch(self._side.join(calls[-1][-1]))]]

    def run(self, commands: Sequence[CudaLaunch]) -> None:
        """Launch them in order; returns before they have run, unless CORELM_SYNC is set."""
        if self.driver.dead is not None:
            raise self.driver.dead
        if isinstance(commands, Split):
            for part in commands.parts:
                self.run(part)
            return
        if any(command.start is None for command in commands):
            self.prepare(commands)
            self._prepare_calls(commands)
        if self._waits:
            self._run_waiting(commands)
            return
        self._log.append(commands)
        if isinstance(commands, Captured) and commands:
            self._run_graph(commands)
        else:
            self._launch(commands)
        self._watched.mark()

    def _launch(self, commands: Sequence[CudaLaunch]) -> None:
        for command, status in launch_in_order(commands):
            if status:
                self._refused(command, status)

    def _run_graph(self, commands: Captured) -> None:
        if commands.graph is None:
            commands.graph = self._capture(commands)
            weakref.finalize(commands, self._destroy, commands.graph).atexit = False
        self._wait("cuGraphLaunch", commands.graph, self._stream)

    def _capture(self, commands: Sequence[CudaLaunch]) -> Any:
        """An executable graph of the commands, which must be prepared: nothing is loaded while a stream is captured."""
        call, api = self.driver.call, self.driver.api
        doing = "capturing a CUDA graph ([train] capture = false disables it)"
        call("cuStreamBeginCapture", self._stream, api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED, doing=doing)
        try:
            self._launch(commands)
        finally:
            status, graph = api.cuStreamEndCapture(self._stream)
        if int(status):
            raise self.driver.error(int(status), doing)
        executable = call("cuGraphInstantiate", graph, 0, doing=doing)
        call("cuGraphDestroy", graph)
        call("cuGraphUpload", executable, self._stream)
        return executable

    def _destroy(self, executable: Any) -> None:
        if self.driver.dead is None:
            self.driver.api.cuGraphExecDestroy(executable)

    def elapsed(self, groups: Sequence[Sequence[CudaLaunch]]) -> list[float]:
        """Run groups of commands in order; seconds of each, by events around it on the stream."""
        call = self.driver.call
        events = [call("cuEventCreate", 0) for _ in range(len(groups) + 1)]
        for commands in groups:
            self.prepare(commands)
        call("cuEventRecord", events[0], self._stream)
        for commands, event in zip(groups, events[1:], strict=True):
            self.run(commands)
            call("cuEventRecord", event, self._stream)
        self.synchronize()
        pairs = zip(events, events[1:], strict=False)
        seconds = [1e-3 * float(call("cuEventElapsedTime", before, after)) for before, after in pairs]
        for event in events:
            call("cuEventDestroy", event)
        return seconds

    def _run_waiting(self, commands: Sequence[CudaLaunch]) -> None:
        for command in commands:
            self._log.clear()
            self._log.append([command])
            if status := command.start():  # type: ignore[misc]
                self._refused(command, status)
            self._wait_watched()
            self._wait("cuStreamSynchronize", self._stream)

    def _refused(self, command: CudaLaunch, status: int) -> None:
        error = self.driver.error(status, f"the driver refuses to launch {command.record.where}")
        raise self._with_launches(error) if isinstance(error, StickyError) else error

    def prepare(self, commands: Sequence[CudaLaunch]) -> None:
        """Compile, load and pack new launches; compilations run at once. Libraries are called when the commands
        first run, since a call may wait for other ranks. Raises BuildError."""
        todo = [command for command in commands if command.start is None]
        kernels = list(dict.fromkeys(c.record.kernel for c in todo if isinstance(c.record, LaunchRecord)))
        self.kernels.compile(self.kernels.missing(kernels))
        for command in todo:
            if isinstance(command.record, LaunchRecord):
                self._packer.ready_launch(command, command.record)

    def _prepare_calls(self, commands: Sequence[CudaLaunch]) -> None:
        """Make the other commands ready: a library's calls, and work of the host."""
        for command in commands:
            if command.start is None and isinstance(command.record, CallRecord):
                self._packer.ready_call(command, command.record)
                self._watched.add(command.record.watch)
            elif command.start is None and isinstance(command.record, HostRecord):
                command.start = partial(self._run_host, command.record)

    def _run_host(self, record: HostRecord) -> int:
        record.run(self)
        return 0
