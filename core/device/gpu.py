"""What `launch` records for kernels, on a GPU and in the simulator alike: tensors, typed arguments, launches.

Nothing is compiled or run here. A launcher is called once, with tensors whose addresses are fixed; every
`launch(...)` becomes a LaunchRecord. Arguments are held against the kernel's own parameter list, as far as the
source shows it, so that a swapped pointer is an error in words and not a wrong gradient.
"""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from core.device.cpu import Pick
from core.device.nvrtc import Kernel, shown
from core.dtypes import NUMPY, itemsize
from core.errors import BuildError
from core.op import Tensors, Variant

Array = np.ndarray[Any, Any]
MAX_THREADS = 1024  # of a thread block
MAX_GRID = (2**31 - 1, 65535, 65535)
MAX_CLUSTER = 8  # that every Hopper runs
MAX_SHARED = {75: 64, 80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227, 110: 227, 120: 99, 121: 99}  # KiB
DEFAULT_SHARED = 48 * 1024  # bytes of dynamic shared memory that need no asking
CODES = {"f32": "float", "f64": "double", "bf16": "bf16", "i32": "int", "u32": "unsigned", "u8": "unsigned char"}


# --- tensors ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class DeviceTensor:
    """A tensor on a device: an address, a shape, an element type; what `t.x` is in a launcher of a kernel.

    base: the device's own handle of the memory in which it lies, `offset` bytes from its start. dtype is a name of
    core.dtypes. Contiguous, always. Launchers see its shape and never its contents.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: str
    base: Any = None
    offset: int = 0

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def itemsize(self) -> int:
        return itemsize(self.dtype)

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def part(self, start: int, shape: Sequence[int], dtype: str | None = None) -> DeviceTensor:
        """The tensor of `shape` that starts `start` elements of this one from its start, contiguous.

        With another dtype (workspace is u8), `start` still counts this tensor's elements.
        """
        kind = dtype or self.dtype
        skipped = start * self.itemsize
        sizes = tuple(int(n) for n in shape)
        if start < 0 or skipped + math.prod(sizes) * itemsize(kind) > self.nbytes:
            raise BuildError(f"a part of shape {sizes} ({kind}) from {start} does not lie in {self}")
        return DeviceTensor(self.pointer + skipped, sizes, kind, self.base, self.offset + skipped)

    def __getitem__(self, index: slice) -> DeviceTensor:
        """Leading rows [a:b], as of an array."""
        if not isinstance(index, slice) or index.step not in (None, 1):
            raise BuildError(f"{self} is on a device: only leading rows [a:b] can be taken, not [{index}]")
        start, stop, _ = index.indices(self.shape[0])
        row = math.prod(self.shape[1:])
        return self.part(start * row, (max(stop - start, 0), *self.shape[1:]))

    def reshape(self, *shape: Any) -> DeviceTensor:
        """The same elements under another shape; one size may be -1."""
        sizes = [int(n) for n in (shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)]
        if -1 in sizes:
            rest = math.prod(n for n in sizes if n != -1)
            sizes[sizes.index(-1)] = self.size // max(rest, 1)
        if math.prod(sizes) != self.size:
            raise BuildError(f"{self} does not have the shape {tuple(sizes)}")
        return DeviceTensor(self.pointer, tuple(sizes), self.dtype, self.base, self.offset)

    def __repr__(self) -> str:
        return f"<{self.dtype} tensor {'x'.join(map(str, self.shape)) or 'scalar'} at {self.pointer:#x}>"

    def __array__(self, *_: Any, **__: Any) -> Array:
        raise TypeError(f"{self} is on a device: a launcher sees shapes, never contents")


def to_bf16(values: Array) -> Array:
    """f32 -> bf16 bits (uint16), to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)).astype(
        np.uint16
    )
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.where(nan, ((bits >> np.uint32(16)) | np.uint32(0x40)).astype(np.uint16), rounded)


def from_bf16(bits: Array) -> Array:
    """bf16 bits (uint16) -> f32, exactly."""
    return (np.asarray(bits).astype(np.uint32) << np.uint32(16)).view(np.float32)


def encode(values: Any, dtype: str, shape: Sequence[int]) -> Array:
    """What lies in a device's memory for `values`: contiguous, of `shape`, f32 rounded where the tensor is bf16."""
    array = np.asarray(values)
    if dtype == "bf16" and array.dtype != np.uint16:
        array = to_bf16(array.astype(np.float32))
    return np.ascontiguousarray(np.broadcast_to(array, tuple(shape)), NUMPY[dtype])


def decode(stored: Array, dtype: str) -> Array:
    """What the host computes with: bf16 as f32, everything else as it is."""
    return from_bf16(stored) if dtype == "bf16" else stored


@dataclass(frozen=True)
class TensorMap:
    """A tensor map (CUtensorMap) to be encoded by the device: how bulk copies walk a tensor.

    dims and box: sizes, the fastest running dim first, rank 1 to 5. strides: bytes, of all dims but the first.
    swizzle: 0, 32, 64 or 128 bytes.
    """

    tensor: DeviceTensor
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    swizzle: int

    @property
    def dtype(self) -> str:
        return self.tensor.dtype


def tensor_map(
    tensor: DeviceTensor,
    box: Sequence[int],
    swizzle: int = 128,
    dims: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> TensorMap:
    """`launch.tmap`: checks what the hardware asks for, so that the error has words. Raises BuildError."""
    sizes = tuple(int(n) for n in (dims if dims is not None else reversed(tensor.shape)))
    if strides is None:
        running = [tensor.itemsize * math.prod(sizes[: i + 1]) for i in range(len(sizes) - 1)]
        steps = tuple(running)
    else:
        steps = tuple(int(n) for n in strides)
    found = TensorMap(tensor, sizes, steps, tuple(int(n) for n in box), swizzle)
    problems = [text for bad, text in _map_rules(found) if bad]
    if problems:
        raise BuildError(f"launch.tmap({tensor}, box={found.box}): {'; '.join(problems)}")
    return found


def _map_rules(m: TensorMap) -> list[tuple[bool, str]]:
    rank, inner = len(m.dims), m.box[0] * m.tensor.itemsize if m.box else 0
    return [
        (not 1 <= rank <= 5, f"rank {rank}; the hardware knows 1 to 5"),
        (len(m.box) != rank, f"the box has {len(m.box)} sizes, the tensor {rank}"),
        (len(m.strides) != rank - 1, f"{len(m.strides)} strides; expected {rank - 1}, all but the first dim's"),
        (m.tensor.pointer % 16 != 0, "the address is not a multiple of 16 bytes"),
        (any(s % 16 or not 0 < s < 2**40 for s in m.strides), f"strides {m.strides}: not multiples of 16 bytes"),
        (any(not 1 <= n <= 256 for n in m.box), "a box has 1 to 256 elements along each dim"),
        (any(not 1 <= n <= 2**32 for n in m.dims), f"dims {m.dims}: not within 1 to 2^32"),
        (inner % 16 != 0, f"the box's first dim has {inner} bytes, not a multiple of 16"),
        (m.swizzle not in (0, 32, 64, 128), f"swizzle {m.swizzle}; expected 0, 32, 64 or 128"),
        (m.swizzle in (32, 64, 128) and inner > m.swizzle, f"the box's first dim has {inner} bytes, more than swizzle"),
    ]


# --- launches --------------------------------------------------------------------------------------------------

Scalar = np.generic
Argument = DeviceTensor | Scalar | TensorMap | None


@dataclass(frozen=True)
class LaunchRecord:
    """One kernel launch with fixed addresses. grid counts thread blocks, block threads, smem bytes of dynamic shared
    memory; cluster thread blocks along x. node, method, line: who asked for it, for errors."""

    kernel: Kernel
    args: tuple[Argument, ...]
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    smem: int = 0
    cluster: int = 1
    pdl: bool = False
    node: str = ""
    method: str = ""
    line: str = ""

    @property
    def nbytes(self) -> int:
        """Of all tensors that it is given."""
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
    CoreError. args: the tensors whose addresses prepare gets, 0 for None.
    """

    prepare: Callable[..., Callable[[int], None]]
    args: tuple[DeviceTensor | None, ...]
    origin: str
    node: str = ""
    method: str = ""
    line: str = ""

    @property
    def nbytes(self) -> int:
        """Of all tensors that it is given."""
        return sum(a.nbytes for a in self.args if a is not None)

    @property
    def where(self) -> str:
        of = f"node {self.node}, " if self.node else ""
        return f"{of}{self.origin} {self.method}, a library's call ({self.line})"


Recorded = LaunchRecord | CallRecord


def bytes_of(argument: Scalar | DeviceTensor | None) -> bytes:
    """An argument as it lies in the parameter buffer: an address (8 bytes; 0 for None), or the scalar's own bytes."""
    if isinstance(argument, np.generic):
        return argument.tobytes()
    return (0 if argument is None else argument.pointer).to_bytes(8, "little")


@dataclass
class Host:
    """What recording asks of a device: multiprocessors, how many thread blocks stay resident, zeroed memory."""

    sms: int = 1
    resident: Callable[[Kernel, int, int], int] | None = None  # (kernel, threads, smem) -> thread blocks in all
    zeros: Callable[[int], DeviceTensor] | None = None  # bytes -> a u8 tensor of zeros, nobody else's
    scratch: Scratch | None = None  # of nested launches; `zeros` where it is None


@dataclass
class GpuLaunch:
    """What a kernel's launcher records into. Nothing is compiled or run while recording."""

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
        pdl: bool = False,
        define: Mapping[str, str | int] | None = None,
    ) -> None:
        """Launch the `extern "C"` kernel of that name from the variant's source.

        args: tensors, `i32(n)`, `u32(n)`, `f32(x)`, tensor maps, or None for a null pointer, in the kernel's order.
        grid in thread blocks, block in threads, up to three sizes each. smem: bytes of dynamic shared memory.
        define: macros of this instance. Raises BuildError for what could not run.
        """
        line = _caller()
        where = f"{self.origin} {self.method} ({line}): launch({kernel!r}"
        asked = replace(self.kernel(kernel, define), line=line)
        settled = tuple(_argument(a, i, where) for i, a in enumerate(args))
        _check_signature(asked, settled, where, self.dtype)
        record = LaunchRecord(
            asked,
            settled,
            _sizes(grid, "grid", where),
            _sizes(block, "block", where),
            int(smem),
            int(cluster),
            pdl,
            self.node,
            self.method,
            line,
        )
        _check_sizes(record, where)
        self.records.append(record)

    def call(self, prepare: Callable[..., Callable[[int], None]], *tensors: Any) -> None:
        """Have a library do it: what CallRecord says of `prepare`. A variant that calls one declares it as `library`.

        Raises BuildError for an argument that is neither a tensor nor None.
        """
        line = _caller()
        where = f"{self.origin} {self.method} ({line}): launch.call({getattr(prepare, '__name__', prepare)}"
        if not self.variant.library:
            raise BuildError(f"{where}, ...): {self.origin} declares no `library`, so it may only launch kernels")
        for index, tensor in enumerate(tensors):
            if not (tensor is None or isinstance(tensor, DeviceTensor)):
                raise BuildError(f"{where}, ...): argument {index + 1} is {tensor!r}; expected a tensor or None")
        self.records.append(CallRecord(prepare, tensors, self.origin, self.node, self.method, line))

    @property
    def origin(self) -> str:
        return f"{self.variant.op}.{self.variant.name}"

    @property
    def sms(self) -> int:
        """Multiprocessors of the device."""
        return self.host.sms

    def kernel(self, name: str, define: Mapping[str, str | int] | None = None) -> Kernel:
        """The kernel of that name, under this node's element type."""
        defines = {"ELEM_BF16": int(self.dtype == "bf16"), **(define or {})}
        files = sources_of(self.variant, self.method)
        source = next((path for path in files if name in _signatures(_source(path))), files[0])
        return Kernel(source, name, tuple(sorted(defines.items())), self.origin)

    def resident(self, kernel: str, *, block: int, smem: int = 0, define: Mapping[str, str | int] | None = None) -> int:
        """How many thread blocks run at once: a thread block may wait for another only in a grid of that size."""
        if self.host.resident is None:
            return self.sms
        return self.host.resident(self.kernel(kernel, define), block, smem)

    def tmap(
        self,
        tensor: DeviceTensor,
        box: Sequence[int],
        swizzle: int = 128,
        dims: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
    ) -> TensorMap:
        """A tensor map for bulk copies; dims and box run from the fastest dim, strides are bytes."""
        return tensor_map(tensor, box, swizzle, dims, strides)

    def op(self, name: str, method: str = "forward", /, **values: Any) -> None:
        """Launch another op's chosen variant: what core.device.cpu.Nested says of the values."""
        self.records += nested(name, method, values, self.pick, self.host)


def nested(name: str, method: str, values: Mapping[str, Any], pick: Pick | None, host: Host) -> list[Recorded]:
    """What `launch.op(name, method, **values)` launches."""
    if pick is None:
        raise BuildError(f'launch.op("{name}"): no registry to choose a variant from')
    variant, t = pick(name, method, values)
    taken = host.scratch.taken if host.scratch is not None else 0
    records = record(variant, method, t, pick, host=host)
    if host.scratch is not None:
        host.scratch.taken = taken  # it is recorded: the next one may have its workspace
    return records


class CallLaunch:
    """What an optimizer's step records into: ops only."""

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
    launch = GpuLaunch(variant, method, node, element_type(t), host, pick, workspace, counters)
    getattr(variant, method)(t, launch)
    return launch.records


def element_type(t: Tensors) -> str:
    """What `elem` is for these tensors: bf16 where one of them is, since a precision has one activations' type."""
    return "bf16" if any(isinstance(v, DeviceTensor) and v.dtype == "bf16" for v in vars(t).values()) else "f32"


def sources_of(variant: Variant, method: str) -> tuple[Path, ...]:
    """The .cu files of a launcher: a kernel comes from the first that has it."""
    if method in variant.sources:
        return tuple(variant.sources[method])
    given = (variant.source,) if isinstance(variant.source, str) else variant.source
    folder = Path(inspect.getfile(type(variant))).parent
    return tuple(folder / (name or f"{variant.op}.cu") for name in given)


def source_of(variant: Variant, method: str) -> Path:
    """The first of them."""
    return sources_of(variant, method)[0]


def _caller() -> str:
    """file:line of the launcher that called `launch`."""
    frame = sys._getframe(2)
    return f"{shown(Path(frame.f_code.co_filename))}:{frame.f_lineno}"


# --- checks ----------------------------------------------------------------------------------------------------


def _argument(value: Any, index: int, where: str) -> Argument:
    at = f"{where}, ...): argument {index + 1}"
    if value is None or isinstance(value, DeviceTensor | TensorMap):
        return value
    if isinstance(value, bool | np.bool_):
        raise BuildError(f"{at} is {value}, and a kernel's scalars are typed", hint=f"write i32({value})")
    if isinstance(value, np.generic) and value.dtype.kind in "iuf":
        return value
    if isinstance(value, int):
        raise BuildError(
            f"{at} is the bare int {value}, which would be taken for a pointer", hint=f"write i32({value})"
        )
    if isinstance(value, float):
        raise BuildError(
            f"{at} is the bare float {value}, which would be taken for a double", hint=f"write f32({value})"
        )
    if isinstance(value, np.ndarray):
        raise BuildError(
            f"{at} is a NumPy array, which no kernel can read", hint="pass a tensor of t, or a typed scalar"
        )
    raise BuildError(f"{at} is {value!r}; expected a tensor, i32(n), u32(n), f32(x), launch.tmap(...) or None")


def _sizes(given: int | Sequence[int], what: str, where: str) -> tuple[int, int, int]:
    sizes = tuple(given) if isinstance(given, Sequence) else (given,)
    if not 1 <= len(sizes) <= 3 or any(not isinstance(n, int | np.integer) or n < 1 for n in sizes):
        raise BuildError(f"{where}, {what}={given}): expected one to three sizes, each at least 1")
    x, y, z = (*(int(n) for n in sizes), 1, 1)[:3]
    return x, y, z


def _check_sizes(record: LaunchRecord, where: str) -> None:
    threads = math.prod(record.block)
    if threads > MAX_THREADS or record.block[2] > 64:
        raise BuildError(f"{where}, block={record.block}): {threads} threads; a thread block has at most {MAX_THREADS}")
    if any(n > limit for n, limit in zip(record.grid, MAX_GRID, strict=True)):
        raise BuildError(f"{where}, grid={record.grid}): the largest grid is {MAX_GRID}")
    largest = max(MAX_SHARED.values()) * 1024
    if not 0 <= record.smem <= largest:
        raise BuildError(f"{where}, smem={record.smem}): a thread block has at most {largest} bytes of shared memory")
    if not 1 <= record.cluster <= MAX_CLUSTER or record.grid[0] % record.cluster:
        raise BuildError(
            f"{where}, cluster={record.cluster}): expected 1 to {MAX_CLUSTER}, and a grid that it divides; "
            f"the grid is {record.grid[0]} thread blocks wide"
        )


# what a parameter of the kernel takes: a scalar's NumPy type, by the parameter's C type
SCALARS = {
    "int": "int32", "i32": "int32", "unsigned": "uint32", "unsigned int": "uint32", "u32": "uint32", "uint": "uint32",
    "float": "float32", "double": "float64", "long long": "int64", "i64": "int64", "unsigned long long": "uint64",
    "u64": "uint64", "size_t": "uint64",
}  # fmt: skip
# the tensors that a pointer takes, by the type that it points to
POINTEES = {
    "float": "f32", "double": "f64", "bf16": "bf16", "int": "i32", "i32": "i32", "unsigned": "u32",
    "unsigned int": "u32", "u32": "u32", "uint": "u32", "unsigned char": "u8", "u8": "u8", "uint8_t": "u8",
    "int32_t": "i32", "uint32_t": "u32",
}  # fmt: skip
SIGNATURE = re.compile(
    r'extern\s+"C"\s+(?P<before>(?:[^;{}()]|\((?:[^()]|\([^()]*\))*\))*?)\b(?P<name>\w+)\s*'
    r"\((?P<parameters>[^(){};]*)\)\s*\{"
)


@cache
def _signatures(text: str) -> dict[str, list[str]]:
    """kernel -> its parameters as written, for those kernels that the source writes out."""
    plain = re.sub(r"/\*.*?\*/", " ", re.sub(r"//[^\n]*", "", text), flags=re.DOTALL)
    found = {}
    for match in SIGNATURE.finditer(plain):
        if "__global__" in match["before"]:
            parts = [" ".join(p.split()) for p in match["parameters"].split(",")]
            found[match["name"]] = [] if parts == [""] else parts
    return found


def signature(kernel: Kernel) -> list[str] | None:
    """The kernel's parameters as its source writes them; None where it is written by a macro, or not there."""
    text = kernel.text if kernel.text is not None else _source(kernel.source)
    return _signatures(text).get(kernel.name)


def _source(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise BuildError(f"{shown(path)}: cannot be read: {error}") from None


def _check_signature(kernel: Kernel, args: Sequence[Argument], where: str, dtype: str) -> None:
    parameters = signature(kernel)
    if parameters is None:
        return
    if len(parameters) != len(args):
        raise BuildError(
            f"{where}, ...) has {len(args)} arguments; the kernel takes {len(parameters)}: {', '.join(parameters)}"
        )
    for index, (parameter, argument) in enumerate(zip(parameters, args, strict=True)):
        problem = _mismatch(parameter, argument, dtype)
        if problem:
            raise BuildError(f"{where}, ...): argument {index + 1} is {problem}; the kernel takes `{parameter}`")


QUALIFIERS = re.compile(r"\b(const|volatile|__restrict__|__restrict|__grid_constant__|struct)\b")


def _mismatch(parameter: str, argument: Argument, dtype: str) -> str:
    """What is wrong with an argument, in words; "" where nothing is, or where the type is not one we know."""
    words = " ".join(QUALIFIERS.sub(" ", parameter).split())
    if "*" in words:
        pointee = words.partition("*")[0].strip()
        if argument is None:
            return ""
        if not isinstance(argument, DeviceTensor):
            return _named(argument)
        takes = dtype if pointee == "elem" else POINTEES.get(pointee)
        # u8 is workspace, which a kernel divides as it likes
        return "" if takes in (None, argument.dtype) or argument.dtype == "u8" else f"a tensor of {argument.dtype}"
    kind = SCALARS.get(" ".join(words.split()[:-1]))
    if kind is None or (isinstance(argument, np.generic) and argument.dtype.name == kind):
        return ""
    return _named(argument)


def _named(argument: Argument) -> str:
    if isinstance(argument, np.generic):
        return f"a scalar of {argument.dtype.name}"
    if isinstance(argument, TensorMap):
        return "a tensor map"
    return "None" if argument is None else f"a tensor of {argument.dtype}"
