"""Cases: an op's examples made concrete, with drawn contents. A case knows shapes and values, no variant.

An example gives shapes by input name, attrs by name, and a param's shape where neither has it; an array in place of a
shape is the contents. Integers are drawn below the bound that the schema states. Padding (sizes made by `pad`) is drawn
as zero.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from core.dtypes import resolve
from core.errors import BuildError, did_you_mean
from core.expr import evaluate, trim
from core.op import CONTROL, SLOT, Op, Pattern, TensorSpec, Variant
from core.testing.compare import Array, round_to

IGNORED = 0.3  # the share of negative integers, where the op ignores them
UNBOUNDED = 4  # integers without a bound (document ids, flag bits) are drawn below this
# a control record in the middle of a run, after three steps: an odd number above 1
GOOD_STEP = {
    "lr": 0.01, "step": 3.0, "loss_scale": 1.0, "loss": 2.5, "norm": 1.5, "scale": 0.75, "ok": 1.0,
    "loss_limit": math.inf, "norm_limit": math.inf, "good_steps": 2.0, "least_scale": 1.0,
}  # fmt: skip
CAPACITY = 3  # rows of a cache beyond the tokens that are fed, which nothing may read


@dataclass(frozen=True)
class Case:
    """One example: `dims` (attrs included), `values` of inputs and params in f64 or integers, None where absent."""

    op: Op
    label: str
    dims: Mapping[str, Any]
    values: Mapping[str, Array | None]
    gradients: Mapping[str, Array]  # "dy" -> the output's gradient
    extras: Mapping[str, Array]  # "key", "step": further inputs of the op

    def pattern(self, name: str) -> Pattern:
        """The pattern of an input, output, param or state."""
        op = self.op
        for slots in (op.inputs, op.outputs, op.state):
            if name in slots:
                return slots[name].pattern
        return op.param_patterns[name]

    def spec(self, name: str, dtype: str, dims: Mapping[str, Any] | None = None) -> TensorSpec:
        """Shape and dtype of a tensor of the schema, or of a gradient by its `d` name, under precision `dtype`."""
        if dims is not None:
            return self._spec(name, dtype, dims)
        if (name, dtype) not in self._own_specs:
            self._own_specs[name, dtype] = self._spec(name, dtype, self.dims)
        return self._own_specs[name, dtype]

    @cached_property
    def _own_specs(self) -> dict[tuple[str, str], TensorSpec]:
        """The answers of `spec` so far, under the case's own dims: a check needs them at every call."""
        return {}

    def _spec(self, name: str, dtype: str, dims: Mapping[str, Any]) -> TensorSpec:
        if name not in self.names and name[1:] in self.names and name.startswith("d"):
            base = self._spec(name[1:], dtype, dims)
            return TensorSpec(base.shape, resolve("acc", dtype)) if name[1:] in self.op.params else base
        pattern = self.pattern(name)
        return TensorSpec(pattern.shape(dims, f"{self.op.name}.{name}"), resolve(pattern.dtype, dtype))

    @cached_property
    def names(self) -> set[str]:
        """The names of all tensors of the schema."""
        op = self.op
        return {*op.inputs, *op.outputs, *op.params, *op.state}

    def rounded(self, dtype: str) -> dict[str, Array | None]:
        """Inputs and params as `dtype` holds them."""
        return {name: None if value is None else self._round(name, value, dtype) for name, value in self.values.items()}

    def _round(self, name: str, value: Array, dtype: str) -> Array:
        pattern = self.pattern(name)
        return value if pattern.integer else round_to(value, resolve(pattern.dtype, dtype))

    def seeds(self, dtype: str) -> dict[str, Array]:
        """The gradients of the outputs as `dtype` holds them."""
        return {name: round_to(value, self.spec(name, dtype).dtype) for name, value in self.gradients.items()}

    def wanted(self) -> list[str]:
        """The gradients that the op owes: of float inputs and params that are present."""
        if not self.op.gradient:
            return []
        inputs = [n for n, s in self.op.inputs.items() if not s.pattern.integer]
        return ["d" + n for n in (*inputs, *self.op.params) if self.values[n] is not None]

    @cached_property
    def longest(self) -> int:
        """The longest axis of any input, param or output."""
        names = (*self.op.inputs, *self.op.params, *self.op.outputs)
        shapes = [self.spec(n, "f32").shape for n in names if self.values.get(n, 0) is not None]
        return max((size for shape in shapes for size in shape), default=1)

    def solve(self, values: Mapping[str, Array | None]) -> dict[str, Any]:
        """The dims that inputs of other sizes have, with this case's params, attrs and capacity."""
        op, where = self.op, f"op {self.op.name!r}, example {self.label}"
        shapes = {n: v.shape for n, v in values.items() if v is not None and n in op.inputs}
        dims = op.solve(shapes, {name: self.dims[name] for name in op.attrs}, where)
        for name, pattern in op.param_patterns.items():
            if (value := self.values[name]) is not None:
                pattern.unify(value.shape, dims, where)
        return {**dims, "S": self.dims.get("S")}

    def axis(self, name: str, token: str) -> int | None:
        """The axis of `name` that the schema calls `token`, or None."""
        pattern = self.pattern(name)
        if token not in pattern.tokens:
            return None
        return pattern.tokens.index(token) + (len(self.dims["..."]) if pattern.leading else 0)


def cases_of(op: Op, variant: Variant, seed: int = 0, only: Sequence[int] | None = None) -> list[Case]:
    """The op's examples and the variant's own; optional parameters and inputs also left out once.

    only: the examples of these numbers, and the rest is as if it were not there.
    """
    examples = [*op.examples, *(dict(e) for e in variant.examples)]
    examples = examples if only is None else [examples[i] for i in only]
    if not examples:
        raise BuildError(
            f'op "{op.name}" has no examples, so there is nothing to check',
            hint='add `examples=[{"x": (4, 7, 64)}, ...]`, with awkward sizes (1, odd, prime) among them',
        )
    return [make_case(op, e, seed, index) for index, e in enumerate([*examples, *reduced(op, examples)])]


def reduced(op: Op, examples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Examples without one optional parameter or input, where no example is without it already."""
    more: list[dict[str, Any]] = []
    first = dict(examples[0])
    for param, declared in op.params.items():
        if declared.optional and all(e.get(param, op.attrs[param]) for e in examples):
            more.append({**first, param: False})
    for name, slot in op.inputs.items():
        naming = [e for e in examples if name in e]
        if slot.optional and len(naming) == len(examples):
            more.append({k: v for k, v in first.items() if k != name})
    return more


def make_case(op: Op, example: Mapping[str, Any], seed: int = 0, index: int = 0) -> Case:
    """Shapes, dims and drawn contents of one example; every second one has no integer 0.

    Raises BuildError for an example that does not fit the op.
    """
    where = f"op {op.name!r}, example {dict(example)!r}"
    sizes = {k: tuple(v) for k, v in example.items() if k in op.params and isinstance(v, tuple)}
    for key in example:
        if key not in op.inputs and key not in op.attrs and key not in sizes:
            names = [*op.inputs, *op.attrs]
            raise BuildError(
                f'{where}: no input or attr "{key}"{did_you_mean(key, names)}', hint=f"it has: {', '.join(names)}"
            )
    fixed = {k: np.asarray(v) for k, v in example.items() if k in op.inputs and not isinstance(v, tuple)}
    shapes = {k: fixed[k].shape if k in fixed else tuple(example[k]) for k in op.inputs if k in example}
    for name, slot in op.inputs.items():
        if name not in shapes and not slot.optional:
            raise BuildError(f'{where}: the input "{name}" has no shape')
    attrs = op.settle_attrs({k: v for k, v in example.items() if k in op.attrs and k not in sizes}, {}, where)
    dims = op.solve(shapes, attrs, where)
    for name, shape in sizes.items():
        op.param_patterns[name].unify(shape, dims, f"{where}, param {name!r}")
    if op.state:
        dims.setdefault("S", max(dims.get("T", 1), 1) + CAPACITY)
    shown = {k: v for k, v in example.items() if k in op.inputs or k in sizes or v != op.default_of(k)}
    label = ", ".join(f"{k}={'contents' if k in fixed else v}" for k, v in shown.items())
    rng = np.random.default_rng([seed, zlib.crc32(label.encode())])
    values: dict[str, Array | None] = {}
    for name in op.inputs:
        values[name] = None
        if name in shapes:
            values[name] = fixed[name] if name in fixed else draw_input(op, name, shapes[name], dims, rng, index % 2)
    present = op.present_params(attrs)
    for name in op.params:
        values[name] = (
            draw(op.param_patterns[name].shape(dims, f"{where}, param {name!r}"), rng) if name in present else None
        )
    gradients = {
        "d" + name: draw(slot.pattern.shape(dims, f"{where}, output {name!r}"), rng)
        for name, slot in op.outputs.items()
        if op.gradient and not slot.pattern.integer
    }
    return Case(op, label, dims, values, gradients, draw_extras(op, rng))


def draw(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Standard normal contents, zero in the padding."""
    values = rng.standard_normal(shape)
    values[padding(shape)] = 0.0
    return values


def padding(shape: tuple[int, ...]) -> Array:
    """The mask of padding in a tensor of this shape."""
    outside = np.zeros(shape, bool)
    if trim(shape) != shape:
        outside[...] = True
        outside[tuple(slice(0, n) for n in trim(shape))] = False
    return outside


def draw_input(
    op: Op, name: str, shape: tuple[int, ...], dims: Mapping[str, Any], rng: np.random.Generator, least: int
) -> Array:
    """Contents of an input: normal, integers below their bound, or zero for the state that an update starts from."""
    pattern = op.inputs[name].pattern
    if not pattern.integer:
        if name in op.mutates and pattern.dtype == "acc":
            return np.zeros(shape)
        return draw(shape, rng)
    limit = int(evaluate(pattern.bound, dims, f"{op.name}.{name}")) if pattern.bound else UNBOUNDED
    kind = {"i32": np.int32, "u32": np.uint32, "u8": np.uint8}[str(pattern.dtype)]
    least = min(least, limit - 1)
    values = rng.integers(least, limit, shape).astype(kind)
    edges = [limit - 1, least]  # the largest, the smallest and an ignored one are always among them
    if ignores_negative(op, name):
        values[rng.random(shape) < IGNORED] = -1
        edges.append(-1)
    first = values.reshape(-1)[: len(edges)]
    first[...] = edges[: first.size]
    return values


def ignores_negative(op: Op, name: str) -> bool:
    """Whether negative integers of this input mean "ignored": the rule of a loss term that has one value a token."""
    pattern = op.inputs[name].pattern
    shape = pattern.text.partition(":")[0].split()
    return pattern.dtype == "i32" and any(
        slot.pattern.dtype == "acc" and slot.pattern.text.partition(":")[0].split() == shape and shape
        for slot in op.outputs.values()
    )


def draw_extras(op: Op, rng: np.random.Generator) -> dict[str, Array]:
    """An op's inputs other than tensors: the random key, the control record of a step."""
    extras: dict[str, Array] = {}
    if "random" in op.uses:
        extras["key"] = np.array([rng.integers(1, 2**31), rng.integers(1, 2**31), 3, 0], np.uint32)
    if "step" in op.uses:
        record = np.zeros(len(CONTROL))
        for slot, value in GOOD_STEP.items():
            record[SLOT[slot]] = value
        extras["step"] = record
    return extras
