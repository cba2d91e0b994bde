"""GPT-2's file of merges with three of them, and the command `core tokenizer`."""

from __future__ import annotations

from click.testing import CliRunner

from core.cli.tokenizer import command

# A vocab.bpe of three merges; its letter for a blank is U+0120.
MERGES = "#version: 0.2\nt h\nth e\n\u0120 the\n".encode()


def invoke(*args: str, input: str | None = None):
    return CliRunner().invoke(command, list(args), input=input)
