"""Ctrl-C and other signals for a while in other hands: a handler of a chat's own, or the system's action."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from core import signals


@contextlib.contextmanager
def interrupts(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """While the block runs, Ctrl-C is `handler`'s alone, which may raise KeyboardInterrupt."""
    before = signal.signal(signal.SIGINT, handler)
    listener = signals.listener()
    if listener is not None:
        listener.foreign.add(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if listener is not None:
            listener.foreign.discard(signal.SIGINT)


@contextlib.contextmanager
def endable() -> Iterator[None]:
    """For native calls that hold the interpreter, during which no thread of Python runs, and leave nothing half done:
    the system's own action ends the process, for which a shell reports 130 or 143 as well."""
    listener = signals.listener() if threading.current_thread() is threading.main_thread() else None
    for number in listener.before if listener is not None else ():
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        if listener is not None:
            listener.keep()
