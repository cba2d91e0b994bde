"""One training step: the graph as in its TOML, and each node's tensors forward and backward, as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from core.errors import UsageError, did_you_mean
from core.expr import trim
from core.graph import Node
from core.lens import Lens
from core.op import Reference, Tensors, make_tensors
from core.plan import Plan
from core.plan.way import node_that_runs
from core.registry.lookup import REFERENCE
from core.view.made_of_cells import rules_of
from core.view.node_code import code_of, formula_of
from core.view.node_rows import layer_of, node_row, passing, stream_of, sums_of
from core.view.pictures import SIDE, SMALL_SIDE
from core.view.step_pictures import Traced, traced
from core.view.subject import Subject
from core.words import table

NOT_FINITE = "not finite"
STATISTICS = ("rms", "mean", "min", "max")
FEW = 8  # layers that are all drawn in full


class StepLens(Lens):
    """A node's tensors, forward and backward, with this step's numbers."""

    name, title, scripts = "step", "Step", ("step.js",)
    question = "What does this node do, forward and backward, with which numbers?"

    def collect(self, subject: Subject) -> dict[str, Any] | None:
        """The step, the nodes, their code and pictures; None without a run. Replays the step."""
        if not subject.runs:
            return None
        front = front_of(subject)
        step, plan, passed = subject.replay, subject.plan, passing(subject.registry)
        detailed = layers_in_full(plan, front, subject.options.more)
        with_text = not subject.options.no_text
        tensors = traced(step, plan, lambda n: SIDE if layer_of(n) in detailed else SMALL_SIDE, passed, with_text)
        sums = sums_of(plan.graph, passed)
        stream = stream_of(plan.graph, sums)
        nodes = [node_row(plan, n, stream, sums) | tensors_of(plan, n, tensors) for n in plan.graph.nodes]
        variants = {f"{c.variant.op}.{c.variant.name}": c.variant for c in plan.choices.values()}
        ops = {n.op.name: n.op for n in (*plan.graph.nodes, *plan.nodes)}
        micro = len(step.batches)
        return {
            "run": subject.run.name,
            "step": step.step,
            "began": step.began,
            "label": step.label,
            "exact": step.exact,
            "loss": step.record.loss,
            "norm": step.record.norm,
            "lr": step.lr,
            "micro_steps": micro,
            "front": front,
            "nodes": nodes,
            "moments": tensors.moments,
            "pictures": tensors.pictures,
            "rules": rules_by_kind(subject, plan, tensors),
            "formulas": {name: formula_of(op, subject.registry) for name, op in ops.items()},
            "code": {name: code_of(variant) for name, variant in variants.items()},
            "left_out": left_out(subject, plan, detailed, micro),
        }

    def lines(self, data: Mapping[str, Any]) -> list[str]:
        """The step, a row per node, and the selected node with its tensors."""
        rows = [(n["name"], n["op"], ran(n), *(cell(r) for r in n["rms"])) for n in data["nodes"]]
        node = next(n for n in data["nodes"] if n["name"] == data["front"])
        return [
            f"step {data['step']} of {data['run']}: "
            f"loss {data['loss']:.6g}, norm {data['norm']:.6g}, lr {data['lr']:.3g}",
            data["label"],
            "",
            *table(("node", "op", "ran as", "rms of output", "rms of its gradient"), rows),
            "",
            *node_lines(node, data),
            *(f"left out: {text}" for text in data["left_out"]),
        ]


def front_of(subject: Subject) -> str:
    """The selected node: that of the options, else the one in the middle. UsageError for an unknown one."""
    names, wanted = [node.name for node in subject.graph.nodes], subject.options.node
    if wanted and wanted not in names:
        raise UsageError(f'{subject.graph.name} has no node "{wanted}"{did_you_mean(wanted, names)}')
    with_parameters = [node.name for node in subject.graph.nodes if len(node.params) > 1] or names
    return wanted or with_parameters[len(with_parameters) // 2]


def layers_in_full(plan: Plan, front: str, more: bool) -> set[str]:
    """The layers whose pictures have SIDE cells a side: all of a few, else the first, the last and the selected one."""
    layers = list(dict.fromkeys(layer_of(node.name) for node in plan.graph.nodes))
    if more or len(layers) <= FEW:
        return set(layers)
    inside = [layer for layer in layers if layer]
    return {"", inside[0], inside[-1], layer_of(front)}


def left_out(subject: Subject, plan: Plan, detailed: set[str], micro: int) -> list[str]:
    """The page's omissions, each with the command that shows it."""
    run = " ".join(["core view", *subject.words])
    small = [x for x in dict.fromkeys(layer_of(n.name) for n in plan.graph.nodes) if x not in detailed]
    texts = ["the batch's tokens and targets (--no-text)"] if subject.options.no_text else []
    if small:
        texts.append(
            f"pictures of {len(small)} layers have {SMALL_SIDE} cells a side; "
            f"{run} --node {small[len(small) // 2]}.NAME draws that layer in full, --more draws all"
        )
    if any(node.op.replaces for node in plan.nodes):
        texts.append(f"tensors inside of fused nodes are never in memory; {run} --unfused runs each node separately")
    if micro > 1:
        texts.append(f"values and their gradients are those of micro-step 1 of {micro}; parameters' are of all")
    return texts


# --- a node's tensors ----------------------------------------------------------------------------------------------


def tensors_of(plan: Plan, node: Node, out: Traced) -> dict[str, Any]:
    """`roles`: role -> picture, of all tensors that were in memory; `names`: role -> value or parameter; the roles that
    forward and backward read, write and save; `shared`: gradients that are sums with other nodes'; `rms` of the first
    output and of its gradient."""
    runs = node_that_runs(plan, node)
    ran = runs.name if runs is not None else ""
    names = {**node.inputs, **node.params, **node.outputs}
    roles = {role: out.values[value] for role, value in (node.inputs | node.outputs).items() if value in out.values}
    roles |= {role: out.parameters[name]["value"] for role, name in node.params.items()}
    saved = dict(out.saved.get(ran, {}))
    roles |= saved
    after = out.written.get(ran, {})
    roles |= {f"d{r}": out.gradients[v] for r, v in node.outputs.items() if v in out.gradients}
    gradients = out.gradients | after
    roles |= {f"d{r}": gradients[v] for r, v in node.inputs.items() if v in gradients}
    for role, name in node.params.items():
        kinds = out.parameters[name]
        roles |= {
            key: kinds[kind] for key, kind in ((f"d{role}", "gradient"), (f"update {role}", "update")) if kind in kinds
        }
    theirs = {**runs.inputs, **runs.params, **runs.outputs} if runs is not None else {}
    read = {theirs[role] for role in (plan.choices[ran].variant.reads if ran else ()) if role in theirs}
    reads = [role for role, name in names.items() if name in read and role in roles]
    first = next(iter(node.outputs))
    return {
        "roles": roles,
        "names": names,
        "shared": [f"d{r}" for r, v in node.inputs.items() if out.readers[v] > 1],
        "forward": {"reads": [*node.inputs, *node.params], "writes": list(node.outputs), "saved": list(saved)},
        "backward": {
            "reads": [*(f"d{r}" for r in node.outputs), *reads, *saved],
            "writes": [*(f"d{r}" for r in (*node.inputs, *node.params)), *(f"update {r}" for r in node.params)],
        },
        "rms": [rms_of(out.pictures[roles[r]]) if r in roles else None for r in (first, f"d{first}")],
    }


def rms_of(one: Mapping[str, Any]) -> float | str:
    """The rms of a picture's finite numbers; "not finite" where there are none."""
    return NOT_FINITE if one["rms"] is None else float(one["rms"])


def rules_by_kind(subject: Subject, plan: Plan, out: Traced) -> dict[str, dict[str, Any]]:
    """Node -> tensor -> the dependencies of its elements; nodes of one op and one size share the first one's rules."""
    rules: dict[str, dict[str, Any]] = {}
    kinds: dict[str, str] = {}
    for node in plan.graph.nodes:
        reference = subject.registry.variants.get(node.op.name, {}).get(REFERENCE)
        integers = {r: out.integers[v] for r, v in node.inputs.items() if v in out.integers}
        kind = repr((node.op.name, sorted(node.attrs.items(), key=str), shapes_of(plan, node, out), sorted(integers)))
        kind += node.name if integers else ""
        unknown = {v for v in node.inputs.values() if is_integer(plan, v)} - out.integers.keys()
        if isinstance(reference, Reference) and reference.has_parts and not unknown:
            if kind not in kinds:
                kinds[kind] = node.name
                rules[node.name] = rules_of_node(plan, node, reference, integers, out)
            elif kinds[kind] != node.name:
                rules[node.name] = {"as": kinds[kind]}
    return rules


def is_integer(plan: Plan, value: str) -> bool:
    """Whether a value holds integers, on whose contents parts may depend."""
    return (plan.graph.values[value].dtype or "").startswith("i")


def shapes_of(plan: Plan, node: Node, out: Traced) -> dict[str, tuple[int, ...]]:
    """Role -> shape of the node's tensors, gradients and saved ones."""
    graph, runs = plan.graph, node_that_runs(plan, node)
    own = {r: unpadded_shape(graph.values[v].shape) for r, v in (node.inputs | node.outputs).items()}
    own |= {r: unpadded_shape(graph.parameters[p].shape) for r, p in node.params.items()}
    ran = runs.name if runs is not None else ""
    saved = {r: out.shapes[f"{ran}.{r}"] for r in out.saved.get(ran, {})}
    return own | {f"d{role}": shape for role, shape in own.items()} | saved


def unpadded_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without padding, as a trace has it."""
    return tuple(int(n) for n in trim(shape))


def rules_of_node(
    plan: Plan, node: Node, reference: Reference, integers: Mapping[str, Any], out: Traced
) -> dict[str, Any]:
    """Tensor -> source -> boxes, of the tensors that the node writes."""
    shapes = shapes_of(plan, node, out)
    t = stand_in(node, shapes, integers)
    floats = [role for role in node.inputs if not node.op.inputs[role].pattern.integer]
    written = [*node.outputs, *(f"d{role}" for role in (*floats, *node.params)), *out.saved.get(node.name, {})]
    rules = {tensor: rules_of(reference, t, tensor, shapes) for tensor in written}
    return {tensor: made for tensor, made in rules.items() if made}


def stand_in(node: Node, shapes: Mapping[str, tuple[int, ...]], integers: Mapping[str, Any]) -> Tensors:
    """`t` for `Reference.parts`: tensors of integers have their contents, all others their shape and no memory."""
    held = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()} | dict(integers)
    absent = {role: None for role in (*node.op.inputs, *node.op.params) if role not in shapes}
    return make_tensors(node.dims, {**absent, **held})


# --- in a terminal -------------------------------------------------------------------------------------------------


def ran(node: Mapping[str, Any]) -> str:
    """The variant that ran, with the fused node."""
    if not node["runs"]:
        return "nothing: no request needs it"
    return f"{node['variant']} (in {node['runs']})" if node["fused"] else node["variant"]


def cell(value: float | str | None) -> str:
    if isinstance(value, str):
        return value
    return "not in memory" if value is None else f"{value:.4g}"


def node_lines(node: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    """A node's line of TOML, formula, and its tensors with statistics."""
    formula = data["formulas"][node["op"]]
    rows = []
    for way in ("forward", "backward"):
        for verb, roles in node[way].items():
            for role in roles:
                if role in node["roles"]:
                    one = data["pictures"][node["roles"][role]]
                    shape = "x".join(map(str, one["shape"])) or "1"
                    numbers = [NOT_FINITE if one[name] is None else cell(one[name]) for name in STATISTICS]
                    rows.append((way, verb, role, node["names"].get(role, ""), shape, *numbers))
    header = ("", "", "tensor", "value", "shape", "rms", "mean", "least", "largest")
    return [
        f"{node['name']}  {node['where']}  {node['toml']}",
        f"{formula['doc']} ({formula['where']})",
        *(f"  {line}" for line in formula["formula"].splitlines()),
        *table(header, rows),
        "",
    ]
