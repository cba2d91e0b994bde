"""Held-out text for evaluation: tokens of shards and texts by their names, from the model's own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

from core.data import TokenSource
from core.data.data_names import resolve
from core.data.documents import Reading
from core.data.match import check_promise, check_record, shards_record
from core.data.prepare import token_pieces
from core.engine import Engine
from core.errors import DataError
from core.tokenizers.tokenizer import Tokenizer


def token_source(
    engine: Engine, tokenizer: Tokenizer | None, names: Sequence[str], reading: Reading
) -> tuple[TokenSource, list[str]]:
    """(the tokens of the data that is named, notes for the person). Text needs the model's tokenizer, and shards must
    have been made with it.

    Raises UsageError where names match nothing, DataError for text without a tokenizer and for tokens of another one.
    """
    graph, notes = engine.graph, list[str]()
    kinds = engine.registry.tokenizers
    vocab = graph.inputs[engine.token_input].bound
    inputs = resolve(list(names), "val", "--data", notes, reading, engine.registry.readers)
    if inputs.documents and tokenizer is None:
        raise DataError(
            f"{inputs.documents[0].name} is text, and no tokenizer came with the model",
            hint="name token shards, or add a tokenizer: core import SRC OUT --tokenizer FILE",
        )
    record = shards_record(inputs.shards)
    if record is not None:
        check_record(record, inputs.shards[0].path, tokenizer, [], vocab, "--data", kinds)
    if tokenizer is not None:
        check_promise(inputs.shards, tokenizer, notes, kinds)
    pieces = [*inputs.shards, *inputs.pieces, *token_pieces(inputs.documents, tokenizer, notes, None, "val")]
    B, T = int(graph.dims["B"]), int(graph.dims["T"])
    source = TokenSource(pieces, B, T, vocab=vocab, name="data", least=2)
    source.check_tokens()
    return source, notes
