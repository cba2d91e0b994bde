"""The way from a node's line in the model's TOML to the code that runs it: op, launchers, kernels, file and line."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.device.cpu import RowsCommand
from core.device.launch import CallRecord, HostRecord, LaunchRecord
from core.errors import UsageError, did_you_mean
from core.graph import Node
from core.kernels.arguments import signature, source_text
from core.kernels.sources import shown
from core.kernels.tensors import DeviceTensor, TensorMap
from core.op import Optimizer, Tensors, Variant
from core.plan.buffers import Buffer
from core.plan.choose import Chooser
from core.plan.describe import config_of, in_words
from core.plan.paper import on_paper
from core.plan.record import RecordedStep
from core.plan.step_tensors import all_written_by
from core.plan.steps import Plan, Step
from core.products import Product

if TYPE_CHECKING:
    from core.device.protocol import Device

SCRATCH = "scratch"  # workspace, counters, and arrays of a variant's own
Row = dict[str, Any]  # kind, place, and of a launch its name, grid, block, reads and writes


def way(plan: Plan, name: str, device: Device, chooser: Chooser) -> list[Row]:
    """Rows from a node's TOML line to its op, its variant's launchers, and each kernel or function that they launch.

    Each row has `what` and `where`; that of a launch also `name`, `reads` and `writes`, and on a device of kernels
    `grid` and `block`. Raises UsageError for a node that the graph does not have.
    """
    graph = plan.graph
    names = [n.name for n in graph.nodes]
    if name not in names:
        raise UsageError(f'{graph.name} has no node "{name}"{did_you_mean(name, names)}')
    node = next(n for n in graph.nodes if n.name == name)
    runs = node_that_runs(plan, node)
    out = [("node", f"{name}: op {node.op.name}"), ("toml", toml_line(node)), ("op", _shown(node.op.where))]
    if runs is None:
        return _rows([*out, ("plan", "no request needs this node: it does not run")])
    if runs is not node and runs.op is not node.op:
        out += [("fused into", f"{runs.name}: op {runs.op.name} = {runs.op.replaces}"), ("op", _shown(runs.op.where))]
    choice = plan.choices[runs.name]
    variant = choice.variant
    out.append(("variant", f"{variant.op}.{variant.name} on {variant.device}, chosen by {choice.why}"))
    if config := config_of(plan, runs):
        out.append(("config", in_words(config)))
    launched = _launched(plan, runs, variant, device, chooser)
    ends = []
    for role, value in (*runs.inputs.items(), *runs.outputs.items()):
        declared = graph.values[value]
        ends.append((role, f"{value} {tuple(int(n) for n in declared.shape)} {declared.dtype or plan.precision}"))
    ends += [(role, f"{p} {tuple(int(n) for n in graph.parameters[p].shape)}") for role, p in runs.params.items()]
    ends += [(f"not {other}", why) for other, why in choice.rejected.items()]
    return [*_rows(out), *launched, *_rows(ends)]


def _rows(pairs: Sequence[tuple[str, str]]) -> list[Row]:
    return [{"what": label, "where": where} for label, where in pairs]


class OpCalls(list[tuple[str, str, dict[str, Any]]]):
    """A launch that notes the ops of an optimizer's step: (op, method, tensors and attributes by name)."""

    def op(self, name: str, method: str = "forward", /, **values: Any) -> None:
        self.append((name, method, values))


def way_of_update(optimizer: Optimizer, step: Callable[[Any], None], device: Device, chooser: Chooser) -> list[Row]:
    """The same for an optimizer: from its step to each op that it launches, with variant, launcher and kernels.

    step: `optimizer.step` over tensors on `device`. Ops that launch the same appear once.
    """
    calls = OpCalls()
    step(calls)
    blocks = [_update(name, method, values, device, chooser) for name, method, values in calls]
    different = [block for number, block in enumerate(blocks) if block not in blocks[:number]]
    head = [("optimizer", optimizer.name), ("step", place_of(optimizer.step))]
    return [*_rows(head), *(row for block in different for row in block)]


def _update(name: str, method: str, values: Mapping[str, Any], device: Device, chooser: Chooser) -> list[Row]:
    """The rows of one op of an optimizer's step."""
    picked: list[tuple[Variant, Tensors]] = []

    def pick(op: str, method: str, values: Mapping[str, Any]) -> tuple[Variant, Tensors]:
        picked.append(chooser.pick(op, method, values))
        return picked[-1]

    commands = device.record_calls(lambda launch: launch.op(name, method, **values), pick)
    (variant, t), op = picked[0], chooser.registry.op(name)
    tensors: dict[str, Buffer | None] = {
        role: Buffer(role, tuple(x.shape), "") for role, x in vars(t).items() if hasattr(x, "shape")
    }
    recorded = RecordedStep(Step(method, Node(name, op, {}, {}, {}, {}, {}, op.where), variant, tensors), t, commands)
    launcher = place_of(getattr(variant, method))
    head = [("op", f"{name}  {_shown(op.where)}"), ("variant", f"{variant.op}.{variant.name} on {variant.device}")]
    return [*_rows([*head, (method, launcher)]), *(_row_of(command, recorded, launcher) for command in commands)]


# --- the launches of a node ---------------------------------------------------------------------------------------


def _launched(plan: Plan, node: Node, variant: Variant, device: Device, chooser: Chooser) -> list[Row]:
    """A row for each launcher of the node in the plan, and below it one for each kernel or function."""
    steps = [s for s in plan.steps if s.node is not None and s.node.name == node.name]
    rows: list[Row] = []
    for recorded in on_paper(plan, device.unbacked(), chooser.pick, steps):
        method = "forward" if recorded.step.kind == "recompute" else recorded.step.kind
        launcher = place_of(getattr(variant, method))
        rows.append({"what": recorded.step.kind, "where": launcher})
        rows += [_row_of(command, recorded, launcher) for command in recorded.commands]
    if plan.backward_from < len(plan.steps) and not any("backward" in s.kind for s in steps):
        rows.append({"what": "backward", "where": _why_no_backward(plan, node, variant)})
    return rows


def _why_no_backward(plan: Plan, node: Node, variant: Variant) -> str:
    if plan.request.alias and variant.alias:
        return "launches nothing: " + ", ".join(f"{gradient} is {source}" for gradient, source in variant.alias.items())
    return "does not run: no gradient passes through this node to a parameter that trains"


def _row_of(command: Any, recorded: RecordedStep, launcher: str) -> Row:
    """The row of one command. launcher: the place of its recorder, for a function without lines of its own."""
    if isinstance(command, LaunchRecord):
        where = kernel_place(command)
        arguments = list(_arguments(command, recorded))
        sizes = {"grid": list(command.grid), "block": list(command.block)}
        row = {"what": "kernel", "where": where, "name": command.kernel.name, **sizes}
        reads, writes = (_distinct(name for name, writes in arguments if writes == side) for side in (False, True))
        return {**row, "reads": reads, "writes": writes}
    step = recorded.step
    if isinstance(command, CallRecord | HostRecord):
        reads, where = [n for t in command.args if t is not None for n in _names(t, recorded)], command.line
        return {"what": "call", "where": where, "name": command.origin, "reads": _distinct(reads), "writes": []}
    if isinstance(command, Product):
        reads, writes = (_shared(arrays, recorded) for arrays in ((command.a, command.b), (command.out,)))
        return {"what": "function", "where": _shown(command.line), "name": "product", "reads": reads, "writes": writes}
    function = function_of(command)
    name = getattr(function, "__qualname__", type(function).__name__).replace(".<locals>", "")
    row = {"what": "function", "where": launcher if inspect.isbuiltin(function) else place_of(function), "name": name}
    array = getattr(function, "__self__", None)
    if isinstance(array, np.ndarray):  # its own method, as fill
        return {**row, "reads": [], "writes": _shared((array,), recorded)}
    used = _used(function, recorded.t) or {n for n, b in step.tensors.items() if b is not None}
    names = [n for n in step.tensors if n in used and n not in ("workspace", "counters")]
    written = all_written_by(step)
    writes = [_label(name, recorded) for name in names if name in written]
    reads = [_label(name, recorded) for name in names if name not in written]
    return {**row, "reads": reads or [SCRATCH], "writes": writes or [SCRATCH]}


def _shared(arrays: Iterable[Any], recorded: RecordedStep) -> list[str]:
    """Labels of the step's tensors that share memory with the arrays; "scratch" for an array that is in none."""
    held = {name: whole for name, whole in vars(recorded.t).items() if isinstance(whole, np.ndarray)}
    owners = [[n for n, whole in held.items() if np.may_share_memory(array, whole)] for array in arrays]
    return _distinct(name for names in owners for name in ([_label(n, recorded) for n in names] or [SCRATCH]))


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _arguments(record: LaunchRecord, recorded: RecordedStep) -> Iterator[tuple[str, bool]]:
    """(tensor, whether the kernel may write it) of a launch: a pointer to const is read, any other is written."""
    parameters = signature(record.kernel) or []
    for index, argument in enumerate(record.args):
        tensor = argument.tensor if isinstance(argument, TensorMap) else argument
        if isinstance(tensor, DeviceTensor):
            parameter = parameters[index] if len(parameters) == len(record.args) else ""
            constant = isinstance(argument, TensorMap) or bool(re.search(r"\bconst\b[^*]*\*|\*\s*const\b", parameter))
            yield from ((name, not constant) for name in _names(tensor, recorded))


def _names(tensor: DeviceTensor, recorded: RecordedStep) -> list[str]:
    """The step's tensors that this one is, or is a part of; "scratch" for workspace and counters."""
    for name, whole in vars(recorded.t).items():
        if isinstance(whole, DeviceTensor) and whole.pointer <= tensor.pointer < whole.pointer + max(whole.nbytes, 1):
            return [_label(name, recorded)]
    return [SCRATCH]


def _used(function: Callable[..., Any], t: Tensors, depth: int = 3) -> set[str]:
    """Names of the step's arrays that a function of the cpu holds: in its closure, or as attributes of `t`."""
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None) or ()
    if code is None or depth == 0:
        return set()
    arrays = {name: a for name, a in vars(t).items() if isinstance(a, np.ndarray)}
    used: set[str] = set()
    for value in (cell.cell_contents for cell in cells):
        if value is t:
            used |= arrays.keys() & set(code.co_names)
        elif inspect.isfunction(value):
            used |= _used(value, t, depth - 1)
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, np.ndarray):
                used |= {name for name, whole in arrays.items() if np.may_share_memory(part, whole)}
    return used


def _label(role: str, recorded: RecordedStep) -> str:
    buffer = recorded.step.tensors.get(role)
    return role if buffer is None or buffer.name in (role, "") else f"{role} {buffer.name}"


# --- places ------------------------------------------------------------------------------------------------------


def function_of(command: Any) -> Callable[..., Any]:
    """The function of a command of the cpu: the body of a `launch.rows`, or the argument of `launch.call`."""
    if isinstance(command, RowsCommand):
        return command.f
    if isinstance(command, functools.partial):
        return function_of(command.func)
    function: Callable[..., Any] = inspect.unwrap(command)
    return function


def place_of(function: Callable[..., Any]) -> str:
    """`file:line` of a function; of an object that is called, its class's name."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{shown(Path(code.co_filename))}:{code.co_firstlineno}" if code else type(function).__name__


def _shown(where: str) -> str:
    """`file:line` with the file relative to the current directory, where it is below it."""
    file, _, line = where.rpartition(":")
    return f"{shown(Path(file))}:{line}" if file else where


def kernel_place(record: LaunchRecord) -> str:
    """`file:line` of a kernel: the first line of its source with its name, outside of comments."""
    kernel = record.kernel
    if kernel.text is not None:
        return record.line
    called = re.compile(rf"(?<!\w){re.escape(kernel.name)}\s*[(,)]")
    for number, line in enumerate(source_text(kernel.source).splitlines(), 1):
        if called.search(line.partition("//")[0]):
            return f"{shown(kernel.source)}:{number}"
    return shown(kernel.source)


def node_that_runs(plan: Plan, node: Node) -> Node | None:
    """The plan's node that computes `node`: itself, or the fused one that took its place."""
    return next((n for n in plan.nodes if node.name in {n.name, *(part.name for part in n.parts)}), None)


def toml_line(node: Node) -> str:
    """`file:line` of the node's own line, with its text; without a file, the node's place in the graph."""
    path, _, number = node.where.partition(" [")[0].rpartition(":")
    if not number.isdigit() or not Path(path).is_file():
        return node.where
    lines = Path(path).read_text("utf-8").splitlines()[int(number) - 1 : int(number)]  # none if the file was cut since
    return f"{shown(Path(path))}:{number}  {''.join(lines).strip()}"


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows as text, one line each: launches below their launcher, with sizes and tensors."""
    width = max(len(row["what"]) for row in rows) + 2
    out = []
    for row in rows:
        launch = "name" in row
        label = ("  " if launch else "") + row["what"]
        text = f"{label.ljust(width)}  "
        if launch:
            sizes = f"  grid {_by(row['grid'])}  block {_by(row['block'])}" if "grid" in row else ""
            tensors = f"  reads {', '.join(row['reads']) or 'nothing'}; writes {', '.join(row['writes']) or 'nothing'}"
            text += f"{row['name']}  {row['where']}{sizes}{tensors}"
        else:
            text += row["where"]
        out.append(text)
    return out


def _by(sizes: Sequence[int]) -> str:
    shortest = list(sizes)
    while len(shortest) > 1 and shortest[-1] == 1:
        shortest.pop()
    return " x ".join(f"{n:,}" for n in shortest)
