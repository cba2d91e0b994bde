"""Text as pieces of tokens: tokenised once, and cached by the digests of its contents and of its tokenizer."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.cache import cache_folder, hold, read_json
from core.data.documents import Document, Progress, corpus_digest
from core.data.shards import Shard, open_shard, verify_shard
from core.errors import DataError
from core.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from core.data.pieces import Piece

Names = Sequence[str] | Mapping[str, str | Sequence[str]]  # of `[data] train` and `val`

VERSION = 2  # of how text becomes cached tokens
STREAM = "stream"  # the layout in which documents follow one another


def as_list(value: Names | str | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def token_pieces(
    documents: Sequence[Document], tokenizer: Tokenizer | None, notes: list[str], progress: Progress | None, name: str
) -> list[Piece]:
    """Documents as tokens: shards in the cache, or in memory where it is read-only."""
    if not documents or tokenizer is None:
        return []
    if tokenizer.eot is None:
        notes.append(f"tokenizer {tokenizer.name} has no end of text: nothing is between two documents")
    key = hashlib.sha256(
        f"{VERSION} {corpus_digest(documents)} {tokenizer.hash} {tokenizer.frame}".encode()
    ).hexdigest()[:32]
    folder = cache_folder() / "tokens" / key
    while True:
        shards = _cached_tokens(folder, notes) if hold(folder) else []
        if shards:
            return list(shards)
        from core.data.token_cache import tokenised  # once for a text

        made = tokenised(folder, documents, tokenizer, notes, progress, name)
        if made is not None:
            return made


def _cached_tokens(folder: Path, notes: list[str]) -> list[Shard]:
    """The shards of a cache entry, or none; a damaged entry is removed, to be made again."""
    paths = sorted(folder.glob("*.bin"))
    try:
        shards = [open_shard(path) for path in paths]
        for path in paths:
            verify_shard(path)
    except DataError as error:
        notes.append(f"a damaged cache entry is made again: {error.message}")
        shutil.rmtree(folder, ignore_errors=True)
        return []
    record = read_json(folder / "notes.json")
    notes.extend(str(note) for note in record or [])
    return shards
