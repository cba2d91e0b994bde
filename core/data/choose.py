"""Which tokenizer a run gets: the first of a preference list that is there, fits, and can be had.

An entry is `gpt2`, `gpt2:PATH`, `bpe` (trained on the run's own text), `bpe:PATH` (a trained one), `bytes`, or the path
of a tokenizer.json, of this project's or of the tokenizers library's. Why
earlier ones were passed over is part of the answer, since a run must say what it runs with.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.cache import cache_folder, try_write, used
from core.data.recorded import from_json, load_tokenizer
from core.data.tokenizer import FORMAT, Tokenizer, bytes_tokenizer, train_bpe
from core.errors import DataError, UsageError, did_you_mean
from core.outside import parse_json, read_whole

DEFAULT_VOCAB = 4096
MOST_TEXT = 100_000_000  # characters a bpe is trained on: more changes no merge that matters


@dataclass(frozen=True)
class TokenizerChoice:
    """A tokenizer and one sentence on how it came to be chosen."""

    tokenizer: Tokenizer
    why: str


@dataclass(frozen=True)
class TokenizerRequest:
    """What a tokenizer is wanted for. `text` gives the training text, or is None where there is none; `digest` names
    that text, so that a trained tokenizer can be cached; `max_vocab` is the model's vocabulary."""

    text: Callable[[], Iterable[str]] | None = None
    digest: str | None = None
    vocab_size: int = DEFAULT_VOCAB
    max_vocab: int | None = None
    offline: bool = False


def _gpt2(path: Path | None, request: TokenizerRequest) -> Tokenizer:
    from core.data.gpt2 import load_gpt2

    return load_gpt2(path, offline=request.offline)


def _bpe(path: Path | None, request: TokenizerRequest) -> Tokenizer:
    if path is not None:
        return load_file(Path(os.path.expanduser(path)), "bpe")
    if request.text is None:
        raise DataError(
            "there is no text to train it on", hint="name text in [data] train, or a trained tokenizer as bpe:PATH"
        )
    size = min(request.vocab_size, request.max_vocab or request.vocab_size)
    entry = None
    if request.digest is not None:
        key = hashlib.sha256(f"{FORMAT} {MOST_TEXT} {request.digest} {size}".encode()).hexdigest()[:32]
        entry = cache_folder() / "tokenizers" / "bpe" / f"{key}.json"
        try:
            used(entry)
            return from_json(read_whole(entry).decode(), str(entry))
        except (OSError, UnicodeDecodeError, DataError):
            pass  # not there, or damaged: trained again, from the same text to the same tokenizer
    tokenizer = train_bpe(_limited(request.text()), size)
    if entry is not None:
        try_write(entry, tokenizer.to_json().encode())
    return tokenizer


def _bytes(path: Path | None, request: TokenizerRequest) -> Tokenizer:
    if path is not None:
        raise UsageError(f'tokenizer "bytes:{path}": bytes needs no file', hint='write "bytes"')
    return bytes_tokenizer()


def load_file(path: Path, kind: str = "bpe") -> Tokenizer:
    """A tokenizer from a file: as `load_tokenizer`, or a tokenizer.json of the tokenizers library, with what the files
    beside it say of special tokens and chats. DataError for a file that is neither, or that needs the library."""
    try:
        document = parse_json(read_whole(path))
    except (OSError, ValueError):
        return load_tokenizer(path, kind)
    if not isinstance(document, dict) or "format" in document or "model" not in document:
        return load_tokenizer(path, kind)
    from core.data.huggingface import read_file
    from core.data.templates import EXTRA

    found = read_file(path)
    if found is None:
        raise DataError(f"{path} needs the library tokenizers", hint=EXTRA)
    return found


def _file(path: Path | None, request: TokenizerRequest) -> Tokenizer:
    assert path is not None
    return load_file(Path(os.path.expanduser(path)))


FILE = "file"  # the kind of an entry that is a path
KINDS: dict[str, Callable[[Path | None, TokenizerRequest], Tokenizer]] = {
    "gpt2": _gpt2,
    "bpe": _bpe,
    "bytes": _bytes,
    FILE: _file,
}


def choose_tokenizer(
    preference: Sequence[str],
    *,
    text: Callable[[], Iterable[str]] | None = None,
    digest: str | None = None,
    vocab_size: int = DEFAULT_VOCAB,
    max_vocab: int | None = None,
    offline: bool = False,
    where: str = "",
) -> TokenizerChoice:
    """The first tokenizer of `preference` that can be had and whose ids are below `max_vocab`.

    UsageError for a name that is none, DataError with every reason when all are passed over; `where` is the place of
    the list, for messages.
    """
    request = TokenizerRequest(text, digest, vocab_size, max_vocab, offline)
    kinds = [parse_spec(spec, where) for spec in preference]
    reasons: list[str] = []
    hints: list[str] = []
    for spec, (kind, path) in zip(preference, kinds, strict=True):
        try:
            tokenizer = KINDS[kind](path, request)
            if max_vocab is not None and tokenizer.vocab_size > max_vocab:
                raise DataError(
                    f"its {tokenizer.vocab_size:,} ids do not fit the model's vocabulary of {max_vocab:,}",
                    hint="raise the model's vocabulary in [dims], or choose a smaller tokenizer",
                )
            return TokenizerChoice(tokenizer, _why(tokenizer, request, kind, path, reasons))
        except DataError as error:
            reasons.append(error.message if error.message.startswith(spec) else f"{spec}: {error.message}")
            hints.append(error.hint)
    prefix = f"{where}: " if where else ""
    raise DataError(
        f"{prefix}no tokenizer of {list(preference)} can be used:\n" + "\n".join(f"  {reason}" for reason in reasons),
        hint=next((hint for hint in hints if hint), "add bytes to the list: it needs nothing"),
    )


def parse_spec(spec: str, where: str = "") -> tuple[str, Path | None]:
    """ "gpt2:vocab.bpe" to its kind and path. UsageError for an unknown kind."""
    kind, colon, path = spec.partition(":")
    if spec.endswith(".json") and kind not in KINDS:
        return FILE, Path(spec)
    if kind not in KINDS or kind == FILE or (colon and not path):
        raise UsageError(
            f'{where + ": " if where else ""}unknown tokenizer "{spec}"{did_you_mean(kind, KINDS)}',
            hint="gpt2, gpt2:PATH, bpe, bpe:PATH, bytes and the path of a tokenizer.json are known",
        )
    return kind, Path(path) if path else None


def _why(tokenizer: Tokenizer, request: TokenizerRequest, kind: str, path: Path | None, reasons: list[str]) -> str:
    chosen = f"{tokenizer.name}, {tokenizer.vocab_size:,} ids"
    if path is not None:
        chosen += f", from {path}"
    elif kind == "bpe":
        chosen += ", trained on the run's own text"
        if request.max_vocab is not None and request.max_vocab < request.vocab_size:
            chosen += f" ({request.vocab_size:,} asked for, the model has {request.max_vocab:,})"
    return chosen + "".join(f"; passed over {reason}" for reason in reasons)


def _limited(text: Iterable[str]) -> Iterator[str]:
    """The first MOST_TEXT characters."""
    left = MOST_TEXT
    for block in text:
        yield block[:left]
        left -= len(block)
        if left <= 0:
            return
