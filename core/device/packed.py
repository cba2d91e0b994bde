"""Recorded launches as calls of the CUDA driver: function, configuration and parameters, packed once."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import numpy as np

from core.device.driver import MAP_ALIGNMENT, Driver, encode_map
from core.device.launch import CallRecord, HostRecord, LaunchRecord, Recorded
from core.device.loaded import LoadedKernels
from core.errors import BuildError, CoreError
from core.kernels.arguments import bytes_of, starts_dependent
from core.kernels.tensors import TensorMap


class CudaLaunch:
    """A recorded launch, ready to be replayed: function, configuration and packed parameters; or a library's call.

    start: launches and gives the driver's status; a library raises. early: the same, of a kernel that may start before
    the kernel in front of it has ended; None for all others.
    """

    def __init__(self, record: Recorded) -> None:
        self.record = record
        self.start: Callable[[], int] | None = None
        self.early: Callable[[], int] | None = None
        self.kept: Any = None  # the memory of the packed parameters


class Captured(list[CudaLaunch]):
    """Commands that are replayed as one CUDA graph, made when they first run and freed with this list."""

    graph: Any = None


class Split(list[CudaLaunch]):
    """Commands that are replayed in parts: a graph of each run of launches, and work of the host between them."""

    def __init__(self, commands: Sequence[CudaLaunch]) -> None:
        super().__init__(commands)
        runs = groupby(commands, key=lambda command: isinstance(command.record, HostRecord))
        self.parts = [list(run) if on_host else Captured(run) for on_host, run in runs]


def in_graphs(commands: Sequence[CudaLaunch]) -> Captured | Split:
    """Commands in the form that replays fastest: one graph, or several around work of the host."""
    split = any(isinstance(command.record, HostRecord) for command in commands)
    return Split(commands) if split else Captured(commands)


def launch_in_order(commands: Sequence[CudaLaunch]) -> Iterator[tuple[CudaLaunch, int]]:
    """Start prepared commands one after the other: (command, the driver's status). A kernel starts early only if the
    command in front of it in the list is a kernel: after a library's call, work of the host or another list it starts
    in full order (docs/launch.md)."""
    after_kernel = False
    for command in commands:
        start = command.early if after_kernel and command.early else command.start
        yield command, start()  # type: ignore[misc]
        after_kernel = isinstance(command.record, LaunchRecord)


class LaunchPacker:
    """Makes recorded launches ready for one stream of a GPU. dependent_launch: kernels that begin with
    `dependent_start()` may start early."""

    def __init__(self, driver: Driver, stream: Any, kernels: LoadedKernels) -> None:
        self.driver, self.stream, self.kernels = driver, stream, kernels
        self.dependent_launch = False

    def ready_call(self, command: CudaLaunch, record: CallRecord) -> None:
        """Prepare a library's work. Raises its CoreError with the launcher that called it."""
        stream = int(self.stream)
        with with_caller(record):
            work = record.prepare(*(0 if tensor is None else tensor.pointer for tensor in record.args))

        def start() -> int:
            with with_caller(record):
                work(stream)
            return 0

        command.kept, command.start = record.args, start

    def ready_launch(self, command: CudaLaunch, record: LaunchRecord) -> None:
        """Pack the parameters and configuration of a launch. Raises BuildError for one that the chip cannot hold."""
        function = self.kernels.function(record.kernel, record.block, record.smem, record.cluster, record.where).handle
        parameters, alive = pack(list(self._encoded(record)))
        self._check_parameters(function, record)
        launch = self.driver.api.cuLaunchKernelEx

        def starter(early: bool) -> Callable[[], int]:
            config = self._config(record, early)
            return lambda: int(launch(config, function, parameters, 0)[0])

        command.kept = (alive, record.args)
        command.start = starter(early=False)
        if self.dependent_launch and self.kernels.chip.hopper and starts_dependent(record.kernel):
            command.early = starter(early=True)

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
            except RuntimeError:  # the binding's, where the function is missing: drivers before CUDA 12.4 lack it
                return
            if int(status):
                break
            theirs.append(int(layout[1]))
        if ours != theirs:
            raise BuildError(
                f"{record.where}: arguments of {', '.join(map(str, ours)) or 'no'} bytes; the kernel takes "
                f"{', '.join(map(str, theirs[: len(ours) + 1])) or 'none'}"
            )

    def _config(self, record: LaunchRecord, early: bool) -> Any:
        api = self.driver.api
        config = api.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = record.grid
        config.blockDimX, config.blockDimY, config.blockDimZ = record.block
        config.sharedMemBytes = record.smem
        config.hStream = self.stream
        attributes = []
        if record.cluster > 1:
            attribute = api.CUlaunchAttribute()
            attribute.id = api.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
            size = attribute.value.clusterDim
            size.x, size.y, size.z = record.cluster, 1, 1
            attributes.append(attribute)
        if early:
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
    """(address of the array of parameter pointers, its owner) for arguments as laid out in memory.

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
