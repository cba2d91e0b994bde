"""The records that `launch` makes for kernels, on a GPU and in the simulator alike.

Nothing is compiled or run here. A launcher is called once, with tensors whose addresses are fixed; every
`launch(...)` becomes a LaunchRecord.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.device.nested import Pick
from core.dtypes import C_TYPES, NARROW
from core.errors import BuildError
from core.kernels.arguments import Argument, as_arguments, check_signature, signatures, source_text
from core.kernels.chips import MAX_BLOCK, MAX_GRID, MAX_THREADS, MOST_SHARED, PORTABLE_CLUSTER, Chip
from core.kernels.nvrtc import Kernel
from core.kernels.sources import shown
from core.kernels.tensors import DeviceTensor, TensorMap, tensor_map
from core.op import GpuLaunch, Launch, Tensors, Variant

if TYPE_CHECKING:
    from core.device.protocol import Device


@dataclass(frozen=True)
class LaunchRecord:
    """One kernel launch with fixed addresses. grid counts thread blocks, block threads, smem bytes of dynamic shared
    memory; cluster thread blocks along x. node, method, line: its caller, for errors."""

    kernel: Kernel
    args: tuple[Argument, ...]
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    smem: int = 0
    cluster: int = 1
    node: str = ""
    method: str = ""
    line: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors among the arguments."""
        tensors = (a.tensor if isinstance(a, TensorMap) else a for a in self.args)
        return sum(a.nbytes for a in tensors if isinstance(a, DeviceTensor))

    @property
    def where(self) -> str:
        of = f"node {self.node}, " if self.node else ""
        return f"{of}{self.kernel.origin} {self.method}, kernel {self.kernel.name} ({self.line})"


@dataclass(frozen=True)
class CallRecord:
    """A library's work in place of a launch.

    `prepare(*addresses)` is called once, before the list first runs, and gives `start(stream)`, which puts the work on
    that stream: at each replay, or once while a graph is captured. So start may neither allocate nor wait; both raise
    CoreError. args: the tensors whose addresses prepare gets, 0 for None. watch: called with the seconds that the host
    waits for the device, where the work needs other processes; it raises CoreError where they will not arrive.
    """

    prepare: Callable[..., Callable[[int], None]]
    args: tuple[DeviceTensor | None, ...]
    origin: str
    node: str = ""
    method: str = ""
    line: str = ""
    watch: Callable[[float], None] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors among the arguments."""
        return sum(a.nbytes for a in self.args if a is not None)

    @property
    def where(self) -> str:
        of = f"node {self.node}, " if self.node else ""
        return f"{of}{self.origin} {self.method}, a library's call ({self.line})"


@dataclass(frozen=True)
class HostRecord:
    """Work of the host between launches, which a device runs itself, in order: no graph can hold it.

    `work(*arrays)` gets copies of `reads` as arrays, bf16 and fp16 as f32, and gives the contents of `writes`.
    """

    work: Callable[..., Sequence[Any]]
    reads: tuple[DeviceTensor, ...]
    writes: tuple[DeviceTensor, ...]
    origin: str
    node: str = ""
    method: str = ""
    line: str = ""

    @property
    def args(self) -> tuple[DeviceTensor, ...]:
        """The tensors that it reads, then those that it writes."""
        return (*self.reads, *self.writes)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors among the arguments."""
        return sum(a.nbytes for a in self.args)

    @property
    def where(self) -> str:
        of = f"node {self.node}, " if self.node else ""
        return f"{of}{self.origin} {self.method}, work of the host ({self.line})"

    def run(self, device: Device) -> None:
        """Download, work, upload. `device` waits for earlier launches, and launches nothing meanwhile."""
        results = self.work(*(device.download(tensor) for tensor in self.reads))
        for tensor, values in zip(self.writes, results, strict=True):
            device.upload(tensor, values)


Recorded = LaunchRecord | CallRecord | HostRecord


@dataclass
class Host:
    """The facts of a device that recording needs: multiprocessors, the chip's limits (None: any chip's), how many
    thread blocks
    stay resident, zeroed memory."""

    sms: int = 1
    resident: Callable[[Kernel, int, int], int] | None = None  # (kernel, threads, smem) -> thread blocks in all
    zeros: Callable[[int], DeviceTensor] | None = None  # bytes -> a u8 tensor of zeros, not shared
    scratch: Scratch | None = None  # of nested launches; `zeros` where it is None
    chip: Chip | None = None


@dataclass
class KernelRecorder(GpuLaunch):
    """The recorder of a kernel's launcher. Nothing is compiled or run while recording."""

    variant: Variant
    method: str
    node: str
    dtype: str
    host: Host
    pick: Pick | None
    workspace: DeviceTensor | None = None
    counters: DeviceTensor | None = None
    records: list[Recorded] = field(default_factory=list)

    def __call__(
        self,
        kernel: str,
        *args: Any,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        smem: int = 0,
        cluster: int = 1,
        define: Mapping[str, str | int] | None = None,
    ) -> None:
        """Launch the `extern "C"` kernel of that name from the variant's source.

        args: tensors, `i32(n)`, `u64(n)`, `f32(x)`, tensor maps, or None for a null pointer, in the kernel's order.
        grid in thread blocks, block in threads, up to three sizes each. smem: bytes of dynamic shared memory, which
        the chip counts together with the kernel's static ones. cluster: thread blocks along x. define: macros of this
        instance. Raises BuildError for a launch that could not run.
        """
        line = _caller()
        where = f"{self.origin} {self.method} ({line}): launch({kernel!r}"
        compiled = replace(self.kernel(kernel, define), line=line)
        settled = as_arguments(compiled, args, where)
        check_signature(compiled, settled, where, self.dtype)
        record = LaunchRecord(
            compiled,
            settled,
            _sizes(grid, "grid", where),
            _sizes(block, "block", where),
            int(smem),
            int(cluster),
            self.node,
            self.method,
            line,
        )
        _check_sizes(record, where, self.host.chip)
        self.records.append(record)

    def call(
        self,
        prepare: Callable[..., Callable[[int], None]],
        *tensors: Any,
        watch: Callable[[float], None] | None = None,
    ) -> None:
        """Record a call of a library; `prepare` and `watch` as in CallRecord. A variant that calls one declares it as
        `library`.

        Raises BuildError for an argument that is neither a tensor nor None.
        """
        line = _caller()
        where = f"{self.origin} {self.method} ({line}): launch.call({getattr(prepare, '__name__', prepare)}"
        if not self.variant.library:
            raise BuildError(f"{where}, ...): {self.origin} declares no `library`, so it may only launch kernels")
        _check_tensors(tensors, where, " or None")
        self.records.append(CallRecord(prepare, tensors, self.origin, self.node, self.method, line, watch))

    def on_host(self, work: Callable[..., Sequence[Any]], reads: Sequence[Any], writes: Sequence[Any]) -> None:
        """Record work of the host; `work` as in HostRecord. BuildError for an argument that is no tensor."""
        line = _caller()
        _check_tensors([*reads, *writes], f"{self.origin} {self.method} ({line}): launch.on_host(")
        self.records.append(HostRecord(work, tuple(reads), tuple(writes), self.origin, self.node, self.method, line))

    @property
    def origin(self) -> str:
        return f"{self.variant.op}.{self.variant.name}"

    @property
    def sms(self) -> int:
        """Multiprocessors of the device."""
        return self.host.sms

    def kernel(self, name: str, define: Mapping[str, str | int] | None = None) -> Kernel:
        """The kernel of that name, under this node's element type."""
        defines = {"ELEM": C_TYPES[self.dtype], **(define or {})}
        files = sources_of(self.variant, self.method)
        source = next((path for path in files if name in signatures(source_text(path))), files[0])
        return Kernel(source, name, tuple(sorted(defines.items())), self.origin)

    def resident(self, kernel: str, *, block: int, smem: int = 0, define: Mapping[str, str | int] | None = None) -> int:
        """The number of thread blocks that run at once: a thread block may wait for another only in a grid of that
        size."""
        if self.host.resident is None:
            return self.sms
        return self.host.resident(replace(self.kernel(kernel, define), line=_caller()), block, smem)

    tmap = staticmethod(tensor_map)

    def op(self, name: str, method: str = "forward", /, **values: Any) -> None:
        """Launch another op's chosen variant; the values are those of core.device.nested.Nested."""
        self.records += nested(name, method, values, self.pick, self.host)


def nested(name: str, method: str, values: Mapping[str, Any], pick: Pick | None, host: Host) -> list[Recorded]:
    """The launches of `launch.op(name, method, **values)`."""
    if pick is None:
        raise BuildError(f'launch.op("{name}"): no registry to choose a variant from')
    variant, t = pick(name, method, values)
    taken = host.scratch.taken if host.scratch is not None else 0
    records = record(variant, method, t, pick, host=host)
    if host.scratch is not None:
        host.scratch.taken = taken  # it is recorded: the next one may have its workspace
    return records


class UpdateRecorder(Launch):
    """The recorder of an optimizer's step: ops only."""

    def __init__(self, pick: Pick | None, host: Host) -> None:
        self.records: list[Recorded] = []
        self._pick = pick
        self._host = host

    @property
    def sms(self) -> int:
        return self._host.sms

    def op(self, name: str, method: str = "forward", /, **values: Any) -> None:
        self.records += nested(name, method, values, self._pick, self._host)


class Scratch:
    """Workspaces of ops that run one after another: an op gets the memory that the ones before it are done with.

    taken: how many are in use by the op that is being recorded, and the ops that it is part of.
    """

    def __init__(self, zeros: Callable[[int], DeviceTensor]) -> None:
        self._zeros, self._held, self.taken = zeros, list[DeviceTensor](), 0

    def __call__(self, nbytes: int) -> DeviceTensor:
        """A workspace apart from those that are in use."""
        if self.taken == len(self._held):
            self._held.append(self._zeros(nbytes))
        elif self._held[self.taken].nbytes < nbytes:
            self._held[self.taken] = self._zeros(nbytes)
        self.taken += 1
        return self._held[self.taken - 1].part(0, (nbytes,))


def record(
    variant: Variant,
    method: str,
    t: Tensors,
    pick: Pick | None = None,
    workspace: DeviceTensor | None = None,
    counters: DeviceTensor | None = None,
    sms: int = 1,
    *,
    host: Host | None = None,
) -> list[Recorded]:
    """The launches of one launcher: `method` is "forward", "backward" or "forward_backward".

    workspace and counters: the variant's scratch and its u32 zeros; without them, the host's memory.
    """
    host = host or Host(sms)
    if host.zeros is not None:
        if workspace is None and (nbytes := variant.workspace(t)):
            workspace = (host.scratch or host.zeros)(nbytes)
        if counters is None and (count := variant.counters(t)):
            counters = host.zeros(4 * count).part(0, (count,), "u32")
    node = str(vars(t).get("node", ""))
    launch = KernelRecorder(variant, method, node, element_type(t), host, pick, workspace, counters)
    getattr(variant, method)(t, launch)
    return launch.records


def element_type(t: Tensors) -> str:
    """The type `elem` for these tensors: bf16 or fp16 where one of them is."""
    dtypes = (v.dtype for v in vars(t).values() if isinstance(v, DeviceTensor))
    return next((dtype for dtype in dtypes if dtype in NARROW), "f32")


def sources_of(variant: Variant, method: str) -> tuple[Path, ...]:
    """The .cu files of a launcher: the first that has a kernel is its source."""
    if method in variant.sources:
        return tuple(variant.sources[method])
    names = (variant.source,) if isinstance(variant.source, str) else variant.source
    folder = Path(inspect.getfile(type(variant))).parent
    return tuple(folder / (name or f"{variant.op}.cu") for name in names)


def source_of(variant: Variant, method: str) -> Path:
    """The first of them."""
    return sources_of(variant, method)[0]


def _caller() -> str:
    """file:line of the launcher that called `launch`."""
    frame = sys._getframe(2)
    return f"{shown(Path(frame.f_code.co_filename))}:{frame.f_lineno}"


def _check_tensors(tensors: Sequence[Any], where: str, or_none: str = "") -> None:
    """or_none: " or None" for an argument that may be absent."""
    for index, tensor in enumerate(tensors):
        if not (isinstance(tensor, DeviceTensor) or (or_none and tensor is None)):
            raise BuildError(f"{where}, ...): argument {index + 1} is {tensor!r}; expected a tensor{or_none}")


def _sizes(extent: int | Sequence[int], name: str, where: str) -> tuple[int, int, int]:
    sizes = tuple(extent) if isinstance(extent, Sequence) else (extent,)
    if not 1 <= len(sizes) <= 3 or any(not isinstance(n, int | np.integer) or n < 1 for n in sizes):
        raise BuildError(f"{where}, {name}={extent}): expected one to three sizes, each at least 1")
    x, y, z = (*(int(n) for n in sizes), 1, 1)[:3]
    return x, y, z


def _check_sizes(record: LaunchRecord, where: str, chip: Chip | None) -> None:
    """Refuse a launch that no chip, or not this one, can make. Static shared memory is not known before compiling."""
    threads = math.prod(record.block)
    if threads > MAX_THREADS or any(n > limit for n, limit in zip(record.block, MAX_BLOCK, strict=True)):
        raise BuildError(
            f"{where}, block={record.block}): {threads} threads; a thread block has at most {MAX_THREADS}, and at most "
            f"{MAX_BLOCK} along x, y and z"
        )
    if any(n > limit for n, limit in zip(record.grid, MAX_GRID, strict=True)):
        raise BuildError(f"{where}, grid={record.grid}): the largest grid is {MAX_GRID}")
    of = f" on {chip.arch}" if chip is not None else ""
    if chip is not None and not chip.hopper:
        newer = f"need sm_90 or newer, and this is {chip.arch}"
        if record.cluster > 1:
            raise BuildError(f"{where}, cluster={record.cluster}): clusters {newer}")
        if any(isinstance(a, TensorMap) for a in record.args):
            raise BuildError(f"{where}, ...): a tensor map: they {newer}")
    largest = MOST_SHARED if chip is None else chip.shared
    if not 0 <= record.smem <= largest:
        raise BuildError(
            f"{where}, smem={record.smem}): a thread block has at most {largest} bytes of shared memory{of}"
        )
    if not 1 <= record.cluster <= PORTABLE_CLUSTER or record.grid[0] % record.cluster:
        raise BuildError(
            f"{where}, cluster={record.cluster}): expected 1 to {PORTABLE_CLUSTER}, and a grid that it divides; "
            f"the grid is {record.grid[0]} thread blocks wide"
        )
