"""Conversations as tokens with marks: the assistant's turns alone count in the loss. Cached as text is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core import signals
from core.atomic_files import staged_folder
from core.cache import cache_folder, hold, read_json
from core.cache.writing import wrote
from core.data.documents import Progress
from core.data.marks import BEGINS, COUNTS, Conversations, MarkedPiece
from core.data.pieces import InMemory
from core.data.shard_writer import ShardWriter
from core.data.shards import format_for, open_shard, verify_shard
from core.errors import CoreError, DataError, UsageError
from core.tokenizers.tokenizer import Tokenizer

VERSION = 1  # of how conversations become cached tokens
TOKENS, MARKS = "tokens", "marks"  # stems of shards
SHAREGPT = {"from": "role", "value": "content"}

Chunk = tuple[NDArray[np.int32], NDArray[np.uint16]]  # tokens, marks


def conversation_pieces(
    conversations: Sequence[Conversations],
    tokenizer: Tokenizer | None,
    notes: list[str],
    progress: Progress | None,
) -> list[MarkedPiece]:
    """Conversations as tokens and marks: shards in the cache, or in memory where it is read-only. UsageError for a
    tokenizer without a chat template, DataError, with its place, for an invalid conversation."""
    if not conversations:
        return []
    if not hasattr(tokenizer, "conversation"):
        name = "no tokenizer" if tokenizer is None else f"tokenizer {tokenizer.name}"
        raise UsageError(
            f"{conversations[0].name}: conversations need a chat template, and {name} has none",
            hint="start from a model's folder that has one (weights = FOLDER), or name its tokenizer.json in "
            "[data] tokenizer",
        )
    assert tokenizer is not None
    template = json.dumps(getattr(tokenizer, "config", {}), sort_keys=True)
    digests = [c.digest for c in conversations]
    key = hashlib.sha256(json.dumps([VERSION, digests, tokenizer.hash, template]).encode()).hexdigest()[:32]
    folder = cache_folder() / "tokens" / key
    if hold(folder) and (pieces := _cached(folder, notes)):
        return pieces
    return _made(folder, conversations, tokenizer, notes, progress)


def _cached(folder: Path, notes: list[str]) -> list[MarkedPiece]:
    """The pieces of a cache entry; none of one that is damaged."""
    paths = [sorted(folder.glob(f"{stem}_*.bin")) for stem in (TOKENS, MARKS)]
    try:
        for path in (*paths[0], *paths[1]):
            verify_shard(path)
        pieces = [MarkedPiece(*map(open_shard, pair)) for pair in zip(*paths, strict=True)]
    except (DataError, ValueError):
        return []
    notes.extend(str(note) for note in read_json(folder / "notes.json") or [])
    return pieces


def _made(
    folder: Path,
    conversations: Sequence[Conversations],
    tokenizer: Tokenizer,
    notes: list[str],
    progress: Progress | None,
) -> list[MarkedPiece]:
    before = len(notes)
    try:
        if folder.exists():  # damaged
            return [_in_memory(marked_tokens(conversations, tokenizer, progress), tokenizer, conversations[0].name)]
        with staged_folder(folder) as staged:
            hold(staged)
            record = {"tokenizer": tokenizer.record()}
            with (
                ShardWriter(staged, TOKENS, format_for(tokenizer.vocab_size), record) as tokens,
                ShardWriter(staged, MARKS, format_for(COUNTS + 1), {}) as marks,
            ):
                for ids, flags in marked_tokens(conversations, tokenizer, progress):
                    tokens.write(ids)
                    marks.write(flags)
            (staged / "notes.json").write_text(json.dumps(notes[before:]), "utf-8")
        if hold(folder) and (pieces := _cached(folder, [])):
            wrote(sum(path.stat().st_size for path in folder.glob("*.bin")))
            return pieces
    except OSError as error:
        notes.append(
            f"the cache {cache_folder()} cannot be written ({error.strerror or error}): conversations are tokenised "
            "again each time"
        )
    return [_in_memory(marked_tokens(conversations, tokenizer, progress), tokenizer, conversations[0].name)]


def _in_memory(chunks: Iterable[Chunk], tokenizer: Tokenizer, name: str) -> MarkedPiece:
    tokens, marks = zip(*chunks, strict=True)
    ids = np.concatenate(tokens).astype(format_for(tokenizer.vocab_size).dtype)
    return MarkedPiece(InMemory(name, ids), InMemory(f"{name}, marks", np.concatenate(marks)))


def marked_tokens(
    conversations: Sequence[Conversations], tokenizer: Any, progress: Progress | None = None
) -> Iterator[Chunk]:
    """Each conversation's tokens and marks, in order. DataError names the place of one that has no answer to learn."""
    total, done = sum(c.size for c in conversations), 0
    for file in conversations:
        empty = True
        for place, messages in file.records():
            signals.check()
            ids, counts = _encoded(tokenizer, checked(messages, place), place)
            marks = np.where(counts, COUNTS, 0).astype(np.uint16)
            marks[0] |= BEGINS
            empty = False
            yield ids, marks
        if empty:
            raise DataError(f"{file.name}: the file has no conversation", hint="leave it out")
        done += file.size
        if progress is not None:
            progress(done, total, f"tokenising {Path(file.name).name}")


def _encoded(tokenizer: Any, messages: list[dict[str, Any]], place: str) -> Chunk:
    try:
        ids, counts = tokenizer.conversation(messages)
    except UsageError:
        raise
    except CoreError as error:
        raise DataError(f"{place}: {error.message}", hint=error.hint) from None
    if not counts.any():
        raise DataError(
            f"{place}: no token of the assistant's turns: the chat template wrote none",
            hint="leave the conversation out, or look at the template",
        )
    return ids, counts


def checked(messages: Any, place: str) -> list[dict[str, Any]]:
    """The messages of a record: {"role", "content"} each, with an answer among them. DataError for anything else."""
    hint = 'a conversation is a list of {"role": "user", "content": "..."}, with an answer of the role "assistant"'
    if not isinstance(messages, list):
        raise DataError(f"{place}: expected a list of messages, got {_shown(messages)}", hint=hint)
    if not messages:
        raise DataError(f"{place}: the conversation is empty", hint="leave it out")
    for number, message in enumerate(messages):
        which = f"{place}: message {number}"
        if not isinstance(message, dict):
            raise DataError(f"{which}: expected an object, got {_shown(message)}", hint=hint)
        if "role" not in message and set(SHAREGPT) <= set(message):
            raise DataError(
                f'{which}: has "from" and "value"; expected "role" and "content"',
                hint='rename them, and "human" to "user", "gpt" to "assistant"',
            )
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                raise DataError(f'{which}: expected a text in "{key}", got {_shown(message.get(key))}', hint=hint)
    if not any(message["role"] == "assistant" for message in messages):
        roles = ", ".join(dict.fromkeys(message["role"] for message in messages))
        raise DataError(f'{place}: no message has the role "assistant" (roles: {roles:.100})', hint=hint)
    return messages


def _shown(value: Any) -> str:
    return "nothing" if value is None else f"{json.dumps(value, default=str):.60}"
