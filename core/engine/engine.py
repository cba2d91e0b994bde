"""Plans bound to a device: parameters in flat arenas, recorded steps, forward, backward, update, decoding.

An Engine owns the memory. A plan is bound once: every tensor gets its address and each launcher is called once to
record its launches; a step replays the record. The first micro-step of a step and the later ones are two
records, since the first writes parameter gradients and the others add to them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from core.engine.batch import Array, Batch, check_same_parameters, count_of, dims_of, input_dims_of
from core.engine.bound import Arena, Behind, BoundPlan
from core.engine.optimizer_step import update_of
from core.engine.settings import NO_LIMITS, Record, Settings, chooser_of, precision_on
from core.engine.store import ParameterStore
from core.errors import DataError, UsageError
from core.graph import Graph, ModelSource
from core.op import CONTROL, SLOT, Optimizer
from core.plan import EVALUATE, TRAIN, ParameterLayout, Plan, Request, make_plan, trimmed
from core.plan.record import control_record
from core.plan.report import PlanReport
from core.plan.steps import Step
from core.ranks.group import ALONE, Ranks
from core.registry import Registry

if TYPE_CHECKING:
    from core.device.protocol import Device
    from core.engine.decode import DecodeSession
    from core.engine.health_ring import Health, HealthColumn
    from core.engine.tracing import TraceEvent
    from core.ranks.slices import Slices


class Engine:
    """A model on a device. Parameters start at zero: call `initialize` or `load_parameters`."""

    def __init__(
        self,
        model: ModelSource,
        registry: Registry,
        settings: Settings,
        device: Device | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """device: one that is open already, instead of the one that settings name. ranks: the processes of the run,
        each with an engine of the same model and settings."""
        self.model, self.registry, self.settings, self.ranks = model, registry, settings, ranks
        self.device = device if device is not None else registry.device(settings.device).open()
        self.precision = precision_on(self.device, settings.precision)
        self.graph = model.build(registry, dict(settings.dims))
        self.input_dims = input_dims_of(model)
        self.layout = ParameterLayout(self.graph, settings.freeze)
        self.chooser = chooser_of(settings, registry, self.device, ranks)
        self.chooser.check_names(self.graph)
        self.collective = registry.collective if ranks.engine else None  # of ranks that are planned, none is chosen
        self.slices: Slices | None = None  # of what trains, one for each rank
        if ranks.size > 1 and settings.shard and settings.optimizer:
            from core.engine.slice_pieces import slices_of  # of runs on several ranks

            self.slices = slices_of(self.layout, self._optimizer(), ranks, self.collective)
        self.chooser.slices = self.slices
        self.store = self._store_on(self.device)
        self.control = control_record(self.device)
        self._record = np.zeros(len(CONTROL))  # the control record as the host last saw or wrote it
        self._record[[SLOT["loss_limit"], SLOT["norm_limit"]]] = math.inf
        self._step = self._next = 0  # the step that was run last, whose random keys are in use, and the next one
        self._targets = 0  # of the step that was run last, over all ranks
        self._update: Sequence[Any] = ()
        self._graphs: dict[tuple[tuple[str, int], ...], Graph] = {(): self.graph}
        self._bound: dict[Any, BoundPlan] = {}
        self._health: dict[BoundPlan, Health] = {}
        self.arena = Arena(self.device)

    # --- parameters and state --------------------------------------------------------------------------------

    def initialize(self, seed: int) -> None:
        """Draw every parameter; a parameter's values depend on the seed and its name alone."""
        self.store.initialize(seed)

    def parameters(self) -> Mapping[str, Array]:
        """All parameters in the graph's order, unpadded, such as (V, C), f32 or f64: views on the cpu, else copies."""
        return self.store.parameters()

    def load_parameters(self, values: Mapping[str, Array]) -> None:
        """Set parameters from arrays of any float dtype, in the graph's shapes (V, C), ... without padding. Raises
        BuildError unless names and shapes are exactly the graph's."""
        from core.engine.loading import load_parameters

        load_parameters(self.store, values)

    def optimizer_state(self) -> Mapping[str, Mapping[str, Array]]:
        """The optimizer's tensors: state -> parameter -> array of the same shape, f32 or f64; views on the cpu."""
        return self.store.optimizer_state()

    def load_optimizer_state(self, values: Mapping[str, Mapping[str, Array]]) -> None:
        """Set the optimizer's tensors, arrays of the same shape as their parameters, f32 or f64. BuildError unless
        states, names and shapes are exactly these."""
        from core.engine.loading import load_optimizer_state

        load_optimizer_state(self.store, values)

    def parameter_gradients(self) -> Iterator[tuple[str, Array]]:
        """(parameter, its gradient of the same shape, f32 or f64) of the last step, one by one: views on the cpu."""
        return self.store.each_gradient()

    def zero_gradients(self) -> list[str]:
        """The parameters whose gradient was exactly zero in the step that was run last."""
        return self.store.zero_gradients()

    def _store_on(self, device: Device) -> ParameterStore:
        states = tuple(self._optimizer().state) if self.settings.optimizer else ()
        kind = ParameterStore
        if self.slices:
            from core.engine.slice_pieces import SlicedStore as kind
        return kind(device, self.graph, self.layout, self.precision, states, self.slices)

    def _optimizer(self) -> Optimizer:
        if not self.settings.optimizer:
            raise UsageError("this model was loaded without an optimizer: nothing to update with")
        return self.registry.optimizer(self.settings.optimizer)

    # --- plans -----------------------------------------------------------------------------------------------

    def graph_for(self, dims: Mapping[str, int]) -> Graph:
        """The model with other dims, such as B and T. DataError for dims that the model cannot have."""
        key = tuple(sorted((k, v) for k, v in dims.items() if self.graph.dims.get(k) != v))
        if key not in self._graphs:
            graph = self.model.build(self.registry, {**self.settings.dims, **dict(key)})
            check_same_parameters(graph, self.graph, key)
            self._graphs[key] = graph
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
            self._bound[key] = self._bind(self.plan(kind, outputs, dims=dims))
        return self._bound[key]

    def _bind(self, plan: Plan, states: dict[str, Any] | None = None) -> BoundPlan:
        where = (self.store, self.arena, self.control)
        return BoundPlan(plan, *where, self.chooser.pick, self.settings.capture, states)

    # --- running ---------------------------------------------------------------------------------------------

    def gradients(self, batch: Batch) -> tuple[float, dict[str, Array]]:
        """(loss, gradients by parameter name) of one batch: unpadded copies, f32 or f64; nothing is updated."""
        self._start_step(0.0)
        for index, plan in self._micro_steps([batch], self._count(batch)):
            plan.run(first=index == 0)
        loss = float(self.device.download(self.control)[SLOT["loss"]])
        return loss, {name: array.copy() for name, array in self.store.gradients().items()}

    def step(
        self,
        micro_batches: Sequence[Batch],
        lr: float,
        limits: tuple[float, float] = NO_LIMITS,
        after_launch: Callable[[], None] = lambda: None,
        health: bool = False,
    ) -> Record:
        """Forward and backward over the micro-batches, then one update.

        limits: a loss or a norm above its own updates nothing. So does a loss, norm or lr that is not finite, for
        good: no later step updates anything either. after_launch: called when all is launched, before the device is
        waited for; it may not raise. health: take the statistics of all that is written, in the last micro-step;
        `take_health` gives them. DataError without a micro-batch.
        """
        if not micro_batches:
            raise DataError("a step needs at least one micro-batch, got none")
        update = self._recorded_update()
        self._step, self._next = self._next, self._next + 1
        self._start_step(lr, limits)
        self._targets = int(self.ranks.agree([sum(map(self._count, micro_batches))])[0])
        watch = None
        for index, plan in self._micro_steps(micro_batches, self._targets):
            last = index == len(micro_batches) - 1
            watch = self._health_of(plan) if health and last else None
            plan.run(index == 0, watch.beside if watch else None, self._sums_beside if last else None)
        if watch:
            watch.before_update()
        self.ranks.states("the update")
        self.device.run(update)
        if watch:
            watch.after_update(self._step + 1)
        after_launch()
        self._record = self.device.download(self.control)
        loss, norm, ok, step, halted = (float(self._record[SLOT[n]]) for n in ("loss", "norm", "ok", "step", "halted"))
        return Record(loss, norm, bool(ok), int(step), bool(halted))

    @property
    def updates(self) -> int:
        """The number of updates done."""
        return int(self._record[SLOT["step"]])

    def set_step(self, step: int, updates: int | None = None) -> None:
        """The number of steps done, when a run is resumed, and of updates, where some steps made none."""
        self._step = self._next = step
        self._record[SLOT["step"]] = step if updates is None else updates

    def take_health(self) -> list[HealthColumn]:
        """The statistics of the steps that took them since the last call, oldest first: the newest `Settings.health`
        of them."""
        return sorted((c for watch in self._health.values() for c in watch.take()), key=lambda column: column.step)

    def _health_of(self, plan: BoundPlan) -> Health:
        if plan not in self._health:
            from core.engine.health_ring import Health  # of runs that record it

            self._health[plan] = Health(plan, max(1, self.settings.health))
        return self._health[plan]

    def _start_step(self, lr: float, limits: tuple[float, float] = NO_LIMITS) -> None:
        loss, norm = limits
        slots = {"lr": lr, "loss_scale": 1.0, "loss": 0.0, "loss_limit": loss, "norm_limit": norm}
        for name, value in slots.items():
            self._record[SLOT[name]] = value
        self.device.upload(self.control, self._record)

    def _write(
        self, plan: BoundPlan, batch: Batch, count: int, micro_steps: int, first_rows: Mapping[str, int]
    ) -> None:
        """Write the inputs that change between micro-steps."""
        plan.write_inputs(batch)
        plan.write_seeds(count, micro_steps)
        plan.write_keys(self.settings.seed, self._step, first_rows)

    def _micro_steps(self, batches: Sequence[Batch], count: int) -> Iterator[tuple[int, BoundPlan]]:
        """The plan of each micro-step, ready to run. count: targets in the whole step, whose part number i * size + r
        is micro-step i of rank r: random numbers follow from the step alone."""
        rank, size = self.ranks.rank, self.ranks.size
        before: Counter[str] = Counter()  # random node -> rows of its tensor in all ranks' micro-steps so far
        for index, batch in enumerate(batches):
            plan = self.bound(TRAIN, (), self._dims_of(batch))
            rows = plan.plan.random_rows
            first_rows = {node: before[node] + rank * own for node, own in rows.items()}
            self._write(plan, batch, count, len(batches) * size, first_rows)
            yield index, plan
            before.update({node: size * own for node, own in rows.items()})

    def _recorded_update(self) -> Sequence[Any]:
        """The optimizer's step over the flat arenas, recorded once."""
        if not self._update:
            commands = self.device.record_calls(self.update_calls(self.device), self.chooser.pick)
            self._update = self.device.captured(commands) if self.settings.capture else commands
        return self._update

    def update_calls(self, device: Device) -> Callable[[Any], None]:
        """The optimizer's step: a call with a launch launches its ops. On a device that is not this engine's, the
        step has tensors of its own. UsageError without an optimizer."""
        optimizer, store, control = self._optimizer(), self.store, self.control
        if device is not self.device:
            store, control = self._store_on(device), control_record(device)
        summed = device is self.device and self._sums_beside is not None
        return update_of(optimizer, self.settings.options, store, control, self.collective, summed)

    @cached_property
    def _sums_beside(self) -> Behind | None:
        """The sums of gradients over ranks beside the last micro-step's backward; None where the update has them."""
        if self.collective is None or not self.settings.overlap:
            return None
        from core.engine.gradient_sums import sums_beside  # of runs on several ranks

        return sums_beside(self.store, self.collective, self.chooser.pick)

    def _update_on(self, device: Device) -> Sequence[Any]:
        """The optimizer's step as it would be recorded on another device."""
        if device is self.device:
            return self._recorded_update()
        return device.record_calls(self.update_calls(device), self.chooser.pick)

    def evaluate(self, batch: Batch) -> tuple[float, int]:
        """(the loss terms' weighted sum, the number of targets >= 0) of a batch, without gradients."""
        terms = tuple(self.graph.loss)
        plan = self.bound(EVALUATE, terms, self._dims_of(batch))
        plan.write_inputs(batch)
        plan.run()
        count = self._count(batch)
        total = 0.0
        for value, weight in self.graph.loss.items():
            losses = self.device.download(plan.tensor(plan.plan.values[value])).astype(np.float64)
            total += weight * (float(losses.sum()) if losses.ndim else float(losses) * count)
        return total, count

    def _dims_of(self, batch: Batch) -> dict[str, int]:
        return dims_of(batch, self.graph, self.input_dims)

    def _count(self, batch: Batch) -> int:
        return count_of(batch, self.graph_for(self._dims_of(batch)))

    def values(self, batch: Batch, names: Sequence[str]) -> list[Array]:
        """Copies of the graph's values `names` for a batch, unpadded, such as (B, T, C), f32 or f64."""
        plan = self.bound(EVALUATE, tuple(names), self._dims_of(batch))
        plan.write_inputs(batch)
        plan.run()
        graph = plan.plan.graph
        return [trimmed(self.device.download(plan.tensor(plan.plan.values[n])), graph.values[n].shape) for n in names]

    def logits(self, tokens: Array) -> Array:
        """(B, T, V) logits, f32 or f64, of tokens (B, T) i32. UsageError for a model without logits."""
        return self.values({self.token_input: tokens}, [self.logits_value])[0]

    @property
    def logits_value(self) -> str:
        """The name of the graph's logits. UsageError for a model without any."""
        if self.graph.logits is None:
            raise UsageError(f"model {self.graph.name} names no logits")
        return self.graph.logits

    @property
    def token_input(self) -> str:
        """The graph input that holds the tokens: `Graph.token_input`."""
        return self.graph.token_input

    def trace(self, batch: Batch) -> Iterator[TraceEvent]:
        """Run one training micro-step, stopping after every step of the plan. Tensors are views: copy to keep.

        A trace does not change training: what a trace overwrites, a step writes before it reads.
        """
        return (event for _, event in self._traced([batch], self._count(batch)))

    def replay(self, micro_batches: Sequence[Batch]) -> Generator[tuple[int, TraceEvent], None, None]:
        """All micro-steps of a step as `step` ran them last, bit for bit, without the update: (micro-step, event)."""
        own = sum(map(self._count, micro_batches))
        yield from self._traced(micro_batches, self._targets if self.ranks.size > 1 else own)

    def _traced(self, micro_batches: Sequence[Batch], count: int) -> Generator[tuple[int, TraceEvent], None, None]:
        self._start_step(0.0)
        for index, plan in self._micro_steps(micro_batches, count):
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
        from core.engine.decode import session_of  # training needs none

        return session_of(self, self._bind, rows, capacity)

    # --- figures ---------------------------------------------------------------------------------------------

    def report(self, plan: Plan) -> PlanReport:
        """Figures of a plan of this engine: its memory, launches and choices."""
        optimizer = self._optimizer() if self.settings.optimizer else None
        master = self.store.master is not None
        states = len(optimizer.state) + master if optimizer else 0
        update = self._update_on if optimizer else None
        health = self.settings.health
        about = (plan, self.layout, self.device, self.chooser, self.graph_for)
        return PlanReport(*about, states, master, self.slices, health, update)

    def prepare(self) -> None:
        """Compile what a training step launches; without this, the first step does. Nothing where no kernels run."""
        if self.device.compiles:
            sizes = {token: self.graph.dims[token] for tokens in self.input_dims.values() for token in tokens}
            plan = self.bound(TRAIN, (), sizes)
            watched = self._health_of(plan).launches() if self.settings.health else []
            self.device.prepare([*plan.launches(), *self._recorded_update(), *watched])

    def choose_again(self) -> None:
        """Forget the choices of nested launches and of the update: plans that are made from now on may differ."""
        self.chooser.forget()
        self._update = ()
        self.__dict__.pop("_sums_beside", None)
        self._bound.clear()
        self._health.clear()
