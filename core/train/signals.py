"""Ctrl-C and SIGTERM during a run: the first one asks, the second one leaves.

The first is a flag that the loop looks at when a step is done, between validation batches and between sampled
tokens; it then saves and ends. The second one ends the process at once: checkpoints are renamed into place, so the
one before stays whole.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """While it is entered, `requested` says whether the run was asked to end, and `exit_code` with which code."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """130 for SIGINT, 143 for SIGTERM, 0 when nobody asked."""
        return 0 if self.signal is None else 128 + self.signal

    @property
    def name(self) -> str:
        return "" if self.signal is None else signal.Signals(self.signal).name

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers there only
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # os.write: a handler may come in the middle of a print, and a buffered stream may not be entered twice
        if self.signal is not None:
            os.write(2, b"\nleaving at once; checkpoints on disk are as they were\n")
            os._exit(128 + number)
        self.signal = number
        os.write(2, b"\nending after this step; once more leaves at once\n")


def exit_on_sigterm() -> None:
    """Before the loop there is nothing to save: SIGTERM ends the program in order, with 143."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, leave)
