"""Plans bound to a device: parameters in flat arenas, recorded steps, forward, backward, update, decoding.

An Engine owns the memory. A plan is bound once: every tensor gets its address and each launcher is called once to
record what it launches; a step replays the record. The first micro-step of a step and the later ones are two
records, since the first writes parameter gradients and the others add to them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from core.device import open_device
from core.dtypes import check_precision, itemsize, resolve
from core.engine.bound import Array, Batch, BoundPlan, TraceEvent
from core.engine.decode import DecodeSession
from core.engine.store import ParameterStore
from core.errors import BuildError, DataError, DeviceError, UsageError, did_you_mean
from core.expr import described
from core.graph import TARGETS, Graph, ModelSource
from core.op import CONTROL, SLOT, Optimizer, Pattern, Tensors, Variant
from core.plan import EVALUATE, TRAIN, Choice, Chooser, Kept, ParameterLayout, Plan, Request, make_plan, trimmed
from core.plan.choose import specs
from core.plan.fit import check_fit, needed, recomputable, recompute_options
from core.plan.steps import Step
from core.registry import Registry

NO_LIMITS = (math.inf, math.inf)


@dataclass(frozen=True)
class Settings:
    """How a model is to be run: device, precision, chosen variants, fusion, what trains and how.

    ops, generate: op -> variant. nodes: glob -> variant. recorded, configs: node -> variant, and its tiles, of the run
    that is resumed. tuned, shipped: what `core tune` found and what comes with the ops, `core.plan.tuning_key` ->
    variant and tiles. tf32: f32 may be multiplied as TF32.
    failed(variant): what the op check found wrong with it where this runs, or None. resumes: whether a recorded choice
    that failed is an error; else another one takes its place.
    fusion: fused op -> False or its attrs. optimizer: name; options: its options, and "clip".
    dims: overrides of the model's dims. alias, in_place: False only in tests. capture: replay recorded launches as
    CUDA graphs, where the device has them; the same bits either way.
    """

    device: str = "cpu"
    precision: str = "f32"
    dims: Mapping[str, Any] = field(default_factory=dict)
    ops: Mapping[str, str] = field(default_factory=dict)
    generate: Mapping[str, str] = field(default_factory=dict)
    nodes: Mapping[str, str] = field(default_factory=dict)
    recorded: Mapping[str, str] = field(default_factory=dict)
    resumes: bool = True
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tuned: Mapping[str, Kept] = field(default_factory=dict)
    shipped: Mapping[str, Kept] = field(default_factory=dict)
    tf32: bool = False
    fusion: Mapping[str, Any] = field(default_factory=dict)
    recompute: Sequence[str] = ()
    freeze: Sequence[str] = ()
    optimizer: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 1337
    failed: Callable[[Variant], str | None] = lambda variant: None
    alias: bool = True
    in_place: bool = True
    capture: bool = True


@dataclass(frozen=True)
class Record:
    """What a training step reports. loss: the objective, a mean over targets >= 0. ok: False if nothing was updated:
    loss or norm was above its limit or, if `halted`, one of lr, loss and norm not finite. step: the updates so far."""

    loss: float
    norm: float
    ok: bool
    step: int
    halted: bool


class Engine:
    """A model on a device. Parameters start at zero: call `initialize` or `load_parameters`."""

    def __init__(self, model: ModelSource, registry: Registry, settings: Settings, device: Any = None) -> None:
        """device: one that is open already, instead of the one that settings name."""
        self.model, self.registry, self.settings = model, registry, settings
        self.device = device if device is not None else open_device(settings.device)
        self.precision = check_precision(settings.precision)
        if self.precision not in self.device.precisions:
            raise DeviceError(
                f"{self.device.name} does not compute in {self.precision}",
                hint=f"it computes in {', '.join(self.device.precisions)}: --set precision=f32",
            )
        self.graph = model.build(registry, dict(settings.dims))
        patterns = model.document["inputs"]
        self.input_dims = {n: Pattern.parse(text, f"inputs.{n}").tokens for n, text in patterns.items()}
        self.layout = ParameterLayout(self.graph, settings.freeze)
        self.chooser = Chooser(
            registry,
            self.device.runs,
            self.precision,
            settings.ops,
            settings.nodes,
            settings.generate,
            {node: Kept(name, settings.configs.get(node)) for node, name in settings.recorded.items()},
            settings.tuned,
            settings.shipped,
            settings.tf32,
            self.device.can_run,
            settings.failed,
            settings.resumes,
        )
        self.chooser.check_names(self.graph)
        states = self._optimizer().state if settings.optimizer else ()
        self.store = ParameterStore(self.device, self.graph, self.layout, self.precision, tuple(states))
        self.control = self.device.tensor(self.device.allocate(8 * len(CONTROL)), 0, (len(CONTROL),), "f64")
        self._record = np.zeros(len(CONTROL))  # the control record as the host last saw or wrote it
        self._record[[SLOT["loss_limit"], SLOT["norm_limit"]]] = math.inf
        self._step = self._next = 0  # the step that was run last, whose random keys are in use, and the next one
        self._update: Sequence[Any] = ()
        self._graphs: dict[tuple[tuple[str, int], ...], Graph] = {(): self.graph}
        self._bound: dict[Any, BoundPlan] = {}
        self.arena: Any = None

    # --- parameters and state --------------------------------------------------------------------------------

    def initialize(self, seed: int) -> None:
        """Draw every parameter; a parameter's values depend on the seed and its name alone."""
        self.store.initialize(seed)

    def parameters(self) -> Mapping[str, Array]:
        """All parameters without padding, in the graph's order: views on the cpu, copies elsewhere."""
        return self.store.parameters()

    def load_parameters(self, values: Mapping[str, Array]) -> None:
        """Set parameters from arrays without padding. Raises BuildError unless names and shapes are exactly ours."""
        self.store.load_parameters(values)

    def optimizer_state(self) -> Mapping[str, Mapping[str, Array]]:
        """The optimizer's tensors: state -> parameter -> array without padding; views on the cpu."""
        return self.store.optimizer_state()

    def load_optimizer_state(self, values: Mapping[str, Mapping[str, Array]]) -> None:
        """Set the optimizer's tensors. Raises BuildError unless states, names and shapes are exactly ours."""
        self.store.load_optimizer_state(values)

    def parameter_gradients(self) -> Iterator[tuple[str, Array]]:
        """(parameter, its gradient) of the step that was run last, one by one: views on the cpu, copies elsewhere."""
        return self.store.each_gradient()

    def zero_gradients(self) -> list[str]:
        """The parameters whose gradient was exactly zero in the step that was run last."""
        return self.store.zero_gradients()

    def _optimizer(self) -> Optimizer:
        if not self.settings.optimizer:
            raise UsageError("this model was loaded without an optimizer: nothing to update with")
        return self.registry.optimizer(self.settings.optimizer)

    # --- plans -----------------------------------------------------------------------------------------------

    def graph_for(self, dims: Mapping[str, int]) -> Graph:
        """The model with other dims, such as B and T."""
        key = tuple(sorted((k, v) for k, v in dims.items() if self.graph.dims.get(k) != v))
        if key not in self._graphs:
            found = self.model.build(self.registry, {**self.settings.dims, **dict(key)})
            for name, parameter in found.parameters.items():
                if parameter.shape != self.graph.parameters[name].shape:
                    given = ", ".join(f"{dim} = {size}" for dim, size in key)
                    raise DataError(
                        f"with {given}, {name} of {self.graph.name} would be {described(parameter.shape)}, and it is "
                        f"{described(self.graph.parameters[name].shape)}",
                        hint="a batch has the model's own sizes besides B and T",
                    )
            self._graphs[key] = found
        return self._graphs[key]

    def plan(
        self, kind: str, outputs: Sequence[str] = (), capacity: int = 0, dims: Mapping[str, int] | None = None
    ) -> Plan:
        """The plan for a request, unbound: what `core plan` shows. dims: other sizes, such as B and T."""
        request = Request(
            kind,
            tuple(outputs),
            capacity,
            tuple(self.settings.recompute),
            self.settings.fusion,
            self.settings.alias,
            self.settings.in_place,
        )
        return make_plan(self.graph_for(dims or {}), request, self.chooser, self.layout)

    def bound(self, kind: str, outputs: Sequence[str], dims: Mapping[str, int]) -> BoundPlan:
        """The plan for a request, bound; made once."""
        key = (kind, tuple(outputs), tuple(sorted(dims.items())))
        if key not in self._bound:
            self._bound[key] = BoundPlan(self, self.plan(kind, outputs, dims=dims))
        return self._bound[key]

    def arena_for(self, plan: Plan) -> Any:
        """The arena that all plans share, grown when one needs more; the others bind again when they run next."""
        if self.arena is None or plan.arena_bytes > self.arena.nbytes:
            self.arena = self.device.allocate(plan.arena_bytes)
        return self.arena

    def _dims_of(self, batch: Batch) -> dict[str, int]:
        """B and T as the batch has them, by the patterns of the graph's inputs.

        Raises DataError for an input that the graph does not have, or sizes that contradict one another.
        """
        dims: dict[str, int] = {}
        for name, array in batch.items():
            if name not in self.graph.inputs:
                raise DataError(f'{self.graph.name} has no input "{name}"{did_you_mean(name, self.graph.inputs)}')
            tokens = self.input_dims[name]
            if array.ndim != len(tokens):
                raise DataError(f"input {name} has shape {array.shape}, expected ({', '.join(tokens)})")
            for token, size in zip(tokens, array.shape, strict=True):
                if not token.isidentifier():
                    continue  # arithmetic: checked against the shape that the other dims give
                if dims.setdefault(token, size) != size:
                    raise DataError(f"input {name} has {token} = {size}, another one has {dims[token]}")
        return dims

    # --- running ---------------------------------------------------------------------------------------------

    def gradients(self, batch: Batch) -> tuple[float, dict[str, Array]]:
        """(loss, gradients by parameter name, copies without padding) of one batch; nothing is updated."""
        self._start_step(0.0)
        for index, plan in self._micro_steps([batch]):
            plan.run(first=index == 0)
        loss = float(self.device.download(self.control)[SLOT["loss"]])
        return loss, {name: array.copy() for name, array in self.store.gradients().items()}

    def step(
        self,
        micro_batches: Sequence[Batch],
        lr: float,
        limits: tuple[float, float] = NO_LIMITS,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Record:
        """Forward and backward over the micro-batches, then one update.

        limits: a loss or a norm above its own updates nothing. So does a loss, norm or lr that is not finite, for
        good: no later step updates anything either. meanwhile: called when all is launched, before the device is
        waited for; it may not raise.
        """
        if not micro_batches:
            raise DataError("a step needs at least one micro-batch, got none")
        update = self._recorded_update()
        self._step, self._next = self._next, self._next + 1
        self._start_step(lr, limits)
        for index, plan in self._micro_steps(micro_batches):
            plan.run(first=index == 0)
        self.device.run(update)
        meanwhile()
        self._record = self.device.download(self.control)
        loss, norm, ok, step, halted = (
            float(self._record[SLOT[name]]) for name in ("loss", "norm", "ok", "step", "halted")
        )
        return Record(loss, norm, bool(ok), int(step), bool(halted))

    @property
    def updates(self) -> int:
        """The number of updates done."""
        return int(self._record[SLOT["step"]])

    def set_step(self, step: int, updates: int | None = None) -> None:
        """The number of steps done, when a run is resumed, and of updates, where some steps made none."""
        self._step = self._next = step
        self._record[SLOT["step"]] = step if updates is None else updates

    def _start_step(self, lr: float, limits: tuple[float, float] = NO_LIMITS) -> None:
        loss, norm = limits
        slots = {"lr": lr, "loss_scale": 1.0, "loss": 0.0, "loss_limit": loss, "norm_limit": norm}
        for name, value in slots.items():
            self._record[SLOT[name]] = value
        self.device.upload(self.control, self._record)

    def _write(
        self, plan: BoundPlan, batch: Batch, count: int, micro_steps: int, first_rows: Mapping[str, int]
    ) -> None:
        """Everything that changes between micro-steps."""
        plan.write_inputs(batch)
        plan.write_seeds(count, micro_steps)
        plan.write_keys(self.settings.seed, self._step, first_rows)

    def _micro_steps(self, batches: Sequence[Batch]) -> Iterator[tuple[int, BoundPlan]]:
        """The plan of each micro-step, with everything in place for it to run."""
        count = sum(map(self._count, batches))
        first_rows: Counter[str] = Counter()  # random node -> rows of its tensor in the micro-steps so far
        for index, batch in enumerate(batches):
            plan = self.bound(TRAIN, (), self._dims_of(batch))
            self._write(plan, batch, count, len(batches), first_rows)
            yield index, plan
            first_rows.update(plan.plan.random_rows)

    def _recorded_update(self) -> Sequence[Any]:
        """The optimizer's step over the flat arenas, recorded once."""
        if not self._update:
            optimizer, n = self._optimizer(), self.layout.trainable
            if not n:
                raise UsageError(f"[train] freeze leaves no parameter of {self.graph.name} to train")
            p = Tensors(
                **{"clip": 0.0, **optimizer.options, **self.settings.options},
                **self.store.states,
                param=self.store.weights[:n],
                grad=self.store.grads,
                group=self.store.groups(),
                group_without=self.store.groups,
                parameters=self.store.one_by_one(),
                control=self.control,
                master=self.store.master,
            )
            calls = self.device.record_calls(lambda launch: optimizer.step(p, launch), self.chooser.pick)
            self._update = self.captured(calls)
        return self._update

    def captured(self, commands: Sequence[Any]) -> Sequence[Any]:
        """Commands that will be replayed often, in the form that the device replays fastest."""
        return self.device.captured(commands) if self.settings.capture else commands

    def evaluate(self, batch: Batch) -> tuple[float, int]:
        """(the loss terms' weighted sum, the number of targets >= 0) of a batch, without gradients."""
        terms = tuple(self.graph.loss)
        plan = self.bound(EVALUATE, terms, self._dims_of(batch))
        plan.write_inputs(batch)
        plan.run()
        count = self._count(batch)
        total = 0.0
        for value, weight in self.graph.loss.items():
            found = self.device.download(plan.tensor(plan.plan.values[value])).astype(np.float64)
            total += weight * (float(found.sum()) if found.ndim else float(found) * count)
        return total, count

    def _count(self, batch: Batch) -> int:
        """What a mean over a batch divides by: the targets >= 0, or the places of the largest loss term where a model
        has no targets."""
        if TARGETS in batch:
            return int((batch[TARGETS] >= 0).sum())
        graph = self.graph_for(self._dims_of(batch))
        return max((math.prod(graph.values[term].shape) for term in graph.loss), default=1)

    def values(self, batch: Batch, names: Sequence[str]) -> list[Array]:
        """Copies of the graph's values `names` for a batch, without padding."""
        plan = self.bound(EVALUATE, tuple(names), self._dims_of(batch))
        plan.write_inputs(batch)
        plan.run()
        graph = plan.plan.graph
        return [trimmed(self.device.download(plan.tensor(plan.plan.values[n])), graph.values[n].shape) for n in names]

    def logits(self, tokens: Array) -> Array:
        """(B, T, V) logits of tokens (B, T)."""
        return self.values({self.token_input: tokens}, [self.logits_value])[0]

    @property
    def logits_value(self) -> str:
        if self.graph.logits is None:
            raise UsageError(f"model {self.graph.name} names no logits")
        return self.graph.logits

    @property
    def token_input(self) -> str:
        """The graph input that holds the tokens: `Graph.token_input`."""
        return self.graph.token_input

    def trace(self, batch: Batch) -> Iterator[TraceEvent]:
        """Run one training micro-step, stopping after every step of the plan. Tensors are views: copy to keep.

        Training goes on as if there had been no trace: what a trace overwrites, a step writes before it reads.
        """
        for _, event in self.replay([batch]):
            yield event

    def replay(self, micro_batches: Sequence[Batch]) -> Generator[tuple[int, TraceEvent], None, None]:
        """All micro-steps of a step as `step` ran them last, bit for bit, without the update: (micro-step, event)."""
        self._start_step(0.0)
        for index, plan in self._micro_steps(micro_batches):
            for event in plan.trace(first=index == 0):
                yield index, event

    def timed(self, batch: Batch) -> tuple[list[tuple[Step, float]], float]:
        """Seconds of each step of a training micro-step, run one by one, and of the update behind it."""
        update = self._recorded_update()
        self._start_step(0.0)
        plan = self.bound(TRAIN, (), self._dims_of(batch))
        self._write(plan, batch, self._count(batch), 1, {})
        return plan.timed(), self.device.elapsed([update])[0]

    def session(self, rows: int, capacity: int = 0) -> DecodeSession:
        """A decode session for `rows` sequences; capacity in tokens, by default the model's S, else its T.

        Raises UsageError for a capacity beyond S, or one that the graph cannot have as its T: there are no positions.
        """
        most = self.graph.positions
        if "S" in self.graph.dims and capacity > most:
            raise UsageError(f"a session of {capacity} tokens: {self.graph.name} has S = {most} positions")
        try:
            self.graph_for({"T": capacity or most} if "T" in self.graph.dims else {})
        except BuildError as error:
            raise UsageError(f"a session of {capacity or most} tokens: {error.message}", hint=error.hint) from None
        return DecodeSession(self, rows, capacity or most)

    # --- what people want to see -----------------------------------------------------------------------------

    def memory(self, plan: Plan) -> dict[str, int]:
        """Bytes of parameters, gradients, optimizer, and the plan's arena with its parts."""
        acc = itemsize(resolve("acc", self.precision)) * self.layout.trainable
        training = plan.request.kind == TRAIN
        states = len(self._optimizer().state) + (self.store.master is not None) if self.settings.optimizer else 0
        return {
            "parameters": self.layout.size * itemsize(resolve(None, self.precision)),
            "gradients": acc if training else 0,
            "optimizer": acc * states if training else 0,
            "activations": plan.arena_bytes,
            "saved": plan.saved_bytes,
            "workspace": plan.workspace_bytes,
        }

    def scratch(self, plan: Plan) -> dict[str, int]:
        """{"scratch": bytes} that nested launches of the plan and its update take besides the arena, if any do: what is
        recorded on a device without memory."""
        if not hasattr(self.device, "unbacked"):
            return {}
        twin = Engine(self.model, self.registry, self.settings, self.device.unbacked())
        twin.work(plan)
        if plan.request.kind == TRAIN and self.settings.optimizer:
            twin._recorded_update()
        return {"scratch": twin.device.scratch_bytes} if twin.device.scratch_bytes else {}

    def recompute_options(self, plan: Plan) -> list[dict[str, Any]]:
        """What recompute of each op would save and cost: `core.plan.fit.recompute_options`."""
        others = {op: self._recomputing(plan, (op,)) for op in recomputable(plan)}
        return recompute_options(plan, others, lambda p: needed(self.memory(p)), self.work)

    def _recomputing(self, plan: Plan, ops: Sequence[str], dims: Mapping[str, int] | None = None) -> Plan:
        """The plan with these ops recomputed too, and maybe other dims; unbound."""
        request = replace(plan.request, recompute=tuple(dict.fromkeys((*plan.request.recompute, *ops))))
        return make_plan(self.graph_for(dims) if dims else plan.graph, request, self.chooser, self.layout)

    def check_fit(self, plan: Plan) -> None:
        """Before anything large is allocated: DeviceError when the device's free memory cannot hold the plan."""
        if not hasattr(self.device, "memory"):
            return  # the cpu's memory is the system's to give

        scratch = self.scratch(plan)

        def measure(dims: Mapping[str, int], ops: Sequence[str]) -> int:
            return needed(self.memory(self._recomputing(plan, ops, dims)) | scratch)

        memory = self.memory(plan) | scratch
        free = self.device.memory()[0] + memory["parameters"]  # the weights lie there already
        check_fit(plan, memory, free, device=self.device.describe(), measure=measure)

    def compiled(self, plan: Plan) -> dict[Any, Any]:
        """What the compiler says of each kernel that the plan and its update launch; nothing where there is none."""
        if not hasattr(self.device, "prepare"):
            return {}
        launches = BoundPlan(self, plan).launches()
        if plan.request.kind == TRAIN and self.settings.optimizer:
            launches += list(self._recorded_update())
        return dict(self.device.prepare(launches) or {})

    def prepare(self) -> None:
        """Compile what a training step launches; without this, the first step does. Nothing where no kernels run."""
        if hasattr(self.device, "prepare"):
            sizes = {token: self.graph.dims[token] for tokens in self.input_dims.values() for token in tokens}
            plan = self.bound(TRAIN, (), sizes)
            self.device.prepare([*plan.launches(), *self._recorded_update()])

    def work(self, plan: Plan) -> tuple[int, int]:
        """Launches of a micro-step and the bytes that they read and write; where no kernels run, 0 and its steps'."""
        return BoundPlan(self, plan).work() if hasattr(self.device, "prepare") else (0, plan.traffic)

    def choose_again(self) -> None:
        """Forget the choices of nested launches and of the update: plans that are made from now on may differ."""
        self.chooser.picked.clear()
        self.chooser.nested.clear()
        self._update = ()
        self._bound.clear()

    def choices(self, plan: Plan) -> dict[str, Choice]:
        """What runs: the choice of each node of the plan, then those of nested launches and of the update."""
        if plan.request.kind == TRAIN and self.settings.optimizer:
            self._recorded_update()
        self.work(plan)  # recording is what launches them
        return {**plan.choices, **self.chooser.picked}

    def tiles(self, plan: Plan) -> dict[str, dict[str, Any]]:
        """The tiles of each node whose variant has a choice of them: other ones may give other bits."""
        found = {n.name: plan.choices[n.name].config_for(specs(n, plan.graph, plan.precision)) for n in plan.nodes}
        found |= {name: dict(choice.config or {}) for name, choice in self.chooser.picked.items()}
        return {name: tiles for name, tiles in found.items() if tiles}

    def table(self, plan: Plan) -> list[dict[str, Any]]:
        """One row per (op, variant, reason): op, variant, how many nodes, source, why, the first node."""
        rows: dict[tuple[str, str, str], dict[str, Any]] = {}
        for name, choice in self.choices(plan).items():
            op, variant = choice.variant.op, choice.variant.name
            first = {"op": op, "variant": variant, "nodes": 0, "source": choice.variant.origin, "why": choice.why}
            row = rows.setdefault((op, variant, choice.why), {**first, "node": name})
            row["nodes"] += 1
        return list(rows.values())
