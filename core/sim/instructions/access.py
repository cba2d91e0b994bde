"""The resolution of addresses to global, shared or local bytes, with the hardware's checks and stricter ones."""

from __future__ import annotations

import numpy as np

from core.sim.ptx import state_spaces as spaces
from core.sim.ptx.register_types import WIDE, Array
from core.sim.ptx.syntax import Instruction
from core.sim.resident import Group


def settle(space: str, addresses: Array) -> list[tuple[str, Array, Array | None]]:
    """Generic addresses by space: (space, addresses within it, positions or None for all of them)."""
    if space != "generic":
        return [("global" if space == "param" else space, addresses, None)]
    window = addresses >> 40
    first = int(window[0])
    if (window == first).all():
        return [(_window(first), addresses & spaces.WINDOW_MASK if first in (1, 2) else addresses, None)]
    parts: list[tuple[str, Array, Array | None]] = []
    for number in np.unique(window):
        where = np.flatnonzero(window == number)
        part = addresses[where]
        parts.append((_window(int(number)), part & spaces.WINDOW_MASK if number in (1, 2) else part, where))
    return parts


def _window(number: int) -> str:
    return {1: "shared", 2: "local"}.get(number, "global")


def locate(
    g: Group, ins: Instruction, space: str, addresses: Array, lanes: Array, width: int, how: str
) -> tuple[Array, Array]:
    """(memory as elements of `width` bytes, element indices) for accesses of lanes at addresses of one space.

    addresses: int64, one per lane of `lanes`, or a single one that they share. `how`: read, write or atomic.
    """
    batch = g.batch
    if int(np.bitwise_or.reduce(addresses)) & (width - 1):
        place = int(np.flatnonzero(addresses & (width - 1))[0])
        wrong, lane = int(addresses[place]), int(lanes[place if addresses.size > 1 else 0])
        text = f"{batch.words.access(ins, space, wrong, width, how)}, misaligned: not at a multiple of {width} bytes"
        raise batch.fault(ins, "misaligned", text, g, lane, wrong, how=how)
    if space == "global":
        outside = batch.memory.outside(addresses, width)
        if outside is not None:
            _out_of_bounds(g, ins, space, addresses, lanes, width, how, int(outside[0]))
        view, index = batch.memory.view(width), addresses
    elif space == "shared":
        view, index = batch.shared_view(width), _shared(g, ins, addresses, lanes, width, how)
    else:
        low, high = int(np.minimum.reduce(addresses)), int(np.maximum.reduce(addresses))
        stride = batch.local_stride
        if low < 0 or high + width > stride:
            bad = np.flatnonzero((addresses < 0) | (addresses + width > stride))
            _out_of_bounds(g, ins, space, addresses, lanes, width, how, int(bad[0]))
        view, index = batch.local_memory(g).view(WIDE[8 * width]), lanes * stride + addresses
    if batch.observe is not None:
        batch.observe(g, ins, space, index, lanes, width, how)
    return view, index >> (width.bit_length() - 1) if width > 1 else index


def _shared(g: Group, ins: Instruction, addresses: Array, lanes: Array, width: int, how: str) -> Array:
    """Byte positions in the batch's shared memory; the upper bits of an address may name a peer of the cluster."""
    batch = g.batch
    high = int(np.maximum.reduce(addresses))
    offsets = g.shared_offset if g.shared_offset.size == 1 else g.shared_offset[lanes]
    if high >= 1 << spaces.RANK_SHIFT:
        rank = (addresses >> spaces.RANK_SHIFT) - 1
        own = g.block[lanes]
        cluster = batch.shape.cluster
        block = np.where(rank < 0, own, own // cluster * cluster + rank)
        offsets = block * batch.stride
        addresses = addresses & ((1 << spaces.RANK_SHIFT) - 1)
        high = int(addresses.max())
        gone = np.flatnonzero((rank < cluster) & (batch.remaining[np.where(rank < cluster, block, own)] == 0))
        if gone.size:
            text = batch.words.late(how, int(batch.numbers[block[gone[0]]]))
            hint = "a cluster barrier before that block's end"
            raise batch.fault(ins, "exit in flight", text, g, int(lanes[gone[0]]), hint=hint)
        if rank.max() >= cluster:
            _out_of_bounds(g, ins, "shared", addresses, lanes, width, how, int(rank.argmax()))
    if int(np.minimum.reduce(addresses)) < spaces.SHARED_START or high + width > batch.shared_end:
        bad = np.flatnonzero((addresses < spaces.SHARED_START) | (addresses + width > batch.shared_end))
        _out_of_bounds(g, ins, "shared", addresses, lanes, width, how, int(bad[0]))
    return addresses + offsets


def _out_of_bounds(
    g: Group, ins: Instruction, space: str, addresses: Array, lanes: Array, width: int, how: str, place: int
) -> None:
    address, lane = int(addresses[place]), int(lanes[place if addresses.size > 1 else 0])
    text = g.batch.words.outside(ins, space, address, width, how)
    raise g.batch.fault(ins, "out of bounds", text, g, lane, address, how=how)
