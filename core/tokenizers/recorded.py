"""Tokenizers of any kind from a checkpoint's record or a file.

kinds: by name, as a registry has them; None for the core's own.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from core.containment import of_plugin
from core.errors import DataError
from core.outside import parse_json, read_whole, reads
from core.tokenizers.byte_pairs import ANOTHER_VERSION, FORMAT, parsed
from core.tokenizers.kinds import own_kinds
from core.tokenizers.token_files import load_byte_pairs
from core.tokenizers.tokenizer import Tokenizer
from core.tokenizers.tokenizer_kind import Kinds


def from_json(text: str, where: str = "tokenizer.json", kinds: Kinds | None = None) -> Tokenizer:
    """The tokenizer that a `to_json` wrote. DataError for a damaged text, or one of a format that no kind restores."""
    value = parsed(text, where)
    formats = {kind.format: kind for kind in (kinds or own_kinds()).values() if kind.format}
    kind = formats.get(value["format"])
    if kind is None:
        hint = ANOTHER_VERSION if str(value["format"]).startswith("corelm ") else "load the plugin that brings its kind"
        raise DataError(f'{where}: expected format "{FORMAT}", got "{value["format"]}"', hint=hint)
    return of_plugin(kind.origin, f"kind of tokenizers {kind.name}", partial(kind.restore, value, where))


def load_file(path: Path, kind: str = "bpe", kinds: Kinds | None = None) -> Tokenizer:
    """A tokenizer from a file: a `to_json`, a file that a kind reads, as the tokenizers library's tokenizer.json with
    special tokens and chats of the files beside it, tiktoken's ranks or GPT-2's vocab.bpe.

    kind: of ranks and merges. DataError for another file, or one that needs a library that is not installed.
    """
    try:
        document = parse_json(read_whole(path))
    except (OSError, ValueError):
        return load_tokenizer(path, kind, kinds)
    if not isinstance(document, dict) or "format" in document:
        return load_tokenizer(path, kind, kinds)
    for one in (kinds or own_kinds()).values():
        if of_plugin(one.origin, f"kind of tokenizers {one.name}", partial(one.reads, document)):
            return of_plugin(one.origin, f"kind of tokenizers {one.name}", partial(one.read, path))
    return load_tokenizer(path, kind, kinds)


def load_tokenizer(path: Path, kind: str = "bpe", kinds: Kinds | None = None) -> Tokenizer:
    """A tokenizer from a file of this project's: a `to_json`, tiktoken's ranks or GPT-2's vocab.bpe."""
    with reads(DataError, path):
        raw = read_whole(path)
    if raw.lstrip()[:1] == b"{":
        return from_json(raw.decode("utf-8", "replace"), str(path), kinds)
    return load_byte_pairs(path, kind)
