"""PTX's rules for membermasks, checked: every lane is in its own mask, and every lane that a mask names is present."""

from __future__ import annotations

import numpy as np

from core.sim.machine.geometry import WARP
from core.sim.machine.warps import LANE, U32, disputed, named, warp_words
from core.sim.ptx.register_types import Array
from core.sim.ptx.syntax import Instruction
from core.sim.resident import Group


def of_lanes(g: Group, masks: Array) -> Array:
    """[warp, lane]: the membermask of each lane concerned, zero elsewhere."""
    full = np.zeros(g.lanes, U32)
    full[g.indices()] = masks
    return full.reshape(-1, WARP)


def check_named(g: Group, ins: Instruction, members: Array) -> None:
    """Every lane that arrives is in its own mask."""
    outside = g.active().reshape(-1, WARP) & ((members >> LANE) & U32.type(1) == 0)
    if outside.any():
        lane = int(np.flatnonzero(outside)[0])
        message = f"lane {lane % WARP} runs this, and its mask {members.reshape(-1)[lane]:#x} does not name it"
        raise g.batch.fault(ins, "not named", message, g, lane, hint="a mask names every lane that arrives with it")


def check_members(g: Group, ins: Instruction, masks: Array) -> None:
    """Every live lane that a mask names is here, with the same mask. masks: of the lanes concerned."""
    members = of_lanes(g, masks)
    check_named(g, ins, members)
    here, live = g.active().reshape(-1, WARP), g.live.reshape(-1, WARP)
    missing = members & warp_words(live & ~here)[:, None]
    if missing.any():
        warp, lane = (int(i[0]) for i in np.nonzero(missing))
        other = int(np.flatnonzero(named(missing[warp, lane]))[0])
        message = f"lane {other} does not reach this instruction, and the mask of lane {lane} names it"
        hint = "name only the lanes that are here, such as __activemask() after a branch"
        raise g.batch.fault(ins, "member absent", message, g, warp * WARP + other, hint=hint)
    if ((members != members.max(1, keepdims=True)) & here).any():
        differ = disputed(members) & here[:, None, :]
        if differ.any():
            warp, lane, other = (int(i[0]) for i in np.nonzero(differ))
            one, two = (int(members[warp, i]) for i in (lane, other))
            message = f"lane {lane} comes with the mask {one:#x}, which names lane {other}; that comes with {two:#x}"
            raise g.batch.fault(ins, "member absent", message, g, warp * WARP + other, hint="they must give one mask")
