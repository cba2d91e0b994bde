"""The tokenizer that a model came with, and the one of a run that starts from a model's weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core import checkpoint
from core.errors import DataError
from core.interop.opened import Opened
from core.interop.weights import Start, of_format
from core.tokenizers.preference import parse_spec
from core.tokenizers.recorded import from_json, load_file
from core.tokenizers.tokenizer import Tokenizer
from core.tokenizers.tokenizer_kind import Kinds


def tokenizer_of(opened: Opened | Start, kinds: Kinds) -> Tokenizer | None:
    """The tokenizer that came with a model: a checkpoint's, or that of another program's files.

    kinds: a registry's. None where there is none, or none that gives the ids that its own program gives.
    DataError for a damaged one.
    """
    if opened.tokenizer_json is not None:
        return from_json(opened.tokenizer_json, str(opened.path / checkpoint.TOKENIZER), kinds)
    one, path = opened.format, opened.path
    tokenizer: Tokenizer | None = of_format(one, lambda: one.tokenizer(path)) if one is not None else None
    return tokenizer


def other_tokenizer(opened: Opened) -> str:
    """A tokenizer's other files that came with a model, and the program that makes one of them that is read; ""."""
    one, path = opened.format, opened.path
    return of_format(one, lambda: one.other_tokenizer(path)) if one is not None else ""


def tokenizer_for(
    start: Start, preference: Sequence[str], default: Sequence[str], where: str, kinds: Kinds
) -> Tokenizer | None:
    """The tokenizer of a run from these weights: the model's own, None where it came with none.

    preference: the config's list; `default` is a list that names none. DataError, with both names, where
    the config has another tokenizer: the model's embeddings belong to the ids of its own.
    """
    own = tokenizer_of(start, kinds)
    if own is None or list(preference) == list(default):
        return own
    for spec in preference:
        kind, path = parse_spec(spec, where, kinds)
        if path is None and kind == own.kind:
            return own
        if path is not None and load_file(Path(path).expanduser(), kind, kinds).hash == own.hash:
            return own
    raise DataError(
        f"{where}: the weights at {start.path} came with the tokenizer {own.name} ({own.vocab_size:,} ids), and the "
        f"config names {', '.join(preference)}",
        hint="leave `tokenizer` out: the run takes the model's own",
    )
