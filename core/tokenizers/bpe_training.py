"""Training of a byte-level BPE on text."""

from __future__ import annotations

from collections.abc import Iterable

from core.errors import DataError
from core.signal_handlers import endable
from core.tokenizers.byte_pairs import PATTERN, BytePairTokenizer, split_runs
from core.tokenizers.tokenizer import without_surrogates

MOST_IDS = 1 << 24  # of a tokenizer that is trained here


def train_bpe(text: Iterable[str], vocab_size: int, *, name: str = "bpe") -> BytePairTokenizer:
    """A byte-level BPE of at most `vocab_size` ids, end of text included: bytes first, then merges as they are found.

    The same text gives the same tokenizer. A short text may have fewer merges than requested.
    """
    import rustbpe  # type: ignore[import-untyped]

    if vocab_size < 257:
        raise DataError(
            f"a bpe tokenizer needs at least 257 ids (256 bytes and end of text), got {vocab_size}",
            hint="raise vocab_size",
        )
    if vocab_size > MOST_IDS:
        raise DataError(f"a bpe tokenizer has at most {MOST_IDS:,} ids, got {vocab_size:,}", hint="lower vocab_size")
    trainer = rustbpe.Tokenizer()
    parts = (part for block in text for part in split_runs(without_surrogates(block)))
    with endable():
        trainer.train_from_iterator(parts, vocab_size - 1, pattern=PATTERN)
    ranks = sorted((rank, bytes(token)) for token, rank in trainer.get_mergeable_ranks())
    return BytePairTokenizer("bpe", [token for _, token in ranks], name=name)
