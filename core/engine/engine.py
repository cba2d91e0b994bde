"""Plans bound to a device: parameters in flat arenas, recorded steps, forward, backward, update, decoding.

A plan is bound once: every tensor gets its address and each launcher is called once to
record its launches; a step replays the record. The first micro-step of a step and the later ones are two
records, since the first writes parameter gradients and the others add to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from core.engine.batch import NO_SEEDS, Array, Batch, Seeds, count_of, dims_of
from core.engine.bound import AfterSteps, BoundPlan
from core.engine.optimizer_step import update_of
from core.engine.planned_engine import PlannedEngine
from core.engine.settings import NO_LIMITS, Record
from core.errors import DataError, UsageError
from core.op import CONTROL, SLOT
from core.plan import EVALUATE, TRAIN, Plan, trimmed
from core.plan.record import control_record, own_slots
from core.plan.report import PlanReport
from core.plan.steps import Step

if TYPE_CHECKING:
    from core.device.protocol import Device
    from core.engine.decode import DecodeSession
    from core.engine.health_ring import Health, HealthColumn
    from core.engine.tracing import TraceEvent


class Engine(PlannedEngine):
    """A model on a device, to be run: steps, gradients, updates, values, decoding."""

    # --- running ---------------------------------------------------------------------------------------------

    def gradients(self, batch: Batch, seeds: Seeds = NO_SEEDS) -> tuple[float, dict[str, Array]]:
        """(loss, gradients by parameter name) of one batch: unpadded copies, f32 or f64; nothing is updated. In fp16
        under the largest loss scale, from that of the next step down, with which they are finite. seeds: see `step`."""
        count = self._count(batch)
        scale = self.scaling.of(count)
        while True:
            self._start_step(0.0, scale=scale)
            for index, plan in self._micro_steps([batch], count, [seeds]):
                plan.run(first=index == 0)
            gradients = {name: array.copy() for name, array in self.parameter_gradients()}
            if not self.scaling.retries(scale) or all(np.isfinite(array).all() for array in gradients.values()):
                return float(self.device.download(self.control)[SLOT["loss"]]), gradients
            scale /= 2

    def step(
        self,
        micro_batches: Sequence[Batch],
        lr: float,
        limits: tuple[float, float] = NO_LIMITS,
        after_launch: Callable[[], None] = lambda: None,
        health: bool = False,
        seeds: Sequence[Seeds] = (),
    ) -> Record:
        """Forward and backward over the micro-batches, then one update.

        seeds: of each micro-batch, loss term -> d objective / d term in the term's shape, (B, T) or (), f32 or f64;
        a term without has its weight in the model, over the whole step's mean.
        limits: a loss or a norm above its own updates nothing. So does a loss, norm or lr that is not finite, for
        good: no later step updates anything either. after_launch: called when all is launched, before the device is
        waited for; it may not raise. health: take the statistics of all that is written, in the last micro-step;
        `take_health` gives them. DataError without a micro-batch.
        """
        if not micro_batches:
            raise DataError("a step needs at least one micro-batch, got none")
        update = self._recorded_update()
        self._step, self._next = self._next, self._next + 1
        self._targets = int(self.ranks.agree([sum(map(self._count, micro_batches))])[0])
        self._start_step(lr, limits, self.scaling.of(self._targets), self.scaling.changes)
        watch = None
        for index, plan in self._micro_steps(micro_batches, self._targets, seeds):
            last = index == len(micro_batches) - 1
            watch = self._health_of(plan) if health and last else None
            plan.run(index == 0, watch.beside if watch else None, self._sums_beside if last else None)
        if watch:
            watch.before_update()
        self.ranks.states("the update")
        self.device.run(update)
        if watch:
            watch.after_update(self._step + 1, self._scale)
        after_launch()
        record = self._read_record()
        self.scaling.follow(self._record)
        return record

    def update(self, gradients: Mapping[str, Array], lr: float) -> Record:
        """One update from gradients of all that trains: (V, C), ... without padding, f32 or f64. Its loss is 0.
        Raises BuildError unless names and shapes are exactly those."""
        from core.engine.loading import load_gradients  # training needs none

        update = self._recorded_update()
        self._next += 1
        self._start_step(lr)
        load_gradients(self.store, gradients)
        self.device.run(update)
        return self._read_record()

    def _read_record(self) -> Record:
        self._record = self.device.download(self.control)
        loss, norm, ok, step, halted = (float(self._record[SLOT[n]]) for n in ("loss", "norm", "ok", "step", "halted"))
        scale = self._scale if self.scaling.changes else None
        return Record(loss, norm, bool(ok), int(step), bool(halted), self._own_losses(), scale)

    def _own_losses(self) -> dict[str, float]:
        """Each loss term's own value in the step that was run last, by its key in the model's [loss]."""
        losses: dict[str, float] = {}
        for value, slots in own_slots(self.graph).items():
            weight, key = self.graph.loss[value], self.graph.terms[value]
            if weight:  # without, its gradient is zero, and so is this product with it
                losses[key] = losses.get(key, 0.0) + sum(float(self._record[slot]) for slot in slots) / weight
        return losses

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

    def _start_step(
        self, lr: float, limits: tuple[float, float] = NO_LIMITS, scale: float = 1.0, scale_changes: bool = False
    ) -> None:
        """Write the control record of a step. scale: of its gradients; scale_changes: by their being finite or not."""
        self._scale = scale
        (loss, norm), scaling = limits, self.scaling.slots if scale_changes else {"growth_steps": 0.0}
        slots = {"lr": lr, "loss_scale": scale, "loss": 0.0, "loss_limit": loss, "norm_limit": norm, **scaling}
        for name, value in slots.items():
            self._record[SLOT[name]] = value
        self._record[len(CONTROL) :] = 0.0
        self.device.upload(self.control, self._record)

    def _write(
        self,
        plan: BoundPlan,
        batch: Batch,
        count: int,
        micro_steps: int,
        first_rows: Mapping[str, int],
        seeds: Seeds = NO_SEEDS,
    ) -> None:
        """Write the inputs that change between micro-steps."""
        plan.write_inputs(batch)
        plan.write_seeds(count, micro_steps, seeds)
        plan.write_keys(self.settings.seed, self._step, first_rows)

    def _micro_steps(
        self, batches: Sequence[Batch], count: int, seeds: Sequence[Seeds] = ()
    ) -> Iterator[tuple[int, BoundPlan]]:
        """The plan of each micro-step, ready to run. count: targets in the whole step, whose part number i * size + r
        is micro-step i of rank r: random numbers follow from the step alone."""
        rank, size = self.ranks.rank, self.ranks.size
        before: Counter[str] = Counter()  # random node -> rows of its tensor in all ranks' micro-steps so far
        for index, batch in enumerate(batches):
            plan = self.bound(TRAIN, (), self._dims_of(batch))
            rows = plan.plan.random_rows
            first_rows = {node: before[node] + rank * own for node, own in rows.items()}
            own_seeds = seeds[index] if seeds else NO_SEEDS
            self._write(plan, batch, count, len(batches) * size, first_rows, own_seeds)
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
            store, control = self._store_on(device), control_record(device, self.graph)
        summed = device is self.device and self._sums_beside is not None
        return update_of(optimizer, self.settings.options, store, control, self.collective, summed)

    @cached_property
    def _sums_beside(self) -> AfterSteps | None:
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
        total, count, _ = self.evaluate_terms(batch)
        return total, count

    def evaluate_terms(self, batch: Batch) -> tuple[float, int, dict[str, float]]:
        """`evaluate`, and the sum of each term alone by its key in the model's [loss], without its weight."""
        terms = tuple(self.graph.loss)
        plan = self.bound(EVALUATE, terms, self._dims_of(batch))
        plan.write_inputs(batch)
        plan.run()
        count = self._count(batch)
        total, sums = 0.0, dict[str, float]()
        for value, weight in self.graph.loss.items():
            losses = self.device.download(plan.tensor(plan.plan.values[value])).astype(np.float64)
            own = float(losses.sum()) if losses.ndim else float(losses) * count
            total += weight * own
            sums[self.graph.terms[value]] = sums.get(self.graph.terms[value], 0.0) + own
        return total, count, sums

    def term_shapes(self, batch: Batch) -> dict[str, tuple[int, ...]]:
        """The loss terms' shapes in a batch, such as (B, T), or () of a scalar."""
        graph = self.graph_for(self._dims_of(batch))
        return {term: graph.values[term].shape for term in graph.loss}

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

        A trace does not change training: a step writes all memory that a trace overwrites before it reads it. In fp16
        gradients are `loss_scale` times as large.
        """
        count = self._count(batch)
        return (event for _, event in self._traced([batch], count, self.scaling.of(count)))

    def replay(self, micro_batches: Sequence[Batch]) -> Generator[tuple[int, TraceEvent], None, None]:
        """All micro-steps of a step as `step` ran them last, bit for bit, without the update: (micro-step, event)."""
        own = sum(map(self._count, micro_batches))
        yield from self._traced(micro_batches, self._targets if self.ranks.size > 1 else own, self._scale)

    def _traced(
        self, micro_batches: Sequence[Batch], count: int, scale: float
    ) -> Generator[tuple[int, TraceEvent], None, None]:
        self._start_step(0.0, scale=scale)
        for index, plan in self._micro_steps(micro_batches, count):
            for event in plan.trace(first=index == 0):
                yield index, event

    def timed(self, batch: Batch) -> tuple[list[tuple[Step, float]], float]:
        """Seconds of each step of a training micro-step, run one by one, and of the update after it."""
        update = self._recorded_update()
        self._start_step(0.0, scale=self.scaling.of(self._count(batch)))
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
        """Compile the kernels of a training step ahead of the first one. No effect on a device without kernels."""
        if self.device.compiles:
            plan = self.bound(TRAIN, (), self.input_sizes)
            watched = self._health_of(plan).launches() if self.settings.health else []
            self.device.prepare([*plan.launches(), *self._recorded_update(), *watched])

    def choose_again(self) -> None:
        """Forget the choices of nested launches and of the update: plans that are made from now on may differ."""
        self.chooser.forget()
        self._update = ()
        self.__dict__.pop("_sums_beside", None)
        self._bound.clear()
        self._health.clear()
