"""The planner broken on purpose, one fault at a time: do the random models of core.testing.graphs see it?

    python -m core.testing.graphs --faults

A fault is a text in a module and its replacement, which is put into the loaded functions and taken out again. A text
that does not occur exactly once is an error, so that the list follows the code. A fault that needs a rare combination
of parts is tried on the one model of tests/graph_shapes.toml that has it.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click

from core.testing.graph_models import random_model
from core.testing.graph_shapes import shapes
from core.testing.graph_trial import each, failure, registry_of

MOST = 80  # models that a fault is shown before it counts as missed


@dataclass(frozen=True)
class Fault:
    """`old` in the source of `module`, once, becomes `new`. shape: the model of graph_shapes that is to see it; without
    one, a random model is."""

    label: str
    module: str
    old: str
    new: str
    shape: str = ""


BACKWARD, LIVE, BUILDER = "core.plan.backward", "core.plan.live", "core.plan.builder"
FUSE, MEMORY, PLACE = "core.plan.fuse", "core.plan.buffers", "core.plan.place"
LAYOUT, RECORD, STEPS = "core.plan.layout", "core.plan.record", "core.plan.steps"
BOUND, ENGINE, DECODE = "core.engine.bound", "core.engine.engine", "core.engine.decode"

FAULTS = (
    # who writes a gradient, and who adds
    Fault(
        "the second use of a tied parameter overwrites its gradient",
        BACKWARD,
        'if name in self.produced:\n                flags["add_d" + role] = True',
        'if name in self.produced:\n                flags["add_d" + role] = False',
    ),
    Fault("every micro-step overwrites the gradient", BACKWARD, 'flags["add_d" + role] = "later"', "pass"),
    Fault(
        "the first micro-step adds to an old gradient",
        BACKWARD,
        'flags["add_d" + role] = "later"',
        'flags["add_d" + role] = True',
    ),
    Fault(
        "a partial gradient is not zeroed before it is added to",
        BACKWARD,
        'b.step("fill", None, None, {"target": gradient}, first_only=True)',
        "pass",
    ),
    Fault(
        "a partial gradient is zeroed by every micro-step",
        BACKWARD,
        'b.step("fill", None, None, {"target": gradient}, first_only=True)',
        'b.step("fill", None, None, {"target": gradient})',
    ),
    Fault(
        "a parameter that the loss does not reach keeps an old gradient",
        BACKWARD,
        "for name in sorted(self.live.trainable - self.produced):",
        "for name in ():",
    ),
    Fault("the second consumer of a value overwrites its gradient", BACKWARD, 'flags["add_" + name] = True', "pass"),
    Fault(
        "a gradient in a temporary replaces the sum so far",
        BACKWARD,
        'self.b.step("add", None, None, {"target": self._exclusive(value), "source": source})',
        "self._hold(value, source)",
    ),
    Fault(
        "a temporary is added twice",
        BACKWARD,
        'self.b.step("add", None, None, {"target": self._exclusive(value), "source": source})',
        'for _ in (1, 2): self.b.step("add", None, None, {"target": self._exclusive(value), "source": source})',
    ),
    Fault(
        "a gradient that comes in a temporary is forgotten",
        BACKWARD,
        'self.b.step("add", None, None, {"target": self._exclusive(value), "source": source})',
        "pass",
    ),
    Fault(
        "the second of two gradients for one value of a node is forgotten",
        BACKWARD,
        'tensors[name] = b.gradient(value, "temporary")\n                after.append((value, name))',
        'tensors[name] = b.gradient(value, "temporary")',
    ),
    # aliases
    Fault(
        "an alias is added to without a copy",
        BACKWARD,
        'if self.holders[buffer] - {value} or buffer.home != "arena":',
        'if buffer.home != "arena":',
    ),
    Fault("an alias is delivered to no value", BACKWARD, "after.append((value, alias[name]))", "pass"),
    Fault(
        "the copy of an alias is made after the sum",
        BACKWARD,
        'own = self.b.gradient(value)\n            self.b.step("copy", None, None, {"target": own, "source": buffer})\n'
        "            self.holders",
        "own = self.b.gradient(value)\n            self.holders",
    ),
    Fault(
        "the source of an alias is added to, and its alias with it",
        BACKWARD,
        "and value not in written and not is_source:",
        "and value not in written:",
        shape="an alias source with a reader of its own",
    ),
    Fault(
        "an alias source beside frozen values is left out",
        BACKWARD,
        'b.gradient(value, "temporary") if is_source else None',
        "None",
        shape="an alias source beside frozen values",
    ),
    # in place
    Fault(
        "a gradient overwrites one that others share",
        BACKWARD,
        "return buffer if self.holders[buffer] == {node.outputs[target[1:]]} else None",
        "return buffer",
        shape="a gradient in place of a shared one",
    ),
    Fault(
        "a gradient overwrites a value that a recompute reads",
        BACKWARD,
        "n.name in self.dropped and n.name not in self.redone and value in n.inputs.values() for n in self.nodes",
        "False for n in self.nodes",
        shape="a gradient in place of a value that a recompute reads",
    ),
    Fault(
        "a gradient overwrites a value that backward still reads",
        BACKWARD,
        "held in self.live.wanted or self._read_later(held, index):",
        "held in self.live.wanted:",
    ),
    # the differentiated values, and the objective
    Fault(
        "a node that has gradients of parameters only is skipped",
        BACKWARD,
        "own = [r for r in (*node.inputs, *node.params) if",
        "own = [r for r in node.inputs if",
    ),
    Fault(
        "a node none of whose parameters trains is skipped",
        BACKWARD,
        "own = [r for r in (*node.inputs, *node.params) if",
        "own = [r for r in node.params if",
    ),
    Fault(
        "weights of loss terms are left out of the objective",
        BOUND,
        "share = weight / max(count, 1) if buffer.shape",
        "share = 1 / max(count, 1) if buffer.shape",
    ),
    Fault(
        "only the first loss term is part of the objective",
        BACKWARD,
        "for value in b.graph.loss:  # every term is part of the objective, whether or not anything trains before it",
        "for value in list(b.graph.loss)[:1]:",
    ),
    Fault(
        "a loss term without trained parameters before it is not part of the objective",
        BACKWARD,
        "for value in b.graph.loss:  # every term is part of the objective, whether or not anything trains before it",
        "for value in [v for v in b.graph.loss if v in self.live.needs]:",
    ),
    Fault(
        "gradients stop at a node without parameters",
        LIVE,
        "if trainable & set(node.params.values()) or needs & set(node.inputs.values()):",
        "if trainable & set(node.params.values()):",
    ),
    Fault(
        "gradients stop at frozen parameters",
        LIVE,
        "needed = bool(self.trainable & set(node.params.values()) or self.needs & set(node.inputs.values()))",
        "needed = bool(self.trainable & set(node.params.values()) or not node.params and "
        "self.needs & set(node.inputs.values()))",
    ),
    Fault("a scalar term counts whole in every micro-step", BOUND, "weight / micro_steps", "weight"),
    Fault(
        "a token's share of the loss is counted in its own micro-step",
        ENGINE,
        "self._write(plan, batch, count, len(batches) * size, first_rows, own_seeds)",
        "self._write(plan, batch, self._count(batch), len(batches) * size, first_rows, own_seeds)",
    ),
    Fault(
        "masks repeat from micro-step to micro-step",
        ENGINE,
        "before.update({node: size * own for node, own in rows.items()})",
        "pass",
    ),
    Fault(
        "masks are counted by tokens, of which each has several rows",
        STEPS,
        ".shape[:-1]) for n in nodes",
        ".shape[:2]) for n in nodes",
        shape="dropout of experts in micro-steps",
    ),
    Fault(
        "a step that is run again overwrites the sums of its micro-steps",
        ENGINE,
        "plan.trace(first=index == 0)",
        "plan.trace(first=True)",
    ),
    # memory
    Fault("memory is given away one step early", MEMORY, "max(self.last, step)", "max(self.last, step - 1)"),
    Fault("memory is taken one step late", MEMORY, "min(self.first, step)", "min(self.first, step + 1)"),
    Fault(
        "two tensors that meet in one step share memory",
        PLACE,
        "first > buffer.last or buffer.first > last",
        "first >= buffer.last or buffer.first >= last",
    ),
    Fault(
        "a tensor's end overlaps its neighbour",
        PLACE,
        "if offset + size <= start:",
        "if offset + size <= start + 256:",
    ),
    Fault(
        "requested values are overwritten",
        BUILDER,
        "buffer.use(len(self.steps))\n            buffer.last = FOREVER",
        "pass",
    ),
    Fault(
        "parameters share the 64 elements of a group",
        LAYOUT,
        "self.size += cdiv(place.size, GROUP) * GROUP",
        "self.size += cdiv(place.size, 8) * 8",
    ),
    Fault("steps of the first micro-step run in all", RECORD, "if first or not s.first_only", "if True"),
    Fault(
        "flags of later micro-steps are those of the first",
        RECORD,
        'not first if flag == "later"',
        'False if flag == "later"',
    ),
    # fusion
    Fault(
        "a requested value is fused away",
        FUSE,
        "return bool(inner & (used_outside | self.rules.keep))",
        "return bool(inner & used_outside)",
    ),
    Fault(
        "a fixed attribute of a pattern is not compared",
        FUSE,
        "if any(node.attrs.get(k) != v for k, v in statement.attrs.items()):",
        "if False:",
    ),
    Fault(
        "parts whose attributes differ become one node",
        FUSE,
        "if carried.setdefault(key, value) != value:",
        "if carried.setdefault(key, value) is None:",
        shape="parts of a fused op with attributes that differ",
    ),
    Fault(
        "parts that share a parameter become one node",
        FUSE,
        "if len(set(params.values())) < len(params):",
        "if False:",
        shape="parts of a fused op that share a parameter",
    ),
    # decoding
    Fault("a prompt's tokens are not counted", DECODE, "self.start += taken", "pass"),
    Fault(
        "a prompt is read from its second token on",
        DECODE,
        "done[:, None] + np.arange",
        "done[:, None] + 1 + np.arange",
    ),
    Fault(
        "each plan has a cache of its own",
        DECODE,
        "self._bind(self.plan(*key), self._states)",
        "self._bind(self.plan(*key), States(self._states.device))",
    ),
    Fault(
        "the last token is fed at its row's start",
        DECODE,
        "plan_bound.write_places(self.start, counts)",
        "plan_bound.write_places(self.start * 0, counts)",
    ),
    Fault(
        "the padding of a prompt counts as tokens",
        DECODE,
        "plan_bound.write_places(self.start, counts)",
        "plan_bound.write_places(self.start, counts * 0 + tokens.shape[1])",
    ),
)


@contextmanager
def planted(fault: Fault) -> Iterator[None]:
    """The fault, in the functions that are loaded, until the block ends.

    Raises ValueError where its text is not there once.
    """
    module = import_module(fault.module)
    text = inspect.getsource(module)
    if text.count(fault.old) != 1:
        raise ValueError(
            f"{fault.module} holds the text of {fault.label!r} {text.count(fault.old)} times; expected once"
        )
    changed: dict[str, Any] = {**vars(module)}
    exec(compile(text.replace(fault.old, fault.new), str(module.__file__), "exec"), changed)
    pairs = [p for name, thing in vars(module).items() for p in _functions(thing, changed[name], module.__name__)]
    before = [(ours, ours.__code__) for ours, _ in pairs]
    try:
        for ours, theirs in pairs:
            ours.__code__ = theirs.__code__
        yield
    finally:
        for ours, code in before:
            ours.__code__ = code


def _functions(ours: Any, theirs: Any, module: str) -> Iterator[tuple[types.FunctionType, types.FunctionType]]:
    """Pairs of the functions of a module, and of the methods and properties of its classes, with their broken twins."""
    if getattr(ours, "__module__", None) != module:
        return
    if isinstance(ours, types.FunctionType):
        yield ours, theirs
    elif isinstance(ours, type):
        for name, thing in vars(ours).items():
            twin = vars(theirs).get(name)
            if isinstance(thing, property) and thing.fget is not None:
                thing, twin = thing.fget, twin.fget
            written = isinstance(thing, types.FunctionType) and thing.__code__.co_filename != "<string>"
            if written:  # by a person, not by dataclass
                yield thing, twin


def caught_after(number: int, seed: int = 0, most: int = MOST) -> tuple[int, str]:
    """The number of models until one sees the fault FAULTS[number], and its message; (0, "") for none.

    A fault with a shape of its own is tried on that shape alone.
    """
    registry, fault = registry_of(()), FAULTS[number]
    shown = [shapes()[fault.shape]] if fault.shape else (random_model(seed + n, registry) for n in range(most))
    for count, model in enumerate(shown, 1):
        with planted(fault):
            said = failure(model, registry)
        if said:
            return count, said
    return 0, ""


def _one(task: tuple[int, int]) -> tuple[int, tuple[int, str]]:
    return task[0], caught_after(*task)


def show(seed: int, jobs: int) -> int:
    """Print the result of every fault; the exit code."""
    missed = 0
    for number, (count, said) in each(_one, [(n, seed) for n in range(len(FAULTS))], jobs):
        missed += not count
        first = said.splitlines()[0][:100] if said else ""
        by = "its shape" if FAULTS[number].shape else f"model {count}"
        click.echo(f"{by if count else 'MISSED':>9}  {FAULTS[number].label}" + (f": {first}" if first else ""))
    shaped = sum(bool(fault.shape) for fault in FAULTS)
    click.echo(f"{len(FAULTS) - missed} of {len(FAULTS)} faults caught, {shaped} by shapes of their own")
    return 1 if missed else 0
