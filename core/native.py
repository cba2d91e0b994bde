"""Native calls that hold the interpreter for long: meanwhile nothing in Python runs, not even a signal's handler.

It is for calls that leave nothing half done. The command then lets the system's own action hold: a signal that asks to
end ends the process at once, for which a shell says 130 or 143 as well. A program that embeds us keeps its own way.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

of_the_command = False  # whether the process is ours; the command says so when it starts


@contextmanager
def endable() -> Iterator[None]:
    """While the block runs, a signal need not wait for it."""
    before = {}
    if of_the_command and threading.current_thread() is threading.main_thread():
        asking = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, signal.SIG_DFL) for number in asking}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
