"""The command `core`: its verbs, and the exit codes of errors.

One file a verb, `core/cli/<verb>.py` with a `command`, imported only when that verb is used, so that `core --help`
stays fast. Plugins' commands follow the verbs. An expected error prints one message and no traceback, and exits
with its code; anything else is a bug of corelm and exits with 70.
"""

from __future__ import annotations

import keyword
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import click

from core import __version__, signals, terminal, variables
from core.departure import depart
from core.errors import did_you_mean, words_of
from core.ranks.launched import launched

__all__ = ["main", "run"]

# verb -> its line in `core --help`; `core/cli/<verb>.py` is imported only when the verb is used
VERBS = {
    "train": "Train a model from a run config.",
    "plan": "Show a config's plan without running it.",
    "sample": "Generate text from a run.",
    "chat": "Chat with a model.",
    "eval": "Measure a model: loss, bits per byte, evaluations of plugins.",
    "view": "Show a run's steps, tensors, texts, memory and kernels.",
    "runs": "List runs, draw their curves, and find where two differ.",
    "check": "Compare ops with their references, then time them.",
    "judge": "Compare a CUDA kernel with a NumPy reference, in the simulator.",
    "learn": "Take the course: pages, puzzles, hints, verdicts.",
    "sim": "Run any CUDA kernel or PTX in the simulator.",
    "bench": "Time a config's training step, or an op's variants.",
    "tune": "Find the fastest variants and tiles on this machine.",
    "trace": "Count a kernel's work by source line, in the simulator.",
    "ops": "List ops and their variants, and why each can or cannot run.",
    "models": "List models.",
    "plugins": "List plugins, their contents, and the errors of broken ones.",
    "data": "Prepare, inspect and verify training data.",
    "tokenizer": "Download, train and apply tokenizers.",
    "import": "Convert a Hugging Face folder or an llm.c file to a checkpoint.",
    "export": "Convert a run's model for transformers, llm.c or llama2.c.",
    "get": "Download published token shards and weights.",
    "new": "Create a working op, variant, plugin, model or course to edit.",
    "doctor": "Diagnose this machine and suggest fixes.",
}

TOGETHER = ("train", "bench", "doctor")  # verbs that all ranks of a launcher run; rank 0 alone runs the others
BUG = 70
_at_end: list[Callable[[int, str], None]] = []  # takes the exit code, and the call that ended the command early


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
            from core.cli.foreign_commands import suspects

            ctx.fail(f'there is no command "{name}"{did_you_mean(name, self.list_commands(ctx))}{suspects(name)}')
        if name in VERBS and name not in TOGETHER and (this := launched()).size > 1:
            if this.rank:
                ctx.exit(0)
            terminal.say(f"core: {name} runs once, on rank 0 of the {this.size} that {this.launcher} started")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # before click sees it: its 1 means that a check failed
            return failed(error)


def module_of(verb: str) -> str:
    """The module of a verb; `import`, which Python keeps for itself, is import_."""
    return f"core.cli.{verb}_" if keyword.iskeyword(verb) else f"core.cli.{verb}"


def plugin_commands() -> dict[str, click.Command]:
    """Commands by name that shipped and installed plugins bring."""
    from core.cli.foreign_commands import commands_beside  # a verb needs none of them

    return commands_beside(VERBS)


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
        try:
            code = run(args)
        except SystemExit as stop:  # of code that is not ours
            ended(stop.code if isinstance(stop.code, int) else int(stop.code is not None), f"sys.exit({stop.code!r})")
            raise
        ended(code)
        number = signals.noted()
    signals.default()  # from here on nothing is left to put in order
    sys.exit(128 + number if number else code)


def ended(code: int, by: str = "") -> None:
    """The end of a command: all is printed, and a run's other ranks know of it. by: the call that ended it early."""
    if _at_end:
        _at_end.pop()(code, by)
    terminal.settle()
    depart(code)


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
        this = launched()
        if this.size > 1:
            from core.cli import rank_messages  # of runs on several ranks

            rank_messages.begin(this)
            _at_end.append(rank_messages.end)
        variables.check_all()
        result = core.main(list(args) if args is not None else None, prog_name="core", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:
        return failed(error)
    return result if isinstance(result, int) else 0


def failed(error: BaseException) -> int:
    """The exit code for a verb's exception, after its message on stderr."""
    try:
        from core.cli.failures import exit_code_of  # for verbs that fail
    except (ImportError, OSError, MemoryError):  # a disk that is gone, no descriptor, no memory
        terminal.say(f"core: error: {words_of(error)}")
        return int(getattr(error, "exit_code", BUG))
    return exit_code_of(error)
