"""Ctrl-C, SIGTERM and a terminal that goes away (SIGHUP): the first signal asks, the second one leaves.

While a run is prepared there is nothing to save, and a signal ends the program in order. While it trains, the first
one is a flag that the loop looks at when a step is done, between validation batches and between sampled tokens; it
then saves and ends. The second one ends the process at once: checkpoints are renamed into place, so the one before
stays whole. What was started with SIGHUP ignored (nohup) goes on ignoring it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType

from core.native import SIGNALS

Handler = Callable[[int, FrameType | None], None]


class Stop:
    """While it is entered, `requested` says whether the run was asked to end, and `exit_code` with which code."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._handlers = contextlib.ExitStack()

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 and the signal's number: 130 for SIGINT, 143 for SIGTERM; 0 when nobody asked."""
        return 0 if self.signal is None else 128 + self.signal

    @property
    def name(self) -> str:
        return "" if self.signal is None else signal.Signals(self.signal).name

    def __enter__(self) -> Stop:
        self._handlers.enter_context(handling(self._handle))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._handlers.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            leave_at_once(number)
        self.signal = number
        tell("ending after this step; once more leaves at once")


@contextlib.contextmanager
def ending_in_order() -> Iterator[None]:
    """Before the loop there is nothing to save: a signal unwinds the program, which exits with 128 and its number."""
    asked: list[int] = []

    def leave(number: int, frame: FrameType | None) -> None:
        if asked:
            leave_at_once(number)
        asked.append(number)
        tell(f"ended by {signal.Signals(number).name} before the first step: nothing was trained, nothing is saved")
        raise SystemExit(128 + number)

    with handling(leave):
        yield


@contextlib.contextmanager
def handling(handler: Handler) -> Iterator[None]:
    """`handler` for the signals that ask to end, until the block is left; in the main thread, as Python wants it."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        ignored = {number for number in SIGNALS[2:] if signal.getsignal(number) is signal.SIG_IGN}
        before = {number: signal.signal(number, handler) for number in SIGNALS if number not in ignored}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def tell(text: str) -> None:
    """A line on stderr. A handler may come in the middle of a print, and a buffered stream may not be entered twice;
    the terminal may be gone."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode())


def leave_at_once(number: int) -> None:
    tell("leaving at once; checkpoints on disk are as they were")
    os._exit(128 + number)
