"""A tape's sums are the counts of `core trace`, by source line, for the kernels that ship: every variant that has some.

Each at the smallest example that it runs on, forward and backward, in its first dtype: the launches of up to LONG
steps of warps, each kernel once. `python tests/sim/test_every_tape.py` takes every launch, in every dtype.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2])]

import pytest

from core.kernels.nvrtc import Kernel
from core.loader import load_registry
from core.op import Op, Variant
from core.sim.counting import Counts
from core.sim.ptx.syntax import Location
from core.sim.tape import Tape, counts_of
from core.testing.case import Case, make_case
from core.testing.runner import CpuRunner
from core.testing.traced import See, TraceRunner, run_launchers
from core.testing.trial import Trial
from core.testing.trials import modes_of, reference_of

LONG = 7000  # steps of warps of a launch
OWN = {"matmul.register": {"x": (128, 1), "features": 128}}  # smaller than the examples, whose tapes would be too long
DECODES = {"attention.split"}  # only in a decode session, which `core trace` and `core view --kernel` have not
REGISTRY = load_registry()
COMPARED: set[Kernel] = set()


def every_variant() -> list[str]:
    ships = [v for held in REGISTRY.variants.values() for v in held.values() if REGISTRY.has_kernels(v)]
    return sorted({f"{v.op}.{v.name}" for v in ships if v.sources and not v.library} - DECODES)


def smallest(op: Op, variant: Variant, dtype: str) -> Case:
    """The smallest case on which the variant runs."""
    own = OWN.get(f"{op.name}.{variant.name}")
    cases = [make_case(op, dict(e)) for e in ([own] if own else (*op.examples, *variant.examples))]
    cases.sort(key=lambda case: sum(v.size for v in case.values.values() if v is not None))
    home, truth = CpuRunner(REGISTRY), reference_of(op, REGISTRY)
    mode = modes_of(op, variant)[0]
    return next(c for c in cases if not Trial(c, variant, truth, dtype, mode, home, home).why_not())


def by_line(tape: Tape) -> dict[Location, Counts]:
    found: dict[Location, Counts] = {}
    for block, warp in tape.warps:
        for step in tape.steps(block, warp):
            ins = tape.program.instructions[step.pc]
            found.setdefault(step.location, Counts()).__iadd__(counts_of(ins, step))
    return found


def differing(name: str, dtype: str, longest: float, seen: set[Kernel] | None = None) -> tuple[int, list[str]]:
    """(launches short enough to compare, lines whose sums differ from the counts). seen: kernels that need no more."""
    registry = REGISTRY
    op = registry.op(name.partition(".")[0])
    variant = registry.variant(op.name, name.partition(".")[2])
    compared, wrong = 0, list[str]()

    def compare(record: Any, report: Any) -> None:
        nonlocal compared
        if report.counts.total.instructions > longest:
            return
        compared += 1
        if seen is not None and record.kernel in seen:
            return
        if seen is not None:
            seen.add(record.kernel)
        taped, counted = by_line(report.tape), report.counts.lines
        lines = [line for line in {**taped, **counted} if taped.get(line) != counted.get(line)]
        wrong.extend(f"{record.kernel.name}, {line}: {taped.get(line)} and {counted.get(line)}" for line in lines)

    def runner(see: See) -> TraceRunner:
        return TraceRunner(registry, see, count=True, tape=True)

    run_launchers(op, variant, smallest(op, variant, dtype), registry, dtype, "both", runner, compare)
    return compared, wrong


@pytest.mark.parametrize("name", every_variant())
def test_the_sums_of_a_tape_are_the_counts_by_line(name: str) -> None:
    compared, wrong = differing(name, REGISTRY.variant(*name.split(".")).dtypes[0], LONG, COMPARED)
    assert compared and not wrong


def main() -> int:
    launches, failures = 0, []
    for name in every_variant():
        for dtype in REGISTRY.variant(*name.split(".")).dtypes:
            compared, wrong = differing(name, dtype, float("inf"))
            launches += compared
            failures += [f"{name} {dtype}: {line}" for line in wrong]
            print(f"{name} {dtype}: {compared} launches, {len(wrong)} lines differ", flush=True)
    print("\n".join([f"{launches} launches, {len(failures)} lines differ", *failures[:20]]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
