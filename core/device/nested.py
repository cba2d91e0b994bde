"""Shared by all devices: launches of one op inside another op's launcher, and the replay of commands in their order."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import BuildError
from core.op import Op, Tensors, Variant, make_tensors

# pick("matmul", "forward", tensors and attrs by name) -> the variant that a nested launch uses, and its `t`
Pick = Callable[[str, str, Mapping[str, Any]], tuple[Variant, Tensors]]


@dataclass(frozen=True)
class Nested:
    """The request of a `launch.op(name, method, **values)`.

    values: the op's inputs and params, with which dims and sizes follow; its outputs, gradients by their `d` names
    (absent ones are None), `add_d...` where one is added to; its attrs. Anything else is a tensor that the variant
    saves in forward and reads in backward: the launching variant keeps it in between, and passes it to both.
    """

    op: Op
    method: str
    t: Tensors
    keeps: frozenset[str]
    adds: frozenset[str]  # inputs whose gradient is added to
    dims: Mapping[str, Any]

    @classmethod
    def of(cls, op: Op, method: str, values: Mapping[str, Any]) -> Nested:
        """BuildError for sizes or attrs that the op does not have."""
        where = f"launch.op({op.name!r})"
        own = (*op.inputs, *op.params)
        tensors = dict.fromkeys((*own, *op.state, *op.outputs))
        gradients: dict[str, Any] = dict.fromkeys(f"d{n}" for n in (*own, *op.outputs))
        gradients |= {f"add_d{n}": False for n in own}
        names = {*tensors, *gradients, "step", "start", "counts", "key", "ranks", "slices"}
        missing = [n for n, slot in op.inputs.items() if not slot.optional and values.get(n) is None]
        if missing:
            raise BuildError(f"{where} lacks the input {missing[0]!r}, whose shape it needs forward and backward")
        keeps = {k for k, v in values.items() if k not in names | set(op.attrs) and hasattr(v, "shape")}
        attrs = {k: v for k, v in values.items() if k not in names | keeps}
        for param, pattern in op.param_patterns.items():
            if op.params[param].optional:
                attrs[param] = values.get(param) is not None
            if values.get(param) is not None:
                sizes = zip(pattern.tokens, values[param].shape, strict=True)
                attrs |= {token: size for token, size in sizes if token in op.attrs}
        shapes = {k: v.shape for k, v in values.items() if k in op.inputs and v is not None}
        dims = op.solve(shapes, op.settle_attrs(attrs, {}, where), where)
        tensors_passed = {k: v for k, v in values.items() if k not in attrs or k in tensors}
        absent = gradients if method == "backward" else {}
        t = make_tensors(dims, {**tensors, **absent, **tensors_passed}, node=op.name)
        return cls(op, method, t, frozenset(keeps), frozenset(n for n in op.inputs if values.get(f"add_d{n}")), dims)

    def why_not(self, variant: Variant) -> str | None:
        """The reason why a variant cannot serve this nested launch; None where it can."""
        if (self.method == "backward" or self.keeps) and not variant.has_backward:
            return "it has no backward"  # which the kept tensors are for
        if set(variant.saved) != self.keeps:
            caller, saved = (", ".join(sorted(names)) or "nothing" for names in (self.keeps, variant.saved))
            return f"it saves {saved}, and a nested launch keeps {caller}"
        if lacks := self.adds - set(variant.can_add):
            return f"it cannot add to d{min(lacks)}"
        if self.t.slices is not None and not variant.slices:
            return "it takes the slice of this rank for all of the arena: it does not declare `slices`"
        return variant.why_not(self.t)


class InOrder:
    """A device that runs commands one after another, and returns when the last one has run."""

    def allow_dependent_launch(self) -> None:
        """No-op: no kernel begins before the one in front of it has ended."""

    def captured(self, commands: Sequence[Any]) -> Sequence[Any]:
        """The commands in the form that replays fastest: as they are."""
        return commands

    def beside(self, parts: Sequence[Sequence[Any]]) -> list[list[Any]]:
        """Nothing: nothing runs beside the step."""
        return []

    def elapsed(self, groups: Sequence[Sequence[Any]]) -> list[float]:
        """Run groups of commands in order; seconds of each, by the clock."""
        device: Any = self
        seconds = []
        for commands in groups:
            begun = time.perf_counter()
            device.run(commands)
            seconds.append(time.perf_counter() - begun)
        return seconds
