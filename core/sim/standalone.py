"""`core.sim.run` and `core.sim.load`: any CUDA kernel on a machine without a GPU, with NumPy arrays as buffers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import BuildError, did_you_mean
from core.kernels.cuda_file import CudaFile, compile_file, expression_of, no_kernel
from core.kernels.nvrtc import Compiled
from core.kernels.sources import read_source, shown
from core.sim.faults import KernelError, PtxError
from core.sim.launching.launch_report import Report
from core.sim.launching.simulator import Simulator
from core.sim.launching.watchers import Taped
from core.sim.machine.address_space import Memory
from core.sim.machine.budget import default_limit
from core.sim.packing import Buffers, Map, Packer, Pointer
from core.sim.ptx import symbols
from core.sim.ptx.cuda_source import Sources
from core.sim.ptx.program import Program

__all__ = ["KernelError", "KernelFile", "Map", "Pointer", "PtxError", "Report", "load", "run"]

Sizes = int | Sequence[int]
Array = np.ndarray[Any, Any]
PTX = re.compile(r"^\s*\.version\s+\d.*?^\s*\.target\s", re.MULTILINE | re.DOTALL)


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
    include: Sequence[str | Path] = (),
    prelude: bool = False,
    count: bool = False,
    limit: int | None = None,
    order: str = "error",
    executor: str | None = None,
    tape: Taped = False,
) -> Report:
    """Load `source` and run one of its kernels: `load(source, ...).run(kernel, ...)`, with their docstrings."""
    module = load(source, defines=defines, include=include, prelude=prelude, limit=limit)
    return module.run(
        kernel, grid, block, args, smem, cluster, strict, count=count, order=order, executor=executor, tape=tape
    )


def load(
    source: str | Path,
    *,
    defines: Mapping[str, str | int] | None = None,
    include: Sequence[str | Path] = (),
    prelude: bool = False,
    limit: int | None = None,
) -> KernelFile:
    """The kernels of a .cu or .ptx file, of CUDA C++ text, or of PTX text as Triton, Numba, CuPy or nvcc give it.

    A source may `#include` files of its folder and of `include`, CUDA's headers where a toolkit or NVIDIA's packages
    are installed (the extra `headers`), and C's headers always. Host code in it is for nvcc, where that is found.
    prelude: put corelm's prelude in front (bf16, load, warp_sum: core/kernels/prelude.cuh), and find its headers
    (`#include "core/columns.cuh"`: docs/kernels.md).
    limit: branches that a thread block may take before its kernel counts as endless; by default 300,000, or
    CORELM_SIM_LIMIT.
    Raises BuildError for an error of compilation.
    """
    return KernelFile(source, defines or {}, [Path(folder) for folder in include], prelude, limit)


class KernelFile:
    """The kernels of one file on one simulated memory, which stays between launches, device variables included."""

    def __init__(
        self,
        source: str | Path,
        defines: Mapping[str, str | int],
        include: Sequence[Path],
        prelude: bool,
        limit: int | None,
    ) -> None:
        path = source if isinstance(source, Path) else Path("kernel.cu")
        text = read_source(source) if isinstance(source, Path) else source
        self.where = shown(path) if isinstance(source, Path) else "the source"
        self.memory = Memory()
        self.buffers = Buffers(self.memory)
        self._limit = default_limit() if limit is None else limit
        self._sources = Sources({} if isinstance(source, Path) else {path.name: text}, defines)
        self._variables: dict[str, int] = {}
        self._simulators: dict[str, Simulator] = {}  # by PTX: a template's kernels need a compilation each
        self._named: dict[str, tuple[Simulator, str]] = {}
        self._file: CudaFile | None = None
        if PTX.search(text):
            self._simulator(text)
        elif path.suffix == ".ptx":
            raise BuildError(f"{self.where} is not PTX: expected lines with .version and .target, got "
                             f"{text[:40]!r}", hint="CUDA C++ has the suffix .cu")  # fmt: skip
        else:
            self._file = CudaFile(path, text, tuple(include), tuple(sorted(defines.items())), prelude)
            self._simulator(compile_file(self._file).ptx)

    def quote_only(self, quotable: Callable[[Path], bool]) -> None:
        """Quote lines of these files alone in findings: a source may name any file of the machine as its own."""
        self._sources.quotable = quotable
        self._sources.known.clear()

    @property
    def kernels(self) -> list[str]:
        """The kernels, by their C++ names; templates that nothing has used yet as "name<...>"."""
        return list(dict.fromkeys([symbols.readable(s) for s in self._entries()] + self._templates()))

    def run(
        self,
        kernel: str,
        grid: Sizes,
        block: Sizes,
        args: Sequence[Any],
        smem: int = 0,
        cluster: int = 1,
        strict: bool = True,
        *,
        count: bool = False,
        order: str = "error",
        executor: str | None = None,
        tape: Taped = False,
    ) -> Report:
        """Run a kernel: "k", a template's "k<float, 3>", an overload's "k(float*, int)", "ns::k", or its symbol.

        args, in the kernel's order: NumPy arrays become buffers and are written in place (uint16 for bf16 bits); a
        Pointer is the address of an array's element; NumPy scalars are passed with their own type, Python numbers with
        the parameter's size; None is a null pointer, a Map a tensor map, bytes a struct. Sizes are one to three
        numbers; smem is in bytes.
        strict also reports the faults of docs/checks.md: races, uninitialised reads, results that depend on the
        order of threads; without it a kernel runs a few times faster. order="warn": such a result (the first order's)
        is returned and listed in the report's `findings`, where "error" raises.
        count, which needs strict=False: the report's `counts` have the kernel's work by source line, as `core trace`
        prints it. tape, likewise: the report's `tape` has every instruction of every warp, lane by lane
        (core/sim/tape.py); tape=[0, 3]: of these thread blocks. executor: "native" (C, with the interpreter's bits,
        many times faster) or "interpreter"; docs/native.md. The kernel's output goes to standard output.
        Raises BuildError for a name or an argument that does not fit, PtxError for an instruction that the simulator
        does not have, when a thread reaches it, KernelError for a fault of the kernel (a failed assert included);
        its `details` have the address and the PTX.
        """
        simulator, symbol = self._find(kernel)
        parameters = [variable for variable, _ in simulator.program(symbol, strict).parameters]
        packer = Packer(self.buffers)
        padded = [*parameters, *[None] * (len(args) - len(parameters))]
        packed = [packer.pack(value, i, p) for i, (value, p) in enumerate(zip(args, padded, strict=False))]
        self.buffers.upload(packer.used)
        sizes = (_sizes(grid), _sizes(block))
        report = simulator.launch(symbol, *sizes, packed, smem, cluster, strict, count, order, executor, tape)
        self.buffers.download(packer.used, kernel)
        return report

    def program(self, kernel: str, strict: bool = False) -> Program:
        """A kernel's instructions and parameters, calls inlined. Raises BuildError for a name that the file lacks."""
        simulator, symbol = self._find(kernel)
        return simulator.program(symbol, strict)

    # ------------------------------------------------------------------ memory
    def set(self, name: str, values: Any) -> None:
        """Write a `__device__` or `__constant__` variable, as cudaMemcpyToSymbol does; of its type or as many bytes.
        BuildError for an unknown name, and for more bytes than it has."""
        address, size, kind = self._variable(name)
        array = np.asarray(values)
        if not isinstance(values, np.ndarray | np.generic) and kind is not None:
            array = array.astype(kind)
        if array.nbytes > size:
            raise BuildError(f"{name} has {size} bytes, and {array.nbytes} were given ({array.dtype})")
        self.memory.write(address, array)

    def get(self, name: str, dtype: Any = None) -> Array:
        """The contents of a `__device__` or `__constant__` variable, flat; bytes where neither dtype nor the PTX has
        the type of its elements."""
        address, size, kind = self._variable(name)
        return self.memory.read(address, size).view(np.dtype(dtype or kind or np.uint8))

    def address(self, array: Array, index: int = 0) -> Any:
        """The address of an element of `array` (any shape and dtype), for arrays of pointers and structs; from then on
        the array is up to date before and after every launch."""
        start = self.buffers.address(array, "an array")
        self.buffers.held.add(id(array))
        return np.uint64(start + index * array.itemsize)

    def _variable(self, name: str) -> tuple[int, int, Any]:
        """(address, bytes, element type if the PTX has it) of a variable."""
        matching = symbols.matching(name, self._variables)
        if len(matching) != 1:
            names = [symbols.readable(s) for s in self._variables if not s.startswith("$")]
            raise BuildError(
                f'there is no variable "{name}" in {self.where}{did_you_mean(name, names)}',
                hint=f"it has {', '.join(names) or 'none'}; one that no kernel uses is left out by the compiler",
            )
        variable = next(v for s in self._simulators.values() if (v := s.module.variables.get(matching[0])))
        kind = (
            np.dtype(f"{variable.kind[0]}{int(variable.kind[1:]) // 8}".replace("s", "i"))
            if variable.kind[0] in "fus"
            else None
        )
        return self._variables[matching[0]], variable.size, kind

    # ------------------------------------------------------------------ names
    def _simulator(self, ptx: str) -> Simulator:
        if ptx not in self._simulators:
            self._simulators[ptx] = Simulator(ptx, self.memory, self._limit, self._sources, globals_at=self._variables)
        return self._simulators[ptx]

    def _entries(self) -> list[str]:
        return list(dict.fromkeys(name for one in self._simulators.values() for name in one.kernels))

    def _templates(self) -> list[str]:
        heads = {symbols.head(s).partition("<")[0].rpartition("::")[2] for s in self._entries()}
        declared = self._file.declared() if self._file else []
        return [name for name in declared if name.endswith("<...>") or name not in heads]

    def _find(self, name: str) -> tuple[Simulator, str]:
        """A kernel, by its symbol or its C++ name."""
        if name not in self._named:
            self._named[name] = self._by_symbol(name) or self._instantiated(name)
        return self._named[name]

    def _by_symbol(self, name: str) -> tuple[Simulator, str] | None:
        matching = symbols.matching(name, self._entries())
        if len(matching) > 1:
            every = ", ".join(f'"{symbols.readable(s)}"' for s in matching)
            raise BuildError(f'"{name}" may mean several kernels of {self.where}', hint=f"name one: {every}")
        if not matching:
            return None
        return next(one for one in self._simulators.values() if matching[0] in one.kernels), matching[0]

    def _instantiated(self, name: str) -> tuple[Simulator, str]:
        """A kernel that exists only if it is named: of a template, or static."""
        wanted = symbols.plain(name).partition("<")[0].partition("(")[0].rpartition("::")[2]
        declared = {one.removesuffix("<...>") for one in self._templates()}
        if f"{wanted}<...>" in self._templates() and "<" not in name:
            raise BuildError(f'"{name}" is a template of {self.where}', hint=f'name its arguments: "{wanted}<...>"')
        if self._file is None or wanted not in declared:
            raise no_kernel(name, self.where, self.kernels)
        before = set(self._entries())
        compiled = compile_file(self._file, (expression_of(name),))
        simulator = self._simulator(compiled.ptx)
        symbol = _symbol(compiled, name, simulator, before)
        if symbol is None:
            raise no_kernel(name, self.where, self.kernels)
        return simulator, symbol


def _symbol(compiled: Compiled, name: str, simulator: Simulator, before: set[str]) -> str | None:
    """The symbol of a name: by NVRTC; of nvcc, the kernel that is new, or that is called so."""
    said = compiled.symbols.get(expression_of(name))
    new = [s for s in simulator.kernels if s not in before]
    matching = [said] if said else new if len(new) == 1 else symbols.matching(name, simulator.kernels)
    return matching[0] if len(matching) == 1 else None


def _sizes(sizes: Sizes) -> tuple[int, ...]:
    return (int(sizes),) if isinstance(sizes, int | np.integer) else tuple(int(n) for n in sizes)
