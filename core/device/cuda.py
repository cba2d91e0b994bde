"""The cuda device: memory, compiled kernels, and replay of recorded launches on one NVIDIA GPU.

A recorded launch becomes a call whose parameters are packed once; a step replays the calls on one stream, or, where
the list was handed to `captured`, one CUDA graph of them: the same launches, without the host's time for each. Nothing
waits but `download`. An error that kills the context names the launches that it may have come from.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from core import variables
from core.device.driver import MAP_ALIGNMENT, OUT_OF_MEMORY, Driver, StickyError, encode_map
from core.device.launch import CallRecord, Host, LaunchRecord, Recorded
from core.device.planned import PlannedDevice, unbacked
from core.device.recording import KernelDevice
from core.device.staging import Staging
from core.dtypes import NUMPY
from core.errors import BuildError, CoreError, DeviceError, OutOfMemory
from core.kernels.arguments import bytes_of
from core.kernels.chips import FITTING, PORTABLE_CLUSTER, Chip, architecture, launch_problems, runs_on
from core.kernels.nvrtc import Kernel, compile_all, supported
from core.kernels.tensors import DeviceTensor, TensorMap, decode, encode
from core.op import Variant

Array = np.ndarray[Any, Any]

LOGGED = 64  # replayed lists that an error can still name
SYNC = "CORELM_SYNC"  # environment: wait after every launch, so that an error names the one that failed


class CudaMemory:
    """An allocation; its memory goes back when the last tensor in it is gone."""

    def __init__(self, device: CudaDevice, nbytes: int) -> None:
        self.nbytes = nbytes
        self.pointer = device._allocate(nbytes) if nbytes else 0
        if nbytes:
            weakref.finalize(self, device._free, self.pointer).atexit = False  # at exit the driver frees all


class CudaLaunch:
    """A recorded launch, ready to be replayed: function, configuration and packed parameters; or a library's call."""

    def __init__(self, record: Recorded) -> None:
        self.record = record
        self.start: Callable[[], int] | None = None  # launches and gives the driver's status; a library raises
        self.kept: Any = None  # the memory of the packed parameters


@dataclass
class Function:
    """A kernel that the driver has loaded. registers: of a thread; threads: the most of a thread block, by its
    __launch_bounds__; static: bytes of shared memory that it declares; dynamic: the most bytes that a launch may have
    besides. The driver's default is the remainder of the default of a thread block (its reference of
    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES), and more has to be asked for."""

    handle: Any
    registers: int
    threads: int
    static: int
    dynamic: int

    def problems(self, chip: Chip, block: Sequence[int], smem: int, cluster: int = 1) -> list[str]:
        """Why the driver would refuse a launch, in words."""
        threads = math.prod(block)
        bounds = f"has {threads} threads a thread block; its __launch_bounds__ allow {self.threads}"
        beyond_limits = launch_problems(chip, self.registers, self.static, block, smem, cluster)
        return beyond_limits + ([bounds] if threads > self.threads else [])


class Captured(list[CudaLaunch]):
    """Commands that are replayed as one CUDA graph, made when they first run and freed with this list."""

    graph: Any = None


class CudaDevice(KernelDevice):
    """Memory, primitives and replay of one GPU. `ordinal` counts the GPUs that the process can see."""

    name = "cuda"
    real_time = True

    def __init__(self, ordinal: int = 0) -> None:
        self.driver = Driver()
        call = self.driver.call
        count = int(call("cuDeviceGetCount"))
        if ordinal >= count:
            raise DeviceError(
                f"there is no GPU {ordinal}: the driver shows {count or 'none'}",
                hint="CUDA_VISIBLE_DEVICES and `nvidia-smi` say which are there; --device cpu works",
            )
        self._device = call("cuDeviceGet", ordinal)
        self.model = _text(call("cuDeviceGetName", 256, self._device))
        major, minor = self._attribute("COMPUTE_CAPABILITY_MAJOR"), self._attribute("COMPUTE_CAPABILITY_MINOR")
        self.capability = (major, minor)
        self.arch = architecture(major, minor)
        self._check_architecture()
        self.sms = self._attribute("MULTIPROCESSOR_COUNT")
        self.chip = self._limits(major, minor)
        self._default_shared = self._attribute("MAX_SHARED_MEMORY_PER_BLOCK")
        call("cuCtxSetCurrent", call("cuDevicePrimaryCtxRetain", self._device))
        self._stream = call("cuStreamCreate", int(self.driver.api.CUstream_flags.CU_STREAM_NON_BLOCKING))
        self._staging = Staging(self.driver, self._stream)
        self._modules: dict[bytes, Any] = {}
        self._functions: dict[Kernel, Function] = {}
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
        known = supported()
        if self.arch.rstrip("a") in known:
            return
        major, minor = self.capability
        what = f"{self.model} has compute capability {major}.{minor}"
        if major < 7 or (major, minor) < (7, 5):
            raise DeviceError(f"{what}; kernels need 7.5 or newer", hint="--device cpu works")
        raise DeviceError(
            f"{what}, which the compiler here does not know: it knows {', '.join(known)}",
            hint="pip install -U nvidia-cuda-nvrtc; --device cpu works",
        )

    @property
    def precisions(self) -> tuple[str, ...]:
        return ("f32", "bf16") if self.chip.bf16 else ("f32",)

    def unbacked(self) -> PlannedDevice:
        """A device like this one without memory, for plans."""
        return unbacked(self)

    def describe(self) -> str:
        _, total = self.driver.memory()
        version = int(self.driver.call("cuDriverGetVersion"))
        driver = f"driver for CUDA {version // 1000}.{version % 1000 // 10}"
        return f"{self.model}, {self.arch}, {self.sms} multiprocessors, {total / 2**30:.0f} GiB, {driver}"

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
                f"out of memory on {self.model}: {nbytes / 2**30:.2f} GiB asked for, {free / 2**30:.2f} free of "
                f"{total / 2**30:.2f}",
                hint="another process may hold the rest (`nvidia-smi`); a smaller B or [train] recompute needs less",
            )
        if int(status):
            raise driver.error(int(status), f"allocating {nbytes} bytes")
        driver.call("cuMemsetD8Async", pointer, 0, nbytes, self._stream)
        return int(pointer)

    def _free(self, pointer: int) -> None:
        if self.driver.dead is None:
            self.driver.api.cuMemFree(pointer)  # waits for what still runs

    def tensor(self, memory: CudaMemory, offset: int, shape: Sequence[int], dtype: str) -> DeviceTensor:
        """A tensor in `memory`, `offset` bytes from its start."""
        return DeviceTensor(memory.pointer + offset, tuple(int(n) for n in shape), dtype, memory, offset)

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes."""
        return self.driver.memory()

    def upload(self, tensor: DeviceTensor, values: Any) -> None:
        """Write an array into a tensor, rounded to nearest even where the tensor is bf16. Does not wait."""
        self._staging.upload(tensor.pointer, encode(values, tensor.dtype, tensor.shape).reshape(-1).view(np.uint8))

    def download(self, tensor: DeviceTensor) -> Array:
        """A copy of a tensor, bf16 as f32. Waits for all that was launched."""
        stored = np.empty(tensor.shape, NUMPY[tensor.dtype])
        if stored.nbytes:
            self._wait("cuMemcpyDtoHAsync", stored.ctypes.data, tensor.pointer, stored.nbytes, self._stream)
        self.synchronize()
        return decode(stored, tensor.dtype)

    def synchronize(self) -> None:
        """Wait for all that was launched. Raises DeviceError for what went wrong meanwhile."""
        self._wait("cuStreamSynchronize", self._stream)
        self._log.clear()

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
        """How many thread blocks of a kernel the whole GPU holds at once. Raises BuildError where none fits."""
        function = self._function(kernel, (threads,), smem, 1, f"{kernel.where}, launch.resident ({kernel.line})")
        each = self.driver.call("cuOccupancyMaxActiveBlocksPerMultiprocessor", function.handle, threads, smem)
        if not int(each):
            raise BuildError(
                f"{kernel.where}, launch.resident ({kernel.line}): no thread block of {threads} threads, "
                f"{function.static:,} bytes of static and {smem:,} of dynamic shared memory fits on {self.arch}",
                hint=FITTING,
            )
        return int(each) * self.sms

    def as_command(self, launch: Recorded) -> CudaLaunch:
        return CudaLaunch(launch)

    # --- replay ------------------------------------------------------------------------------------------------

    def captured(self, commands: Sequence[CudaLaunch]) -> Sequence[CudaLaunch]:
        """The commands, to be run as one CUDA graph from now on."""
        return Captured(commands)

    def run(self, commands: Sequence[CudaLaunch]) -> None:
        """Launch them in order; returns before they have run, unless CORELM_SYNC is set."""
        if self.driver.dead is not None:
            raise self.driver.dead
        if any(command.start is None for command in commands):
            self.prepare(commands)
        if self._waits:
            return self._run_waiting(commands)
        self._log.append(commands)
        if isinstance(commands, Captured) and commands:
            return self._run_graph(commands)
        return self._launch(commands)

    def _launch(self, commands: Sequence[CudaLaunch]) -> None:
        for command in commands:
            status = command.start()  # type: ignore[misc]
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
        doing = "capturing a CUDA graph ([train] capture = false goes without)"
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
            self._wait("cuStreamSynchronize", self._stream)

    def _refused(self, command: CudaLaunch, status: int) -> None:
        error = self.driver.error(status, f"the driver refuses to launch {command.record.where}")
        raise self._with_launches(error) if isinstance(error, StickyError) else error

    def prepare(self, commands: Sequence[CudaLaunch]) -> None:
        """Compile, load and pack what was not yet; compilations run at once. Raises BuildError."""
        todo = [command for command in commands if command.start is None]
        kernels = list(dict.fromkeys(c.record.kernel for c in todo if isinstance(c.record, LaunchRecord)))
        self._compile([kernel for kernel in kernels if kernel not in self._functions])
        for command in todo:
            if isinstance(command.record, CallRecord):
                self._ready(command, command.record)
            else:
                self._pack(command, command.record)

    def _ready(self, command: CudaLaunch, record: CallRecord) -> None:
        stream = int(self._stream)
        with with_caller(record):
            work = record.prepare(*(0 if tensor is None else tensor.pointer for tensor in record.args))

        def start() -> int:
            with with_caller(record):
                work(stream)
            return 0

        command.kept, command.start = record.args, start

    def adopt(self, kernel: Kernel, code: bytes) -> None:
        """Take a kernel's code as it is, a cubin or PTX text that ends with a zero, instead of compiling its source."""
        self._functions[kernel] = self._load(kernel, code)

    def _compile(self, kernels: Sequence[Kernel]) -> None:
        """Compile kernels for this chip, all at once, and load them."""
        for kernel, compiled in zip(kernels, compile_all((k, self.arch) for k in kernels), strict=True):
            compiled.of(kernel)
            self._functions[kernel] = self._load(kernel, compiled.cubin)

    def _load(self, kernel: Kernel, code: bytes) -> Function:
        call, doing = self.driver.call, f"loading {kernel.where}"
        if code not in self._modules:
            self._modules[code] = call("cuModuleLoadData", code, doing=doing)
        handle = call("cuModuleGetFunction", self._modules[code], kernel.name.encode(), doing=doing)
        kinds, names = self.driver.api.CUfunction_attribute, ("NUM_REGS", "MAX_THREADS_PER_BLOCK", "SHARED_SIZE_BYTES")
        wanted = (getattr(kinds, f"CU_FUNC_ATTRIBUTE_{name}") for name in names)
        registers, threads, static = (int(call("cuFuncGetAttribute", kind, handle, doing=doing)) for kind in wanted)
        return Function(handle, registers, threads, static, max(self._default_shared - static, 0))

    def _function(self, kernel: Kernel, block: Sequence[int], smem: int, cluster: int, where: str) -> Function:
        """The function, allowed to use `smem` bytes of dynamic shared memory. Raises BuildError for a launch that the
        chip cannot hold."""
        if kernel not in self._functions:
            self._compile([kernel])
        function = self._functions[kernel]
        problems = function.problems(self.chip, block, smem, cluster)
        if problems:
            raise BuildError(f"{where} {'; '.join(problems)} on {self.model} ({self.arch})", hint=FITTING)
        if smem > function.dynamic:
            kind = self.driver.api.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            self.driver.call("cuFuncSetAttribute", function.handle, kind, smem, doing=f"{where}: {smem} bytes of smem")
            function.dynamic = smem
        return function

    def _pack(self, command: CudaLaunch, record: LaunchRecord) -> None:
        function = self._function(record.kernel, record.block, record.smem, record.cluster, record.where).handle
        parameters, kept = pack(list(self._encoded(record)))
        self._check_parameters(function, record)
        config = self._config(record)
        launch = self.driver.api.cuLaunchKernelEx
        command.kept = (kept, config, record.args)
        command.start = lambda: int(launch(config, function, parameters, 0)[0])

    def _encoded(self, record: LaunchRecord) -> Iterator[bytes]:
        for argument in record.args:
            yield encode_map(self.driver, argument) if isinstance(argument, TensorMap) else bytes_of(argument)

    def _check_parameters(self, function: Any, record: LaunchRecord) -> None:
        """The compiled kernel's own parameters: the driver would read past ours, or leave some out, without a word."""
        ours = [128 if isinstance(a, TensorMap) else len(bytes_of(a)) for a in record.args]
        theirs: list[int] = []
        while len(theirs) <= len(ours):
            try:
                status, *layout = self.driver.api.cuFuncGetParamInfo(function, len(theirs))
            except RuntimeError:  # the binding's, where the function is missing: drivers before CUDA 12.4 do not tell
                return
            if int(status):
                break
            theirs.append(int(layout[1]))
        if ours != theirs:
            raise BuildError(
                f"{record.where}: arguments of {', '.join(map(str, ours)) or 'no'} bytes; the kernel takes "
                f"{', '.join(map(str, theirs[: len(ours) + 1])) or 'none'}"
            )

    def _config(self, record: LaunchRecord) -> Any:
        api = self.driver.api
        config = api.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = record.grid
        config.blockDimX, config.blockDimY, config.blockDimZ = record.block
        config.sharedMemBytes = record.smem
        config.hStream = self._stream
        attributes = []
        if record.cluster > 1:
            attribute = api.CUlaunchAttribute()
            attribute.id = api.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
            size = attribute.value.clusterDim
            size.x, size.y, size.z = record.cluster, 1, 1
            attributes.append(attribute)
        if record.pdl and self.chip.hopper:
            attribute = api.CUlaunchAttribute()
            attribute.id = api.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
            attribute.value.programmaticStreamSerializationAllowed = 1
            attributes.append(attribute)
        config.attrs = attributes
        config.numAttrs = len(attributes)
        return config


@contextmanager
def with_caller(record: CallRecord) -> Iterator[None]:
    """A library's error with who called it."""
    try:
        yield
    except CoreError as error:
        raise type(error)(f"{record.where}: {error.message}", hint=error.hint) from None


def pack(arguments: Sequence[bytes]) -> tuple[int, Any]:
    """(address of the array of parameter pointers, what keeps it alive) for arguments as laid out in memory.

    Each starts on a multiple of its size, a tensor map on 128 bytes.
    """
    offsets, end = [], 0
    for raw in arguments:
        alignment = min(len(raw), MAP_ALIGNMENT)
        offsets.append(-(-end // alignment) * alignment)
        end = offsets[-1] + len(raw)
    buffer = np.zeros(end + MAP_ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % MAP_ALIGNMENT
    for offset, raw in zip(offsets, arguments, strict=True):
        buffer[start + offset : start + offset + len(raw)] = np.frombuffer(raw, np.uint8)
    base = buffer.ctypes.data + start
    pointers = (ctypes.c_void_p * max(len(arguments), 1))(*(base + offset for offset in offsets))
    return ctypes.addressof(pointers), (buffer, pointers)


def _text(raw: Any) -> str:
    return bytes(raw).split(b"\0")[0].decode(errors="replace")
