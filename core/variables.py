"""The environment variables of corelm: a row for each, with its permitted values. Any other value is a UsageError."""

from __future__ import annotations

import os
from dataclasses import dataclass

from core.errors import UsageError, did_you_mean

PREFIX = "CORELM_"
FLAG, COUNT, TEXT = "0 or 1", "a number", "text"
MOST_THREADS = 4096


@dataclass(frozen=True)
class Variable:
    """kind: FLAG, COUNT (from 1 to `most`) or TEXT. doc: its line in docs/config.md."""

    kind: str
    doc: str
    most: int = 0


VARIABLES = {
    "CORELM_CACHE": Variable(
        TEXT, "The folder of compiled kernels, tokenizers, fetched files and verdicts, instead of the platform's."
    ),
    "CORELM_CACHE_LIMIT": Variable(
        COUNT,
        "Limit of the cache in MiB; default 65,536. Beyond it, the least recently used entries are removed.",
        10**9,
    ),
    "CORELM_THREADS": Variable(
        COUNT,
        "Threads of the cpu device, the simulator and the compiler. Default: all cores; for the cpu device the number "
        "in `OMP_NUM_THREADS` and similar variables. No bit depends on it.",
        MOST_THREADS,
    ),
    "CORELM_PLUGINS": Variable(TEXT, "The installed plugins to load, separated by commas; empty for none."),
    "CORELM_OFFLINE": Variable(FLAG, "`1`: no downloads, except by `core get` and `core tokenizer fetch`."),
    "CORELM_GPT2_RANKS": Variable(
        TEXT, "A file of GPT-2's ranks (`vocab.bpe`), in place of the download of its tokenizer."
    ),
    "CORELM_SIM_LIMIT": Variable(
        COUNT,
        "Branches that a thread block may take in the simulator before its kernel is stopped as an endless loop.",
        10**15,
    ),
    "CORELM_SIM_EXECUTOR": Variable(
        TEXT, "`native` or `interpreter`: the executor of the simulator. Default: native if a C compiler is found."
    ),
    "CORELM_SYNC": Variable(
        FLAG, "`1`: synchronize after every launch on a GPU, so that an error names the failed kernel."
    ),
    "CORELM_TRACEBACK": Variable(FLAG, "`1`: print the traceback of every error."),
}


def flag(name: str) -> bool:
    """Whether it is set to 1. UsageError for anything but 0, 1 and nothing."""
    value = os.environ.get(name, "").strip()
    if value not in ("", "0", "1"):
        raise UsageError(f"{name} is {value[:40]!r}; expected 0 or 1", hint=f"unset {name}: 0")
    return value == "1"


def count(name: str) -> int | None:
    """The number that it is set to, None where it is not set. UsageError for one out of range, or none at all."""
    value, most = os.environ.get(name, "").strip(), VARIABLES[name].most
    if not value:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) < 20 and 1 <= int(value) <= most):
        raise UsageError(
            f"{name} is {value[:40]!r}; expected a number from 1 to {most:,}", hint=f"unset {name} for the default"
        )
    return int(value)


def check_all() -> None:
    """UsageError for the first variable of corelm with an illegal value, or a misspelt name."""
    for name in sorted(os.environ):
        if not name.startswith(PREFIX):
            continue
        if name not in VARIABLES:
            raise UsageError(
                f"the environment variable {name} is unknown to corelm{did_you_mean(name, VARIABLES)}",
                hint=f"they are {', '.join(VARIABLES)}",
            )
        if VARIABLES[name].kind == FLAG:
            flag(name)
        elif VARIABLES[name].kind == COUNT:
            count(name)


def table() -> str:
    """The rows of docs/config.md."""
    return "\n".join(f"| `{name}` | {variable.doc} |" for name, variable in VARIABLES.items())
