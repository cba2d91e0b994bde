"""The tokenizer of a run: the first of a preference list whose files exist and that fits the model.

An entry is the name of a kind (`gpt2`, `bpe`, `bytes`, or one that a plugin brings), a kind and a path (`gpt2:PATH`,
`bpe:PATH`), or the path of a tokenizer.json, of this project's or of the tokenizers library's. The answer has the
reasons why not the entries before it, which a run reports.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from core.containment import of_plugin
from core.errors import DataError, UsageError, did_you_mean
from core.tokenizers.kinds import own_kinds
from core.tokenizers.tokenizer import Tokenizer
from core.tokenizers.tokenizer_kind import DEFAULT_VOCAB, Kinds, TokenizerKind, TokenizerRequest

FILE = "file"  # the kind of an entry that is a path


@dataclass(frozen=True)
class TokenizerChoice:
    """A tokenizer and one sentence on how it came to be chosen."""

    tokenizer: Tokenizer
    why: str


def recorded_choice(tokenizer: Tokenizer, why: str) -> TokenizerChoice:
    """The tokenizer that a checkpoint or the weights brought."""
    return TokenizerChoice(tokenizer, f"{tokenizer.name}, {tokenizer.vocab_size:,} ids, {why}")


def choose_tokenizer(
    preference: Sequence[str],
    *,
    text: Callable[[], Iterable[str]] | None = None,
    digest: str | None = None,
    vocab_size: int = DEFAULT_VOCAB,
    max_vocab: int | None = None,
    offline: bool = False,
    where: str = "",
    kinds: Kinds | None = None,
) -> TokenizerChoice:
    """The first tokenizer of `preference` that can be had and whose ids are below `max_vocab`.

    UsageError for an unknown name, DataError with every reason when all are passed over; `where` is the place of
    the list, for messages. kinds: a registry's, by name; None for the core's own.
    """
    by_name = kinds or own_kinds()
    request = TokenizerRequest(text, digest, vocab_size, max_vocab, offline)
    specs = [parse_spec(spec, where, by_name) for spec in preference]
    reasons: list[str] = []
    hints: list[str] = []
    for spec, (kind, path) in zip(preference, specs, strict=True):
        try:
            tokenizer = _made(kind, path, request, by_name)
            if max_vocab is not None and tokenizer.vocab_size > max_vocab:
                raise DataError(
                    f"its {tokenizer.vocab_size:,} ids do not fit the model's vocabulary of {max_vocab:,}",
                    hint="raise the model's vocabulary in [dims], or choose a smaller tokenizer",
                )
            return TokenizerChoice(tokenizer, _why(tokenizer, request, by_name.get(kind), path, reasons))
        except DataError as error:
            reasons.append(error.message if error.message.startswith(spec) else f"{spec}: {error.message}")
            hints.append(error.hint)
    prefix = f"{where}: " if where else ""
    raise DataError(
        f"{prefix}no tokenizer of {list(preference)} can be used:\n" + "\n".join(f"  {reason}" for reason in reasons),
        hint=next((hint for hint in hints if hint), "add bytes to the list: it needs nothing"),
    )


@dataclass(frozen=True)
class TokenizerNeed:
    """A run's line on its tokenizer before its data are read. preference: `[data] tokenizer`, whose place is
    `where`. vocab: the model's vocabulary. recorded: the tokenizer that a checkpoint or the weights brought, and why it
    is taken. offline: no download. kinds: a registry's. notes: receives the run's remarks."""

    preference: list[str]
    vocab: int | None = None
    recorded: Tokenizer | None = None
    why: str = ""
    where: str = ""
    offline: bool = False
    kinds: Kinds | None = None
    notes: list[str] = field(default_factory=list)

    def choose(self, preference: Sequence[str], **text: Any) -> TokenizerChoice:
        """The first of a preference that can be had. text: the training text of `choose_tokenizer`."""
        return choose_tokenizer(
            preference, max_vocab=self.vocab, offline=self.offline, where=self.where, kinds=self.kinds, **text
        )


def _made(kind: str, path: Path | None, request: TokenizerRequest, kinds: Kinds) -> Tokenizer:
    if path is not None and (kind == FILE or kinds[kind].any_file):
        from core.tokenizers.recorded import load_file

        return load_file(Path(os.path.expanduser(path)), "bpe" if kind == FILE else kind, kinds)
    one = kinds[kind]
    return of_plugin(one.origin, f"kind of tokenizers {one.name}", partial(one.make, path, request))


def parse_spec(spec: str, where: str = "", kinds: Kinds | None = None) -> tuple[str, Path | None]:
    """ "gpt2:vocab.bpe" to its kind and path; FILE and the path for a .json. UsageError for an unknown kind."""
    named = {name: kind for name, kind in (kinds or own_kinds()).items() if kind.forms}
    kind, colon, path = spec.partition(":")
    if spec.endswith(".json") and kind not in named:
        return FILE, Path(spec)
    if kind not in named or (colon and not path):
        forms = [form for one in named.values() for form in one.forms]
        raise UsageError(
            f'{where + ": " if where else ""}unknown tokenizer "{spec}"{did_you_mean(kind, named)}',
            hint=f"{', '.join(forms)} and the path of a tokenizer.json are known",
        )
    return kind, Path(path) if path else None


def _why(
    tokenizer: Tokenizer, request: TokenizerRequest, kind: TokenizerKind | None, path: Path | None, reasons: list[str]
) -> str:
    chosen = f"{tokenizer.name}, {tokenizer.vocab_size:,} ids"
    if path is not None:
        chosen += f", from {path}"
    elif kind is not None:
        chosen += kind.why(request)
    return chosen + "".join(f"; passed over {reason}" for reason in reasons)
