"""The terminal's guard: text whose control characters are visible, from a thread that may wait for its reader.

Names, error messages and templates come from files and plugins of strangers. An escape code among them could move the
cursor, rename the window or fill the clipboard, so `guard` puts one stream in front of stdout and stderr that shows it
as `\\x1b`. The rest of the program prints as usual.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TextIO

from core import signals

# Control characters but newline and tab; separators of lines; marks that reorder the displayed text.
HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
MOST_WAITING = 64 << 20  # bytes that wait for a reader; later ones are left out, and counted
NATIVE = 2  # the descriptor of stderr in every program
PATIENCE = 1.0  # seconds that the last lines wait for a reader once a signal came
IDLE = 1.0  # seconds without a text after which a writer's thread ends
REPORTED = 0.05  # seconds between looks at a signal while they wait


def visible(text: str) -> str:
    """`text` with each hidden character as an escape: ESC as `\\x1b`, a right-to-left override as `\\u202e`."""
    return HIDDEN.sub(lambda match: _escape(ord(match[0])), text)


def _escape(code: int) -> str:
    return "\\r" if code == 13 else f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


class Guarded(io.TextIOWrapper):
    """A text stream that shows hidden characters. A character that the encoding lacks becomes "?"."""

    def write(self, text: str) -> int:
        super().write(visible(text))
        return len(text)


def guard() -> None:
    """Put a Guarded stream in the place of stdout and of stderr. That of stderr has a descriptor of its own, so that
    `native_silenced` can turn away the output of libraries on descriptor 2."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and not isinstance(stream, Guarded):
            stream.flush()
            buffer = _own_descriptor(stream) if name == "stderr" else stream.buffer
            guarded = Guarded(
                buffer,
                encoding=stream.encoding,
                errors="replace",
                line_buffering=stream.line_buffering or name == "stderr",
                write_through=stream.write_through,
            )
            if buffer is stream.buffer:
                stream.detach()  # after all that may fail, so that an error can still be printed
            setattr(sys, name, guarded)
            setattr(sys, f"__{name}__", guarded)


def _own_descriptor(stream: io.TextIOWrapper) -> Any:
    """The stream's file with a second descriptor; its own buffer where the system gives none."""
    try:
        return open(os.dup(stream.fileno()), "wb")
    except (OSError, ValueError):
        return stream.buffer


_errors: Writer | None = None  # of stderr, once it did not take a line at once
_instead: Callable[[str], None] | None = None  # the taker of lines in place of stderr


def speak_to(taker: Callable[[str], None] | None) -> None:
    """Give the lines of `say` to a function; None: to stderr again."""
    global _instead
    _instead = taker


def say(text: str) -> None:
    """A line on stderr, without waiting for a reader who does not read: `settle` does. One that cannot be written (a
    full disk, no reader) is lost, and changes no exit code."""
    global _errors
    if _instead is not None:
        _instead(text)
        return
    line = text + "\n"
    if _errors is not None and _errors.writes_to(sys.stderr):
        _errors.write(visible(line))
    elif takes(sys.stderr, line):
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(line)
            sys.stderr.flush()
    else:
        _errors = Writer(sys.stderr)
        _errors.write(visible(line))


def takes(stream: TextIO, text: str) -> bool:
    """Whether the stream takes a text at once: a pipe or terminal that is ready takes PIPE_BUF bytes."""
    try:
        if os.name == "nt" or not _may_wait(os.fstat(stream.fileno()).st_mode):
            return True
        return len(text) * 4 <= select.PIPE_BUF and bool(select.select([], [stream], [], 0)[1])
    except (OSError, ValueError, AttributeError):
        return True  # no descriptor: the write raises the error


def _may_wait(mode: int) -> bool:
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def settle() -> None:
    """At a command's end: all lines are written, and nothing is left in a buffer that Python's own end would fail to
    write."""
    if _errors is not None and _errors.writes_to(sys.stderr):
        _errors.finish()
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except (OSError, ValueError):
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


class Writer:
    """Writes to a stream without ever waiting for its reader: a thread of its own does.

    `gone` is true once the reader left. A stream without a descriptor, as in tests, is written to directly.
    """

    def __init__(self, stream: TextIO) -> None:
        self.gone = False
        self._stream = stream
        self._encoding = stream.encoding or "utf-8"
        self._waiting: deque[bytes] = deque()
        self._size = self._left_out = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        try:
            stream.flush()
            self._descriptor = stream.fileno()
        except (OSError, ValueError):
            self._descriptor = -1

    def writes_to(self, stream: TextIO) -> bool:
        return self._stream is stream

    def write(self, text: str) -> None:
        """Queue `text`, which is written as it is: `visible` is the caller's."""
        if self._descriptor < 0:
            return self._directly(text)
        data = text.encode(self._encoding, "replace")
        with self._changed:
            if self.gone:
                return None
            if self._size + len(data) > MOST_WAITING:
                self._left_out += 1
                return None
            if self._left_out:
                data = f"\n({self._left_out} lines were left out here: this output was not read)\n".encode() + data
                self._left_out = 0
            self._waiting.append(data)
            self._size += len(data)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="core-terminal", daemon=True)
                self._thread.start()
        return None

    def finish(self) -> None:
        """Wait until all is written; only for a moment after a signal."""
        since = 0.0
        while self._size and not self.gone and self._descriptor >= 0:
            with self._changed:
                self._changed.wait(REPORTED)
            if signals.noted():
                since = since or time.monotonic()
                if time.monotonic() - since > PATIENCE:
                    return

    def _directly(self, text: str) -> None:
        try:
            self._stream.write(text.encode(self._encoding, "replace").decode(self._encoding))
            self._stream.flush()
        except (OSError, ValueError):
            self.gone = True

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if not self._changed.wait(IDLE) and not self._waiting:
                        self._thread = None  # the next text starts another
                        return
                data = self._waiting[0]
            written = 0
            try:
                while written < len(data):
                    written += os.write(self._descriptor, data[written:])
            except OSError:
                with self._changed:
                    self.gone, self._size = True, 0
                    self._waiting.clear()
                    self._changed.notify_all()
                return
            with self._changed:
                self._waiting.popleft()
                self._size -= len(data)
                self._changed.notify_all()
