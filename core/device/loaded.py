"""Kernels that a GPU's driver has loaded: compiled for its chip, each with the limits of its launches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.device.driver import Driver
from core.errors import BuildError
from core.kernels.chips import FITTING, Chip, launch_problems
from core.kernels.nvrtc import Kernel, compile_all


@dataclass
class Function:
    """A kernel that the driver has loaded. registers: of a thread; threads: the most of a thread block, by its
    __launch_bounds__; static: bytes of shared memory that it declares; dynamic: the most bytes that a launch may add
    to those. The driver's default is the remainder of the default of a thread block (its reference of
    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES), and more must be requested."""

    handle: Any
    registers: int
    threads: int
    static: int
    dynamic: int

    def problems(self, chip: Chip, block: Sequence[int], smem: int, cluster: int = 1) -> list[str]:
        """The reason why the driver would refuse a launch."""
        threads = math.prod(block)
        bounds = f"has {threads} threads a thread block; its __launch_bounds__ allow {self.threads}"
        beyond_limits = launch_problems(chip, self.registers, self.static, block, smem, cluster)
        return beyond_limits + ([bounds] if threads > self.threads else [])


class LoadedKernels:
    """The kernels of one GPU. chip: its limits; default_shared: bytes of shared memory of a thread block by default."""

    def __init__(self, driver: Driver, arch: str, model: str, chip: Chip, default_shared: int) -> None:
        self.driver, self.arch, self.model = driver, arch, model
        self.chip, self.default_shared = chip, default_shared
        self.modules: dict[bytes, Any] = {}
        self.functions: dict[Kernel, Function] = {}

    def missing(self, kernels: Sequence[Kernel]) -> list[Kernel]:
        """The kernels that are not loaded yet."""
        return [kernel for kernel in kernels if kernel not in self.functions]

    def adopt(self, kernel: Kernel, code: bytes) -> None:
        """Take a kernel's code as it is, a cubin or PTX text that ends with a zero, instead of compiling its source."""
        self.functions[kernel] = self.load(kernel, code)

    def compile(self, kernels: Sequence[Kernel]) -> None:
        """Compile kernels for this chip, all at once, and load them."""
        for kernel, compiled in zip(kernels, compile_all((k, self.arch) for k in kernels), strict=True):
            compiled.of(kernel)
            self.functions[kernel] = self.load(kernel, compiled.cubin)

    def load(self, kernel: Kernel, code: bytes) -> Function:
        call, doing = self.driver.call, f"loading {kernel.where}"
        if code not in self.modules:
            self.modules[code] = call("cuModuleLoadData", code, doing=doing)
        handle = call("cuModuleGetFunction", self.modules[code], kernel.name.encode(), doing=doing)
        kinds, names = self.driver.api.CUfunction_attribute, ("NUM_REGS", "MAX_THREADS_PER_BLOCK", "SHARED_SIZE_BYTES")
        wanted = (getattr(kinds, f"CU_FUNC_ATTRIBUTE_{name}") for name in names)
        registers, threads, static = (int(call("cuFuncGetAttribute", kind, handle, doing=doing)) for kind in wanted)
        return Function(handle, registers, threads, static, max(self.default_shared - static, 0))

    def function(self, kernel: Kernel, block: Sequence[int], smem: int, cluster: int, where: str) -> Function:
        """The function, allowed to use `smem` bytes of dynamic shared memory. Raises BuildError for a launch that the
        chip cannot hold."""
        if kernel not in self.functions:
            self.compile([kernel])
        function = self.functions[kernel]
        problems = function.problems(self.chip, block, smem, cluster)
        if problems:
            raise BuildError(f"{where} {'; '.join(problems)} on {self.model} ({self.arch})", hint=FITTING)
        if smem > function.dynamic:
            kind = self.driver.api.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            self.driver.call("cuFuncSetAttribute", function.handle, kind, smem, doing=f"{where}: {smem} bytes of smem")
            function.dynamic = smem
        return function

    def resident(self, kernel: Kernel, threads: int, smem: int, sms: int) -> int:
        """The number of thread blocks of a kernel that `sms` multiprocessors hold at once. Raises BuildError where none
        fits."""
        function = self.function(kernel, (threads,), smem, 1, f"{kernel.where}, launch.resident ({kernel.line})")
        each = self.driver.call("cuOccupancyMaxActiveBlocksPerMultiprocessor", function.handle, threads, smem)
        if not int(each):
            raise BuildError(
                f"{kernel.where}, launch.resident ({kernel.line}): no thread block of {threads} threads, "
                f"{function.static:,} bytes of static and {smem:,} of dynamic shared memory fits on {self.arch}",
                hint=FITTING,
            )
        return int(each) * sms
