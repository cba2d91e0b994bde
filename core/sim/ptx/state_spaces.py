"""PTX's state spaces: the space that an opcode names, and the start of each in the simulator's flat addresses."""

from __future__ import annotations

from functools import lru_cache

PARAMETERS = 4096  # the address of the running kernel's arguments
PARAMETER_BYTES = 4096 + 28 * 1024  # PTX's limit on Volta and later is 32,764
GRID, GRID_BYTES = 61440, 8  # where the thread blocks of a grid meet: cooperative groups' grid_workspace
FIRST = 65536
SHARED_WINDOW = 1 << 40  # generic addresses of shared memory
LOCAL_WINDOW = 1 << 41
WINDOW_MASK = (1 << 40) - 1
SHARED_START = 1024  # offset of the first shared variable; the hardware keeps the bytes below for itself
RANK_SHIFT = 24  # a shared::cluster address: rank + 1 in a cluster above these bits, 0 for the own thread block
SHARED = ("shared", "shared:cta", "shared:cluster")
SPACES = {"global": "global", "const": "global", "local": "local", "param": "param", **dict.fromkeys(SHARED, "shared")}


@lru_cache(maxsize=4096)
def space_of(names: tuple[str, ...]) -> str:
    """The state space that an opcode names; "generic" where it names none."""
    return next((SPACES[n.removesuffix(":entry").removesuffix(":func")] for n in names if _is_space(n)), "generic")


def _is_space(name: str) -> bool:
    return name.removesuffix(":entry").removesuffix(":func") in SPACES
