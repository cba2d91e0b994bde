"""Uploads to a GPU: pinned host buffers that a copy reads while the host fills the next. It knows no tensors."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from core.device.driver import Driver

Array = np.ndarray[Any, Any]

STAGES = 4  # pinned buffers that uploads go through in turn
STAGE_BYTES = 1 << 20


class Staging:
    """Pinned buffers that uploads go through: the copy to the device overlaps the host's work."""

    def __init__(self, driver: Driver, stream: Any) -> None:
        self.driver, self.stream = driver, stream
        self.stages: list[tuple[int, Array, Any]] = []  # address, its bytes as an array, the event after its last copy
        self.turn = 0

    def upload(self, pointer: int, data: Array) -> None:
        for start in range(0, data.size, STAGE_BYTES):
            part = data[start : start + STAGE_BYTES]
            address, held, event = self._next()
            held[: part.size] = part
            self.driver.call("cuMemcpyHtoDAsync", pointer + start, address, part.size, self.stream)
            self.driver.call("cuEventRecord", event, self.stream)

    def _next(self) -> tuple[int, Array, Any]:
        """The next buffer, once the copy out of it is done."""
        call = self.driver.call
        if len(self.stages) < STAGES:
            address = int(call("cuMemHostAlloc", STAGE_BYTES, 0))
            held = np.ctypeslib.as_array((ctypes.c_uint8 * STAGE_BYTES).from_address(address))
            event = call("cuEventCreate", int(self.driver.api.CUevent_flags.CU_EVENT_DISABLE_TIMING))
            self.stages.append((address, held, event))
            return self.stages[-1]
        self.turn = (self.turn + 1) % STAGES
        stage = self.stages[self.turn]
        call("cuEventSynchronize", stage[2])
        return stage
