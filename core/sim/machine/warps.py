"""Lanes that name each other by a membermask: the checks that PTX asks for, and those that wait in __syncwarp.

PTX ISA of shfl, vote, match, redux, elect and bar.warp .sync: the executing thread waits until all threads that its
membermask names have executed the instruction with the same mask, and must itself be named. Masks may differ between
the lanes of a warp: each set of lanes that names itself works by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.sim.ptx.register_types import UNSIGNED, Array

if TYPE_CHECKING:
    from core.sim.machine.group import Group
    from core.sim.ptx.parser import Instruction

WARP = 32
U32 = UNSIGNED[32]
EVERYBODY = 0xFFFFFFFF
LANE = np.arange(WARP, dtype=U32)


def warp_words(flags: Array) -> Array:
    """Bools over lanes -> one word per warp."""
    packed: Array = np.packbits(flags.reshape(-1, WARP), axis=1, bitorder="little").view(U32)
    return packed.reshape(-1)


def named(masks: Array) -> Array:
    """[..., WARP] bools: the lanes that membermasks name."""
    return np.asarray((masks[..., None] >> LANE) & U32.type(1) == 1)


def of_lanes(g: Group, masks: Array) -> Array:
    """[warp, lane]: the membermask of each lane concerned, zero elsewhere."""
    full = np.zeros(g.lanes, U32)
    full[g.indices()] = masks
    return full.reshape(-1, WARP)


def apart(members: Array) -> Array:
    """[warp, lane, other]: `lane` names `other`, whose own mask is another one."""
    return np.asarray(named(members) & (members[:, :, None] != members[:, None, :]))


def check_named(g: Group, ins: Instruction, members: Array) -> None:
    """Every lane that comes is in its own mask."""
    outside = g.active().reshape(-1, WARP) & ((members >> LANE) & U32.type(1) == 0)
    if outside.any():
        lane = int(np.flatnonzero(outside)[0])
        message = f"lane {lane % WARP} runs this, and its mask {members.reshape(-1)[lane]:#x} does not name it"
        raise g.batch.fault(ins, "not named", message, g, lane, hint="a mask names every lane that comes with it")


def check_members(g: Group, ins: Instruction, masks: Array) -> None:
    """Every live lane that a mask names is here, with the same mask. masks: of the lanes concerned."""
    members = of_lanes(g, masks)
    check_named(g, ins, members)
    here, live = g.active().reshape(-1, WARP), g.live.reshape(-1, WARP)
    missing = members & warp_words(live & ~here)[:, None]
    if missing.any():
        warp, lane = (int(i[0]) for i in np.nonzero(missing))
        other = int(np.flatnonzero(named(missing[warp, lane]))[0])
        message = f"lane {other} does not come to this instruction, and the mask of lane {lane} names it"
        hint = "name only the lanes that are here, such as __activemask() after a branch"
        raise g.batch.fault(ins, "member absent", message, g, warp * WARP + other, hint=hint)
    if ((members != members.max(1, keepdims=True)) & here).any():
        differ = apart(members) & here[:, None, :]
        if differ.any():
            warp, lane, other = (int(i[0]) for i in np.nonzero(differ))
            one, two = (int(members[warp, i]) for i in (lane, other))
            message = f"lane {lane} comes with the mask {one:#x}, which names lane {other}; that comes with {two:#x}"
            raise g.batch.fault(ins, "member absent", message, g, warp * WARP + other, hint="they must give one mask")


class Meeting:
    """The lanes of a group that wait in bar.warp.sync: each one's mask, and where it goes on."""

    def __init__(self, lanes: int) -> None:
        self.masks = np.zeros(lanes, U32)  # zero for a lane that does not wait
        self.resume = np.zeros(lanes, np.int64)

    def come(self, lanes: Array, masks: Array, pc: int) -> None:
        self.masks[lanes], self.resume[lanes] = masks, pc

    def leave(self, live: Array) -> Array:
        """The lanes for which all live lanes that they name have come; they no longer wait."""
        members = self.masks.reshape(-1, WARP)
        late = (apart(members) & live.reshape(-1, 1, WARP)).any(2)
        met = np.flatnonzero(~late.reshape(-1) & (self.masks != 0))
        self.masks[met] = 0
        return met

    def waits(self) -> int | None:
        """A lane that still waits."""
        left = np.flatnonzero(self.masks)
        return int(left[0]) if left.size else None

    def awaited(self, lane: int, live: Array) -> int:
        """The lane of the warp for which `lane` waits."""
        members, warp = self.masks.reshape(-1, WARP), lane // WARP
        late = apart(members[warp : warp + 1])[0, lane % WARP] & live.reshape(-1, WARP)[warp]
        return int(np.flatnonzero(late)[0])
