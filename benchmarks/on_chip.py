"""A kernel on the GPU, called as `core.sim.run` calls it, and the comparison of both results."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import core.sim
from core.device.cuda import CudaDevice
from core.device.launch import LaunchRecord
from core.device.packed import CudaLaunch
from core.dtypes import NUMPY
from core.errors import CoreError
from core.kernels.nvrtc import Kernel
from core.sim.packing import ELEMENTS


def agree(holds: Any, difference: str) -> None:
    if not holds:
        raise CoreError(difference)


class Chip:
    """The GPU with the interface of `core.sim.run`: NumPy arrays are buffers and are written in place."""

    def __init__(self) -> None:
        self.device = CudaDevice()

    def tensor(self, array: np.ndarray[Any, Any]) -> Any:
        """A copy of an array on the device: a tensor of its type where it is one, else of bytes."""
        dtype = {n: d for n, d in ELEMENTS.items() if d in NUMPY and d != "bf16"}.get(array.dtype.name, "u8")
        held = array if dtype != "u8" else np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        made = self.device.tensor(self.device.allocate(held.nbytes), 0, held.shape, dtype)
        self.device.upload(made, held)
        return made

    def launch(self, kernel: Kernel, args: Any, grid: Any, block: Any, smem: int = 0, cluster: int = 1) -> None:
        record = LaunchRecord(kernel, tuple(args), grid, block, smem, cluster, method=kernel.name, line=kernel.where)
        self.device.run([CudaLaunch(record)])
        self.device.synchronize()

    def kernel(self, source: Any, name: str, defines: Any) -> Kernel:
        """The kernel of a .cu file, of CUDA C++ text, or of PTX text, which the driver compiles itself."""
        chosen = tuple(sorted(dict(defines).items()))
        if isinstance(source, Path):
            return Kernel(source, name, chosen)
        if ".address_size" not in source:
            return Kernel(Path("kernel.cu"), name, chosen, text=source)
        made = Kernel(Path("kernel.ptx"), name, text=source.replace(".target sm_90a", f".target {self.device.arch}"))
        self.device.kernels.adopt(made, str(made.text).encode() + b"\0")
        return made

    def run(self, source: Any, name: str, grid: Any, block: Any, args: Any, defines: Any = (), **how: int) -> None:
        """`core.sim.run` on the GPU. how: smem, cluster."""
        arrays = {id(a): a for a in map(array_of, args) if a is not None}
        held = {k: self.tensor(np.ascontiguousarray(a).reshape(-1).view(np.uint8)) for k, a in arrays.items()}
        passed = [a if array_of(a) is None else self.argument(a, held[id(array_of(a))]) for a in args]
        self.launch(self.kernel(source, name, defines), passed, three(grid), three(block), **how)
        for key, array in arrays.items():
            array[...] = self.device.download(held[key]).view(array.dtype).reshape(array.shape)

    def argument(self, value: Any, held: Any) -> Any:
        """A buffer on the device, or a tensor map of it."""
        if not isinstance(value, core.sim.Map):
            return held
        dtype = ELEMENTS[value.array.dtype.name]
        return value.of(self.device.tensor(held.base, held.offset, value.array.shape, dtype))


def array_of(argument: Any) -> Any:
    """The array of an argument that is a buffer or a tensor map of one; None for any other."""
    array = argument.array if isinstance(argument, core.sim.Map) else argument
    return array if isinstance(array, np.ndarray) else None


def copied(args: Any) -> list[Any]:
    """Arguments with arrays of their own: those that share one share its copy."""
    copies = {id(a): a.copy() for a in map(array_of, args) if a is not None}
    fresh = [argument if (a := array_of(argument)) is None else copies[id(a)] for argument in args]
    return [replace(o, array=n) if isinstance(o, core.sim.Map) else n for o, n in zip(args, fresh, strict=True)]


def three(sizes: Any) -> tuple[int, int, int]:
    full = (*((sizes,) if isinstance(sizes, int) else sizes), 1, 1)
    return int(full[0]), int(full[1]), int(full[2])


class Compared:
    """Results of the opcode tests' kernels on the chip; a pytest plugin, so that each result has its test.

    same: kernels with the same bits. approximate: test -> the largest difference, in units of the last place, of a
    kernel with an `.approx` instruction: the manual gives bounds for those and no bits. different: unexpected
    differences. absent: instructions that this chip does not have; none may be absent on the simulator's arch, sm_90a.
    """

    def __init__(self) -> None:
        self.test = ""
        self.kernels = self.same = 0
        self.approximate: dict[str, int] = {}
        self.different: list[str] = []
        self.absent: list[str] = []

    def pytest_runtest_setup(self, item: Any) -> None:
        self.test = item.name

    def compare(self, chip: Chip, source: Any, name: str, args: Any, copies: Any, **how: Any) -> None:
        self.kernels += 1
        try:
            chip.run(source, name, args=copies, **how)
        except CoreError as error:
            if chip.device.arch == "sm_90a" or chip.device.driver.dead is not None:
                raise
            self.absent.append(f"{self.test}: {error.message}")
            return
        pairs = [(a, b) for a, b in zip(map(array_of, args), map(array_of, copies), strict=True) if a is not None]
        if all(a.tobytes() == b.tobytes() for a, b in pairs):
            self.same += 1
        elif isinstance(source, str) and re.search(r"\.approx\b", source):
            self.approximate[self.test] = max([self.approximate.get(self.test, 0), *(places(a, b) for a, b in pairs)])
        else:
            self.different.append(f"{self.test}: {'; '.join(first_difference(a, b) for a, b in pairs)}")


def places(a: Any, b: Any) -> int:
    """The largest difference of two arrays of floats, as a number of steps from one float to the next."""
    if a.dtype.kind != "f":
        return 0 if a.tobytes() == b.tobytes() else -1
    bits = [x.view(f"i{x.itemsize}").astype(object) for x in (a, b)]
    low = 1 << (8 * a.itemsize - 1)
    ordered = [np.where(x >= 0, x, -low - x) for x in bits]
    both = ~(np.isnan(a) & np.isnan(b))
    return int(np.max(np.abs(ordered[0] - ordered[1])[both], initial=0))


def first_difference(a: Any, b: Any) -> str:
    raw = [np.ascontiguousarray(x).reshape(-1).view(f"u{x.itemsize}") for x in (a, b)]
    where = np.flatnonzero(raw[0] != raw[1])
    if not len(where):
        return "same"
    at = int(where[0])
    return f"{len(where)} of {a.size} differ, first at {at}: sim {raw[0][at]:#x}, chip {raw[1][at]:#x}"
