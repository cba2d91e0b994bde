"""The command `core`: its verbs, and the exit codes of errors.

One file a verb, `core/cli/<verb>.py` with a `command`, imported only when that verb is used, so that `core --help`
stays fast. Plugins' commands follow the verbs. An expected error prints one message and no traceback, and exits
with its code; anything else is a bug of ours and exits with 70.
"""

from __future__ import annotations

import contextlib
import errno
import keyword
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from core import __version__, signals, terminal, variables
from core.departure import depart
from core.errors import LONGEST_WORDS, BuildError, CoreError, DeviceError, UsageError, did_you_mean, words_of
from core.outside import way_out

if TYPE_CHECKING:
    from core.registry import Registry

__all__ = ["main", "run"]

# verb -> its line in `core --help`; `core/cli/<verb>.py` is imported only when the verb is used
VERBS = {
    "train": "Train a model from a run config.",
    "plan": "Show a config's plan without running it.",
    "sample": "Generate text from a run.",
    "chat": "Talk to a model.",
    "eval": "Measure a model: loss, bits per byte, evaluations of plugins.",
    "view": "Show a run's steps, tensors, texts, memory and kernels.",
    "runs": "List runs, draw their curves, and find where two differ.",
    "check": "Check ops against their references, then time them.",
    "judge": "Judge a CUDA kernel against a NumPy truth, in the simulator.",
    "sim": "Run any CUDA kernel or PTX in the simulator.",
    "bench": "Time a config's training step, or an op's variants.",
    "tune": "Find the fastest variants and tiles on this machine.",
    "trace": "Count a kernel's work by source line, in the simulator.",
    "ops": "List ops and their variants, and why each can or cannot run.",
    "models": "List models.",
    "plugins": "List plugins, their contents, and the errors of broken ones.",
    "data": "Prepare, inspect and verify training data.",
    "tokenizer": "Fetch, train and try tokenizers.",
    "import": "Make a checkpoint of a Hugging Face folder or an llm.c file.",
    "export": "Write a run's model for Hugging Face or llm.c.",
    "get": "Fetch published token shards and weights.",
    "new": "Write a working start of an op, a variant, a plugin or a model.",
    "doctor": "Examine this machine and suggest repairs.",
}

BUG, INTERRUPTED = 70, 130
NO_THREAD = "can't start new thread"
OUR_MISTAKES = (None, errno.EBADF, errno.EINVAL, errno.EFAULT, errno.ENOTSOCK)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LAST_FRAMES = 3  # of a bug's traceback that are shown; all of it goes to a file


class Verbs(click.Group):
    """The verbs, then the plugins' commands. Listing them imports none of their modules."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*VERBS, *plugin_commands()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return plugin_commands().get(cmd_name)
        command: click.Command = import_module(module_of(cmd_name)).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))
        plugins = plugin_commands()
        if plugins:
            with formatter.section("Commands of plugins"):
                formatter.write_dl([(name, command.get_short_help_str(80)) for name, command in plugins.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and name not in VERBS and name not in plugin_commands():
            ctx.fail(f'there is no command "{name}"{did_you_mean(name, self.list_commands(ctx))}{_suspects(name)}')
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # before click sees it: its exit code for this is 1, which says that a check failed
            return reader_gone()


def module_of(verb: str) -> str:
    """The module of a verb; `import`, which Python keeps for itself, is import_."""
    return f"core.cli.{verb}_" if keyword.iskeyword(verb) else f"core.cli.{verb}"


def plugin_commands() -> dict[str, click.Command]:
    """Commands by name that shipped and installed plugins bring. Plugins that mention none are not imported."""
    commands: dict[str, click.Command] = {}
    for command in _commands():
        name = command.name or ""
        if name in VERBS:
            click.echo(f'core: warning: a plugin\'s command "{name}" is hidden by the verb of that name', err=True)
        else:
            commands[name] = command
    return commands


def _commands() -> Sequence[click.Command]:
    """All of them, verbs' names included. Shipped plugins are imported alone, which takes no NumPy; an installed one
    that mentions a command needs the loader and its guard, and so does a shipped one that an edit broke."""
    from core.discovery import SHIPPED, discover

    bringing = [c for c in discover().candidates if c.mentions("core_commands")]
    if all(c.kind == SHIPPED for c in bringing):
        with contextlib.suppress(Exception):
            return [command for c in bringing for command in import_module(c.module).core_commands()]
    return _registry().commands


def _registry() -> Registry:
    from core.loader import load_registry

    return load_registry(strict=False)


def _suspects(name: str) -> str:
    from core.registry.unknown_names import state

    return "".join(f"\n{state(record)}, and it mentions {name}" for record in _registry().suspects(name))


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="corelm")
def core() -> None:
    """Train language models with nothing hidden."""


def main(args: Sequence[str] | None = None) -> None:
    """The entry point of the command `core`: run a verb and exit with its code."""
    open_closed_streams()
    with signals.listening():
        terminal.guard()
        warnings.showwarning = warn
        code = run(args)
        terminal.settle()
        depart(code)
        number = signals.noted()
    signals.default()  # from here on nothing is left to put in order
    sys.exit(128 + number if number else code)


def open_closed_streams() -> None:
    """`core ops >&-`: a stream that is closed is None in Python, and its number would be the next file's."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
            setattr(sys, name, open(number, "r" if not number else "w", encoding="utf-8"))  # noqa: SIM115


def warn(
    message: Warning | str, category: object, filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """Warnings are for the person at the command line: one line, without a place in the source."""
    terminal.say(f"core: warning: {message}")


def run(args: Sequence[str] | None = None) -> int:
    """Run a verb; the exit code. Errors are printed on stderr here and nowhere else."""
    try:
        variables.check_all()
        result = core.main(list(args) if args is not None else None, prog_name="core", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            error.show()
        return error.exit_code
    except CoreError as error:
        return expected(error)
    except MemoryError as error:
        from core.device.available import described

        return expected(DeviceError(f"out of memory: {error}{described()}", hint="a smaller B, T or model needs less"))
    except signals.Ended as ended:
        return ended.exit_code
    except (KeyboardInterrupt, click.Abort):
        terminal.say("core: interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # while flushing
        return reader_gone()
    except OSError as error:
        return disk_full(error) if error.errno in FULL else unexpected(error)
    except Exception as error:
        return unexpected(error)
    return result if isinstance(result, int) else 0


def traceback_wanted() -> bool:
    return os.environ.get("CORELM_TRACEBACK") == "1"


def expected(error: CoreError) -> int:
    """Print an expected error: no traceback unless CORELM_TRACEBACK=1 asks for it."""
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
    """`core ops | head`: the reader has what it wanted. Python must not complain when it flushes at exit."""
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
    """Say whose fault it is, show the last frames, and keep the whole traceback in a file."""
    from core.loader import blamed

    whole = "".join(traceback.format_exception(error))
    plugin = blamed(error)
    who = f"error: {plugin} raised" if plugin else "this is a bug of ours:"
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
