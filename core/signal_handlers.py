"""Ctrl-C and other signals for a while in other hands: a handler of a chat's own, or the system's action."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from core import signals

_around_native: list[Callable[[bool], None]] = []


def around_native(call: Callable[[bool], None]) -> None:
    """Have `call(True)` made before native code that keeps all threads from running, and `call(False)` after it."""
    _around_native.append(call)


@contextlib.contextmanager
def interrupts(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """While the block runs, Ctrl-C is `handler`'s alone, which may raise KeyboardInterrupt, or ignore those
    that follow (`signals.ignore`)."""
    before = signal.signal(signal.SIGINT, handler)
    listener = signals.listener()
    if listener is not None:
        listener.foreign.add(signal.SIGINT)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
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
    for call in _around_native:
        call(True)
    try:
        yield
    finally:
        for call in _around_native:
            call(False)
        if listener is not None:
            listener.keep()
