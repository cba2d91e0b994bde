"""The choice of a variant, and of its tiles, for each node: the config's, else the recorded one, else the fastest by
`core tune`, else the shipped one for the chip's architecture, else the one of the highest priority that can run.

An explicit choice never falls back: it runs, or BuildError lists every candidate with its reason.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from core.device.nested import Nested
from core.dtypes import TF32, arithmetic, resolve
from core.graph import Graph, Node
from core.op import Op, Tensors, TensorSpec, Variant, make_tensors
from core.plan.live import Live
from core.plan.steps import AUTO, EXPLICIT, GENERATE, Choice, Request
from core.ranks.group import ALONE, Ranks
from core.registry import Registry
from core.roles import B, S

RECORDED = "recorded"
NOTHING, BACKWARD, LOSS = "nothing", "backward", "loss"  # a plan's needs of a variant in addition to its forward


@dataclass(frozen=True)
class NestedChoice:
    """The variant of a nested launch or of a step of the update, with its dims and shapes."""

    choice: Choice
    op: Op
    dims: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]  # of the inputs and params that are present


@dataclass(frozen=True)
class TunedChoice:
    """A variant by name with its tiles, as a run recorded it or as `core tune` found it."""

    variant: str
    config: Mapping[str, Any] | None = None


def choose(graph: Graph, request: Request, live: Live, nodes: Sequence[Node], chooser: Chooser) -> dict[str, Choice]:
    """The third pass: the variant of each node, by its name. Raises BuildError when none can run."""
    return {n.name: chooser.choose(n, graph, request, live.differentiated(n)) for n in nodes}


@dataclass(frozen=True, kw_only=True)
class ChoiceSettings:
    """Choices of variants by the config, by a run that is resumed and by `core tune`, and those that a check refuses.

    ops: op -> variant or "auto". generate: like ops, for generation. nodes: glob over node names -> variant, with its
    op where a fused op is meant ("mlp_gelu.warp"). recorded, configs: node -> variant, and its tiles, of the run that
    is resumed. tuned, shipped: choices of `core tune` and of the plugins' files, `tuning_key` -> variant and tiles.
    tf32: f32 may be multiplied as TF32. failed(variant): its fault by the op check on this device, or None. resumes:
    whether a recorded choice that failed is an error; else another one takes its place.
    """

    ops: Mapping[str, str] = field(default_factory=dict)
    generate: Mapping[str, str] = field(default_factory=dict)
    nodes: Mapping[str, str] = field(default_factory=dict)
    recorded: Mapping[str, str] = field(default_factory=dict)
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tuned: Mapping[str, TunedChoice] = field(default_factory=dict)
    shipped: Mapping[str, TunedChoice] = field(default_factory=dict)
    tf32: bool = False
    failed: Callable[[Variant], str | None] = lambda variant: None
    resumes: bool = True


@dataclass
class Chooser:
    """Chooses variants for one device and precision.

    can_run(variant) is the device's reason to refuse a variant (such as its architecture), or None.
    multiplies(form): whether the device has a number format.
    ranks: the processes of the run, for ops that use them. slices: those of an update over several ranks.
    """

    registry: Registry
    runs: str  # the `device` of the variants: "cpu" or "cuda"
    precision: str
    settings: ChoiceSettings = ChoiceSettings()
    can_run: Callable[[Variant], str | None] = lambda variant: None
    multiplies: Callable[[str], bool] = lambda form: True
    ranks: Ranks = ALONE
    slices: Any = None
    nested_choices: dict[str, Choice] = field(default_factory=dict)  # by op: those of nested launches and updates
    nested: dict[str, NestedChoice] = field(default_factory=dict)  # the same by op and sizes
    _reasons: dict[Variant, str | None] = field(default_factory=dict)  # `cannot`, which hashes sources

    def check_names(self, graph: Graph) -> None:
        """UsageError for an op, node glob or variant that does not exist."""
        ops, generate, nodes = self.settings.ops, self.settings.generate, self.settings.nodes
        if ops or generate or nodes:
            from core.plan import named_variants  # for configs that name any

            named_variants.check_names(graph, self.registry, (("[ops]", ops), ("[ops.generate]", generate)), nodes)

    def explicit(self, node: Node, kind: str) -> tuple[str, str] | None:
        """(variant, config line) that the config names for this node, if it does; "auto" is no choice."""
        choice, generate = None, self.settings.generate if kind == GENERATE else {}
        for table, entries in (("ops", self.settings.ops), ("ops.generate", generate)):
            if node.op.name in entries:
                choice = (entries[node.op.name], f"[{table}] {node.op.name}")
        for pattern, variant in self.settings.nodes.items():
            if fnmatch.fnmatchcase(node.name, pattern):
                from core.plan.named_variants import meant

                if (name := meant(self.registry, node.op.name, variant)) is not None:
                    choice = (name, f'[nodes] "{pattern}"')
        return choice if choice and choice[0] != AUTO else None

    def choose(self, node: Node, graph: Graph, request: Request, backward: bool) -> Choice:
        """The variant of `node`; `backward` when it must have one. Raises BuildError when none can run.

        A variant that does both directions in one go will do where all outputs are loss terms.
        """
        t = specs(node, graph, self.precision, request.capacity)
        needs = NOTHING if not backward else LOSS if set(node.outputs.values()) <= set(graph.loss) else BACKWARD
        tuned, shipped = self.settings.tuned, self.settings.shipped
        key = tuning_key(node, self.precision) if tuned or shipped else ""
        recorded = None if request.kind == GENERATE else self._recorded(node.name)  # of training
        choices = {RECORDED: recorded, "tuned": tuned.get(key), "shipped": shipped.get(key)}

        def why_not(variant: Variant) -> str | None:
            return self.why_not(variant, t, needs)

        return self._among(node.op, node.name, why_not, self.explicit(node, request.kind), choices, f"{node.where}: ")

    def pick(self, name: str, method: str, values: Mapping[str, Any]) -> tuple[Variant, Tensors]:
        """The variant of a nested launch or an update step, and its `t`: chosen by op name, and by shapes where
        gradients distinguish launches."""
        op = self.registry.op(name)
        of_run: dict[str, Any] = {use: getattr(self, use) for use in ("ranks", "slices") if use in op.uses}
        nested = Nested.of(op, method, {**values, **of_run})
        explicit = (self.settings.ops[name], f"[ops] {name}") if self.settings.ops.get(name, AUTO) != AUTO else None
        place = f"{name} {sizes_of(nested)}" if op.gradient else name

        def why_not(variant: Variant) -> str | None:
            return self.cannot(variant) or nested.why_not(variant)

        choice = self._among(op, place, why_not, explicit, {RECORDED: self._recorded(place)})
        nested.t.config = choice.config_for(nested.t)
        self.nested_choices[place] = choice = replace(choice, config=nested.t.config)
        tensors = {n: getattr(nested.t, n) for n in (*op.inputs, *op.params)}
        shapes = {n: tuple(tensor.shape) for n, tensor in tensors.items() if tensor is not None}
        self.nested[f"{name} {sizes_of(nested)}"] = NestedChoice(choice, op, nested.dims, shapes)
        return choice.variant, nested.t

    def _recorded(self, place: str) -> TunedChoice | None:
        """The choice of the run that is resumed, for a node, a nested launch or an update."""
        name = self.settings.recorded.get(place)
        return None if name is None else TunedChoice(name, self.settings.configs.get(place))

    def candidates(self, op: Op) -> list[Variant]:
        """This device's variants of an op, best first."""
        here = [v for v in self.registry.variants_of(op.name).values() if v.device == self.runs]
        return sorted(here, key=lambda v: (-v.priority, v.name))

    def why_not(self, variant: Variant, t: Any, needs: str) -> str | None:
        """The reason why `variant` cannot run on the tensors `t` here; None where it can."""
        if (reason := self.cannot(variant)) is not None:
            return reason
        if needs == BACKWARD and not variant.has_backward:
            return "it has no backward, and this plan trains"
        if needs == LOSS and not (variant.has_backward or variant.has_forward_backward):
            return "it has no backward, and this plan trains"
        return variant.why_not(t)

    def forget(self) -> None:
        """Forget every choice: a check may have failed."""
        self.nested_choices.clear()
        self.nested.clear()
        self._reasons.clear()

    def cannot(self, variant: Variant) -> str | None:
        """The reason why `variant` can run on no tensors here; None where there is none."""
        if variant not in self._reasons:
            self._reasons[variant] = self._reason(variant)
        return self._reasons[variant]

    def _reason(self, variant: Variant) -> str | None:
        if variant.device != self.runs:
            return f"it is for {variant.device}, and this is {self.runs}"
        if self.precision not in variant.dtypes:
            return f"it computes {', '.join(variant.dtypes)}, not {self.precision}"
        form = arithmetic(self.precision, variant.tf32)
        if form == TF32 and not self.settings.tf32:
            return "it multiplies f32 as TF32, with 10 bits of mantissa, which only [train] tf32 = true allows"
        if not self.multiplies(form):
            return f"it multiplies in {form}, which this chip does not have"
        return self.can_run(variant) or self.settings.failed(variant)

    def _among(
        self,
        op: Op,
        node: str,
        why_not: Callable[[Variant], str | None],
        explicit: tuple[str, str] | None,
        choices: Mapping[str, TunedChoice | None],
        where: str = "",
    ) -> Choice:
        rejected: dict[str, str] = {}
        configs = {entry.variant: entry.config for entry in reversed([*choices.values()]) if entry is not None}
        if explicit is not None:
            name, line = explicit
            variant = self.registry.variant(op.name, name)
            reasons = {name: why_not(variant)}
            if reasons[name] is None:
                return Choice(variant, line, config=configs.get(name))
            from core.plan.no_choice import no_choice

            reasons |= {other.name: why_not(other) for other in self.candidates(op) if other.name != name}
            message = f'{where}{line} = "{name}" cannot run node {node}'
            raise no_choice(message, reasons, variant if self.settings.failed(variant) else None)
        best: Choice | None = None
        able: dict[str, Variant] = {}
        for variant in self.candidates(op):
            reason = why_not(variant)
            if reason is not None:
                rejected[variant.name] = reason
                continue
            able[variant.name] = variant
            if variant.priority < 0 or not variant.repeatable:
                rejected[variant.name] = "its bits do not repeat" if variant.priority >= 0 else EXPLICIT
            elif best is None:
                best = Choice(variant, AUTO, rejected)
        for why, entry in choices.items():
            failed = self._failed(op, entry.variant) if entry is not None and why == RECORDED else None
            if failed is not None and entry is not None and self.settings.resumes:
                from core.plan.no_choice import no_choice

                message = f"the run that is resumed took {op.name}.{entry.variant} for node {node}"
                raise no_choice(message, {**dict.fromkeys(able), **rejected}, failed)
            if entry is not None and entry.variant in able:
                return Choice(able[entry.variant], why, rejected, entry.config)
        if best is None:
            from core.plan.no_choice import no_choice

            message = f"{where}no variant of {op.name} can run node {node} on {self.runs} in {self.precision}"
            raise no_choice(message, rejected, op=op.name)
        return best

    def _failed(self, op: Op, name: str) -> Variant | None:
        """A variant of this device that failed its check here; None for any other."""
        variant = self.registry.variants_of(op.name).get(name)
        if variant is None or variant.device != self.runs or not self.settings.failed(variant):
            return None
        return variant


def tuning_key(node: Node, precision: str) -> str:
    """The key of a tuned choice, without the chip: the op, every size and attribute, the dtype."""
    dims = {k: list(v) if isinstance(v, tuple) else v for k, v in node.dims.items()}
    sizes = " ".join(f"{name}={dims[name]}".replace(" ", "") for name in sorted(dims))
    return f"{node.op.name} {precision} {sizes}"


def sizes_of(nested: Nested) -> str:
    """The shapes of a nested launch's arguments, as in `8x16 32x16`."""
    tensors = (vars(nested.t).get(name) for name in (*nested.op.inputs, *nested.op.params))
    return " ".join("x".join(map(str, tensor.shape)) for tensor in tensors if tensor is not None)


def specs(node: Node, graph: Graph, precision: str, capacity: int = 0) -> Any:
    """`t` with shapes and dtypes in place of tensors. capacity: of a decode session, whose `start` and state it then
    has; they are None elsewhere."""
    spec: dict[str, TensorSpec | None] = dict.fromkeys([*node.op.state, *({"start"} & {*node.op.uses})])
    for role in spec if capacity else ():
        if role == "start":
            spec[role] = TensorSpec((node.dims.get(B, 1),), "i32")
        else:
            pattern = node.op.state[role].pattern
            shape = pattern.shape({**node.dims, S: capacity}, f"{node.name}.{role}")
            spec[role] = TensorSpec(shape, resolve(pattern.dtype, precision))
    for role, value in (*node.inputs.items(), *node.outputs.items()):
        declared = graph.values[value]
        spec[role] = TensorSpec(declared.shape, resolve(declared.dtype, precision))
    for role, name in node.params.items():
        spec[role] = TensorSpec(graph.parameters[name].shape, resolve(None, precision))
    absent = dict.fromkeys([*node.op.inputs, *node.op.params])
    return make_tensors(node.dims, {**absent, **spec}, node=node.name)
