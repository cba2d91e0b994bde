"""Chat templates: a model's Jinja, which is not trusted, rendered in a child process with limits.

The child (`template_child.py`) starts with the first chat, stays for all later ones, and ends with this process. A
template that reached a limit is not tried again.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from core.errors import DataError, UsageError
from core.tokenizers.template_child import HARD, MEMORY, SOFT

EXTRA = 'pip install "corelm[tokenizers]"'
CHILD = Path(__file__).with_name("template_child.py")
LONGEST = 1 << 17  # characters; the longest of published models is a tenth of it
WAIT = 30.0  # seconds for a reply, on a machine so busy that the limit of CPU time is not reached before
TURNS = "it may accept no --system, or need turns in another order"
REFUSED = "the template is at fault: repair it there, or move it away to continue text without turns"
OUTSIDE = {-getattr(signal, name): name for name in ("SIGKILL", "SIGTERM", "SIGHUP") if hasattr(signal, name)}
AGAIN = "another program ended it, or the system, which does so where memory runs out; try again"
TOO_SLOW, TOO_LARGE = "takes more than {:g} seconds", f"needs more than {MEMORY >> 20} MiB of memory"


class Renderer:
    """A child process, started when needed and again after it was ended. One request at a time.

    soft, hard: its CPU-seconds for a request, until an error with the template's line and until it is ended.
    """

    def __init__(self, soft: float = SOFT, hard: float = HARD) -> None:
        self.soft, self.hard = soft, hard
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._refused: dict[str, str] = {}  # template -> the limit that it reached

    def render(self, template: str, variables: dict[str, Any], where: str, marks: tuple[str, str] | None = None) -> str:
        """The text that a template writes. `where`: its file, for errors. marks: texts around each `{% generation %}`.

        UsageError without jinja2; DataError, with the line, for a template that fails or reaches a limit.
        """
        if len(template) > LONGEST:
            raise DataError(
                f"{where}: the chat template has {len(template):,} characters; at most {LONGEST:,} are read"
            )
        with self._lock:
            if template in self._refused:
                raise DataError(self._refused[template], hint=REFUSED)
            try:
                limits = {"soft": self.soft, "hard": self.hard}
                reply = self._ask({"template": template, "given": variables, "marks": marks, **limits})
            except BaseException:  # Ctrl-C in the middle of a line: the next reply would be that of this request
                self.close()
                raise
        if "text" in reply:
            return str(reply["text"])
        if "missing" in reply:
            raise UsageError(f"a chat template needs the library {reply['missing']}", hint=EXTRA)
        place = f"{where}: the chat template" + (f", line {reply['line']}," if reply.get("line") else "")
        limit = TOO_SLOW.format(self.soft) if reply.get("slow") else TOO_LARGE if reply.get("memory") else ""
        if limit:
            self._refused[template] = f"{place} {limit}"
            raise DataError(self._refused[template], hint=REFUSED)
        raise DataError(f"{place} says: {reply['error']}", hint=TURNS)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        child = self._started()
        assert child.stdin is not None and child.stdout is not None
        overdue = threading.Event()

        def give_up() -> None:
            overdue.set()
            child.kill()

        watch = threading.Timer(WAIT, give_up)
        watch.daemon = True
        watch.start()
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
            line = child.stdout.readline()
        except BrokenPipeError:  # it gave the reason before it ended, or a limit ended it
            line = child.stdout.readline()
        finally:
            watch.cancel()
        if line.endswith(b"\n"):
            reply: dict[str, Any] = json.loads(line)
            return reply
        code = self.close()
        slow = overdue.is_set() or code in (-getattr(signal, "SIGPROF", 0), 0)
        if not slow and code in OUTSIDE:
            raise DataError(f"the process for chat templates was ended by {OUTSIDE[code]}", hint=AGAIN)
        return {"slow": slow, "memory": not slow, "line": None}

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self.close()
            try:
                self._child = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(CHILD)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
            except OSError as error:
                problem = f"the process for chat templates does not start: {error.strerror or error}"
                raise DataError(problem, hint="see `ulimit -u` and `ulimit -v`") from None
            assert self._child.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._child.stdin.write(json.dumps([p for p in sys.path if isinstance(p, str)]).encode() + b"\n")
        return self._child

    def close(self) -> int | None:
        """End the child. Its exit code, None without one."""
        child, self._child = self._child, None
        if child is None:
            return None
        for stream in (child.stdin, child.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()
        try:
            return child.wait(1.0)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()


RENDERER = Renderer()
atexit.register(RENDERER.close)
