"""`core chat`: a conversation in the terminal, or of the lines of a pipe."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING

import click

from core import signal_handlers, signals
from core.cli.generation import drawing_options, open_text_model
from core.cli.sample import show, silent
from core.cli.show import json_option, plugin_option
from core.errors import DataError, UsageError, did_you_mean

if TYPE_CHECKING:
    from core.generate import Answer, Chat, Form, Sampling
    from core.tokenizers.tokenizer import Tokenizer

HELP, RESET, EXIT = "/help", "/reset", "/exit"
COMMANDS = {
    HELP: "list the commands",
    RESET: "forget the conversation",
    EXIT: "leave, as Ctrl-D and Ctrl-C do; during an answer, Ctrl-C ends the answer",
}


@click.command("chat")
@click.argument("run", required=False)
@click.option("--system", default="", metavar="TEXT", help="System prompt, before the first turn.")
@click.option(
    "--context", type=click.IntRange(2), metavar="N", help="Maximum tokens of a conversation.  [default: the model's S]"
)
@drawing_options(tokens=256)
@plugin_option
@json_option
def command(
    run: str | None,
    system: str,
    context: int | None,
    tokens: int,
    sampling: Sampling,
    stops: tuple[str, ...],
    device: str,
    plugin: tuple[str, ...],
    as_json: bool,
) -> None:
    """Chat with RUN: a run's folder or a checkpoint's, a name under runs/, a Hugging Face folder, or nothing for the
    newest run.

    The tokenizer's chat template formats the conversation; a model without one continues a transcript.
    With piped input, each line is a turn, and the output is the answers; with --json, one object per line.
    """
    from core.generate import Chat

    opened, model, tokenizer = open_text_model(run, device, plugin)
    session = model.engine.session(1, context or 0)
    form, has_template = form_of(tokenizer, opened.generation.ends)
    chat = Chat(session, tokenizer, form, sampling, tokens, stops=stops, system=system, vocabulary=tokenizer.vocab_size)
    chat.try_out()
    if not has_template:
        note(f"{tokenizer.name} has no chat template: the model continues a text of turns, User: and Assistant:")
    with contextlib.suppress(AttributeError, ValueError):
        sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
    if sys.stdin.isatty():
        note(f"{opened.path}: {model!r}, {session.capacity:,} tokens, seed {sampling.seed}; {HELP} lists the commands")
        converse(chat, as_json)
    elif code := answer_lines(chat, sys.stdin, as_json):
        raise click.exceptions.Exit(code)


def answer_lines(chat: Chat, lines: Iterable[str], as_json: bool) -> int:
    """A turn a line. A line without an answer is reported, on stderr or as an object, and the others are answered.

    Returns the exit code: that of the first such line, 0 without one.
    """
    code = 0
    for line in lines:
        try:
            if not take(chat, line.strip(), as_json, lambda: False):
                break
        except (UsageError, DataError) as error:
            code = code or error.exit_code
            if as_json:
                said = {"prompt": line.strip(), "error": error.message, "hint": error.hint}
                click.echo(json.dumps(said, ensure_ascii=False))
            else:
                click.echo(f"core: error: {error}", err=True)
    return code


def form_of(tokenizer: Tokenizer, ends: Collection[int] = ()) -> tuple[Form, bool]:
    """The form of conversations for a tokenizer's model, and whether its own template gives it. ends: ids that end
    an answer, in addition to those of the template."""
    from core.generate import Form, plain_form
    from core.tokenizers.library import LibraryTokenizer

    if isinstance(tokenizer, LibraryTokenizer) and tokenizer.chat_template is not None:
        return Form(tokenizer.chat, {*tokenizer.answer_ends, *ends}), True
    plain = plain_form(tokenizer)
    return Form(plain.render, ends, plain.stops), False


def note(text: str) -> None:
    """Notes beside the answers."""
    click.echo(f"({text})", err=True)


# --- turns -------------------------------------------------------------------------------------------------------


def take(chat: Chat, line: str, as_json: bool, stopped: Callable[[], bool]) -> bool:
    """One line: a command, or a turn whose answer is printed as it is made. False for the command to leave."""
    if not line:
        return True
    if line.startswith("/") and line[1:].isalpha():
        return obey(chat, line)
    answer = chat.answer(line, silent if as_json else show, stopped)
    if as_json:
        click.echo(json.dumps({"prompt": line, **asdict(answer)}, ensure_ascii=False))
    else:
        click.echo()
    for text in remarks(answer):
        note(text)
    return True


def obey(chat: Chat, line: str) -> bool:
    if line not in COMMANDS:
        raise UsageError(f"there is no {line}{did_you_mean(line, COMMANDS)}", hint=f"there are {', '.join(COMMANDS)}")
    if line == RESET:
        chat.reset()
        note("the conversation is forgotten")
    elif line == HELP:
        for name, text in COMMANDS.items():
            click.echo(f"  {name:8}{text}", err=True)
    return line != EXIT


def remarks(answer: Answer) -> Iterator[str]:
    """Remarks on an answer, without its text."""
    from core.generate.chat import CONTEXT, INTERRUPTED
    from core.generate.text import TOKENS

    if answer.dropped:
        yield f"the context is full: the oldest {answer.dropped} messages are forgotten; {RESET} forgets all"
    if answer.ended == CONTEXT:
        yield f"the context is full: the answer ends here; {RESET} forgets the conversation"
    if answer.ended == TOKENS:
        yield f"ended after {len(answer.tokens)} tokens; --tokens sets the number"
    if answer.ended == INTERRUPTED:
        yield "stopped" if answer.tokens else "stopped before it began: this turn is forgotten"


# --- the terminal ------------------------------------------------------------------------------------------------


class Interrupts:
    """Ctrl-C. During an answer the first ends it and the second leaves; at the prompt it leaves. After the one that
    leaves, more are ignored: the end of the process takes a moment, in which a person presses it again."""

    def __init__(self) -> None:
        self.answering = self.stopped = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.answering and not self.stopped:
            self.stopped = True
        else:
            signals.ignore(signal.SIGINT)
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def during_an_answer(self) -> Iterator[None]:
        self.answering, self.stopped = True, False
        try:
            yield
        finally:
            self.answering = False


def converse(chat: Chat, as_json: bool) -> None:
    """Turns until the person leaves. A failed answer is reported, and the conversation continues."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # lines can be edited, and recalled with the arrow keys
    interrupts = Interrupts()
    try:
        with signal_handlers.interrupts(interrupts):
            while True:
                line = ask()
                try:
                    with interrupts.during_an_answer():
                        if not take(chat, line.strip(), as_json, lambda: interrupts.stopped):
                            return
                except (UsageError, DataError) as error:
                    click.echo(f"core: {error}", err=True)
    except (EOFError, KeyboardInterrupt):
        click.echo(err=True)


def ask() -> str:
    """A line that is typed. The prompt is never part of a redirected output."""
    if sys.stdout.isatty():
        return input("> ")
    click.echo("> ", nl=False, err=True)
    return input()
