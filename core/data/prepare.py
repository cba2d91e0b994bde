"""From `[data]` to token sources: names become files, text becomes tokens, and everything is checked.

A run calls `open_data`. Text is tokenised once and cached by the digests of its contents and of its tokenizer.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.cache import cache_folder, hold, read_json
from core.data.data_names import Readers, resolve
from core.data.documents import Document, Progress, Reading, corpus_digest
from core.data.inputs import Inputs
from core.data.shards import Shard, open_shard, verify_shard
from core.data.source import TokenSource
from core.errors import DataError
from core.outside import reads
from core.roles import V
from core.tokenizers.preference import TokenizerChoice, choose_tokenizer, recorded_choice
from core.tokenizers.tokenizer import Tokenizer
from core.tokenizers.tokenizer_kind import Kinds

if TYPE_CHECKING:
    from core.config.schema import DataTable
    from core.data.pieces import Piece

VERSION = 2  # of how text becomes cached tokens


@dataclass
class Data:
    """The data of a run. `tokenizer` is None where shards come without one: such a run has no samples.

    `notes` are sentences for the user: choices with their reasons, skipped files, suspicious but legal settings.
    """

    train: TokenSource
    val: TokenSource | None
    tokenizer: Tokenizer | None
    notes: list[str]
    why: str = ""  # how the tokenizer came to be chosen

    def describe(self) -> dict[str, Any]:
        """For state.json: what a resume must find again."""
        return {"train": self.train.describe(), "val": self.val.describe() if self.val else None}


@reads(DataError, "the training data")
def open_data(
    data: DataTable,
    *,
    dims: Mapping[str, Any],
    seed: int = 0,
    vocab: int | None = None,
    tokenizer: Tokenizer | None = None,
    where: Callable[[str], str] = str,
    offline: bool = False,
    progress: Progress | None = None,
    why: str = "recorded by the run",
    kinds: Kinds | None = None,
    readers: Readers | None = None,
) -> Data:
    """The data of a run.

    data: `[data]` of a run config. dims: B and T, and V, the model's vocabulary, unless `vocab` gives it; tokenizer:
    the one that a checkpoint or the weights brought, instead of a choice, and `why`; where: a config key such as
    "data.train" to its place, for messages; offline: no download (CORELM_OFFLINE=1 says the same); kinds, readers: a
    registry's. UsageError where names match nothing, DataError for the files' contents.
    """
    B, T = int(dims["B"]), int(dims["T"])
    vocab = vocab if vocab is not None else int(dims[V]) if V in dims else None
    notes: list[str] = []
    reading = Reading(getattr(data, "field", ""), getattr(data, "separator", ""))
    train = resolve(as_list(data.train), "train", where("data.train"), notes, reading, readers)
    val = resolve(as_list(data.val), "val", where("data.val"), notes, reading, readers) if data.val else Inputs()
    shared = sorted(str(path) for path in train.files & val.files)
    if shared:
        notes.append(
            f"warning: train and val share {', '.join(shared[:3])}: the validation loss is no measure of learning"
        )

    choice = _choose(data, train, val, vocab, tokenizer, where("data.tokenizer"), offline, notes, why, kinds)
    chosen = choice.tokenizer if choice else None
    sources = {
        part: [*inputs.shards, *inputs.pieces, *token_pieces(inputs.documents, chosen, notes, progress, part)]
        for part, inputs in (("train", train), ("val", val))
    }
    training = TokenSource(sources["train"], B, T, seed=seed, vocab=vocab, name="train")
    validation = TokenSource(sources["val"], B, T, seed=seed, vocab=vocab, name="val", least=2) if data.val else None
    for source in (training, validation):
        if source is not None:
            source.check_tokens()
    if choice is not None:
        notes.insert(0, f"tokenizer: {choice.why}")
    return Data(training, validation, chosen, list(dict.fromkeys(notes)), choice.why if choice else "")


def as_list(value: str | Sequence[str] | None) -> list[str]:
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


def _choose(
    data: DataTable,
    train: Inputs,
    val: Inputs,
    vocab: int | None,
    recorded: Tokenizer | None,
    where: str,
    offline: bool,
    notes: list[str],
    why: str,
    kinds: Kinds | None,
) -> TokenizerChoice | None:
    """The tokenizer: a recorded one, else what the shards were made with, else the config's preference."""
    preference = as_list(data.tokenizer)
    shards = [*train.shards, *val.shards]
    if shards:
        from core.data.match import choose_for_shards  # text needs nothing of it

        beside = bool(train.documents or val.documents)
        return choose_for_shards(shards, beside, preference, vocab, recorded, where, offline, notes, why, kinds)
    if recorded is not None:
        return recorded_choice(recorded, why)
    if not train.documents and train.pieces:
        from core.data.match import choose_without_text

        return choose_without_text(preference, vocab, where, offline, notes, kinds)
    documents = train.documents
    return choose_tokenizer(
        preference,
        text=lambda: (block for document in documents for block in document.blocks()),
        digest=corpus_digest(documents),
        vocab_size=data.vocab_size,
        max_vocab=vocab,
        offline=offline,
        where=where,
        kinds=kinds,
    )
