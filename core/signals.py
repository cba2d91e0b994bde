"""Ctrl-C, SIGTERM and SIGHUP: a handler notes the signal, and safe points of the program act on it.

No exception is ever raised from a handler: raised inside an import it would leave the import system's lock held, and
inside a plugin it could be caught. While a command prepares something, `check` raises `Ended` at its safe points; a
command that reaches none within GRACE seconds ends at once, since it has nothing to save. While a run trains, the first
signal is a flag of `Stop`, which the loop reads between steps, validation batches and sampled tokens. A second signal
ends the process at once in both cases: files are renamed into place, so the checkpoint before stays whole. A signal
that was ignored when the command began (nohup) stays ignored.

A thread of its own reads the signals from a pipe, so that a main thread that is stuck (a terminal that does not read, a
kernel that never ends) delays neither the deadline nor the second signal.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

T = TypeVar("T")

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
GRACE = 3.0  # seconds from a first signal to a safe point, while nothing needs saving
SAFE_POINT = 0.1  # seconds between looks while other threads work
CLOSED = 0  # the byte in the pipe that ends the thread


class Ended(BaseException):  # noqa: N818  (no error: a request)
    """A noted signal at a safe point. Not an Exception, nor SystemExit: code that stops the exits of foreign
    code must let it pass."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class Listener:
    """The handlers, the pipe and the thread. `noted` is the first signal, 0 before one came."""

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix
        self.noted = 0
        self.stop: Stop | None = None  # of a run that trains
        self.foreign: set[int] = set()  # signals with a handler of their own, as Ctrl-C in a chat
        self._count = 0
        self.before: dict[int, object] = {}  # the handlers in whose place these are
        self._reader, self._writer = os.pipe()
        self._wakeup = -1
        self._deadline: threading.Timer | None = None
        self.witness: Callable[[int], None] | None = None  # sees each signal first
        self.seen: dict[int, object] = {}  # signals that are the witness's alone, and the handlers before
        self.last_words: Callable[[], None] | None = None  # before an end at once
        self._thread = threading.Thread(target=self._listen, name="core-signals", daemon=True)

    def begin(self) -> None:
        os.set_blocking(self._writer, False)
        self._thread.start()
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in SIGNALS:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN or number == signal.SIGINT:
                self.before[number] = before
                signal.signal(number, self.note)

    def end(self) -> None:
        """Give the signals back. A message under way is finished first."""
        for number, handler in {**self.before, **self.seen}.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._wakeup)
        os.write(self._writer, bytes([CLOSED]))
        self._thread.join(1.0)
        if self._deadline is not None:  # after the thread, which may just have set it
            self._deadline.cancel()
        if not self._thread.is_alive():
            os.close(self._reader)
            os.close(self._writer)

    def keep(self) -> None:
        """Take the signals back from foreign code that took or blocked them."""
        for number in self.before.keys() - self.foreign:
            if signal.getsignal(number) != self.note:
                signal.signal(number, self.note)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, list(self.before))

    def note(self, number: int, frame: FrameType | None = None) -> None:
        """The handler: runs in the main thread, between any two instructions."""
        self.noted = self.noted or number
        if self.stop is not None and self.stop.signal is None:
            self.stop.signal = number

    def _listen(self) -> None:
        while True:
            for number in os.read(self._reader, 64):
                if number == CLOSED:
                    return
                if self.witness is not None:
                    self.witness(number)
                if number in self.before and number not in self.foreign:
                    self._came(number)

    def _came(self, number: int) -> None:
        self._count += 1
        if self._count > 1:
            leave_at_once(number)
        self.note(number)
        if self.stop is not None:
            write_line(f"ending after this {self.stop.unit}; once more leaves at once")
            return
        write_line(f"core: ended by {signal.Signals(number).name}{self.suffix}")
        self._deadline = threading.Timer(GRACE, self._expire)
        self._deadline.daemon = True
        self._deadline.start()

    def _expire(self) -> None:
        if self.stop is None:
            _end_at_once(self.noted)


_listener: Listener | None = None
_delay: float | None = 0.0  # seconds before a line on a signal; None: there is none


def speak(delay: float | None) -> None:
    """Delay lines on signals by some seconds: a process that the launcher ends prints nothing. None: print none,
    as on the ranks of a run other than the first."""
    global _delay
    _delay = delay


@contextlib.contextmanager
def listening(suffix: str = "") -> Iterator[None]:
    """Note signals during the block; `suffix` follows "ended by SIGTERM" in the line on stderr.

    Within another such block only the words change. In a thread other than the main one nothing is done, as Python
    has it.
    """
    global _listener
    if _listener is not None:
        before, _listener.suffix = _listener.suffix, suffix or _listener.suffix
        try:
            yield
        finally:
            if _listener is not None:
                _listener.suffix = before
        return
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = _listener = Listener(suffix)
    own.begin()
    try:
        yield
    finally:
        _listener = None
        own.end()


@contextlib.contextmanager
def last_words(say: Callable[[], None]) -> Iterator[None]:
    """During the block, have `say()` called before a signal ends the process at once: the first one at its deadline, or
    a second one. Another thread calls it: it may wait for a moment only."""
    if _listener is None:
        yield
        return
    before, _listener.last_words = _listener.last_words, say
    try:
        yield
    finally:
        if _listener is not None:
            _listener.last_words = before


def listener() -> Listener | None:
    """The process's listener, inside of `listening`."""
    return _listener


def check() -> None:
    """A safe point: raises Ended when a signal was noted and no run is training, which has safe points of its own."""
    if _listener is not None and _listener.noted and _listener.stop is None:
        raise Ended(_listener.noted)


def results(pool: Executor, futures: Sequence[Future[T]]) -> list[T]:
    """The results in order, waited for at safe points. When one fails, or a signal came, those that wait in `pool` are
    given up and those under way are finished."""
    from concurrent.futures import FIRST_EXCEPTION, wait  # not for `core --help`

    waiting = set(futures)
    try:
        while waiting:
            done, waiting = wait(waiting, SAFE_POINT, FIRST_EXCEPTION)
            check()
            for future in done:
                future.result()
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    return [future.result() for future in futures]


def also(number: int) -> None:
    """Note this signal too, until the command ends."""
    if _listener is not None:
        _listener.before[number] = signal.getsignal(number)
        signal.signal(number, _listener.note)


def ignore(number: int) -> None:
    """Ignore this signal from now on, after the end of the command too: its process is about to end."""
    signal.signal(number, signal.SIG_IGN)
    if _listener is not None:
        _listener.before[number] = signal.SIG_IGN
        _listener.foreign.add(number)


def witness(call: Callable[[int], None], numbers: Sequence[int] = ()) -> None:
    """Have `call(number)` made for each signal at once, in the listener's thread. numbers: signals that no other part
    of the program notes."""
    if _listener is not None:
        _listener.witness = call
        for number in numbers:
            _listener.seen[number] = signal.signal(number, lambda number, frame: None)


def training() -> bool:
    """Whether a run trains, so that a signal is acted on after its step."""
    return _listener is not None and _listener.stop is not None


def name_of(number: int) -> str:
    """ "SIGTERM"."""
    return signal.Signals(number).name


def noted() -> int:
    """The signal that came first, or 0."""
    return _listener.noted if _listener is not None else 0


def keep() -> None:
    """Called after foreign code has run: a plugin's import or hook may have set or blocked signals."""
    if _listener is not None and threading.current_thread() is threading.main_thread():
        _listener.keep()


def default() -> None:
    """The system's own action from now on: for the end of a command, where handlers would swallow a signal."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)


class Stop:
    """While it is entered, `requested` is True after a signal, and `exit_code` is its exit code. unit: a noun for the
    work between two looks at it."""

    def __init__(self, unit: str = "step") -> None:
        self.unit = unit
        self.signal: int | None = None
        self._listening = contextlib.ExitStack()

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 and the signal's number: 130 for SIGINT, 143 for SIGTERM; 0 without a signal."""
        return 0 if self.signal is None else 128 + self.signal

    @property
    def name(self) -> str:
        return "" if self.signal is None else signal.Signals(self.signal).name

    def __enter__(self) -> Stop:
        self._listening.enter_context(listening())
        if _listener is not None:
            _listener.stop = self
            self.signal = self.signal or _listener.noted or None  # one that came since the last safe point
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if _listener is not None:
            _listener.stop = None
        self._listening.close()


def write_line(text: str) -> None:
    """A line on stderr, unless stderr would make us wait or is gone."""
    if _delay is None:
        return
    if _delay:
        time.sleep(_delay)  # in the listener's thread
    with contextlib.suppress(OSError, ValueError):
        if os.name == "nt" or select.select([], [2], [], 0)[1]:
            os.write(2, f"\n{text}\n".encode())


def leave_at_once(number: int) -> None:
    write_line("leaving at once; checkpoints on disk are as they were")
    _end_at_once(number)


def _end_at_once(number: int) -> None:
    try:
        if _listener is not None and _listener.last_words is not None:
            _listener.last_words()
    finally:
        os._exit(128 + number)
