"""`core.sim.run`: any CUDA kernel on a machine without a GPU, with NumPy arrays as its buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import BuildError
from core.kernels.nvrtc import Kernel, compile_ptx
from core.kernels.tensors import DeviceTensor, TensorMap, tensor_map
from core.scalars import Unrepresentable
from core.sim.faults import KernelError, PtxError
from core.sim.instructions import tensormap
from core.sim.launching.launch_report import Report
from core.sim.launching.simulator import Simulator
from core.sim.machine.address_space import Memory
from core.sim.machine.budget import default_limit
from core.sim.ptx.cuda_source import Sources

__all__ = ["KernelError", "Map", "PtxError", "Report", "run"]

Sizes = int | Sequence[int]
Buffers = dict[int, tuple[int, np.ndarray[Any, Any]]]  # an array's id -> its address, and the array
ELEMENTS = {"float32": "f32", "float64": "f64", "uint16": "bf16", "int32": "i32", "uint32": "u32", "uint8": "u8"}


@dataclass(frozen=True)
class Map:
    """A tensor map of a NumPy array, as an argument of a kernel that copies boxes of it (cp.async.bulk.tensor).

    box: its sizes, the fastest running dim first, as in `launch.tmap`; swizzle in bytes: 0, 32, 64 or 128.
    """

    array: np.ndarray[Any, Any]
    box: Sequence[int]
    swizzle: int = 0

    def of(self, tensor: DeviceTensor) -> TensorMap:
        """The map of that array on a device. Raises BuildError for what the hardware does not take."""
        return tensor_map(tensor, self.box, self.swizzle)


def run(
    source: str | Path,
    kernel: str,
    grid: Sizes,
    block: Sizes,
    args: Sequence[Any],
    smem: int = 0,
    cluster: int = 1,
    strict: bool = True,
    *,
    defines: Mapping[str, str | int] | None = None,
    count: bool = False,
    limit: int | None = None,
    order: str = "error",
    executor: str | None = None,
    tape: bool = False,
) -> Report:
    """Compile `source` (a .cu file, CUDA C++ text, or PTX text) and run one of its `extern "C"` kernels.

    args, in the kernel's order: NumPy arrays become buffers and are written in place (uint16 for bf16 bits), NumPy
    scalars are passed by value with their own type, None is a null pointer, a Map is a tensor map. Sizes are one to
    three numbers; smem is in bytes.
    strict also reports what docs/kernels.md lists: races, reads of what nothing wrote, results that depend on the order
    of threads; without it a kernel runs a few times faster. order="warn": such a result (the first order's) is returned
    and the report's `findings` say so, where "error" raises.
    count, which needs strict=False: the report's `counts` say by source line what the kernel did, as `core trace`
    prints it. tape, likewise: the report's `tape` has every instruction of every warp, lane by lane (core/sim/tape.py).
    limit: branches that a thread block may take before the kernel is called endless; by default 300,000, or
    what CORELM_SIM_LIMIT says.
    executor: "native" (C, with the interpreter's bits, many times faster) or "interpreter"; docs/native.md.
    Raises BuildError for what does not compile, PtxError for an instruction that the simulator does not have,
    KernelError for what a kernel may not do; its `details` have the address and the PTX.
    """
    given = {"kernel.cu": source} if isinstance(source, str) else {}
    simulator = Simulator(
        _ptx(source, kernel, defines or {}),
        limit=default_limit() if limit is None else limit,
        sources=Sources(given, defines or {}),
    )
    memory = simulator.memory
    buffers: Buffers = {}
    packed = [_argument(memory, value, place, buffers) for place, value in enumerate(args)]
    sizes = (_sizes(grid), _sizes(block))
    report = simulator.launch(kernel, *sizes, packed, smem, cluster, strict, count, order, executor, tape)
    for address, array in buffers.values():
        _copy_back(memory.read(address, array.nbytes).view(array.dtype).reshape(array.shape), array, kernel)
    return report


def _copy_back(found: np.ndarray[Any, Any], array: np.ndarray[Any, Any], kernel: str) -> None:
    """A read-only array may be an input; that a kernel wrote it is not lost without a word."""
    if array.flags.writeable:
        array[...] = found
    elif found.tobytes() != array.tobytes():
        raise BuildError(f"kernel {kernel} wrote into an array that is read-only")


def _ptx(source: str | Path, kernel: str, defines: Mapping[str, str | int]) -> str:
    if isinstance(source, str) and ".address_size" in source:
        return source
    chosen = tuple(sorted(defines.items()))
    if isinstance(source, Path):
        return compile_ptx(Kernel(source, kernel, chosen)).ptx
    return compile_ptx(Kernel(Path("kernel.cu"), kernel, chosen, text=source)).ptx


def _argument(memory: Memory, value: Any, place: int, buffers: Buffers) -> bytes:
    if value is None:
        return bytes(8)
    if isinstance(value, np.ndarray):
        return _address(memory, value, place, buffers).to_bytes(8, "little")
    if isinstance(value, Map):
        address, kind = _address(memory, value.array, place, buffers), ELEMENTS.get(value.array.dtype.name)
        if kind is None:
            raise BuildError(f"argument {place}: no tensor map of {value.array.dtype}; of {', '.join(ELEMENTS)}")
        return tensormap.bytes_of(value.of(DeviceTensor(address, value.array.shape, kind)))
    if isinstance(value, np.generic):
        return value.tobytes()
    if isinstance(value, Unrepresentable):
        raise BuildError(f"argument {place} is {value.problem}", hint=value.hint)
    raise BuildError(
        f"argument {place} is {value!r}; expected a NumPy array, a NumPy scalar or None",
        hint="a kernel's scalars are typed: np.int32(n), np.float32(x)",
    )


def _address(memory: Memory, array: np.ndarray[Any, Any], place: int, buffers: Buffers) -> int:
    """Where an array lies; it is one buffer however often it is passed."""
    if id(array) not in buffers:
        address = memory.allocate(array.nbytes, f"argument {place}", itemsize=array.itemsize)
        memory.write(address, array)
        buffers[id(array)] = address, array
    return buffers[id(array)][0]


def _sizes(given: Sizes) -> tuple[int, ...]:
    return (given,) if isinstance(given, int) else tuple(given)
