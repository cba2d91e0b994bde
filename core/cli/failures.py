"""The end of a command by an error: its sentence on stderr, and its exit code.

An expected error prints one message and no traceback, and exits with its code; a refusal of the operating system is a
sentence too; anything else is a bug of corelm and exits with 70, or a plugin's.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import tempfile
import traceback
from pathlib import Path

import click

from core import signals, terminal
from core.errors import LONGEST_WORDS, BuildError, CoreError, DeviceError, UsageError, words_of
from core.outside import way_out
from core.ranks.launched import launched

BUG, INTERRUPTED = 70, 130
NO_THREAD = "can't start new thread"
OUR_MISTAKES = (None, errno.EBADF, errno.EINVAL, errno.EFAULT, errno.ENOTSOCK)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LAST_FRAMES = 3  # of a bug's traceback that are shown; a file has all of it


def exit_code_of(error: BaseException) -> int:
    """The exit code for a verb's exception, after its message; others, as SystemExit, are raised again."""
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case click.ClickException():
            shown = io.StringIO()
            error.show(shown)
            terminal.say(shown.getvalue().rstrip("\n"))
            return error.exit_code
        case CoreError():
            return expected(error)
        case MemoryError():
            from core.device.large_blocks import described

            hint = "a smaller B, T or model needs less"
            return expected(DeviceError(f"out of memory: {error}{described()}", hint=hint))
        case signals.Ended():
            if launched().rank:  # whose other ranks do not know; rank 0 has printed it at the signal
                terminal.say(f"core: ended by {signals.name_of(signals.noted())}")
            return error.exit_code
        case KeyboardInterrupt() | click.Abort():
            terminal.say("core: interrupted")
            return INTERRUPTED
        case BrokenPipeError():  # while flushing
            return reader_gone()
        case OSError() if error.errno in FULL:
            return disk_full(error)
        case Exception():
            return unexpected(error)
    raise error


def traceback_wanted() -> bool:
    return os.environ.get("CORELM_TRACEBACK") == "1"


def expected(error: CoreError) -> int:
    """Print an expected error: no traceback unless CORELM_TRACEBACK=1 is set."""
    if traceback_wanted():
        traceback.print_exception(error)
        if details := getattr(error, "details", ""):
            terminal.say(f"core: {details}")
    terminal.say(f"core: error: {cut_lines(str(error))}")
    return error.exit_code


def cut_lines(text: str) -> str:
    """A message with lines of at most LONGEST_WORDS characters: a stranger's name in it may have millions."""
    return "\n".join(f"{line[:LONGEST_WORDS]}..." if len(line) > LONGEST_WORDS else line for line in text.split("\n"))


def reader_gone() -> int:
    """`core ops | head`: the reader has read enough. Python must not complain when it flushes at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def disk_full(error: OSError) -> int:
    """A write that does not fit on the disk, the output of `core ops > FILE` included."""
    reader_gone()
    target = error.filename or "the output"
    return expected(UsageError(f"{target} cannot be written: {error.strerror}", hint="make room on that disk"))


def unexpected(error: Exception) -> int:
    """An exception that no caller took: the machine's refusal, in a sentence, or a bug."""
    with contextlib.suppress(ImportError, OSError):  # where a part of the program could not be read
        from core.loader import blamed

        if blamed(error):
            return bug(error)
    refusal = refused(error)
    return expected(refusal) if refusal is not None else bug(error)


def refused(error: Exception) -> CoreError | None:
    """An error of the operating system as an expected error; None for any other exception."""
    if isinstance(error, OSError) and error.errno not in OUR_MISTAKES:
        return UsageError(f"{_file_of(error)}: {error.strerror or error}", hint=way_out(error))
    if isinstance(error, ImportError):
        return BuildError(
            f"a part of the program cannot be loaded: {words_of(error)}",
            hint="check the disk, or reinstall corelm; `core doctor` lists missing files",
        )
    if isinstance(error, RuntimeError) and NO_THREAD in str(error):
        return DeviceError(f"the system starts no more threads: {error}", hint="raise `ulimit -u`, or end programs")
    return None


def _file_of(error: OSError) -> str:
    """The file of a refusal; where the system named none, the path that the innermost function was working on."""
    if isinstance(error.filename, str | Path):
        return str(error.filename)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        for name, kinds in {"path": str | Path, "self": Path}.items():
            if isinstance(value := frame.f_locals.get(name), kinds):
                return str(value)
    return f"a file that {frames[-1].f_code.co_name} uses"


def bug(error: Exception) -> int:
    """Name the culprit, show the last frames, and keep the whole traceback in a file."""
    from core.loader import blamed

    whole = "".join(traceback.format_exception(error))
    plugin = blamed(error)
    who = f"error: {plugin} raised" if plugin else "this is a bug of corelm:"
    lines = [f"core: {who} {words_of(error)}"]
    if traceback_wanted():
        lines.append(whole)
    else:
        frames = traceback.extract_tb(error.__traceback__)[-LAST_FRAMES:]
        lines += [f"    {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
        saved = _keep(whole)
        hint = f"the whole traceback is in {saved}" if plugin else f"please report it with your command and {saved}"
        lines.append(f"  hint: {hint}" if saved else "  hint: CORELM_TRACEBACK=1 shows all of it")
    terminal.say("\n".join(lines))
    return BuildError.exit_code if plugin else BUG


def _keep(text: str) -> Path | None:
    """A new file with the traceback; None where none can be written."""
    try:
        handle, name = tempfile.mkstemp(prefix="corelm-traceback-", suffix=".txt", text=True)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        return None
    return Path(name)
