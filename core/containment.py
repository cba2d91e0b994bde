"""Containment of plugins' code: every change that it makes to the process is undone.

A plugin's import or hook may print, change the working directory, or take or block signals. None of it may harm the
command around it: the caller chooses the place of its output, the rest is restored. The caller reports its exceptions;
`SystemExit` is a failure like any other, and only Ctrl-C and a noted signal pass.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

from core import signals
from core.errors import BuildError, CoreError, words_of

T = TypeVar("T")
OURS = ("", "corelm")  # origins of the core's own contributions
PASSES = (KeyboardInterrupt, signals.Ended)  # these are ours, or the person's, and never the plugin's failure


@contextlib.contextmanager
def contained(said: Callable[[str], None] | None = None) -> Iterator[None]:
    """Run the block, then restore the working directory and the signals. Its output on stdout and stderr goes to
    `said`, line by line, or to stderr, so that a listing's stdout stays valid."""
    printed = _Lines(said) if said is not None else sys.stderr
    try:
        here = os.getcwd()
    except OSError:  # the folder is gone
        here = ""
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            yield
    finally:
        if isinstance(printed, _Lines):
            printed.end()
        with contextlib.suppress(OSError):
            if here and os.getcwd() != here:
                os.chdir(here)
        signals.keep()


def of_plugin(origin: str, part: str, work: Callable[[], T]) -> T:
    """Contain a call of a plugin's method. BuildError for any exception but corelm's own, SystemExit included.

    origin: the plugin's name and place, "" for the core, whose exceptions pass. part: "format npz", for the error.
    """
    if origin in OURS:
        return work()
    try:
        with contained():
            return work()
    except (CoreError, OSError, MemoryError, *PASSES):
        raise
    except BaseException as error:
        raise BuildError(f"{origin}: its {part} raised {words_of(error)}") from error


class _Lines(io.TextIOBase):
    """A text stream that hands over whole lines."""

    def __init__(self, said: Callable[[str], None]) -> None:
        self._said, self._part = said, ""

    def write(self, text: str) -> int:
        *lines, self._part = (self._part + text).split("\n")
        for line in lines:
            self._said(line)
        return len(text)

    def end(self) -> None:
        if self._part:
            self._said(self._part)
            self._part = ""
