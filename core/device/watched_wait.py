"""Waits of the host for a GPU whose work needs other processes: polled, so that the death of one is an error."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from core.device.driver import SUCCESS, Driver

NOT_READY = 600  # CUDA_ERROR_NOT_READY
SHORTEST, LONGEST = 20e-6, 200e-6  # seconds between two looks
Watch = Callable[[float], None]


class WatchedWait:
    """Waits for one stream. watches: each is called with the seconds that the work at hand has taken, and raises
    CoreError where nothing is to be waited for any more; without any, nothing is polled.

    The work at hand is one replayed list: its seconds begin when the one before it has ended.
    """

    def __init__(self, driver: Driver, stream: Any) -> None:
        self.driver, self.stream = driver, stream
        self.watches: list[Watch] = []
        self._marks: deque[Any] = deque()  # events after the lists that may still run
        self._spare: list[Any] = []

    def add(self, watch: Watch | None) -> None:
        """Call `watch` from now on while the host waits."""
        if watch is not None and watch not in self.watches:
            self.watches.append(watch)

    def mark(self) -> None:
        """A list was launched."""
        if self.watches:
            flags = int(self.driver.api.CUevent_flags.CU_EVENT_DISABLE_TIMING)
            event = self._spare.pop() if self._spare else self.driver.call("cuEventCreate", flags)
            self.driver.call("cuEventRecord", event, self.stream)
            self._marks.append(event)

    def wait(self) -> None:
        """Return when all launches are done. Raises the error of a watch, or DeviceError of the driver."""
        begun, pause = time.monotonic(), SHORTEST
        self.mark()
        while self._marks:
            status = int(self.driver.api.cuEventQuery(self._marks[0])[0])
            if status == SUCCESS:
                self._spare.append(self._marks.popleft())
                begun, pause = time.monotonic(), SHORTEST
                continue
            if status != NOT_READY:
                raise self.driver.error(status, "cuEventQuery")
            self._look(time.monotonic() - begun)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST)
        self._look(0.0)

    def _look(self, seconds: float) -> None:
        for watch in self.watches:
            watch(seconds)
