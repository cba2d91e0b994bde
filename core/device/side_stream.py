"""A second stream of a GPU, on which collectives run beside the step: started at one point of it, joined at another.

Both are recorded as calls, so that a captured graph has the fork and the join as edges between its nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from core.device.driver import Driver
from core.device.launch import CallRecord


class SideStream:
    """The stream and its events. Nothing is made before the first call is prepared."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self._stream: Any = None

    @property
    def stream(self) -> Any:
        if self._stream is None:
            flags = int(self.driver.api.CUstream_flags.CU_STREAM_NON_BLOCKING)
            self._stream = self.driver.call("cuStreamCreate", flags)
        return self._stream

    def start(self, records: Sequence[CallRecord]) -> CallRecord:
        """A call that puts the calls of `records` on this stream, after all earlier work of its own stream."""

        def prepare(*addresses: int) -> Callable[[int], None]:
            works, at = [], 0
            for record in records:
                works.append(record.prepare(*addresses[at : at + len(record.args)]))
                at += len(record.args)
            fork = self._edge()

            def start(stream: int) -> None:
                fork(stream, int(self.stream))
                for work in works:
                    work(int(self.stream))

            return start

        first = records[0]
        args = tuple(tensor for record in records for tensor in record.args)
        return replace(first, prepare=prepare, args=args, method=f"{first.method}, beside the step")

    def join(self, last: CallRecord) -> CallRecord:
        """A call that makes its own stream wait for all work of this one. last: the last call that was started."""

        def prepare() -> Callable[[int], None]:
            edge = self._edge()
            return lambda stream: edge(int(self.stream), stream)

        return replace(last, prepare=prepare, args=(), method="join")

    def _edge(self) -> Callable[[int, int], None]:
        """edge(before, after): the second stream waits for the present work of the first."""
        call = self.driver.call
        event = call("cuEventCreate", int(self.driver.api.CUevent_flags.CU_EVENT_DISABLE_TIMING))

        def edge(before: int, after: int) -> None:
            call("cuEventRecord", event, before)
            call("cuStreamWaitEvent", after, event, 0)

        return edge
