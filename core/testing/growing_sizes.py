"""Examples of an op at sizes that grow until they are a model's, and the cost of a check at them, by shapes alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from core.expr import evaluate
from core.op import Op
from core.sim.native.choice import natively

FEWEST = 2  # rows or sequences of the first step
GROWTH = 8  # of the following steps
MOST = 16 * 1024  # rows of an example that is grown: the tokens of a micro-batch
PER_ELEMENT = 200.0  # FLOPs in whose time an element is drawn, compared and copied
COSTS = {  # executor -> seconds of a check of any size; FLOP/s of the slower side
    "": (0.3, 2e9),  # the reference in f64
    "native": (1.0, 1e9),  # beside kernels in the simulator
    "interpreter": (2.0, 30e6),
}
ROUNDS = 2.0  # plain, and with gradients added to
DIRECTIONS = 3.0  # forward, and backward with twice its products


def steps_of(op: Op, example: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The example with few rows or sequences, then with more, then as it is.

    Where all inputs have `...`, these are the rows. Elsewhere the first axis shrinks, and the second one where it is
    the same in all inputs; other shapes keep the ratio to the smallest one.
    """
    shapes = {n: tuple(v) for n, v in example.items() if n in op.inputs and isinstance(v, tuple)}
    own = {n: len(op.inputs[n].pattern.tokens) for n in shapes}
    if shapes and all(op.inputs[n].pattern.leading for n in shapes):
        rows = math.prod(next(shape[: len(shape) - own[n]] for n, shape in shapes.items()))
        for few in fewer(rows):
            yield {**example, **{n: (few, *shape[len(shape) - own[n] :]) for n, shape in shapes.items()}}
    elif shapes and all(shapes.values()):
        for first, second in axes(shapes):
            if reduced := scaled(shapes, first, second):
                yield {**example, **reduced}
    yield example


def grown(op: Op, example: Mapping[str, Any], work: float) -> Mapping[str, Any] | None:
    """The example with as many times its rows or sequences as `work` FLOPs and MOST allow, a power of two; None for
    once."""
    shapes = {n: tuple(v) for n, v in example.items() if n in op.inputs and isinstance(v, tuple)}
    if not shapes or not all(shapes.values()):
        return None
    first = min(shape[0] for shape in shapes.values())
    larger, times = None, 2
    while (
        first * times <= MOST
        and (shape := scaled(shapes, first * times, 0))
        and work_of(op, {**example, **shape}) <= work
    ):
        larger, times = {**example, **shape}, 2 * times
    return larger


def fewer(size: int) -> Iterator[int]:
    """2, 16, 128, ... below `size`."""
    few = FEWEST
    while few < size:
        yield few
        few *= GROWTH


def axes(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[int, int]]:
    """(first axis, second axis) in growing order; 0 for a second axis that stays."""
    first = min(shape[0] for shape in shapes.values())
    seconds = {shape[1] if len(shape) > 1 else 0 for shape in shapes.values()}
    second = seconds.pop() if len(seconds) == 1 else 0
    if second:
        yield from ((1, GROWTH * few) for few in fewer(second // GROWTH))
    yield from ((few, second) for few in (1, *fewer(first)) if few < first)


def scaled(shapes: Mapping[str, tuple[int, ...]], first: int, second: int) -> dict[str, tuple[int, ...]] | None:
    """The shapes with the smallest first axis cut to `first`, others in proportion; None where that is no whole one."""
    least = min(shape[0] for shape in shapes.values())
    if any(shape[0] % least for shape in shapes.values()):
        return None
    cut = {n: (shape[0] // least * first, *shape[1:]) for n, shape in shapes.items()}
    return {n: (s[0], second, *s[2:]) if second and len(s) > 1 else s for n, s in cut.items()}


def dims_of(op: Op, example: Mapping[str, Any]) -> dict[str, Any]:
    """All dims that an example gives."""
    where = f"op {op.name!r}, example {dict(example)!r}"
    params = {n: v for n, v in example.items() if n in op.params and isinstance(v, tuple)}
    shapes = {n: np.shape(v) if not isinstance(v, tuple) else v for n, v in example.items() if n in op.inputs}
    attrs = {n: v for n, v in example.items() if n in op.attrs and n not in params}
    dims = op.solve(shapes, op.settle_attrs(attrs, {}, where), where)
    for name, shape in params.items():
        op.param_patterns[name].unify(shape, dims, where)
    return dims


def elements_at(op: Op, example: Mapping[str, Any]) -> int:
    """Elements of all inputs, outputs and params."""
    dims = dims_of(op, example)
    patterns = [op.inputs[n].pattern for n in op.inputs if n in example]
    patterns += [slot.pattern for slot in op.outputs.values()]
    patterns += [op.param_patterns[name] for name in op.present_params(dims)]
    return sum(math.prod(pattern.shape(dims, op.name)) for pattern in patterns)


def bytes_of(op: Op, example: Mapping[str, Any]) -> int:
    """Bytes of the tensors in f64."""
    return 8 * elements_at(op, example)


def work_of(op: Op, example: Mapping[str, Any]) -> float:
    """FLOPs of a step, forward and backward, with a constant for each element."""
    dims = dims_of(op, example)
    sizes = {**dims, "rows": math.prod(dims.get("...", ()))}
    flops = float(evaluate(op.flops, sizes, op.name))
    if op.statements:  # a fused op does not list its products: one with each parameter
        weights = [math.prod(op.param_patterns[name].shape(dims, op.name)) for name in op.present_params(dims)]
        flops = 2.0 * sizes["rows"] * sum(weights)
    return DIRECTIONS * flops + PER_ELEMENT * elements_at(op, example)


def costs(simulated: bool) -> tuple[float, float]:
    """The row of COSTS for kernels in the simulator or elsewhere."""
    return COSTS["" if not simulated else "native" if natively(None, "") else "interpreter"]


def estimate(op: Op, example: Mapping[str, Any], simulated: bool) -> float:
    """Seconds that a check at these sizes may take, all its steps together."""
    overhead, rate = costs(simulated)
    return overhead + ROUNDS * work_of(op, example) / rate
