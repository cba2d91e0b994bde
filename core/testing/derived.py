"""The reference of a fused op: its pattern, run statement by statement with the simple ops' references.

Forward runs the statements; backward is the chain rule over them. The `Reference` serves the op check, and is never a
candidate for a run: it allocates the tensors that the fused op exists to avoid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.errors import BuildError
from core.op import ACC, Op, Pattern, Reference, Statement, Tensors, Variant, make_tensors
from core.registry import Registry

Array = np.ndarray[Any, Any]
SEES = ("start", "counts", "key", "step")  # an op's inputs other than tensors


def derive_reference(op: Op, registry: Registry) -> Reference:
    """The reference that follows from `op.replaces`.

    Raises BuildError when `op` has no pattern or an op of the pattern has no reference.
    """
    if not op.statements:
        raise BuildError(f'op "{op.name}" replaces nothing, so no reference follows from it')
    pattern = [PatternPart(s, registry.op(s.op), registry.variant(s.op, "reference")) for s in op.statements]
    inputs = tuple(op.inputs)
    kind = type(
        "Derived",
        (_Derived,),
        {
            "op": op.name,
            "name": "derived",
            "reads": (*inputs, *op.params),
            "can_add": tuple(n for n, s in op.inputs.items() if not s.pattern.integer),
            "__doc__": f"{op.name} by its pattern: {op.replaces}.",
        },
    )
    reference: _Derived = kind()
    reference.schema, reference.pattern = op, pattern
    return reference


@dataclass(frozen=True)
class PatternPart:
    """One statement with its op and that op's reference."""

    statement: Statement
    op: Op
    variant: Variant

    def binding(self, fused: Op) -> dict[str, str | None]:
        """role of the simple op -> name in the pattern; None for a role that the statement leaves out."""
        arguments = self.statement.arguments
        params = [a for a in arguments if a in fused.params]
        inputs = [a for a in arguments if a not in fused.params]
        present = [p for p in self.op.params if self.statement.attrs.get(p, True) is not False]
        if len(inputs) > len(self.op.inputs) or len(params) > len(present):
            raise BuildError(f'op "{fused.name}": too many arguments for {self.op.name} in "{fused.replaces}"')
        bound: dict[str, str | None] = dict.fromkeys((*self.op.inputs, *self.op.params))
        bound |= dict(zip(self.op.inputs, inputs, strict=False))
        bound |= dict(zip(present, params, strict=False))
        return bound


@dataclass
class _Node:
    """A statement at work: everything that its reference's forward saw, kept for its backward."""

    part: PatternPart
    bound: dict[str, str | None]
    dims: dict[str, Any]
    tensors: dict[str, Any]


class _Derived(Reference):
    schema: Op
    pattern: list[PatternPart]

    def forward(self, t: Any) -> None:  # type: ignore[override]
        _, values = self.run(t)
        for name in self.schema.outputs:
            getattr(t, name)[...] = values[name]

    def run(self, t: Any) -> tuple[list[_Node], dict[str, Any]]:
        """All statements forward: the nodes, and every value by its name in the pattern."""
        values: dict[str, Any] = {n: getattr(t, n) for n in (*self.schema.inputs, *self.schema.params)}
        nodes = []
        for part in self.pattern:
            node = self.node(part, t, values)
            part.variant.forward(make_tensors(node.dims, node.tensors))  # type: ignore[call-arg]
            nodes.append(node)
            values |= dict(zip(part.statement.outputs, (node.tensors[o] for o in part.op.outputs), strict=False))
        return nodes, values

    def node(self, part: PatternPart, t: Any, values: Mapping[str, Any]) -> _Node:
        bound = part.binding(self.schema)
        op = part.op
        tensors: dict[str, Any] = {role: values[name] if name else None for role, name in bound.items()}
        attrs = self.attrs(part, t, tensors)
        where = f'{self.schema.name}, "{part.statement.op}"'
        dims = op.solve({i: tensors[i].shape for i in op.inputs if tensors[i] is not None}, attrs, where)
        float_type = next(v.dtype for v in values.values() if v is not None and v.dtype.kind == "f")
        for name, slot in op.outputs.items():
            tensors[name] = empty(slot.pattern, dims, float_type, where)
        for name, text in part.variant.saved.items():
            tensors[name] = empty(Pattern.parse(text, where), dims, float_type, where)
        tensors |= {name: getattr(t, name, None) for name in (*SEES, *op.state)}  # a fused op has its parts' state
        return _Node(part, bound, dims, tensors)

    def attrs(self, part: PatternPart, t: Any, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """A statement's attrs: its own, those of the tensors, the fused op's own of that name, the default."""
        op = part.op
        sizes: dict[str, Any] = {}
        for role, pattern in op.param_patterns.items():
            if tensors[role] is not None:
                sizes |= dict(zip(pattern.tokens, tensors[role].shape, strict=True))
        values: dict[str, Any] = {}
        for name in op.attrs:
            if name in part.statement.attrs:
                values[name] = part.statement.attrs[name]
            elif name in op.params:
                values[name] = tensors[name] is not None
            elif name in sizes:
                values[name] = sizes[name]
            elif name in self.schema.attrs:
                values[name] = getattr(t, name)
        return op.settle_attrs(values, {}, f'{self.schema.name}, "{part.statement.op}"')

    def backward(self, t: Any) -> None:  # type: ignore[override]
        nodes, values = self.run(t)
        grads: dict[str, Array] = {}
        for name in self.schema.outputs:
            seed = getattr(t, "d" + name)
            if seed is not None:
                grads[name] = seed.copy()
        for node in reversed(nodes):
            for name, gradient in self.chain(node, grads, values).items():
                grads[name] = grads[name] + gradient if name in grads else gradient
        for name in (*self.schema.inputs, *self.schema.params):
            target = getattr(t, "d" + name)
            if target is not None:
                t.add("d" + name, grads.get(name, np.zeros(target.shape, target.dtype)))

    def chain(self, node: _Node, grads: Mapping[str, Array], values: Mapping[str, Any]) -> dict[str, Array]:
        """One statement's gradients by name in the pattern; empty without a gradient of its outputs."""
        part, op = node.part, node.part.op
        above = dict(zip(op.outputs, part.statement.outputs, strict=False))
        if not any(name in grads for name in above.values()):
            return {}
        tensors = {n: node.tensors[n] for n in (*part.variant.saved, *part.variant.reads)}
        tensors |= {"d" + o: grads.get(name) for o, name in above.items()}
        tensors |= {name: node.tensors[name] for name in (*SEES, *op.state)}
        wanted: dict[str, str] = {}
        for role in (*op.inputs, *op.params):
            name = node.bound[role]
            integer = role in op.inputs and op.inputs[role].pattern.integer
            tensors["d" + role] = None
            if name is not None and values[name] is not None and not integer:
                tensors["d" + role] = np.zeros(values[name].shape, values[name].dtype)
                wanted[role] = name
        flags = {"add_d" + role: False for role in (*op.inputs, *op.params)}
        t: Tensors = make_tensors(node.dims, tensors, **flags)
        part.variant.backward(t)  # type: ignore[call-arg]
        gradients: dict[str, Array] = {}
        for role, name in wanted.items():
            gradient = tensors["d" + role]
            gradients[name] = gradients[name] + gradient if name in gradients else gradient
        return gradients


def empty(pattern: Pattern, dims: Mapping[str, Any], float_type: Any, where: str) -> Array:
    """Memory for a tensor of a statement. On the cpu statistics have the activations' type."""
    if pattern.dtype not in (None, ACC):
        raise BuildError(f'{where}: "{pattern.text}" is neither activations nor statistics')
    return np.full(pattern.shape(dims, where), np.nan, float_type)
