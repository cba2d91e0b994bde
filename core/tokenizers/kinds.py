"""The table of the core's own kinds of tokenizers."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from core.cache import cache_folder, used
from core.errors import DataError, UsageError
from core.outside import read_whole
from core.tokenizers.byte_pairs import (
    FORMAT,
    GPT2_HASH,
    LIBRARY_FORMAT,
    SCORED_FORMAT,
    BytePairTokenizer,
    bytes_tokenizer,
)
from core.tokenizers.tokenizer import Tokenizer
from core.tokenizers.tokenizer_kind import TokenizerKind, TokenizerRequest

MOST_TEXT = 100_000_000  # characters a bpe is trained on: more changes no merge that matters


class Gpt2Kind(TokenizerKind):
    """GPT-2's, found on this machine or downloaded."""

    name, forms, fixed = "gpt2", ("gpt2", "gpt2:PATH"), True
    hash = GPT2_HASH

    def make(self, path: Path | None, request: TokenizerRequest) -> Tokenizer:
        from core.tokenizers.gpt2 import load_gpt2

        return load_gpt2(path, offline=request.offline)


class BytePairKind(TokenizerKind):
    """Trained on the run's own text, and the form in which checkpoints keep it, GPT-2's and bytes."""

    name, forms, any_file, format = "bpe", ("bpe", "bpe:PATH"), True, FORMAT

    def make(self, path: Path | None, request: TokenizerRequest) -> Tokenizer:
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
                return BytePairTokenizer.from_json(read_whole(entry).decode(), str(entry))
            except (OSError, UnicodeDecodeError, DataError):
                pass  # not there, or damaged: trained again, from the same text to the same tokenizer
        from core.tokenizers.bpe_training import train_bpe

        tokenizer = train_bpe(_limited(request.text()), size)
        if entry is not None:
            from core.cache.writing import try_write

            try_write(entry, tokenizer.to_json().encode())
        return tokenizer

    def why(self, request: TokenizerRequest) -> str:
        limited = request.max_vocab is not None and request.max_vocab < request.vocab_size
        sizes = f" ({request.vocab_size:,} requested, the model has {request.max_vocab:,})" if limited else ""
        return f", trained on the run's own text{sizes}"

    def restore(self, value: Mapping[str, Any], where: str) -> Tokenizer:
        return BytePairTokenizer.from_value(value, where)


class BytesKind(TokenizerKind):
    """A token for each byte."""

    name, forms, fixed = "bytes", ("bytes",), True

    def make(self, path: Path | None, request: TokenizerRequest) -> Tokenizer:
        if path is not None:
            raise UsageError(f'tokenizer "bytes:{path}": bytes needs no file', hint='write "bytes"')
        return bytes_tokenizer()


class LibraryKind(TokenizerKind):
    """A tokenizer.json of the tokenizers library, with special tokens and chats of the files beside it."""

    name, format = "huggingface", LIBRARY_FORMAT

    def reads(self, document: Mapping[str, Any]) -> bool:
        return "model" in document

    def read(self, path: Path) -> Tokenizer:
        from core.tokenizers.folder import read_file
        from core.tokenizers.templates import EXTRA

        tokenizer = read_file(path)
        if tokenizer is None:
            raise DataError(f"{path} needs the library tokenizers", hint=EXTRA)
        return tokenizer

    def restore(self, value: Mapping[str, Any], where: str) -> Tokenizer:
        from core.tokenizers import library

        return library.from_json(value, where)


class ScoredKind(TokenizerKind):
    """llama2.c's tokenizer.bin, a file beside a model file."""

    name, format = "scored", SCORED_FORMAT

    def restore(self, value: Mapping[str, Any], where: str) -> Tokenizer:
        from core.tokenizers import scored

        return scored.from_json(value, where)


KINDS = (Gpt2Kind, BytePairKind, BytesKind, LibraryKind, ScoredKind)


@functools.cache
def own_kinds() -> Mapping[str, TokenizerKind]:
    """The rows by name: those of a registry without a plugin's kinds."""
    return {cls.name: cls() for cls in KINDS}


def _limited(text: Iterable[str]) -> Iterator[str]:
    """The first MOST_TEXT characters."""
    left = MOST_TEXT
    for block in text:
        yield block[:left]
        left -= len(block)
        if left <= 0:
            return
