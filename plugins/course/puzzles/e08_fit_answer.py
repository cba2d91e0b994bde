"""GPT-2 124M has 2 GiB of memory for a training run on rows of 256 tokens, 16 rows a step. With 16 rows at a time it
does not fit, and even one row alone is too much. `settings` returns the keys to change. `planned` calls `core
plan`, which allocates nothing."""

import contextlib
import io
import json

from core.cli import run as core_command

GIVEN = {"dims.T": 256, "dims.B": 16, "train.tokens_per_step": 4096, "precision": "f32"}


def settings():
    #[ {"dims.B": ..., ...}: which other key makes a run forget results, and compute them again?
    return {"dims.B": 1, "train.recompute": ["matmul"]}
    #]


def planned():
    chosen = GIVEN | settings()
    words = [word for key, value in chosen.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        core_command(["plan", "gpt2_124m", "--device", "cpu", "--json", *words])
    plan = json.loads(printed.getvalue())
    parts = plan["bytes"]
    total = sum(parts[name] for name in ("parameters", "gradients", "optimizer", "activations"))
    print(f"{total:,} bytes of {2 << 30:,}; activations are {parts['activations']:,} of them")
    same = chosen["train.tokens_per_step"] == 4096 and plan["dims"]["T"] == 256 and plan["precision"] == "f32"
    return {"same step": same, "fits": total <= 2 << 30}
