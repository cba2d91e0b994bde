"""Held-out text for evaluation: tokens of shards and texts by their names, from the model's own tokenizer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from core.data import DataSource
from core.data.assemble import Setting, groups_of, joined, source_of
from core.data.documents import Reading
from core.data.match import check_promise, check_record, shards_record
from core.data.text_pieces import STREAM, Names
from core.engine import Engine
from core.engine.batch import feeds_of
from core.errors import DataError
from core.roles import TOKENS
from core.tokenizers.preference import TokenizerNeed
from core.tokenizers.tokenizer import Tokenizer


def token_source(
    engine: Engine, tokenizer: Tokenizer | None, names: Names, reading: Reading, layout: str = STREAM
) -> tuple[DataSource, list[str]]:
    """(the tokens of the data that is named, notes for the person). Text needs the model's tokenizer, and shards must
    have been made with it. names, layout: as `[data] val` has them.

    Raises UsageError where names match nothing, DataError for text without a tokenizer and for tokens of another one.
    """
    graph, notes = engine.graph, list[str]()
    kinds = engine.registry.tokenizers
    feeds = feeds_of(graph)
    vocab = feeds[TOKENS].bound if TOKENS in feeds else None
    groups = groups_of(names, "val", lambda key: "--data", notes, reading, engine.registry.readers, {})
    inputs = joined(groups)
    texts: list[Any] = [*inputs.documents, *inputs.conversations]
    if texts and tokenizer is None:
        raise DataError(
            f"{texts[0].name} is text, and no tokenizer came with the model",
            hint="name token shards, or add a tokenizer: core import SRC OUT --tokenizer FILE",
        )
    record = shards_record(inputs.shards)
    if record is not None:
        need = TokenizerNeed([], vocab, tokenizer, where="--data", kinds=kinds)
        check_record(need, record, inputs.shards[0].path)
    if tokenizer is not None:
        check_promise(inputs.shards, tokenizer, notes, kinds)
    B, T = graph.batch
    setting = Setting(B, T, 0, vocab, feeds, layout, tokenizer, notes, None)
    return source_of(groups, SimpleNamespace(val=names), setting, "val"), notes
