"""The one table of chips: the limits of a compute capability, its compatible kernels, the peaks of GPUs by name.

No other module lists chips. This one calls no driver: on a GPU, `CudaDevice.chip` has the limits that its
driver reports, and this table is for plans, checks, the simulator and the stub driver of the tests.

Sources: NVIDIA's CUDA Programming Guide, section 5.1, tables "Device and Streaming Multiprocessor (SM) Information" and
"Memory Information per Compute Capability"; for 8.8 and 10.7, which it does not list, CUDA 13.5's cuda_occupancy.h
(thread blocks and shared memory of a multiprocessor), and ptxas 13.5, which ignores __launch_bounds__(1024, 2) where a
multiprocessor holds fewer than 2,048 threads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from core.dtypes import TF32, arithmetic
from core.errors import BuildError

KB = 1024
WARP = 32
MAX_THREADS = 1024  # of a thread block, along x, along y and in all
MAX_BLOCK = (1024, 1024, 64)
MAX_GRID = (2**31 - 1, 65535, 65535)
REGISTERS = 65536  # 32-bit, of a multiprocessor and of a thread block
REGISTER_UNIT = 256  # registers that a warp is given at a time: cuda_occupancy.h, cudaOccRegAllocationGranularity
PARTITIONS = 4  # of a multiprocessor; a thread block's registers are counted as if its warps filled them evenly
DEFAULT_SHARED = 48 * KB  # bytes of a thread block, static and dynamic together, that every launch may have
RESERVED_SHARED = 1 * KB  # bytes that the driver takes of a multiprocessor for each thread block, from 8.0 on
SINCE = {"bf16": 80, TF32: 80}  # a number format -> the first compute capability that has it; all have the others
PORTABLE_CLUSTER = 8  # thread blocks of a cluster that every chip with clusters runs


@dataclass(frozen=True)
class Chip:
    """The limits of one compute capability. number: 90 for 9.0; gpus: some that have it.

    sm_shared and shared: bytes of shared memory, of a multiprocessor and the most of a thread block (static and dynamic
    together, opted into); sm_threads and sm_blocks: the most that a multiprocessor holds at once; cluster: the most
    thread blocks of a cluster that need no opting in, 1 where there are no clusters. checked: the op check compiles
    kernels declared for "sm_75+" or similar for it.
    """

    number: int
    gpus: str
    sm_shared: int
    shared: int
    sm_threads: int
    sm_blocks: int
    cluster: int = 1
    checked: bool = True

    @property
    def arch(self) -> str:
        """The architecture that kernels are compiled for on this chip: sm_86; from 9.0 on with the suffix a: sm_90a."""
        return f"sm_{self.number}" + ("a" if self.number >= 90 else "")

    def multiplies(self, form: str) -> bool:
        """Whether its tensor cores multiply this number format (f32 as ordinary arithmetic): see SINCE."""
        return self.number >= SINCE.get(form, 0)

    @property
    def precisions(self) -> tuple[str, ...]:
        """The values of `precision` that it computes in, the plainest first."""
        return tuple(precision for precision in ("f32", "bf16", "fp16") if self.multiplies(precision))

    @property
    def hopper(self) -> bool:
        """Whether it has Hopper's features: clusters, tensor maps, and launches that overlap the one before."""
        return self.number >= 90


def _chip(
    number: int, gpus: str, sm_shared: int, shared: int, sm_threads: int, sm_blocks: int, checked: bool = True
) -> Chip:
    """A row, with shared memory in KiB."""
    cluster = PORTABLE_CLUSTER if number >= 90 else 1
    return Chip(number, gpus, sm_shared * KB, shared * KB, sm_threads, sm_blocks, cluster, checked)


# fmt: off
CHIPS = {
    chip.number: chip
    for chip in (
        #     number, GPUs; shared memory in KiB, of a multiprocessor and of a thread block; threads; thread blocks
        _chip(75,  "T4, RTX 20",                        64,  64,  1024, 16),
        _chip(80,  "A100, A30",                         164, 163, 2048, 32),
        _chip(86,  "A10, A40, RTX 30",                  100, 99,  1536, 16),
        _chip(87,  "Jetson Orin",                       164, 163, 1536, 16, checked=False),
        _chip(88,  "Ampere, embedded",                  100, 99,  1536, 16, checked=False),
        _chip(89,  "L4, L40S, RTX 40",                  100, 99,  1536, 24),
        _chip(90,  "H100, H200, GH200",                 228, 227, 2048, 32),
        _chip(100, "B200, GB200",                       228, 227, 2048, 32),
        _chip(103, "B300, GB300",                       228, 227, 2048, 32),
        # Rubin's "oversized" shared memory, to 327 KiB a thread block, takes a launch attribute that we do not set
        _chip(107, "Rubin",                             328, 227, 1536, 16, checked=False),
        _chip(110, "Jetson Thor",                       228, 227, 1536, 24),
        _chip(120, "RTX PRO Blackwell, RTX 50",         100, 99,  1536, 24),
        _chip(121, "GB10 (DGX Spark)",                  100, 99,  1536, 24),
    )
}
# fmt: on
MOST_SHARED = max(chip.shared for chip in CHIPS.values())


# --- architectures: those that a variant declares, and those that a chip runs ----------------------------------------


class Arch(NamedTuple):
    """An architecture's name in parts: "sm_100f" is (100, "f"), "sm_80+" is (80, "+"), "sm_86" is (86, "")."""

    number: int
    suffix: str


def parse_arch(name: str) -> Arch:
    """Raises BuildError for a word that names no architecture."""
    match = re.fullmatch(r"sm_(\d{2,3})([af+]?)", name)
    if match is None:
        raise BuildError(f'"{name}" is not an architecture such as sm_86, sm_90a or sm_100f')
    return Arch(int(match[1]), match[2])


def architecture(major: int, minor: int) -> str:
    """The architecture that kernels are compiled for on a chip of that compute capability: sm_86; from 9.0 on with
    the letter of features of that chip alone, as in sm_90a."""
    return Chip(10 * major + minor, "", 0, 0, 0, 0).arch


def runs_on(declared: str, arch: str) -> bool:
    """Whether kernels that a variant declares for `declared` run where they are compiled for `arch`.

    "sm_80+": 8.0 and everything after it. "sm_80": 8.0 alone. "sm_90a": 9.0 alone, compiled with all that it has.
    "sm_100f": the family of 10.0, which is every later minor version of the same major one, compiled as "sm_103f" or
    "sm_103a". That is the CUDA Programming Guide's section 5.1.2, and CUDA 13.5's linker holds to it: it takes PTX of
    sm_100f for 10.0, 10.3 and 10.7, of sm_120f for 12.0 and 12.1, of sm_110f for 11.0 alone, and of an "a" for its own.
    """
    (wanted, how), (number, suffix) = parse_arch(declared), parse_arch(arch)
    if how == "+":
        return number >= wanted
    if how == "f":
        return number // 10 == wanted // 10 and number >= wanted and suffix in ("a", "f")
    return number == wanted and how in ("", suffix)


def chips_of(declared: str) -> list[Chip]:
    """The chips that a variant's kernels are checked for: for "sm_80+" the `checked` ones, else all that run them."""
    chips = [chip for chip in CHIPS.values() if runs_on(declared, chip.arch)]
    return [chip for chip in chips if chip.checked] if declared.endswith("+") else chips


def chip_of(arch: str) -> Chip:
    """The chip of an architecture such as sm_103a. Raises BuildError for one that the table does not have."""
    number = parse_arch(arch).number
    if number not in CHIPS:
        raise BuildError(
            f"the limits of {arch} are unknown",
            hint=f"known: {', '.join(chip.arch for chip in CHIPS.values())}; a row in core/kernels/chips.py adds one",
        )
    return CHIPS[number]


# --- limits of a launch ---------------------------------------------------------------------------------------------


def block_registers(registers: int, threads: int) -> int:
    """Registers that a thread block is given, of `threads` threads with that many each: cuda_occupancy.h,
    cudaOccMaxBlocksPerSMRegsLimit. The hardware counts its warps as a multiple of the multiprocessor's partitions."""
    each = _up(registers * WARP, REGISTER_UNIT)
    return each * _up(-(-threads // WARP), PARTITIONS)


FITTING = "fewer threads, smaller __shared__ arrays or a smaller smem; a variant's why_not refuses such sizes"


def shared_problem(chip: Chip, static: int, dynamic: int) -> str:
    """The problem of a thread block's shared memory on a chip; "" where it fits."""
    if static + dynamic <= chip.shared:
        return ""
    return (
        f"takes {static + dynamic:,} bytes of shared memory a thread block, {static:,} static and {dynamic:,} dynamic; "
        f"there are {chip.shared:,}"
    )


def launch_problems(
    chip: Chip, registers: int, static: int, block: Sequence[int], dynamic: int, cluster: int = 1
) -> list[str]:
    """The limits of a chip that a launch exceeds, as phrases. registers: a thread's; static and dynamic: bytes of
    shared memory; block: sizes of a thread block; cluster: thread blocks."""
    threads = 1
    for size in block:
        threads *= size
    taken = block_registers(registers, threads)
    rules = [
        (bool(shared_problem(chip, static, dynamic)), shared_problem(chip, static, dynamic)),
        (taken > REGISTERS, f"takes {taken:,} registers at {threads} threads; there are {REGISTERS:,}"),
        (cluster > chip.cluster, f"needs a cluster of {cluster} thread blocks; {chip.arch} has {chip.cluster}"),
    ]
    return [text for broken, text in rules if broken]


def resident_blocks(chip: Chip, registers: int, static: int, threads: int, dynamic: int) -> int:
    """Thread blocks that a multiprocessor holds at once: the least that its threads, blocks, registers and shared
    memory leave room for. cuda_occupancy.h; 0 where not even one fits."""
    if static + dynamic > chip.shared or block_registers(registers, threads) > REGISTERS:
        return 0
    warps = -(-threads // WARP)
    reserved = RESERVED_SHARED if chip.number >= 80 else 0
    unit = 128 if chip.number >= 80 else 256
    room = _up(static + dynamic + reserved, unit)
    each = _up(registers * WARP, REGISTER_UNIT)
    by_registers = REGISTERS // PARTITIONS // each * PARTITIONS // warps if each else chip.sm_blocks
    by_shared = chip.sm_shared // room if room else chip.sm_blocks
    return min(chip.sm_threads // WARP // warps, chip.sm_blocks, by_registers, by_shared)


def _up(n: int, unit: int) -> int:
    return -(-n // unit) * unit


# --- GPUs by name ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gpu:
    """A GPU as its maker publishes it, without sparsity: dense FLOP/s, and bytes/s of its memory.

    number: its compute capability; sms: multiprocessors. f32 is the rate of ordinary f32 arithmetic; tensor that of
    tensor cores which multiply 16-bit numbers and add in f32. TF32's is half of that on all that have it. size:
    gigabytes of memory, by its name; 0 where they are not stated.
    """

    number: int
    sms: int
    f32: float
    tensor: float
    memory: float
    size: int = 0

    def peak(self, precision: str, tf32: bool = False) -> float | None:
        """FLOP/s of a precision; None where the chip does not have it, or it is not published. tf32: whether f32 may be
        multiplied as TF32."""
        form = arithmetic(precision, tf32)
        if form == "f32" or (form == TF32 and not CHIPS[self.number].multiplies(TF32)):
            return self.f32
        rates = {"bf16": self.tensor, "fp16": self.tensor, TF32: self.tensor / 2}
        return rates.get(form) if CHIPS[self.number].multiplies(form) else None


# By the driver's names, without "NVIDIA" and "GeForce"; a name that is not here has no peaks rather than
# another GPU's. From NVIDIA's data sheets and architecture white papers; on GeForce, tensor cores that add in f32.
GPUS = {
    "Tesla T4": Gpu(75, 40, 8.1e12, 65e12, 0.320e12, 16),
    "A100-SXM4-40GB": Gpu(80, 108, 19.5e12, 312e12, 1.555e12, 40),
    "A100-PCIE-40GB": Gpu(80, 108, 19.5e12, 312e12, 1.555e12, 40),
    "A100-SXM4-80GB": Gpu(80, 108, 19.5e12, 312e12, 2.039e12, 80),
    "A100 80GB PCIe": Gpu(80, 108, 19.5e12, 312e12, 1.935e12, 80),
    "H100 80GB HBM3": Gpu(90, 132, 66.9e12, 989.4e12, 3.352e12, 80),
    "H100 PCIe": Gpu(90, 114, 51.2e12, 756e12, 2.039e12, 80),
    "H200": Gpu(90, 132, 66.9e12, 989.4e12, 4.8e12, 141),
    "B200": Gpu(100, 148, 75e12, 2250e12, 8.0e12, 180),
    "L40S": Gpu(89, 142, 91.6e12, 362e12, 0.864e12, 48),
    "RTX 2080": Gpu(75, 46, 10.1e12, 40.3e12, 0.448e12, 8),
    "RTX 2080 Ti": Gpu(75, 68, 13.4e12, 53.8e12, 0.616e12, 11),
    "RTX 3070": Gpu(86, 46, 20.3e12, 40.6e12, 0.448e12, 8),
    "RTX 3080": Gpu(86, 68, 29.8e12, 59.5e12, 0.760e12, 10),
    "RTX 3090": Gpu(86, 82, 35.6e12, 71.2e12, 0.936e12, 24),
    "RTX 3090 Ti": Gpu(86, 84, 40.0e12, 80.0e12, 1.008e12, 24),
    "RTX 4070": Gpu(89, 46, 29.1e12, 58.3e12, 0.504e12, 12),
    "RTX 4070 Ti": Gpu(89, 60, 40.1e12, 80.2e12, 0.504e12, 12),
    "RTX 4080": Gpu(89, 76, 48.7e12, 97.5e12, 0.717e12, 16),
    "RTX 4090": Gpu(89, 128, 82.6e12, 165.2e12, 1.008e12, 24),
    "RTX 5070": Gpu(120, 48, 30.9e12, 61.7e12, 0.672e12, 12),
    "RTX 5080": Gpu(120, 84, 56.3e12, 112.6e12, 0.960e12, 16),
    "RTX 5090": Gpu(120, 170, 104.8e12, 209.5e12, 1.792e12, 32),
}


def gpu(name: str) -> Gpu | None:
    """The GPU with the name that its driver gives it, None when it is not in the table."""
    return GPUS.get(name.removeprefix("NVIDIA ").removeprefix("GeForce "))
