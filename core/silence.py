"""Silence of native libraries, which write to descriptor 2 past Python."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

from core.terminal import NATIVE, Guarded

_native = threading.Lock()
_silencers = 0  # blocks of `native_silenced` that run now, in all threads
_spoken = -1  # a copy of descriptor 2 while it leads nowhere


@contextlib.contextmanager
def native_silenced() -> Iterator[None]:
    """Text that a native library writes to descriptor 2 in this block goes nowhere: Rust prints a panic there before
    it raises. Only in a program whose own stderr has another descriptor (`guard`); elsewhere nothing changes."""
    if not isinstance(sys.stderr, Guarded) or sys.stderr.fileno() == NATIVE:
        yield
        return
    _silence(1)
    try:
        yield
    finally:
        _silence(-1)


def _silence(change: int) -> None:
    global _silencers, _spoken
    with _native:
        before, _silencers = _silencers, _silencers + change
        if not before:
            try:
                nowhere = os.open(os.devnull, os.O_WRONLY)
            except OSError:  # no descriptor is left: the text is written
                return
            try:
                _spoken = os.dup(NATIVE)
                os.dup2(nowhere, NATIVE)
            except OSError:
                _spoken = -1
            finally:
                os.close(nowhere)
        elif not _silencers and _spoken >= 0:
            os.dup2(_spoken, NATIVE)
            os.close(_spoken)
            _spoken = -1
