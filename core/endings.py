"""The end of a long command's output: its JSON or its summary, which neither a signal nor an error takes away."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from typing import TextIO

from core import signals
from core.errors import CoreError, words_of
from core.terminal import PATIENCE, Writer, visible


@contextmanager
def ending(text: Callable[[str], str], done: Sized) -> Iterator[None]:
    """Print `text("")` on stdout at the end of the block: JSON or a summary of a command's results, or "" for nothing.

    A block that is cut off prints `text(reason)` once, about the results until then: after a signal, at its deadline
    and by a second one too; and after an error, if there are results, the items of `done`.
    """
    stream, printing = sys.stdout, threading.Lock()

    def last_words() -> None:
        if printing.acquire(timeout=PATIENCE):  # for good: the process ends
            writer = Writer(stream)
            writer.write(visible(text(f"ended by {signals.name_of(signals.noted())}") + "\n"))
            writer.finish()

    with signals.last_words(last_words):
        try:
            yield
        except BaseException as error:
            if len(done) or isinstance(error, signals.Ended | KeyboardInterrupt):
                with printing, contextlib.suppress(OSError, ValueError):  # the error at hand is the one to report
                    _print(text(reason_of(error)), stream)
            raise
        with printing:
            _print(text(""), stream)


def _print(text: str, stream: TextIO) -> None:
    if text:
        print(text, file=stream, flush=True)


def reason_of(error: BaseException) -> str:
    """The reason of a cut, for the results of a command."""
    match error:
        case signals.Ended():
            return f"ended by {signals.name_of(error.exit_code - 128)}"
        case KeyboardInterrupt():
            return "interrupted"
        case CoreError():
            return f"ended by an error: {error.message}"
    return f"ended by an error: {words_of(error)}"
