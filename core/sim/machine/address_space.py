"""Simulated device memory: one flat space of bytes with named regions; an access out of bounds names the nearest one.

An address is an index into the bytes. No region is below `FIRST`, so that a null pointer plus a small offset is
out of bounds. Shared and local memory are windows far above; they are kept by the thread blocks themselves.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import numpy as np

from core.kernels.c_text import c_string
from core.sim.ptx.register_types import WIDE, Array
from core.sim.ptx.state_spaces import FIRST, GRID, GRID_BYTES, PARAMETER_BYTES, PARAMETERS

ALIGNMENT = 256
HEAP = 8 << 20  # bytes, as CUDA has by default (cudaLimitMallocHeapSize)
HEAP_ALIGN = 16
LONGEST_STRING = 65536  # bytes


@dataclass(frozen=True)
class Region:
    """A named range of addresses: [start, start + size).

    tensor, sizes: the name and the shape of the tensor that it holds, where the caller of the launch gave them.
    """

    name: str
    start: int
    size: int
    itemsize: int = 1  # bytes of an element, where that is known
    tensor: str = ""
    sizes: tuple[int, ...] = ()

    @property
    def end(self) -> int:
        return self.start + self.size


class Memory:
    """Global memory. Addresses stay valid for the life of an allocation; `bytes` may move when it grows."""

    def __init__(self, capacity: int = 1 << 20) -> None:
        self.bytes = np.zeros(max(capacity, FIRST), np.uint8)
        self.regions: list[Region] = [Region("the kernel's parameters", PARAMETERS, PARAMETER_BYTES)]
        self.starts = [PARAMETERS]
        self.top = FIRST
        self.used = FIRST  # the bytes from here on are zero still
        self.views: dict[int, Array] = {}
        self.last = self.regions[0]
        self.bounds_kept: tuple[Array, Array] | None = None  # until regions change
        self.pointers_kept: tuple[object, tuple[int, int, int, int]] = (None, (0, 0, 0, 0))
        self.heap: Heap | None = None  # of malloc in kernels, from the first launch that needs it

    def allocate(self, nbytes: int, name: str = "", align: int = ALIGNMENT, itemsize: int = 1) -> int:
        """Address of `nbytes` zeroed bytes. A gap follows every region, so that an access past its end is an error."""
        start = -(-self.top // align) * align
        self.top = start + nbytes + ALIGNMENT
        if self.top > self.bytes.size:
            grown = np.zeros(max(2 * self.bytes.size, self.top + self.top // 4), np.uint8)  # pages come at their use
            grown[: self.used] = self.bytes[: self.used]
            self.bytes = grown
            self.views = {}
        self.bytes[start : min(start + nbytes, self.used)] = 0
        self.used = max(self.used, start + nbytes)
        self.bounds_kept = None
        self.regions.append(Region(name or f"memory of {nbytes} bytes", start, nbytes, itemsize))
        self.starts.append(start)
        return start

    def free(self, address: int) -> None:
        """Give a region back; its addresses are out of bounds from now on. The last ones are used again."""
        place = self.starts.index(address)
        del self.starts[place], self.regions[place]
        self.bounds_kept = None
        self.last = self.regions[-1]
        self.top = max(FIRST, self.regions[-1].end + ALIGNMENT) if len(self.regions) > 1 else FIRST

    def meet(self) -> None:
        """Zero the place where the thread blocks of a grid meet, a region from the first launch on that uses it."""
        if GRID not in self.starts:
            self.starts.insert(1, GRID)
            self.regions.insert(1, Region("the barrier of the grid", GRID, GRID_BYTES))
            self.bounds_kept = None
        self.bytes[GRID : GRID + GRID_BYTES] = 0

    def write(self, address: int, values: Array) -> None:
        """Copy an array's bytes to `address`."""
        raw = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self.bytes[address : address + raw.size] = raw

    def read(self, address: int, nbytes: int) -> Array:
        """A copy of `nbytes` bytes."""
        return self.bytes[address : address + nbytes].copy()

    def string(self, address: int) -> str:
        """The C string at an address of global memory; "" outside of it."""
        if not 0 <= address < self.top:
            return ""
        return c_string(self.bytes[address : address + LONGEST_STRING].tobytes())

    def view(self, width: int) -> Array:
        """The memory as unsigned integers of `width` bytes."""
        if width not in self.views:
            self.views[width] = self.bytes[: self.bytes.size // width * width].view(WIDE[8 * width])
        return self.views[width]

    def region(self, address: int) -> Region | None:
        """The region that holds an address."""
        place = bisect.bisect_right(self.starts, address) - 1
        if place < 0 or address >= self.regions[place].end:
            return None
        return self.regions[place]

    def near(self, address: int) -> str:
        """The nearest region to a bad address, as text."""
        if address < FIRST:
            return "a null pointer" if address < PARAMETERS else "below all memory"
        place = bisect.bisect_right(self.starts, address) - 1
        if place < 1:
            return "in no allocation"
        region = self.regions[place]
        beyond = address - region.end
        past = f"{beyond} bytes past its end" if beyond >= 0 else f"at its byte {address - region.start}"
        return f"{past}: {region.name}, {region.size} bytes at {region.start:#x}"

    def bounds(self) -> tuple[Array, Array]:
        """The addresses at which regions start and end, as u64."""
        if self.bounds_kept is None:
            ends = [region.start + region.size for region in self.regions]
            self.bounds_kept = np.array(self.starts, np.uint64), np.array(ends, np.uint64)
        return self.bounds_kept

    def pointers(self) -> tuple[int, int, int, int]:
        """Addresses in this process of `bytes` and of both arrays of `bounds`, and the number of regions."""
        bounds = self.bounds()
        if self.pointers_kept[0] is not bounds:
            first, starts, ends = (int(one.__array_interface__["data"][0]) for one in (self.bytes, *bounds))
            self.pointers_kept = bounds, (first, starts, ends, len(bounds[0]))
        return self.pointers_kept[1]

    def element(self, address: int) -> str:
        """The region and element at an address, as text."""
        region = self.region(address)
        if region is None:
            return "outside all allocations"
        unit = "byte" if region.itemsize == 1 else "element"
        return f"{unit} {(address - region.start) // region.itemsize} of {region.name}, {region.size} bytes"

    def outside(self, addresses: Array, width: int) -> Array | None:
        """Positions of the accesses of `width` bytes that are not within one region; None when all are inside one."""
        low, high = int(np.minimum.reduce(addresses)), int(np.maximum.reduce(addresses)) + width
        last = self.last
        if last.start <= low and high <= last.start + last.size:
            return None
        region = self.region(low)
        if region and high <= region.end:
            self.last = region
            return None
        starts = np.array(self.starts)
        ends = np.array([r.end for r in self.regions])
        place = np.searchsorted(starts, addresses, "right") - 1
        bad = (place < 0) | (addresses + width > ends[place])
        return np.flatnonzero(bad) if bad.any() else None


class Heap:
    """The heap of malloc in kernels, first fit. A block is a region of the memory, so that bounds are checked."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.start = memory.allocate(HEAP, "the heap of malloc")
        self.end = self.start + HEAP
        place = memory.starts.index(self.start)
        memory.regions[place] = Region("the end of the heap of malloc", self.end, 0)
        memory.starts[place] = self.end
        memory.bounds_kept = None
        self.blocks: list[tuple[int, int]] = []  # (start, end), sorted

    def allocate(self, nbytes: int) -> int:
        """The address of `nbytes` bytes; 0 where there is no room, as malloc has it."""
        at = self.start
        for number, (start, end) in enumerate([*self.blocks, (self.end, self.end)]):
            if start - at >= nbytes + HEAP_ALIGN:
                self._put(number, at, at + nbytes)
                return at
            at = -(-(end + HEAP_ALIGN) // HEAP_ALIGN) * HEAP_ALIGN
        return 0

    def free(self, address: int) -> bool:
        """Give a block back; False for an address at which no block starts."""
        block = next((one for one in self.blocks if one[0] == address), None)
        if block is None:
            return False
        self.blocks.remove(block)
        place = self.memory.starts.index(address)
        del self.memory.starts[place], self.memory.regions[place]
        self.memory.bounds_kept = None
        self.memory.last = self.memory.regions[0]
        return True

    def restore(self, blocks: list[tuple[int, int]]) -> None:
        """The state of an earlier time, for another order of the same launch."""
        for start, _ in list(self.blocks):
            self.free(start)
        for number, (start, end) in enumerate(blocks):
            self._put(number, start, end)

    def _put(self, number: int, start: int, end: int) -> None:
        self.blocks.insert(number, (start, end))
        place = bisect.bisect_right(self.memory.starts, start)
        self.memory.bounds_kept = None
        self.memory.starts.insert(place, start)
        self.memory.regions.insert(place, Region(f"malloc({end - start})", start, end - start))
