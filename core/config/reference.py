"""Writes docs/config.md from the schema: `python -m core.config.reference > docs/config.md`."""

from __future__ import annotations

import inspect
import sys

from core import variables
from core.config.expectations import expected
from core.config.key_types import keys, rest
from core.config.schema import ConfigFile, GroupTable, ReferenceTable, Schema, Table
from core.config.spelling import show
from core.devices import RESIDENT

INTRO = """# The run config

A run is a TOML file: `core train configs/gpt2_124m.toml`. This page lists every key with its type, default and meaning.
`python -m core.config.reference > docs/config.md` generates it from the schema.

```toml
model = "gpt2_124m"
[train]
steps = 150
tokens_per_step = 4096
[optimizer]
name = "adamw"
lr = 6e-4
[schedule]
name = "cosine"
```

An unknown key is an error, and all errors of a file are reported together. Paths are relative to the current directory.
`core train NAME` without a file NAME uses the shipped config of that name: `core train tiny`.
"""

AFTER = """## Precedence

Later layers override earlier ones:

1. The file named in `extends`, resolved by the same rules.
2. The file itself.
3. Its `[on.DEVICE]` for the device of this run. The run prints the changes.
4. `--set KEY=VALUE`; of several for one key, the last.

Tables merge key by key; lists are replaced whole. A layer that names another optimizer or schedule drops the options of
the previous one and prints a note. `--set` reads TOML (`--set optimizer.betas=[0.9,0.95]`); for a key of type string, a
value that is not TOML is the string itself (`--set ops.matmul=tiled`). A glob under `[nodes]` needs no quotes:
`--set nodes.h.*.fc=naive`.

The run's folder has the results: `config.source.toml` is the file, `config.resolved.toml` has every key.

## Sizes

`tokens_per_step` must be a multiple of B * T (times the number of ranks). An optimizer step has
`tokens_per_step / (B * T * ranks)` micro-steps. The error for another number has the nearest legal ones.

## Groups of parameters

```toml
[[optimizer.groups]]
match = ["wte.*", "wpe.*"]
lr = 3e-3           # the peak of these parameters; the schedule applies to it as to optimizer.lr
weight_decay = 0.0
[[optimizer.groups]]
match = ["*.bias"]
lr = 1e-4
```

| key | type | default | meaning |
|---|---|---|---|
{groups}
Of several groups that match a parameter, the last that has a key decides it. A glob without a parameter that trains is
an error. The run prints each group with its number of parameters; `clip` is over the gradients of all.

## Frozen weights under a prefix

```toml
weights = "gpt2"
[[reference]]
weights = "gpt2"
prefix = "ref."
```

| key | type | default | meaning |
|---|---|---|---|
{references}
The parameters under the prefix are those of another model, such as the reference model of DPO: `ref.wte.weight` is its
`wte.weight`. They never train. Names and shapes must be exactly those of the model at the path.

## Precision

`precision` is the dtype of weights and activations: f32, bf16, fp16 or f64. `"auto"` takes the best of the device: bf16
where its tensor cores have it (compute capability 8.0 and later), fp16 on T4 and RTX 20 cards, else f32. Under bf16 and
fp16, master weights, moments, statistics and parameter gradients are f32.

fp16 has no number above 65,504 and none below 2^-24, so gradients are computed times a loss scale, which is in the
control record on the device. `[train] loss_scale` is the first one; 0 takes the power of two by which the gradient of a
token's loss is 4 to 8. Where a gradient overflows, the step is skipped and the scale halved; the step's line and
metrics.jsonl print it, and count `overflows`. After `loss_scale_steps` steps in a row without an overflow the scale
doubles. The update and `norm` are of gradients without the scale. Gradients that overflow at a scale of 1 end the run
with exit code 5; a loss that is not finite does so at any scale.

| device | precisions |
|---|---|
"""

NAMES = """
## The folder of a run

`--out` is a path, relative or absolute, without `..`, NUL or control characters, and with components of at most 255
bytes. A run's name is one component under `runs/`.
"""

ENVIRONMENT = """
## Environment

Environment variables configure a machine:

| variable | meaning |
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
    after = AFTER.replace("{groups}", rows(GroupTable).removeprefix(row_head()))
    after = after.replace("{references}", rows(ReferenceTable).removeprefix(row_head()))
    return "".join([*parts, on_text(), "\n", after, *precisions, NAMES, ENVIRONMENT.format(rows=variables.table())])


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
        shown = "{}" if key.default == {} else show(key.default)
        default = "required" if key.required else "" if key.default is None else f"`{shown}`"
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
