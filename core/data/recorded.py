"""Tokenizers from what a checkpoint or a file holds, whatever their kind: one row a format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from core.data.tokenizer import FORMAT, LIBRARY_FORMAT, SCORED_FORMAT, Tokenizer, read_merges, read_ranks
from core.errors import DataError
from core.outside import parse_json, read_whole, reads


def _library(value: Mapping[str, Any], where: str) -> Tokenizer:
    from core.data import library

    return library.from_json(value, where)


def _scored(value: Mapping[str, Any], where: str) -> Tokenizer:
    from core.data import scored

    return scored.from_json(value, where)


# format -> (the recorded JSON, its place for messages) -> the tokenizer; DataError where it is damaged. A run loads the
# module of the kind that it has.
FORMATS: dict[str, Callable[[Mapping[str, Any], str], Tokenizer]] = {
    FORMAT: Tokenizer.from_value,
    LIBRARY_FORMAT: _library,
    SCORED_FORMAT: _scored,
}


def from_json(text: str, where: str = "tokenizer.json") -> Tokenizer:
    """The tokenizer that a `to_json` wrote. Raises DataError if the text is damaged or of another format."""
    try:
        value = parse_json(text)
        restore = FORMATS.get(value["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{where}: not a tokenizer of this project: {error!r}", hint="write it again") from None
    if restore is None:
        raise DataError(
            f'{where}: expected format "{FORMAT}", got "{value["format"]}"', hint="use the version that wrote it"
        )
    return restore(value, where)


def load_tokenizer(path: Path, kind: str = "bpe") -> Tokenizer:
    """A tokenizer from a file: our tokenizer.json, tiktoken's ranks (base64 and rank a line) or GPT-2's vocab.bpe."""
    with reads(DataError, path):
        raw = read_whole(path)
    if raw.lstrip()[:1] == b"{":
        return from_json(raw.decode("utf-8", "replace"), str(path))
    return Tokenizer(kind, read_merges(raw, path) if raw.startswith(b"#version") else read_ranks(raw, path), name=kind)
