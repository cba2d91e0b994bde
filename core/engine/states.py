"""The states of a decode session: the ops' tensors of the tokens so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from core.engine.batch import Array
from core.graph.init import draw
from core.graph.types import Parameter
from core.plan import Buffer

if TYPE_CHECKING:
    from core.device.protocol import Device


class States:
    """The states of a decode session by name, shared by its plans, and allocated at their first use."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._tensors: dict[str, Any] = {}
        self._initial: dict[str, Array] = {}  # of those of constant size

    @property
    def constant(self) -> bool:
        """Whether one of them has a constant size: earlier tokens cannot be taken from it."""
        return bool(self._initial)

    def tensor(self, buffer: Buffer) -> Any:
        """The device's tensor of a state; one of constant size begins with its initial contents."""
        name = buffer.name
        if name not in self._tensors:
            memory = self.device.allocate(buffer.nbytes)
            self._tensors[name] = self.device.tensor(memory, 0, buffer.shape, buffer.dtype)
            if buffer.init:
                self._initial[name] = initial(buffer.init, buffer.shape)
                self.device.upload(self._tensors[name], self._initial[name])
        return self._tensors[name]

    def reset(self, rows: Array) -> None:
        """Start again with these rows of the batch: states of constant size have their initial contents there."""
        for name, first in self._initial.items() if rows.size else ():
            tensor = self._tensors[name]
            held = np.array(tensor if isinstance(tensor, np.ndarray) else self.device.download(tensor))
            held[rows] = first[rows]
            self.device.upload(tensor, held)


def initial(rule: str, shape: tuple[int, ...]) -> Array:
    """The contents of a state of constant size before the first token, (rows, ...) f32. rule: a settled init rule, in
    which `row` counts the state's second dim and `column` its last."""
    return np.broadcast_to(draw(Parameter("state", shape[1:], rule, False, "", ""), 0), shape)
