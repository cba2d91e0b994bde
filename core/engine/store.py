"""A model's parameters in memory: flat arenas of weights, gradients and optimizer state, and arrays by name.

Under bf16 and fp16 the weights that train have a master copy in f32, which is initialized, loaded, updated and read;
the weights are its rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from core.by_name import ByName
from core.dtypes import itemsize, resolve
from core.graph import Graph
from core.graph.init import draw_all
from core.op import Tensors
from core.plan import GROUP, ParameterLayout, trimmed
from core.plan.layout import Stretch
from core.threads import cores

if TYPE_CHECKING:
    from core.device.protocol import Device
    from core.ranks.slices import Slices

Array = np.ndarray[Any, Any]
FIRST_LOOK = 1024  # elements of a gradient
BYTES = 1 << 24  # of groups, uploaded at a time


class ParameterStore:
    """The flat arenas of one model on one device. Gradients and state are allocated when they are first used.

    states: the names of the optimizer's tensors; none for a model that does not train. slices: of the trainable
    elements, one for each rank: master weights and state are of this rank's elements, `first` to `last`, alone.
    """

    def __init__(
        self,
        device: Device,
        graph: Graph,
        layout: ParameterLayout,
        precision: str,
        states: Sequence[str],
        slices: Slices | None = None,
    ) -> None:
        self.device, self.graph, self.layout, self.precision = device, graph, layout, precision
        self.slices = slices
        self.first, self.last = (slices.first, slices.last) if slices else (0, layout.trainable)
        self._state_names = tuple(states)
        self.weights = self._flat(layout.size, None)
        rounded = resolve(None, precision) != resolve("acc", precision)
        self.master = self._flat(self.last - self.first, "acc") if rounded and states else None
        self._grads: Any = None
        self._states: dict[str, Any] | None = None

    def _flat(self, size: int, dtype: str | None) -> Any:
        kind = resolve(dtype, self.precision)
        return self.device.tensor(self.device.allocate(size * itemsize(kind)), 0, (size,), kind)

    @property
    def grads(self) -> Any:
        """The flat gradients of the trainable parameters."""
        if self._grads is None:
            self._grads = self._flat(self.layout.trainable, "acc")
        return self._grads

    @property
    def states(self) -> dict[str, Any]:
        """The optimizer's flat tensors by name."""
        if self._states is None:
            self._states = {name: self._flat(self.last - self.first, "acc") for name in self._state_names}
        return self._states

    def groups(self, without: Iterable[str] = ()) -> Any:
        """One byte per 64 elements that are updated here, on the device: decays, trains; `without`: as if
        untrained."""
        count, names = (self.last - self.first) // GROUP, list(without)
        tensor = self.device.tensor(self.device.allocate(count), 0, (count,), "u8")
        for at in range(0, count, BYTES):
            first, last = self.first + GROUP * at, min(self.first + GROUP * (at + BYTES), self.last)
            self.device.upload(tensor[at : at + BYTES], self.layout.groups(first, last, names))
        return tensor

    def place(self, flat: Any, name: str, first: int = 0) -> Any:
        """The parameter `name` within a flat arena, with padding. first: the element with which the arena begins."""
        where = self.layout.places[name]
        return flat[where.offset - first : where.offset - first + where.size].reshape(where.shape)

    def stretches(self) -> list[Stretch]:
        """The layout's stretches as far as they are updated here; of slices, those that meet this rank's."""
        cut = [replace(s, first=max(s.first, self.first), last=min(s.last, self.last)) for s in self.layout.stretches]
        return [stretch for stretch in cut if stretch.first < stretch.last]

    def one_by_one(self, weight_decay: float) -> list[Tensors]:
        """For each parameter that is updated here: name, shape, decays, the factor of its learning rate, its weight
        decay (where it has none of its own, `weight_decay`), and its part of every arena, with padding."""
        arrays = []
        for name in self.trainable():
            where = self.layout.places[name]
            if not self.first <= where.offset < self.last:
                continue
            whole = {"param": self.weights, "grad": self.grads}
            parts = {k: self.place(flat, name) for k, flat in whole.items()}
            own = {"master": self.master, **self.states}
            parts |= {k: None if flat is None else self.place(flat, name, self.first) for k, flat in own.items()}
            stretch = next(s for s in self.layout.stretches if s.first <= where.offset < s.last)
            decay = weight_decay if stretch.weight_decay is None else stretch.weight_decay
            rates = {"lr_factor": stretch.lr_factor, "weight_decay": decay}
            arrays.append(Tensors(name=name, shape=where.shape, decays=where.decay, **rates, **parts))
        return arrays

    # --- by name -----------------------------------------------------------------------------------------------

    def initialize(self, seed: int) -> None:
        """Draw every parameter; its values depend on the seed and its name alone."""
        if isinstance(self.weights, np.ndarray):
            draw_all(self.graph, seed, lambda name: self.place(self.weights, name), cores())
            return
        drawn = np.zeros(self.layout.size, np.float32)
        draw_all(self.graph, seed, lambda name: self.place(drawn, name), cores())
        self.device.upload(self.weights, drawn)
        if self.master is not None:
            self.device.upload(self.master, drawn[self.first : self.last])

    def parameters(self) -> Mapping[str, Array]:
        """All parameters without padding, in the graph's order: views on the cpu, copies elsewhere."""
        return ByName(self.graph.parameters, lambda name: self._read(self.full(name), name))

    def gradients(self) -> dict[str, Array]:
        """The gradients of the trainable parameters, likewise."""
        return dict(self.each_gradient())

    def each_gradient(self) -> Iterator[tuple[str, Array]]:
        """(parameter, gradient) of the trainable parameters, likewise, one by one."""
        return ((name, self._read(self.grads, name)) for name in self.trainable())

    def zero_gradients(self) -> list[str]:
        """Parameters that train and whose gradient is exactly zero. The test is cheap: most differ from zero early
        on."""
        places = self.layout.places
        return [n for n in self.trainable() if not self.any(places[n].offset, places[n].offset + places[n].size)]

    def any(self, start: int, stop: int) -> bool:
        """Whether a gradient of these elements is not zero: read in growing parts, the first of which mostly has
        one."""
        size = FIRST_LOOK
        while start < stop:
            part = self.grads[start : min(start + size, stop)]
            if (part if isinstance(part, np.ndarray) else self.device.download(part)).any():
                return True
            start, size = start + size, 8 * size
        return False

    def optimizer_state(self) -> dict[str, Mapping[str, Array]]:
        """The optimizer's tensors, state -> parameter -> array, likewise."""
        return {state: ByName(self.trainable(), partial(self._read, flat)) for state, flat in self.states.items()}

    def trainable(self) -> list[str]:
        return [n for n in self.graph.parameters if self.layout.places[n].trains]

    def full(self, name: str) -> Any:
        """The arena that holds a parameter in the fullest precision in which it is whole here."""
        return self.trained if self.layout.places[name].trains else self.weights

    @property
    def trained(self) -> Any:
        """The trainable parameters, whole, flat, in the fullest precision: with slices, the weights."""
        whole = self.master is not None and not self.slices
        return self.master if whole else self.weights[: self.layout.trainable]

    def _read(self, flat: Any, name: str) -> Array:
        tensor = self.place(flat, name)
        array = tensor if isinstance(tensor, np.ndarray) else self.device.download(tensor)
        return trimmed(array, self.layout.places[name].shape)
