"""Ranks that a plan needs: for each kind of GPU, how many hold it with the optimizer's state in slices.

Formulas over the plan's own figures: on N ranks each holds weights, gradients and activations, and an Nth of optimizer
state and master weights (ZeRO-1, arXiv:1910.02054). Beside it stands the number of ranks that weights and gradients in
slices too would need (its third stage), which this version does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from core.expr import cdiv
from core.kernels.chips import GPUS
from core.plan.figures import scratch
from core.plan.fit import RESERVE, needed
from core.plan.report import PlanReport

GB = 10**9
MOST = 4096  # numbers of ranks that are tried
CUT, WHOLE = "optimizer", ("parameters", "gradients")  # parts of the memory: in slices, and whole on each rank


def bytes_on(memory: Mapping[str, int], ranks: int, cut: tuple[str, ...] = (CUT,)) -> int:
    """Bytes that each of `ranks` holds, of the parts on one rank, where those of `cut` are in slices."""
    return needed({part: cdiv(nbytes, ranks) if part in cut else nbytes for part, nbytes in memory.items()})


def fewest(memory: Mapping[str, int], room: int, cut: tuple[str, ...]) -> int | None:
    """The smallest power of 2 of ranks that hold it in `room` bytes each; None where no number does."""
    ranks = 1
    while ranks <= MOST:
        if bytes_on(memory, ranks, cut) + RESERVE <= room:
            return ranks
        ranks *= 2
    return None


def gpu_rows(memory: Mapping[str, int], precision: str) -> list[dict[str, Any]]:
    """A row for each size of memory that GPUs have which compute in the precision, the largest first: gpus: their
    names; memory: bytes of one; ranks: the fewest that hold the plan, None for none; all_cut: the fewest if weights and
    gradients were cut as well. memory: `PlanReport.memory` of one rank, with all of the optimizer's state."""
    sizes: dict[int, list[str]] = {}
    for name, gpu in GPUS.items():
        if gpu.size and gpu.peak(precision):
            sizes.setdefault(gpu.size, []).append(name)
    return [
        {
            "gpus": sizes[size],
            "memory": size * GB,
            "ranks": fewest(memory, size * GB, (CUT,)),
            "all_cut": fewest(memory, size * GB, (CUT, *WHOLE)),
        }
        for size in sorted(sizes, reverse=True)
    ]


def figures_on_ranks(report: PlanReport, ranks: int) -> dict[str, Any]:
    """ranks; sharded: whether each has a slice of the optimizer's state; gpus: `gpu_rows`, where the plan is for one.
    report: of one of the ranks."""
    memory = replace(report, slices=None).memory() | scratch(report)
    rows = gpu_rows(memory, report.plan.precision) if report.device.compiles else []
    return {"ranks": ranks, "sharded": report.slices is not None, "gpus": rows}
