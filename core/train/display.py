"""Output of a run: the terminal, a plain stream, the log. The callers write the text.

On a terminal the step's line is redrawn in place, with a carriage return and spaces and nothing else: no colours,
no escape codes, so that NO_COLOR and dumb terminals need no case. Elsewhere there are plain lines. A stream that is
closed (`| head`) is dropped silently, and the run continues; so it does while a stream is not read (Ctrl-S).
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

from core import signals
from core.terminal import Writer, visible

REDRAW = 0.05  # seconds between redraws of the status line: a step may take less


class Display:
    """Lines and a status. `log` gets every line, as plain text, in addition to the stream."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream: TextIO | None = None if quiet else stream or sys.stdout
        self.log: Callable[[str], None] = lambda text: None
        self._writer = Writer(self._stream) if self._stream is not None else None
        self.live = self._stream is not None and self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._shown = ""  # the status on the terminal's last line
        self._latest = ""  # the one that should
        self._drawn_text = ""  # the latest one that does, before it was cut to the width
        self._keep = False  # whether it is kept before the next line
        self._drawn = 0.0

    def line(self, text: str) -> None:
        """A line that stays, and is logged."""
        self.log(text)
        self._print(text)

    def step(self, text: str, due: bool) -> None:
        """The line of a step. On a terminal it is redrawn, elsewhere it is a line if `due`; so in the log."""
        if due:
            self.log(text)
        if self.live:
            self._draw(text, keep=True)
        elif due:
            self._print(text)

    def status(self, text: str) -> None:
        """The work under way: shown on a terminal only, replaced by the next line. A safe point of signals."""
        signals.check()
        if self.live:
            self._draw(text, keep=False)

    def close(self) -> None:
        """Leave the cursor on a fresh line, and wait for pending output."""
        self._end_status()
        if self._writer is not None:
            self._writer.finish()

    def _draw(self, text: str, *, keep: bool) -> None:
        """Redraw the last line; one that is too early waits until the next, or until it is kept."""
        if self._keep and not keep:
            self._end_status()
        self._latest = text
        if self._shown and keep == self._keep and time.monotonic() - self._drawn < REDRAW:
            return
        self._keep = keep
        self._overwrite()

    def _overwrite(self) -> None:
        fitted = fit(visible(self._latest), shutil.get_terminal_size().columns - 1)
        self._write("\r" + fitted + " " * (len(self._shown) - len(fitted)))
        self._shown, self._drawn_text, self._drawn = fitted, self._latest, time.monotonic()

    def _end_status(self) -> None:
        if not self._shown:
            return
        if self._keep:
            if self._latest != self._drawn_text:
                self._overwrite()
            self._write("\n")
        else:
            self._write("\r" + " " * len(self._shown) + "\r")
        self._shown, self._keep = "", False

    def _print(self, text: str) -> None:
        self._end_status()
        self._write(visible(text) + "\n")

    def _write(self, text: str) -> None:
        if self._writer is None:
            return
        self._writer.write(text)
        if self._writer.gone:
            self._drop()

    def _drop(self) -> None:
        """The reader left. The interpreter flushes sys.stdout when it ends, which must not fail either."""
        if self._stream is sys.stdout:
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        self._stream, self._writer, self.live = None, None, False


def fit(text: str, columns: int) -> str:
    """`text` in at most `columns` characters: whole ` | ` parts are dropped from the end, then it is cut."""
    parts = text.split(" | ")
    while len(parts) > 1 and len(" | ".join(parts)) > columns:
        parts.pop()
    return " | ".join(parts)[: max(1, columns)]
