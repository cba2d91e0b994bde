"""Writes docs/config.md from the schema: `python -m core.config.reference > docs/config.md`."""

from __future__ import annotations

import inspect
import sys

from core import variables
from core.config.expectations import expected
from core.config.key_types import keys, rest
from core.config.schema import ConfigFile, Schema, Table
from core.config.spelling import show
from core.devices import RESIDENT

INTRO = """# The run config

A run is a TOML file: `core train configs/gpt2_124m.toml`. This page lists every key; it is made from the schema
(`python -m core.config.reference > docs/config.md`), and a test keeps it so. An unknown key is an error, and all
errors of a file are reported together. Paths are relative to the current directory. A name without a file of that
name here may be a shipped config: `core train tiny`.
"""

AFTER = """## What wins

1. The file named in `extends`, with all of these steps applied to it first.
2. The file itself.
3. Its `[on.DEVICE]` for the device of this run, and only that. What it changed is printed.
4. `--set KEY=VALUE`, the last one of a key.

Tables merge key by key; lists are replaced whole. A layer that names another optimizer or schedule drops the options of
the one before it, and says so. `--set` takes TOML (`--set optimizer.betas=[0.9,0.95]`); a value that is not TOML is a
string where a string is wanted (`--set ops.matmul=tiled`). Under `[nodes]` a glob needs no quotes:
`--set nodes.h.*.fc=naive`.

What came out is in the run's folder: `config.source.toml` is the file as read, `config.resolved.toml` every key.

## Sizes

`tokens_per_step` is a multiple of B * T (times the number of ranks): each optimizer step does
`tokens_per_step / (B * T * ranks)` micro-steps. Another number is refused with the nearest legal ones.

## Precision

| device | precisions |
|---|---|
"""

NAMES = """
## Where a run is written

`--out` is any path, absolute ones included, without `..`, without NUL or control characters, and with no component
over 255 bytes. A run's name is one component under `runs/`.
"""

ENVIRONMENT = """
## Environment

What belongs to a machine and not to a run is said by variables:

| variable | what it says |
|---|---|
{rows}
"""


def reference() -> str:
    """The text of docs/config.md."""
    parts = [INTRO, f"\n## Top level\n\n{text_of(Schema)}\n\n", rows(Schema), extends_row()]
    for name, key in keys(Schema).items():
        if key.table is not None:
            parts += [f"\n## [{name}]\n\n{text_of(key.table)}\n\n", rows(key.table)]
        elif key.entries is not None:
            parts += [f"\n## [{name}]\n\n{key.doc} Each is {expected(key.entries[1])}.\n"]
    precisions = [f"| {kind.name} | {', '.join(kind.precisions)} |\n" for kind in RESIDENT.values()]
    return "".join([*parts, on_text(), "\n", AFTER, *precisions, NAMES, ENVIRONMENT.format(rows=variables.table())])


def text_of(table: type[Table]) -> str:
    return inspect.cleandoc(table.__doc__ or "")


def row_head() -> str:
    return "| key | type | default | meaning |\n|---|---|---|---|\n"


def rows(table: type[Table]) -> str:
    """The keys of one table that are no tables with keys of their own."""
    lines = [row_head()]
    for name, key in keys(table).items():
        if key.table is not None or (key.entries is not None and table is Schema) or key is rest(table):
            continue
        default = "required" if key.required else f"`{show(key.default) if key.default != {} else '{}'}`"
        lines.append(f"| `{name}` | {cell(expected(key.type))} | {default} | {cell(key.doc)} |\n")
    spare = rest(table)
    if spare is not None and spare.entries is not None:
        lines.append(any_row(spare.entries[1], spare.doc))
    return "".join(lines)


def any_row(value: object, doc: str) -> str:
    return f"| any other | {cell(expected(value))} | | {cell(doc)} |\n"


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def extends_row() -> str:
    key = keys(ConfigFile)["extends"]
    return f"| `extends` | {cell(expected(key.type))} | | {cell(key.doc)} |\n"


def on_text() -> str:
    on = keys(ConfigFile)["on"].table
    assert on is not None
    tables = ", ".join(f"[on.{device}]" for device in RESIDENT)
    return f"\n## {tables}\n\n{text_of(on)}\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
