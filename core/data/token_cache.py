"""Text as tokens for the first time: shards in the cache, or tokens in memory where the cache cannot be written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.atomic_files import staged_folder
from core.cache import cache_folder, hold
from core.cache.writing import wrote
from core.data import tokenising
from core.data.documents import Document, Progress
from core.data.pieces import InMemory, Piece
from core.data.shard_writer import write_shards
from core.data.shards import format_for, open_shard
from core.tokenizers.tokenizer import Tokenizer


def tokenised(
    folder: Path,
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    notes: list[str],
    progress: Progress | None,
    name: str,
) -> list[Piece] | None:
    """The documents as shards in `folder`, an entry of the cache that is made now, or in memory. None where another
    process made the entry first and it is gone again: look again."""
    before = len(notes)
    try:
        with staged_folder(folder) as staged:
            hold(staged)
            chunks = tokenising.tokenise(documents, tokenizer, progress)
            write_shards(chunks, staged, "tokens", format_for(tokenizer.vocab_size), {"tokenizer": tokenizer.record()})
            (staged / "notes.json").write_text(json.dumps(notes[before:]), "utf-8")
        if not hold(folder):
            del notes[before:]
            return None
        wrote(sum(path.stat().st_size for path in folder.glob("*.bin")))
        return [open_shard(path) for path in sorted(folder.glob("*.bin"))]
    except OSError as error:
        del notes[before:]
        notes.append(
            f"the cache {cache_folder()} cannot be written ({error.strerror or error}): "
            f"{name} is tokenised again each time"
        )
        return [_in_memory(tokenising.tokenise(documents, tokenizer, progress), tokenizer, name)]


def _in_memory(chunks: Iterable[NDArray[np.int32]], tokenizer: Tokenizer, name: str) -> InMemory:
    dtype = format_for(tokenizer.vocab_size).dtype
    return InMemory(name, np.concatenate([chunk.astype(dtype) for chunk in chunks]))
