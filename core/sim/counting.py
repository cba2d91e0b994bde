"""Counts of a launch by source line: warp instructions and the lanes that ran them, sectors of global memory, bank
conflicts of shared memory, bytes, FLOPs. Counting changes nothing that a kernel computes.

A `Counter` watches one batch of thread blocks and is requested by `Simulator.launch(count=True)`; other launches do not
pay for it. The counts are properties of the PTX and the addresses, not of a chip: no caches, no time. The rules are
those of the CUDA C++ Programming Guide for compute capability 5.0 and later:
global   a warp's access moves every sector of 32 bytes that its lanes touch, once
shared   32 banks of 4 bytes; a warp's access takes one pass for each different word of the busiest bank. 8-byte
         accesses are served by half warps, 16-byte ones by quarters of a warp
atomics  lanes of a warp that update one address take turns; sums of the compiler beforehand are not known here
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from core.sim.machine.lanes import Lanes
from core.sim.machine.resident_blocks import ResidentBlocks
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import Array
from core.sim.ptx.syntax import Instruction, Location

WARP = 32
SECTOR = 32  # bytes
BANKS = 32
WORD = 4  # bytes of a bank
FLOPS = {"fma": 2, "mad": 2, **dict.fromkeys(("add", "sub", "mul", "div"), 1),
         **dict.fromkeys(("rcp", "sqrt", "rsqrt", "ex2", "lg2", "sin", "cos", "tanh"), 1)}  # fmt: skip
LANES_OF = {"f32": 1, "f64": 1, "f16": 1, "bf16": 1, "f16x2": 2, "bf16x2": 2, "f32x2": 2}  # values in an operand
SHAPE = re.compile(r"m(\d+)n(\d+)k(\d+)")  # of a tensor-core instruction
TOGETHER = {"mma": 32, "wgmma": 128}  # threads that run one
ATOMICS = ("atom", "red")
BY_LANE = ("ld", "ldu", "st", "atom", "red", "ldmatrix", "stmatrix")  # the bank of each lane's address


@dataclass
class Counts:
    """Counts of a source line or of a kernel.

    instructions: of warps; threads: lanes that ran them, at most 32 an instruction. flops: a fused multiply-add is two.
    requests: global accesses of warps; `asked`: requested bytes of their lanes; sectors: of 32 bytes that they moved;
    fewest: sectors that would have held the same bytes. shared: accesses of warps to shared memory; conflicts: passes
    beyond the ones that they need; shared_bytes: requested. atomics: accesses of warps by atom and red, to global and
    shared memory; contended: turns beyond the first that their lanes take at one address.
    """

    instructions: int = 0
    threads: int = 0
    flops: int = 0
    requests: int = 0
    asked: int = 0
    sectors: int = 0
    fewest: int = 0
    shared: int = 0
    shared_bytes: int = 0
    conflicts: int = 0
    atomics: int = 0
    contended: int = 0

    def __iadd__(self, other: Counts) -> Counts:
        for each in fields(Counts):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
        return self

    @property
    def active(self) -> float:
        """Lanes that ran, of 32 an instruction: 1 where nothing diverged and warps were full."""
        return self.threads / (WARP * self.instructions) if self.instructions else 1.0

    @property
    def coalescing(self) -> float:
        """Sectors that were needed, of those that were moved."""
        return self.fewest / self.sectors if self.sectors else 1.0

    @property
    def moved(self) -> int:
        """Bytes between the multiprocessor and its cache: whole sectors."""
        return SECTOR * self.sectors


@dataclass
class Counted:
    """A launch, counted. lines: a source line's place -> its counts.

    memory: bytes of different sectors that were touched, the least that global memory must deliver and take.
    """

    total: Counts = field(default_factory=Counts)
    lines: dict[Location, Counts] = field(default_factory=dict)
    memory: int = 0

    def in_files(self, files: Sequence[str]) -> dict[tuple[str, int], Counts]:
        """(file, line) -> counts, in the order of `files` and then of lines; an instruction counts at its `line_in`."""
        counts_of: dict[tuple[str, int], Counts] = {}
        for place, counts in self.lines.items():
            counts_of.setdefault(line_in(files, place), Counts()).__iadd__(counts)
        return {line: counts_of[line] for line in sorted(counts_of, key=lambda at: (files.index(at[0]), at[1]))}


def line_in(files: Sequence[str], place: Location) -> tuple[str, int]:
    """(file, line) of an instruction in some files: where it is written, in a header too. One that was inlined from
    another file is at the line that called it; one without a line in any of `files` is at line 0 of the first."""
    own: Location | None = place
    while own is not None and own.file not in files:
        own = own.outer
    return (own.file, own.line) if own is not None else (files[0], 0)


class Counter:
    """Watches one batch: `ran` is called for every block of instructions, `access` for every access to memory."""

    def __init__(self, batch: ResidentBlocks) -> None:
        self.batch = batch
        self.warps: dict[int, int] = {}  # block of instructions -> warps that ran it, summed
        self.threads: dict[int, int] = {}
        self.accesses: dict[int, tuple[Instruction, Counts]] = {}
        self.touched = np.zeros(batch.memory.top // SECTOR + 1, np.bool_)

    def ran(self, g: Lanes, start: int) -> None:
        """The lanes concerned run the block of instructions that begins at `start`."""
        warps = g.lanes // WARP if g.index is None else _different(g.index // WARP)
        self.warps[start] = self.warps.get(start, 0) + warps
        self.threads[start] = self.threads.get(start, 0) + g.count

    def access(self, g: Lanes, ins: Instruction, space: str, index: Array, lanes: Array, width: int, how: str) -> None:
        """`width` bytes of each lane at `index`, a place in its space; one place where all lanes share it."""
        if space == "local" or not {"param", "const"}.isdisjoint(n.partition(":")[0] for n in ins.names):
            return
        _, counts = self.accesses.setdefault(id(ins), (ins, Counts()))
        places = np.broadcast_to(index, (len(lanes),)).astype(np.int64)
        # A group after its batch's others has lanes from 0 on again: warps are distinguished within a call only.
        warps = lanes.astype(np.int64) // WARP
        if ins.names[0] in ATOMICS:
            counts.atomics += _different(warps)
            counts.contended += contended(warps, places)
        if space == "global":
            self._global(counts, warps, places, width)
        else:
            counts.shared += _different(warps)
            counts.shared_bytes += width * len(lanes)
            if ins.names[0] in BY_LANE:
                counts.conflicts += conflicts(lanes, places, width)

    def _global(self, counts: Counts, warps: Array, places: Array, width: int) -> None:
        counts.requests += _different(warps)
        counts.asked += width * len(places)
        moved = sectors(warps, places)
        counts.sectors += len(moved)
        self.touched[np.unique(moved & ((1 << 42) - 1))] = True
        counts.fewest += fewest(warps, places, width)


def sectors(warps: Array, places: Array) -> Array:
    """The sectors that warps move, each once a warp: the warp's number << 42, and the sector's."""
    return np.unique((warps << 42) | (places // SECTOR))


def fewest(warps: Array, places: Array, width: int) -> int:
    """The least number of sectors that hold the bytes of warps' accesses."""
    distinct = np.unique((warps << 42) | (places // width)) >> 42  # accesses are aligned to their width
    _, each = np.unique(distinct, return_counts=True)
    return int((-(-each * width // SECTOR)).sum())


def contended(warps: Array, places: Array) -> int:
    """Turns beyond one that each warp takes, since lanes update the same address: of its busiest one."""
    pairs, turns = np.unique((warps << 42) | places, return_counts=True)
    starts = np.flatnonzero(np.diff(pairs >> 42, prepend=-1))
    return int((np.maximum.reduceat(turns, starts) - 1).sum()) if len(turns) else 0


def conflicts(lanes: Array, places: Array, width: int) -> int:
    """Passes beyond one for each part of a warp that is served together."""
    parts = max(1, width // WORD)  # 2 halves, 4 quarters
    served = lanes.astype(np.int64) * parts // WARP
    words = places // WORD
    if parts > 1:
        served, words = np.repeat(served, parts), (words[:, None] + np.arange(parts)).reshape(-1)
    distinct = np.unique((served << 40) | words)
    banks, passes = np.unique((distinct >> 40 << 5) | (distinct % BANKS), return_counts=True)
    starts = np.flatnonzero(np.diff(banks >> 5, prepend=-1))
    return int((np.maximum.reduceat(passes, starts) - 1).sum()) if len(passes) else 0


def _different(values: Array) -> int:
    """The number of different values."""
    if len(values) == 0:
        return 0
    steps = np.diff(values)
    return int(np.count_nonzero(steps)) + 1 if (steps >= 0).all() else len(np.unique(values))


def flops_of(ins: Instruction) -> float:
    """Floating-point operations of one thread."""
    name = ins.names[0]
    shape = next((match for n in ins.names if (match := SHAPE.fullmatch(n))), None)
    if name in TOGETHER and shape:
        m, n, k = (int(size) for size in shape.groups())
        return 2 * m * n * k / TOGETHER[name]
    kind = next((n for n in reversed(ins.names) if n in LANES_OF), None)
    return FLOPS.get(name, 0) * LANES_OF[kind] if kind else 0


def counted(program: Program, counters: Iterable[Counter]) -> Counted:
    """The sum of all batches."""
    sums, touched = Counted(), np.zeros(0, np.bool_)
    for counter in counters:
        for start, warps in counter.warps.items():
            block, threads = program.blocks[start], counter.threads[start]
            for ins in program.instructions[block.start : block.stop]:
                ran = Counts(instructions=warps, threads=threads, flops=round(flops_of(ins) * threads))
                sums.lines.setdefault(ins.location, Counts()).__iadd__(ran)
        for ins, counts in counter.accesses.values():
            sums.lines.setdefault(ins.location, Counts()).__iadd__(counts)
        touched = counter.touched if not touched.size else touched | counter.touched
    for counts in sums.lines.values():
        sums.total += counts
    sums.memory = SECTOR * int(np.count_nonzero(touched))
    return sums
