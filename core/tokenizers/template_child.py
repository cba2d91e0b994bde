"""The process of chat templates, which are parts of models and not trusted. `templates.py` runs this file.

Requests and replies are lines of JSON. The sandbox gives a template no way to files, imports or attributes that begin
with an underscore; limits of the system end one that computes without end or takes more memory than MEMORY. This
file imports nothing of the project, so that the process starts in the time that jinja2 takes to import.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import sys
from datetime import datetime
from typing import Any

MEMORY = 256 << 20  # bytes of address space beyond those after the imports
SOFT, HARD = 3.0, 5.0  # CPU-seconds of a request: until an exception with the template's line, until the end
LONGEST_TEXT = 1 << 24  # characters that a template may write
LONGEST_WORDS = 500  # characters of a message
SOURCE = "<template>"  # jinja2's name for a template without a file


class Slow(BaseException):
    """SOFT is over."""


def begin() -> None:
    """Ignore signals of the terminal, which are for the parent, and limit memory from here on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGVTALRM"):
        signal.signal(signal.SIGVTALRM, _slow)
    with contextlib.suppress(ImportError, OSError, ValueError, AttributeError):  # not on Windows; macOS refuses
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _slow(number: int, frame: Any) -> None:
    raise Slow


def limit_time(soft: float, hard: float) -> None:
    """CPU-seconds from now on; 0 for no limit."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_VIRTUAL, soft)
        signal.setitimer(signal.ITIMER_PROF, hard)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """{"text"} of a template, or {"error", "line"}, with "slow" or "memory" where a limit was reached."""
    try:
        limit_time(request["soft"], request["hard"])
        text = str(_compiled(request["template"], tuple(request["marks"] or ())).render(**request["given"]))
        limit_time(0, 0)
    except BaseException as error:
        limit_time(0, 0)
        line, words = _line(error), _words(error)
        return {"error": words, "line": line, "slow": isinstance(error, Slow), "memory": isinstance(error, MemoryError)}
    if len(text) > LONGEST_TEXT:
        return {"error": f"it writes {len(text):,} characters; at most {LONGEST_TEXT:,} are taken", "line": None}
    return {"text": text}


def _words(error: BaseException) -> str:
    """The message of a template's own `raise_exception`; of others with the kind. Its __str__ may raise."""
    name = type(error).__name__
    try:
        text = str(error)[:LONGEST_WORDS]
    except Exception:
        text = ""
    if isinstance(error, RecursionError):
        return "it is nested too deeply, or calls itself without end"
    return text if text and name.startswith("Template") else f"{name}: {text}" if text else name


def _line(error: BaseException) -> int | None:
    """The template's line: of a syntax error, or of the innermost frame. Frames that jinja2 did not rewrite count lines
    of the code that it generated."""
    number = getattr(error, "lineno", None) if type(error).__name__ == "TemplateSyntaxError" else None
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_filename == SOURCE:
            template = frame.f_globals.get("__jinja_template__")
            number = template.get_corresponding_lineno(trace.tb_lineno) if template else trace.tb_lineno
        trace = trace.tb_next
    return number


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """The filter as transformers has it: Jinja's own escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@functools.lru_cache(maxsize=4)
def _compiled(template: str, marks: tuple[str, ...] = ()) -> Any:
    """A template, ready to render. marks: texts that it writes before and after each `{% generation %}`."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    class GenerationTag(Extension):
        """`{% generation %}`: around an answer, for training on answers alone."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            if not marks:
                return body
            begin, end = (nodes.Output([nodes.TemplateData(mark)], lineno=line) for mark in marks)
            return [begin, *body, end]

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, GenerationTag]
    )
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = raise_exception
    return environment.from_string(template)


def main() -> None:
    sys.path[:] = json.loads(sys.stdin.buffer.readline())
    try:
        import jinja2.ext
        import jinja2.sandbox  # noqa: F401
    except ImportError:
        reply({"missing": "jinja2"})
        return
    begin()
    for line in sys.stdin.buffer:
        reply(answer(json.loads(line)))


def reply(answer: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
