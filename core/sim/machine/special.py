"""Special registers: %tid, %ctaid, %laneid and their like, as arrays over a group's lanes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core.errors import did_you_mean
from core.sim.faults import PtxError
from core.sim.machine.lanes import Lanes
from core.sim.machine.resident_blocks import ResidentBlocks
from core.sim.ptx import state_spaces as spaces
from core.sim.ptx.register_types import Array

AXES = "xyz"
Make = Callable[[ResidentBlocks, Lanes], Array]


def _one(value: int) -> Array:
    return np.array([value], np.uint64)


def _position(flat: Array, sizes: tuple[int, int, int], axis: int) -> Array:
    """Coordinate along an axis of a flat index, x fastest."""
    if sizes[axis] == 1:
        return _one(0)
    return flat // int(np.prod(sizes[:axis], initial=1)) % sizes[axis]


def _all_shared(blocks: ResidentBlocks) -> int:
    """Bytes of shared memory, the hardware's own included."""
    if blocks.dynamic:
        return blocks.shared_end - blocks.program.zones
    return blocks.program.static_shared + spaces.SHARED_START


def _same(values: Array) -> Array:
    """One element where all are equal."""
    return values[:1] if values.size and (values == values[0]).all() else values


def _blocks(blocks: ResidentBlocks, g: Lanes) -> Array:
    return blocks.numbers[g.block]


def _along(axis: int) -> dict[str, Make]:
    name = AXES[axis]
    first = axis == 0  # clusters extend along x
    return {
        f"%tid.{name}": lambda b, g: _position(g.thread, b.shape.block, axis),
        f"%ntid.{name}": lambda b, g: _one(b.shape.block[axis]),
        f"%ctaid.{name}": lambda b, g: _same(_position(_blocks(b, g), b.shape.grid, axis)),
        f"%nctaid.{name}": lambda b, g: _one(b.shape.grid[axis]),
        f"%clusterid.{name}": lambda b, g: _same(
            _position(_blocks(b, g), b.shape.grid, axis) // (b.shape.cluster if first else 1)
        ),
        f"%nclusterid.{name}": lambda b, g: _one(b.shape.grid[axis] // (b.shape.cluster if first else 1)),
        f"%cluster_ctaid.{name}": lambda b, g: _same(_blocks(b, g) % b.shape.cluster) if first else _one(0),
        f"%cluster_nctaid.{name}": lambda b, g: _one(b.shape.cluster if first else 1),
    }


def _lanemask(make: Callable[[Array], Array]) -> Make:
    return lambda b, g: make(np.uint64(1) << (g.thread % 32).astype(np.uint64)) & np.uint64(0xFFFFFFFF)


CLOCKS = ("%clock", "%clock64", "%globaltimer")

# The driver's own registers: 1 and 2 are the address, upper half first, of the memory in which a grid's thread blocks
# meet (cooperative_groups/details/driver_abi.h).
SAME = {f"%envreg{number}": 0 for number in range(32)} | {"%envreg2": spaces.GRID}


def _same_everywhere(value: int) -> Make:
    return lambda b, g: _one(value)


def _clock(blocks: ResidentBlocks, g: Lanes) -> Array:
    """Not a time: a count that grows with the work so far."""
    return _one(sum(blocks.executed.values()))


TABLE: dict[str, Make] = {
    **_along(0),
    **_along(1),
    **_along(2),
    "%laneid": lambda b, g: g.thread % 32,
    "%warpid": lambda b, g: g.thread // 32,
    "%nwarpid": lambda b, g: _one(b.padded // 32),
    "%smid": lambda b, g: _same(_blocks(b, g)),
    "%nsmid": lambda b, g: _one(b.shape.blocks),
    "%gridid": lambda b, g: _one(0),
    "%cluster_ctarank": lambda b, g: _same(_blocks(b, g) % b.shape.cluster),
    "%cluster_nctarank": lambda b, g: _one(b.shape.cluster),
    "%is_explicit_cluster": lambda b, g: _one(int(b.shape.cluster > 1)),
    "%dynamic_smem_size": lambda b, g: _one(b.dynamic),
    "%total_smem_size": lambda b, g: _one(
        b.shared_end - b.program.zones if b.dynamic else b.program.static_shared + spaces.SHARED_START
    ),
    "%lanemask_eq": _lanemask(lambda bit: bit),
    "%lanemask_lt": _lanemask(lambda bit: bit - np.uint64(1)),
    "%lanemask_le": _lanemask(lambda bit: bit | (bit - np.uint64(1))),
    "%lanemask_gt": _lanemask(lambda bit: ~(bit | (bit - np.uint64(1)))),
    "%lanemask_ge": _lanemask(lambda bit: ~(bit - np.uint64(1))),
    "%clock_hi": lambda b, g: _one(0),
    **dict.fromkeys(CLOCKS, _clock),
    **{name: _same_everywhere(value) for name, value in SAME.items()},
}


def special(blocks: ResidentBlocks, g: Lanes, name: str) -> Array:
    """The value of a special register for every lane of a group; one element where all agree."""
    if name not in TABLE:
        raise PtxError(f"the simulator does not have the register {name}{did_you_mean(name, TABLE)}")
    return TABLE[name](blocks, g).astype(np.uint64)
