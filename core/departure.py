"""The last steps of a command before its process ends: functions that see its exit code.

A rank of a run may not end alone, since the others would wait for it for ever: its group leaves here.
"""

from __future__ import annotations

from collections.abc import Callable

_last_steps: list[Callable[[int], None]] = []


def before_exit(step: Callable[[int], None]) -> None:
    """Have `step(code)` called with the exit code, after all messages are printed; it may end the process."""
    _last_steps.append(step)


def depart(code: int) -> None:
    """Take the last steps."""
    while _last_steps:
        _last_steps.pop()(code)
