"""A model's parameters and plans on a device: an Engine before it runs anything."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from core.engine.batch import Array, check_same_parameters, input_dims_of
from core.engine.bound import Arena, BoundPlan
from core.engine.scaling import Scaling
from core.engine.settings import Settings, precision_on
from core.engine.store import ParameterStore
from core.errors import UsageError
from core.graph import Graph, ModelSource
from core.op import CONTROL, SLOT, Optimizer
from core.plan import Chooser, ParameterLayout, Plan, Request, make_plan
from core.plan.record import control_record, own_slots
from core.ranks.group import ALONE, Ranks
from core.registry import Registry

if TYPE_CHECKING:
    from core.device.protocol import Device
    from core.engine.health_ring import Health
    from core.engine.states import States
    from core.ranks.slices import Slices


class PlannedEngine:
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
        self.layout = ParameterLayout(self.graph, settings.freeze, settings.groups)
        checks = (self.device.can_run, self.device.multiplies)
        self.chooser = Chooser(registry, self.device.runs, self.precision, settings, *checks, ranks)
        self.chooser.check_names(self.graph)
        self.collective = registry.collective if ranks.engine else None  # of ranks that are planned, none is chosen
        self.slices: Slices | None = None  # of the trainable elements, one for each rank
        if ranks.size > 1 and settings.shard and settings.optimizer:
            from core.engine.slice_pieces import slices_of  # of runs on several ranks

            self.slices = slices_of(self.layout, self._optimizer(), ranks, self.collective)
        self.chooser.slices = self.slices
        self.store = self._store_on(self.device)
        self.control = control_record(self.device, self.graph)
        slots = len(CONTROL) + len(own_slots(self.graph))
        self._record = np.zeros(slots)  # the control record as the host last saw or wrote it
        self._record[[SLOT["loss_limit"], SLOT["norm_limit"]]] = math.inf
        self.scaling = Scaling(settings.loss_scale, self.precision)
        self._scale = 1.0  # of the gradients of the step that was run last
        self._step = self._next = 0  # the step that was run last, whose random keys are in use, and the next one
        self._targets = 0  # of the step that was run last, over all ranks
        self._update: Sequence[Any] = ()
        self._graphs: dict[tuple[tuple[str, int], ...], Graph] = {(): self.graph}
        self._bound: dict[Any, BoundPlan] = {}
        self._health: dict[BoundPlan, Health] = {}
        self.arena = Arena(self.device)

    @property
    def input_sizes(self) -> dict[str, int]:
        """The model's own sizes of the dims of its inputs, such as B and T."""
        named = {token for tokens in self.input_dims.values() for token in tokens}
        return {token: int(size) for token, size in self.graph.dims.items() if token in named}

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

    @contextmanager
    def lent(self, values: Mapping[str, Array]) -> Iterator[None]:
        """These parameters, as `load_parameters` takes them, in place of the engine's, which come back bit for bit."""
        flats = [flat for flat in (self.store.weights, self.store.master) if flat is not None]
        before = [np.array(self.device.download(flat)) for flat in flats]
        try:
            self.load_parameters(values)
            yield
        finally:
            for flat, array in zip(flats, before, strict=True):
                self.device.upload(flat, array)

    def optimizer_state(self) -> Mapping[str, Mapping[str, Array]]:
        """The optimizer's tensors: state -> parameter -> array of the same shape, f32 or f64; views on the cpu."""
        return self.store.optimizer_state()

    def load_optimizer_state(self, values: Mapping[str, Mapping[str, Array]]) -> None:
        """Set the optimizer's tensors, arrays of the same shape as their parameters, f32 or f64. BuildError unless
        states, names and shapes are exactly these."""
        from core.engine.loading import load_optimizer_state

        load_optimizer_state(self.store, values)

    def parameter_gradients(self) -> Iterator[tuple[str, Array]]:
        """(parameter, its gradient of the same shape, f32 or f64) of the last step, one by one: views on the cpu,
        copies without the loss scale elsewhere."""
        each, scale = self.store.each_gradient(), self._scale
        return each if scale == 1 else ((name, gradient / np.float32(scale)) for name, gradient in each)

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
        """The plan for a request, unbound, as `core plan` prints it. dims: other sizes, such as B and T."""
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

    def _bind(self, plan: Plan, states: States | None = None) -> BoundPlan:
        where = (self.store, self.arena, self.control)
        return BoundPlan(plan, *where, self.chooser.pick, self.settings.capture, states)
