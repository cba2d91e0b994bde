"""A graph and a request become a plan: the passes in order."""

from __future__ import annotations

from core.errors import UsageError, did_you_mean
from core.graph import Graph
from core.plan.backward import backward
from core.plan.builder import Builder
from core.plan.choose import Chooser, choose
from core.plan.forward import forward
from core.plan.fuse import check_fusion, fuse
from core.plan.layout import ParameterLayout
from core.plan.live import live
from core.plan.place import place
from core.plan.steps import Plan, Request


def make_plan(graph: Graph, request: Request, chooser: Chooser, layout: ParameterLayout) -> Plan:
    """The plan for `request`. Raises BuildError when a node cannot run or cannot be differentiated."""
    check_request(graph, request, chooser)
    needed = live(graph, request, layout)
    nodes, blocked_fusions = fuse(graph, request, needed, chooser)
    choices = choose(graph, request, needed, nodes, chooser)
    builder = Builder.of(graph, request, needed, nodes, choices, layout, chooser.precision)
    forward(builder)
    backward_from = len(builder.steps)
    seeds = backward(builder)
    values = builder.keep(needed.wanted)
    made = (builder.steps, builder.buffers, values, seeds, backward_from, blocked_fusions)
    plan = Plan(graph, request, chooser.precision, nodes, choices, *made)
    plan.arena_bytes = place(plan.in_arena)
    return plan


def check_request(graph: Graph, request: Request, chooser: Chooser) -> None:
    """UsageError for a value, an op of `recompute` or a key of `[fuse]` that does not exist."""
    for value in request.outputs:
        if value not in graph.values:
            raise UsageError(f'{graph.name} has no value "{value}"{did_you_mean(value, graph.values)}')
    for op in request.recompute:
        ops = sorted({n.op.name for n in graph.nodes})
        fused = sorted(name for name, definition in chooser.registry.ops.items() if definition.replaces)
        if op not in (*ops, *fused):
            ops += fused
            raise UsageError(f'[train] recompute "{op}": {graph.name} has no node of that op{did_you_mean(op, ops)}')
    check_fusion(request.fusion, chooser.registry.ops, lambda key: "[fuse] " + " ".join(key.split(".")[1:]))
