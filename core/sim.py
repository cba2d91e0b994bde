"""`core.sim.run`: anybody's CUDA kernel on a machine without a GPU, with NumPy arrays as its buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.device.nvrtc import Kernel, compile_ptx
from core.device.sim import KernelError, Memory, PtxError, Report, Simulator
from core.errors import BuildError

__all__ = ["KernelError", "PtxError", "Report", "run"]

Sizes = int | Sequence[int]


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
) -> Report:
    """Compile `source` (a .cu file, CUDA C++ text, or PTX text) and run one of its `extern "C"` kernels.

    args, in the kernel's order: NumPy arrays become buffers and are written in place (uint16 for bf16 bits), NumPy
    scalars are passed by value with their own type, None is a null pointer. Sizes are one to three numbers;
    smem is in bytes. strict also reports races and reads of what nothing wrote; without it a kernel runs some ten
    times faster. count, which needs strict=False: the report's `counts` say by source line what the kernel did, as
    `core trace` prints it. Raises BuildError for what does not compile, PtxError for an instruction that the simulator
    does not have, KernelError for what a kernel may not do.
    """
    simulator = Simulator(_ptx(source, kernel, defines or {}))
    memory = simulator.memory
    buffers: list[tuple[int, np.ndarray[Any, Any]]] = []
    packed = [_argument(memory, value, place, buffers) for place, value in enumerate(args)]
    report = simulator.launch(kernel, _sizes(grid), _sizes(block), packed, smem, cluster, strict, count)
    for address, array in buffers:
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


def _argument(memory: Memory, value: Any, place: int, buffers: list[tuple[int, np.ndarray[Any, Any]]]) -> bytes:
    if value is None:
        return bytes(8)
    if isinstance(value, np.ndarray):
        address = memory.allocate(value.nbytes, f"argument {place}", itemsize=value.itemsize)
        memory.write(address, value)
        buffers.append((address, value))
        return address.to_bytes(8, "little")
    if isinstance(value, np.generic):
        return value.tobytes()
    raise BuildError(
        f"argument {place} is {value!r}; expected a NumPy array, a NumPy scalar or None",
        hint="a kernel's scalars are typed: np.int32(n), np.float32(x)",
    )


def _sizes(given: Sizes) -> tuple[int, ...]:
    return (given,) if isinstance(given, int) else tuple(given)
