"""A model of the time of launches from their SASS: a lower bound on a GPU that need not be here. Never a measurement.

A thread block's warps take a kernel's path (core.kernels.sass_loops) once, and its main loop's trips by the number in
the kernel's row of `sass.toml`, beside its source; without a row, once. A scheduler, a quarter of a
multiprocessor, takes the longest of:

- issue: one instruction a clock;
- tensor, float, double, special: their instructions, at the rates of these units;
- shared memory: 128 bytes a clock, for all four schedulers;
- latency: one warp alone, as the compiler scheduled it and with LATENCY clocks for results without a fixed time.

Thread blocks come in waves of as many as the multiprocessors hold; the last wave may have fewer. Those of a wave may
be at different places, so that the results of one are finished while another uses the tensor cores: each unit's clocks
are summed over the loop and all else before the longest is taken, and a wave takes no less than one warp alone. A
launch takes the longer of that and memory: each tensor that it is given once, or the bytes in `sass.toml`, at the
published rate. L2, the instruction cache, launches and clocks below the published ones are left out: the time on a GPU
is above the bound.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tomli

from core.device.launch import LaunchRecord
from core.errors import BuildError
from core.expr import evaluate
from core.kernels.arguments import signature
from core.kernels.chips import CHIPS, WARP, Gpu, resident_blocks
from core.kernels.nvrtc import Kernel, Resources, compile_cubin
from core.kernels.sass import NO_BARRIER, SassInstruction, counts, disassemble
from core.kernels.sass_loops import loops_of, way_through
from core.kernels.tensors import DeviceTensor, TensorMap

SCHEDULERS = 4  # of a multiprocessor
FILE = "sass.toml"
# Clocks until a result without a fixed time is there, where nothing is in the way; of a cache where it may be there
LATENCY = {"ldsm": 30, "lds": 30, "ldg": 250, "special": 20, "shuffle": 24, "barrier": 10}
OTHER = 20  # of any other such result, such as a special register
BYTES = {"ldsm": 512, "copy": 512}  # of a warp's access to shared memory; that of lds and sts is in the opcode
SPECIAL = 8  # clocks of a scheduler for a warp's MUFU: 4 lanes of 32 at a time


@dataclass(frozen=True)
class Units:
    """Clocks of a scheduler for a warp's instruction on f32, and on f64."""

    float: int
    double: int


# NVIDIA's CUDA Programming Guide, table "Throughput of Native Arithmetic Instructions"
UNITS = {75: Units(2, 64), 80: Units(2, 4), 90: Units(1, 2), 100: Units(1, 2), 103: Units(1, 64)}
USUAL = Units(1, 64)
SHARE_OF_MMA = {90: 5 / 8}  # of the tensor cores' peak, that mma.sync reaches: core.kernels.chips has the peak of wgmma


@dataclass(frozen=True)
class CodePart:
    """A part of a warp's path: instructions by kind, clocks of a scheduler by limit, clocks of a warp alone."""

    kinds: Counter[str]
    clocks: dict[str, float]
    alone: float


@dataclass(frozen=True)
class KernelCode:
    """A kernel on an architecture: the main loop's trip, all else, the compiler's report, loops in all."""

    trip: CodePart
    rest: CodePart
    resources: Resources
    loops: int

    @property
    def slots_per_tensor(self) -> float | None:
        tensor = self.trip.kinds["tensor"]
        return self.trip.kinds.total() / tensor if tensor else None

    def longest(self, warps: float, trips: float) -> tuple[float, str]:
        """(clocks of a scheduler with `warps` warps of `trips` trips each, the limit's name)."""
        limits = {name: warps * (trips * self.trip.clocks[name] + clocks) for name, clocks in self.rest.clocks.items()}
        limits["latency"] = trips * self.trip.alone + self.rest.alone
        name = max(limits, key=lambda n: limits[n])
        return limits[name], name


@dataclass(frozen=True)
class Bound:
    """A launch on a GPU. seconds: at least. resident: thread blocks of a multiprocessor; waves: of the grid."""

    launch: LaunchRecord
    code: KernelCode
    trips: float
    resident: int
    waves: float
    seconds: float
    limit: str


def clock_of(gpu: Gpu) -> float:
    """Hz, from the published rate of f32 arithmetic."""
    lanes = SCHEDULERS * WARP // UNITS.get(gpu.number, USUAL).float
    return gpu.f32 / (gpu.sms * lanes * 2)


def tensor_clocks(gpu: Gpu, instruction: SassInstruction) -> float:
    """Clocks of a scheduler's tensor core for a product m16n8kK, whose opcode has m, n and k: HMMA.16816 is k = 16."""
    shape = instruction.opcode.split(".")[1]
    depth = int(shape[3:]) if shape.startswith("168") and shape[3:].isdigit() else 16
    flops = 2 * 16 * 8 * depth
    peak = gpu.tensor / (2 if "TF32" in instruction.opcode else 1) * SHARE_OF_MMA.get(gpu.number, 1.0)
    return flops * gpu.sms * SCHEDULERS * clock_of(gpu) / peak


# --- code --------------------------------------------------------------------------------------------------------


@cache
def code_of(kernel: Kernel, arch: str) -> tuple[list[SassInstruction], Resources]:
    """The instructions of a kernel for an architecture. Raises BuildError where nvdisasm is missing."""
    compiled = compile_cubin(kernel, arch)
    return listing(compiled.cubin)[kernel.name], compiled.of(kernel)


def kernel_key(kernel: Kernel) -> str:
    """A kernel's name and macros, as the records of its code name it."""
    return " ".join([kernel.name, *(f"{name}={value}" for name, value in kernel.defines)])


@cache
def listing(cubin: bytes) -> dict[str, list[SassInstruction]]:
    return disassemble(cubin)


@cache
def kernel_code(kernel: Kernel, gpu: Gpu) -> KernelCode:
    """The parts of a kernel on a GPU."""
    code, resources = code_of(kernel, CHIPS[gpu.number].arch)
    loops, way = loops_of(code), way_through(code)
    main = set(loops[0]) if loops else set()
    trip = [code[at] for at in loops[0]] if loops else []
    rest = [code[at] for at in way if at not in main]
    return KernelCode(part_of(trip, gpu), part_of(rest, gpu), resources, len(loops))


def part_of(code: Sequence[SassInstruction], gpu: Gpu) -> CodePart:
    kinds = counts(code)
    units = UNITS.get(gpu.number, USUAL)
    doubles = sum(i.opcode.startswith(("DFMA", "DADD", "DMUL", "DSETP")) for i in code)
    clocks = {
        "issue": float(len(code)),
        "tensor": sum(tensor_clocks(gpu, i) for i in code if i.kind == "tensor"),
        "shared memory": SCHEDULERS * sum(map(shared_bytes, code)) / 128,
        "float": float(units.float * (kinds["float"] - doubles)),
        "double": float(units.double * doubles),
        "special": float(SPECIAL * kinds["special"]),
    }
    return CodePart(kinds, clocks, alone(code, gpu))


def shared_bytes(i: SassInstruction) -> int:
    """Bytes that a warp moves to or from shared memory with an instruction, without bank conflicts."""
    if i.kind in BYTES:
        return BYTES[i.kind] if ".128" in i.opcode or i.kind == "ldsm" else 128
    if i.kind in ("lds", "sts"):
        return 512 if ".128" in i.opcode else 256 if ".64" in i.opcode else 128
    return 0


def alone(code: Sequence[SassInstruction], gpu: Gpu) -> float:
    """Clocks of one warp, in order: the compiler's stalls, the barriers that it waits for, its tensor core."""
    now = tensor_free = 0.0
    ready = [0.0] * (NO_BARRIER + 1)
    for i in code:
        waited = (ready[b] for b in range(NO_BARRIER - 1) if i.waits >> b & 1)
        now = max([now, *waited])
        if i.kind == "tensor":
            now = max(now, tensor_free)
            tensor_free = now + tensor_clocks(gpu, i)
        if i.written != NO_BARRIER:
            ready[i.written] = max(ready[i.written], now + LATENCY.get(i.kind, OTHER))
        if i.read != NO_BARRIER:
            ready[i.read] = max(ready[i.read], now + OTHER)
        now += max(i.stall, 1)
    return max(now, tensor_free)


# --- launches ----------------------------------------------------------------------------------------------------


@cache
def rows_beside(folder: Path) -> dict[str, dict[str, str]]:
    """kernel -> {"trips": ..., "bytes": ...} of the folder's sass.toml, expressions over the kernel's parameters; none
    where there is no file."""
    try:
        rows: dict[str, dict[str, str]] = tomli.loads((folder / FILE).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BuildError(f"{folder / FILE}: {error}") from None
    return rows


def names_of(launch: LaunchRecord) -> dict[str, Any]:
    """The kernel's parameters by name (numbers, and a tensor as its bytes), its macros, grid_x, grid_y, threads."""
    names: dict[str, Any] = dict(launch.kernel.defines)
    for parameter, value in zip(signature(launch.kernel) or [], launch.args, strict=False):
        name = parameter.split()[-1].lstrip("*&")
        held = value.tensor if isinstance(value, TensorMap) else value
        if isinstance(held, np.generic):
            names[name] = held.item()
        else:
            names[name] = held.nbytes if isinstance(held, DeviceTensor) else 0
    return names | {"grid_x": launch.grid[0], "grid_y": launch.grid[1], "threads": math.prod(launch.block)}


def bound_of(launch: LaunchRecord, gpu: Gpu) -> Bound:
    """The least time of a launch on a GPU."""
    code, chip = kernel_code(launch.kernel, gpu), CHIPS[gpu.number]
    row, names = rows_beside(launch.kernel.source.parent).get(launch.kernel.name, {}), names_of(launch)
    where = f"{FILE}, [{launch.kernel.name}]"
    trips = max(float(evaluate(row.get("trips", 1), names, where)), 1.0) if code.loops else 0.0
    nbytes = float(evaluate(row.get("bytes", launch.nbytes), names, where))
    threads, blocks = math.prod(launch.block), math.prod(launch.grid)
    used = code.resources
    resident = max(resident_blocks(chip, used.registers, used.shared, threads, launch.smem), 1)
    full, left = divmod(blocks, resident * gpu.sms)
    clocks: dict[str, float] = {}
    for waves, at_once in ((full, resident), (1 if left else 0, math.ceil(left / gpu.sms))):
        longest, name = code.longest(at_once * math.ceil(threads / WARP) / SCHEDULERS, trips)  # warps of a scheduler
        clocks[name] = clocks.get(name, 0.0) + waves * longest
    memory, busy = nbytes / gpu.memory, sum(clocks.values()) / clock_of(gpu)
    limit = "memory" if memory >= busy else max(clocks, key=lambda n: clocks[n])
    return Bound(launch, code, trips, resident, blocks / (resident * gpu.sms), max(memory, busy), limit)


@dataclass(frozen=True)
class KernelRow:
    """Launches of one kernel and shape of code in a micro-step or an update."""

    kernel: str
    where: str
    launches: int
    bound: Bound  # of the first
    seconds: float
    limit: str


def rows_of(bounds: Sequence[Bound]) -> list[KernelRow]:
    """The bounds by kernel and macros, the longest first."""
    groups: dict[Kernel, list[Bound]] = {}
    for bound in bounds:
        groups.setdefault(bound.launch.kernel, []).append(bound)
    rows = []
    for kernel, held in groups.items():
        limits = {name: sum(b.seconds for b in held if b.limit == name) for name in {b.limit for b in held}}
        seconds, limit = sum(limits.values()), max(limits, key=lambda n: limits[n])
        rows.append(KernelRow(kernel.name, kernel.source.name, len(held), held[0], seconds, limit))
    return sorted(rows, key=lambda row: -row.seconds)


def as_data(row: KernelRow) -> dict[str, Any]:
    """A row for --json: seconds as milliseconds."""
    code, used = row.bound.code, row.bound.code.resources
    kinds: Mapping[str, int] = code.trip.kinds
    return {
        "kernel": row.kernel, "source": row.where, "launches": row.launches, "trip": dict(kinds),
        "slots": code.trip.kinds.total(), "slots_per_tensor": code.slots_per_tensor, "rest": code.rest.kinds.total(),
        "trips": row.bound.trips, "registers": used.registers, "spills": used.spills,
        "shared": used.shared + row.bound.launch.smem, "resident": row.bound.resident,
        "waves": row.bound.waves, "ms": 1e3 * row.seconds, "limit": row.limit,
    }  # fmt: skip
