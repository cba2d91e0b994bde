"""The coefficients of the approximate functions for the machine, from the one place where they are written."""

from __future__ import annotations

from core.sim.instructions import approximate

SERIES = ("EX2", "LG2", "SIN", "COS", "TANH", "HALF_PI")
NUMBERS = ("MAGIC", "TWO_LOG2_E", "FAR", "HALF_TURN", "OVER_HALF_PI")


def header() -> str:
    """tables.h."""
    lines = ["/* Made from core/sim/instructions/approximate.py. */"]
    for name in SERIES:
        values = ", ".join(value.hex() for value in map(float, getattr(approximate, name)))
        lines.append(f"static const f64 {name}[] = {{{values}}};")
    lines += [f"static const f64 {name} = {float(getattr(approximate, name)).hex()};" for name in NUMBERS]
    words = ", ".join(f"{int(word):#x}ull" for word in approximate.TWO_OVER_PI)
    return "\n".join([*lines, f"static const u64 TWO_OVER_PI[] = {{{words}}};", ""])
