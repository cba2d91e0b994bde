"""Memory check before the first step: the plan's needs by part, and settings that would fit.

It allocates nothing. The figures are the plan's own, so that the run allocates exactly these bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.errors import DeviceError
from core.plan.arena import fullest, owners
from core.plan.buffers import HELD, alive
from core.plan.cost import node_flops, total
from core.plan.steps import TRAIN, Plan
from core.roles import B
from core.words import human, table

RESERVE = 128 * 2**20  # bytes that stay free: the driver's own needs, kernels' code, small buffers
# measure({"B": 4}, ("gelu",)) -> bytes in all, of the same plan with other dims and with those ops recomputed
Measure = Callable[[Mapping[str, int], Sequence[str]], int]


def needed(memory: Mapping[str, int]) -> int:
    """Bytes in all, of `Engine.memory`'s parts."""
    return sum(memory.get(part, 0) for part in HELD)


def check_fit(
    plan: Plan, memory: Mapping[str, int], free: int, *, device: str = "", measure: Measure | None = None
) -> None:
    """DeviceError unless the plan fits into `free` bytes, with the table of its memory and the settings that would fit.

    memory: `Engine.memory(plan)`. free: the device's bytes for all of it. measure: the needs of the same plan under
    other dims and recompute; without it the advice has no figures.
    """
    need = needed(memory)
    if need + RESERVE <= free:
        return
    where = f" on {device}" if device else ""
    kind = plan.request.kind
    head = (
        f"{plan.graph.name} does not fit into memory{where}: to {kind} it needs {human(need)}, and {human(free)} are "
        f"free ({human(RESERVE)} of them stay free)"
    )
    lines = [head, *_table(plan, memory, free), "largest tensors of the fullest step:"]
    tensors = [(row["nbytes_in_all"], row["name"], row["what"]) for row in largest(plan)]
    lines += table(None, tensors, right=(0,), indent="  ") if tensors else []
    raise DeviceError("\n".join(lines), hint=_advice(plan, free, measure))


def _table(plan: Plan, memory: Mapping[str, int], free: int) -> list[str]:
    within = {part: memory[part] for part in ("saved", "workspace") if part in memory}
    other = memory["activations"] - sum(within.values())
    rows = [(part, memory[part]) for part in HELD if memory.get(part) and part != "activations"]
    rows += list(within.items())
    rows += [("other activations", max(other, 0)), ("in all", needed(memory)), ("free", free)]
    return table(None, [(name, human(nbytes)) for name, nbytes in rows], right=(1,), indent="  ")


def largest(plan: Plan, count: int = 6) -> list[dict[str, Any]]:
    """The tensors in the arena at its fullest: rows of name (repeats folded into `h.*`), role and bytes."""
    rows = []
    for row in owners(plan, fullest(plan))[:count]:
        times = f"{row['count']} x " if row["count"] > 1 else ""
        description = f"{times}{'x'.join(map(str, row['shape']))} {row['dtype']}, {row['role']}"
        nbytes = row["bytes"]
        rows.append({"name": row["name"], "what": description, "nbytes": nbytes, "nbytes_in_all": human(nbytes)})
    return rows


# --- remedies ------------------------------------------------------------------------------------------------------


def _advice(plan: Plan, free: int, measure: Measure | None) -> str:
    """One sentence with a remedy that fits: a smaller B, an op to recompute, or both."""
    if measure is None:
        return "a smaller B, [train] recompute, or precision bf16 or fp16 needs less"
    advice = [text for text in (smaller_batch(plan, free, measure), recompute(plan, free, measure)) if text]
    if advice:
        return "; or ".join(advice)
    ops = candidates(plan)
    if ops and (both := smaller_batch(plan, free, measure, ops)):
        return both
    return "not even B = 1 fits: take a smaller model, precision bf16 or fp16, or a GPU with more memory"


def smaller_batch(plan: Plan, free: int, measure: Measure, ops: Sequence[str] = ()) -> str:
    """The largest divisor of B that fits, as an option of the command line; "" when none does."""
    batch = int(plan.graph.dims.get(B, 1))
    for size in (n for n in range(batch - 1, 0, -1) if batch % n == 0):  # a divisor keeps tokens_per_step legal
        need = measure({B: size}, ops)
        if need + RESERVE <= free:
            extra = f" {_set_recompute(plan, ops)}" if ops else ""
            return f"--set dims.B={size}{extra} needs {human(need)}"
    return ""


def recompute(plan: Plan, free: int, measure: Measure) -> str:
    """The fewest ops, the largest first, whose recompute makes it fit, as an option; "" when none do."""
    ops = candidates(plan)
    for count in range(1, len(ops) + 1):
        need = measure({}, ops[:count])
        if need + RESERVE <= free:
            return f"{_set_recompute(plan, ops[:count])} needs {human(need)}"
    return ""


def _set_recompute(plan: Plan, ops: Sequence[str]) -> str:
    names = ", ".join(f'"{op}"' for op in dict.fromkeys((*plan.request.recompute, *ops)))
    return f"--set 'train.recompute=[{names}]'"


# --- costs of memory -----------------------------------------------------------------------------------------------

WORTH = 0.01  # of all that is needed: recompute that saves less is no option


def recomputable(plan: Plan) -> list[str]:
    """Ops of the model that `[train] recompute` may name in addition; none unless the plan trains."""
    ops = dict.fromkeys(node.op.name for node in plan.graph.nodes) if plan.request.kind == TRAIN else ()
    return [op for op in ops if op not in plan.request.recompute]


def recompute_options(
    plan: Plan, others: Mapping[str, Plan], memory: Callable[[Plan], int], work: Callable[[Plan], tuple[int, int]]
) -> list[dict[str, Any]]:
    """Savings and costs of recomputing an op, one row for each op that saves enough, the largest saving first.

    others: op -> the plan in which it is recomputed too. memory: bytes that a plan needs in all. work: its launches
    and the bytes that they move. A row: op; saves: bytes; flops: those of the matrix products that run again, and
    share: of a micro-step's; traffic: bytes that a micro-step moves more; launches: how many more there are; unfused:
    the fused ops that it takes out.
    """
    needs, (launches, traffic) = memory(plan), work(plan)
    once = total([node_flops(node) for node in plan.nodes]).needed
    rows: list[dict[str, Any]] = []
    for op, other in others.items():
        saves = needs - memory(other)
        if saves < WORTH * needs:
            continue
        flops, (more, moved) = _again(other) - _again(plan), work(other)
        row = {"op": op, "saves": saves, "flops": flops, "share": flops / once if once else 0.0}
        row |= {
            "traffic": moved - traffic,
            "launches": more - launches,
            "unfused": sorted(_fused(plan) - _fused(other)),
        }
        rows.append(row)
    return sorted(rows, key=lambda row: -row["saves"])


def _again(plan: Plan) -> float:
    """FLOPs of the matrix products that backward computes again."""
    return total([node_flops(s.node, backward=False) for s in plan.steps if s.kind == "recompute" and s.node]).needed


def _fused(plan: Plan) -> set[str]:
    return {node.op.name for node in plan.nodes if node.op.replaces}


def candidates(plan: Plan, count: int = 3) -> list[str]:
    """Ops whose results fill most of the memory between forward and backward, the largest first."""
    makers = {value: node.op.name for node in plan.graph.nodes for value in node.outputs.values()}
    held: dict[str, int] = {}
    for buffer in alive(plan.in_arena, plan.backward_from):
        op = makers.get(buffer.name)
        if op is not None and buffer.first < plan.backward_from and op not in plan.request.recompute:
            held[op] = held.get(op, 0) + buffer.nbytes
    return sorted(held, key=lambda op: -held[op])[:count]
