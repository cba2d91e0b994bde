"""Messages of a process that a launcher started as one of several.

An error that all ranks meet alike is rank 0's to print: the others hold their messages for two seconds, in which rank 0
prints its own and ends the run. Lines that they print after it, about events of their own, begin with their name.
"""

from __future__ import annotations

import signal
import time

from core import signals, terminal
from core.ranks.launched import LaunchedProcess

HEAD_START = 2.0  # seconds for rank 0
AFTER_KILL = 0.5  # seconds before a line on a signal: mpiexec kills a quarter of a second after SIGTERM

_held: list[str] = []
_name = ""


def begin(this: LaunchedProcess) -> None:
    """From now on this process speaks as that rank."""
    global _name
    signals.speak(None if this.rank else AFTER_KILL)
    if hasattr(signal, "SIGUSR1"):
        signals.also(signal.SIGUSR1)  # which mpiexec passes on without killing, and SLURM sends on request
    if this.rank:
        _name = this.name
        terminal.speak_to(_held.append)


def end(code: int, by: str) -> None:
    """Print the held lines, at the command's end and before the run's other ranks are ended. by: the call that ended it
    early, or ""."""
    if by:
        terminal.say(f"core: error: a call of {by} ended this rank")
    if not _name:
        return
    if _held:
        time.sleep(HEAD_START)
    terminal.speak_to(None)
    for text in _held:
        terminal.say(f"{_name}: {text}")
    _held.clear()
