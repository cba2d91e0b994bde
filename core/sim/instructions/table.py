"""The table of all opcodes that the simulator has."""

from __future__ import annotations

from core.sim.instructions import (
    arith,
    atomics,
    bit_fields,
    calls,
    collectives,
    comparisons,
    control,
    conversions,
    copies,
    floats,
    mbarrier,
    move,
    tensor_cores,
    warpgroups,
    wmma,
)
from core.sim.instructions.opcodes import OpcodeTable

TABLE = OpcodeTable(
    arith.FAMILY,
    bit_fields.FAMILY,
    floats.FAMILY,
    comparisons.FAMILY,
    conversions.FAMILY,
    move.FAMILY,
    atomics.FAMILY,
    calls.FAMILY,
    collectives.FAMILY,
    control.FAMILY,
    copies.FAMILY,
    mbarrier.FAMILY,
    tensor_cores.FAMILY,
    warpgroups.FAMILY,
    wmma.FAMILY,
)
