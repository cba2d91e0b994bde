"""One variant on one case in one dtype: runs it as a plan would, in every way that a plan may use it.

A `Trial` runs the variant and keeps the truth beside it; checks.py has the sub-checks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from core.dtypes import resolve
from core.op import Op, Pattern, Reference, TensorSpec, Variant
from core.plan import first_config
from core.ranks.group import ALONE
from core.testing.case import Case
from core.testing.compare import Array, round_to, rounding
from core.testing.runner import POISON, Call, CpuRunner, Outcome, Runner

LONG = 512  # an axis longer than this makes an example a large one


@dataclass
class Training:
    """The results of one forward and backward: outputs, saved tensors and gradients by name, and failures.

    starts: earlier contents of gradients, where the variant had to add.
    """

    outputs: dict[str, Array]
    saved: dict[str, Array]
    gradients: dict[str, Array]
    starts: dict[str, Array]
    overrun: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    ranges: dict[str, int] = field(default_factory=dict)

    @property
    def all(self) -> dict[str, Array]:
        """Outputs and gradients."""
        return {**self.outputs, **self.gradients}


@dataclass(frozen=True)
class GradientRequest:
    """A plan's request for gradients.

    unwanted: gradients that are not needed. absent: output gradients that do not exist. add: gradients to
    add to. alias: whether declared aliases are used, so that those are not written. in_place: whether declared
    in-place gradients share the other tensor's memory. order: of row ranges. config: of the variant. fill: the byte
    that everything to be written starts as.
    """

    unwanted: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    add: frozenset[str] = frozenset()
    alias: bool = False
    in_place: bool = False
    order: int = 0
    config: int = 0
    fill: int = POISON


PLAIN = GradientRequest()


class Trial:
    """`mode` is "backward" (two launchers), "forward_backward" (one) or "forward" (no gradient at all).

    fast: whether the search for races in its calls may be left out, since other trials launch the same kernels.
    at_once: tokens that are fed at once while decoding, where the variant does not take all; 0: all.
    """

    fast = False
    at_once = 0

    def __init__(
        self, case: Case, variant: Variant, reference: Reference, dtype: str, mode: str, runner: Runner, home: Runner
    ) -> None:
        self.case, self.variant, self.reference = case, variant, reference
        self.dtype, self.mode, self.runner, self.home = dtype, mode, runner, home
        self.values = case.rounded(dtype)
        self.seeds = case.seeds(dtype)
        self._truths: dict[tuple[str, frozenset[str]], Training] = {}

    @property
    def op(self) -> Op:
        return self.case.op

    @cached_property
    def configs(self) -> list[dict[str, Any]]:
        """The variant's tile candidates on this case."""
        return self.variant.configs(self._bare_call("forward", PLAIN).specs())

    def why_not(self) -> str | None:
        return self.variant.why_not(self._bare_call("forward", PLAIN).specs())

    # --- the variant -----------------------------------------------------------------------------------------

    def train(self, request: GradientRequest = PLAIN) -> Training:
        """Forward and backward by `request`; the outcome has the wanted gradients."""
        if self.mode == "forward_backward":
            call = self.forward_call("forward_backward", request)
            starts = self._gradients(call, request)
            return self._collect(self.runner.run(call), None, call, starts, request)
        call = self.forward_call("forward", request)
        first = self.runner.run(call)
        if self.mode == "forward":
            return self._collect(first, None, call, {}, request)
        later = self.backward_call(first, request)
        starts = self._gradients(later, request)
        return self._collect(first, self.runner.run(later), later, starts, request)

    def calls(self) -> list[Call]:
        """The calls of `train`, for timing."""
        if self.mode == "forward_backward":
            call = self.forward_call("forward_backward")
            self._gradients(call, PLAIN)
            return [call]
        call = self.forward_call()
        if self.mode == "forward":
            return [call]
        later = self.backward_call(self.runner.run(call), PLAIN)
        self._gradients(later, PLAIN)
        return [call, later]

    @property
    def brief(self) -> bool:
        """A large example where runs are slow, which has only the sub-checks that depend on sizes (checks.BRIEF)."""
        return self.runner.slow and self.case.longest > LONG

    @property
    def elements(self) -> int:
        """Elements of all inputs and params."""
        return sum(v.size for v in self.values.values() if v is not None)

    def forward_call(self, method: str = "forward", request: GradientRequest = PLAIN) -> Call:
        return replace(self._bare_call(method, request), config=self._config(request))

    def _config(self, request: GradientRequest) -> dict[str, Any]:
        return self.configs[request.config] if self.configs else {}

    def _bare_call(self, method: str, request: GradientRequest) -> Call:
        """`forward_call` before a tile candidate is chosen."""
        return Call(
            self.variant,
            method,
            self.case.dims,
            given={**self.values, **self._extras()},
            dtypes=self._dtypes,
            writes={**self._specs(self.op.outputs), **self.saved_specs},
            may_change=frozenset(self.op.mutates) | (frozenset(("step",)) if not self.op.gradient else frozenset()),
            flags={"ranks": ALONE} if "ranks" in self.op.uses else {},
            order=request.order,
            fill=request.fill,
            fast=self._fast(request),
        )

    def _fast(self, request: GradientRequest) -> bool:
        """Whether the search for races is elsewhere: in smaller examples, or in the first dtype and the first tiles."""
        return self.fast or (self.brief and (request.config > 0 or self.dtype != self.variant.dtypes[0]))

    @property
    def dims(self) -> dict[str, Any]:
        """The case's, with the tokens of one call."""
        return {**self.case.dims, **({"T": self.at_once} if self.at_once else {})}

    def backward_call(self, first: Outcome, request: GradientRequest) -> Call:
        """Backward with the tensors that the variant declared, and no others."""
        held: dict[str, Array | None] = {**self.values, **{n: first.tensors[n] for n in self.op.outputs}}
        inputs: dict[str, Array | None] = {n: held[n] for n in self.variant.reads}
        inputs |= {n: first.tensors[n] for n in self.variant.saved}
        return Call(
            self.variant,
            "backward",
            self.case.dims,
            given={**inputs, **self._extras()},
            dtypes=self._dtypes,
            config=self._config(request),
            order=request.order,
            fill=request.fill,
            fast=self._fast(request),
        )

    def _gradients(self, call: Call, request: GradientRequest) -> dict[str, Array]:
        """Put the gradients into `call` by `request`; returns the start values of those to add to."""
        inputs: dict[str, Array | None] = dict(call.given)
        writes, shares, flags = dict(call.writes), dict(call.shares), {}
        inputs |= {n: None if n in request.absent else v for n, v in self.seeds.items()}
        wanted = self.wanted(request)
        starts: dict[str, Array] = {}
        for name in ("d" + n for n in (*self.op.inputs, *self.op.params)):
            flags["add_" + name] = False
            spec = self._spec(name)
            if name not in wanted or (request.alias and self.aliased(name)):
                inputs[name] = None
            elif name in request.add or name[1:] in self.variant.partial:
                flags["add_" + name] = True
                starts[name] = self._start(name, spec, zero=name not in request.add)
                inputs[name] = starts[name]
            else:
                writes[name] = spec
                source = self.variant.inplace.get(name) if request.in_place else None
                if source is not None and inputs.get(source) is not None:
                    shares[name] = source
        may_change = call.may_change | frozenset(starts) | frozenset(shares.values())
        call.given, call.writes, call.shares = inputs, writes, shares
        call.flags, call.may_change = flags, may_change
        return starts

    def aliased(self, name: str) -> bool:
        """Whether a plan would take this gradient from another tensor: its source is there to be taken."""
        source = self.variant.alias.get(name)
        return source is not None and (source in self.seeds or source in self.wanted())

    def wanted(self, request: GradientRequest = PLAIN) -> list[str]:
        return [] if self.mode == "forward" else [n for n in self.case.wanted() if n not in request.unwanted]

    def _start(self, name: str, spec: TensorSpec, zero: bool) -> Array:
        """Contents to add to, of the gradient's own size, so that neither drowns in the other."""
        kind = np.float64 if spec.dtype == "f64" else np.float32
        if zero:
            return np.zeros(spec.shape, kind)
        truth = self.truth().gradients[name]
        scale = float(np.sqrt(np.mean(np.square(truth)))) or 1.0
        rng = np.random.default_rng([len(name), truth.size])
        return round_to(rng.standard_normal(spec.shape) * scale, spec.dtype)

    def _collect(
        self, first: Outcome, later: Outcome | None, call: Call, starts: dict[str, Array], request: GradientRequest
    ) -> Training:
        last = later or first
        gradients: dict[str, Array] = {}
        for name in self.wanted(request):
            gradients[name] = last.tensors[self.variant.alias[name] if request.alias and self.aliased(name) else name]
        return Training(
            outputs={n: first.tensors[n] for n in self.op.outputs},
            saved={n: first.tensors[n] for n in self.variant.saved},
            gradients=gradients,
            starts=starts,
            overrun=[*first.overrun, *(later.overrun if later else [])],
            changed=[*first.changed, *(later.changed if later else [])],
            replaced=[*first.replaced, *(later.replaced if later else [])],
            ranges={**first.ranges, **(later.ranges if later else {})},
        )

    # --- shapes and dtypes -----------------------------------------------------------------------------------

    @cached_property
    def saved_specs(self) -> dict[str, TensorSpec]:
        return self.saved_at(self.case.dims)

    def saved_at(self, dims: Mapping[str, Any]) -> dict[str, TensorSpec]:
        """The variant's saved tensors under `dims`."""
        where = f"{self.op.name}.{self.variant.name}, saved"
        specs = {}
        for name, text in self.variant.saved.items():
            pattern = Pattern.parse(text, f"{where} {name}")
            specs[name] = TensorSpec(pattern.shape(dims, where), resolve(pattern.dtype, self.dtype))
        return specs

    def _spec(self, name: str) -> TensorSpec:
        return self.case.spec(name, self.dtype)

    def _specs(self, names: Any) -> dict[str, TensorSpec]:
        return {n: self._spec(n) for n in names}

    @cached_property
    def _dtypes(self) -> Mapping[str, str]:
        op = self.op
        names = [*op.inputs, *op.outputs, *op.params]
        dtypes = {n: resolve(self.case.pattern(n).dtype, self.dtype) for n in names}
        dtypes |= {"d" + n: resolve("acc", self.dtype) if n in op.params else dtypes[n] for n in names}
        dtypes |= {n: s.dtype for n, s in self.saved_specs.items()}
        dtypes |= {n: resolve(op.state[n].pattern.dtype, self.dtype) for n in op.state}
        return {**dtypes, "start": "i32", "counts": "i32", "key": "u32", "step": "f64"}

    def _extras(self) -> dict[str, Array | None]:
        """`start`, `counts`, `key`, `step` and state as a training plan gives them."""
        extras: dict[str, Array | None] = dict.fromkeys(self.op.state)
        extras |= dict.fromkeys(use for use in ("start", "counts") if use in self.op.uses)
        return {**extras, **self.case.extras}

    # --- the truth -------------------------------------------------------------------------------------------

    def truth(self, absent: frozenset[str] = frozenset(), dtype: str = "f64") -> Training:
        """The reference in `dtype` on this trial's rounded inputs; absent output gradients count as zero."""
        key = (dtype, absent)
        if key not in self._truths:
            other = self.truly(self._truth_mode, dtype)
            other.seeds = {n: v * 0 if n in absent else v for n, v in other.seeds.items()}
            self._truths[key] = other.train()
        return self._truths[key]

    def truth_from_above(self, name: str) -> Array:
        """The true gradient `name` for other gradients of the outputs: these, moved by one element."""
        other = self.truly(self._truth_mode)
        other.seeds = {n: np.roll(v.reshape(-1), 1).reshape(v.shape) for n, v in other.seeds.items()}
        return other.train().gradients[name]

    def truly(self, mode: str = "forward", dtype: str = "f64") -> Trial:
        """A trial of the reference in `dtype` with the contents of this one, which may be changed."""
        other = Trial(self.case, self.reference, self.reference, dtype, mode, self.home, self.home)
        kind = np.float32 if dtype == "f32" else np.float64
        other.values = {n: _as(v, kind) for n, v in self.values.items()}
        other.seeds = {n: _as(v, kind) for n, v in self.seeds.items()}
        return other

    def again(self, case: Case | None = None, values: Mapping[str, Array | None] | None = None) -> Trial:
        """This variant's forward on another case or with other contents."""
        other = Trial(case or self.case, self.variant, self.reference, self.dtype, "forward", self.runner, self.home)
        other.values = dict(self.values if values is None else values)
        return other

    @cached_property
    def moved(self) -> Callable[[str, Array], dict[str, Array]]:
        """(tensor, other contents of it) -> the outputs of this variant's forward. For a variant of the cpu, and many
        calls: numeric derivatives."""
        assert isinstance(self.runner, CpuRunner)
        return self.runner.repeated(self.forward_call())

    @property
    def _truth_mode(self) -> str:
        return "forward" if self.mode == "forward" else "backward"

    @property
    def largest(self) -> float:
        """The root mean square of the tensor among inputs, params and output gradients where it is largest."""
        tensors = (*self.values.values(), *self.seeds.values())
        sizes = (float(np.sqrt(np.mean(np.square(v)))) for v in tensors if v is not None and v.dtype.kind == "f")
        return max(sizes, default=1.0)

    def excuse(self, name: str, absent: frozenset[str] = frozenset()) -> float:
        """The relative 2-norm of a tensor's error that rounding alone explains.

        Where large terms cancel (a row of one element, normalised), the reference itself is this far from the truth.
        """
        want, single = self.truth(absent).all[name], self.truth(absent, "f32").all[name]
        return rounding(want, single, self.largest, self.dtype)

    # --- decoding --------------------------------------------------------------------------------------------

    def feed(
        self,
        values: Mapping[str, Array | None],
        state: Mapping[str, Array],
        start: Array,
        counts: Array | None = None,
    ) -> Outcome:
        """One step of a decode session: `values` holds the new tokens only, of which row b has `counts[b]`, all by
        default; `state` is appended to, or changed."""
        call = self.feed_call(values, state, start, counts)
        return self.fed(call, first_config(self.variant, call.specs()))

    def fed(self, call: Call, config: Mapping[str, Any]) -> Outcome:
        """The outcome of such a step with a tile candidate."""
        return self.runner.run(replace(call, config=config))

    def feed_call(
        self,
        values: Mapping[str, Array | None],
        state: Mapping[str, Array],
        start: Array,
        counts: Array | None = None,
    ) -> Call:
        """The call of `feed`, before a tile candidate is chosen."""
        dims = self.case.solve(values)
        arguments = {**values, **state, "start": start}
        if "counts" in self.op.uses:
            arguments["counts"] = np.full(start.shape, dims["T"], np.int32) if counts is None else counts
        return Call(
            self.variant,
            "forward",
            dims,
            given=arguments,
            dtypes=self._dtypes,
            writes={**{n: self.case.spec(n, self.dtype, dims) for n in self.op.outputs}, **self.saved_at(dims)},
            may_change=frozenset(state),
            fast=self.fast,
        )


def _as(value: Array | None, kind: Any) -> Any:
    return value if value is None or value.dtype.kind != "f" else value.astype(kind)
