"""The text of a step's batch, without running the step: a batch follows from the number of tokens before it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from core.errors import CoreError, UsageError
from core.roles import TOKENS
from core.train.runs import number
from core.view.private import short_text
from core.view.run_record import RunRecord
from core.words import printable

ROWS, CHARACTERS = 8, 400  # of a batch; of a row


def batch_text(run: RunRecord, step: int) -> dict[str, Any]:
    """rows: texts of the first sequences of step `step`'s batch, in its order; count: how many there are.

    Raises UsageError for a step that is not in the metrics or data without a tokenizer, DataError, CheckpointError.
    """
    source, tokenizer, line = run.data.train, run.data.tokenizer, run.metrics_by_step.get(step)
    if line is None:
        raise UsageError(f"{run.name} has no step {step} in its metrics", hint="core runs lists the steps of each run")
    if tokenizer is None or TOKENS not in source.keys:
        raise UsageError(f"the data of {run.name} are ids without a tokenizer: they have no text")
    tokens = number(line.get("tokens"))
    if tokens is None:
        raise UsageError(f"the metrics of {run.name} have no tokens of step {step}")
    before = number(run.metrics_by_step.get(step - 1, {}).get("tokens"))
    before = tokens - run.config.train.tokens_per_step if before is None else before
    first, count = int(before) // source.T, int(tokens - before) // source.T
    texts = (printable(tokenizer.decode([int(i) for i in ids])) for ids in sequences(source, first, min(count, ROWS)))
    rows = [text if len(text) <= CHARACTERS else text[: CHARACTERS - 3] + "..." for text in texts]
    return {"rows": rows, "count": count}


def sequences(source: Any, first: int, count: int) -> Iterator[Any]:
    """The ids (T,) of `count` sequences, from number `first` of the run on."""
    for start in range(0, count, source.B):
        yield from source.batch(0, first=first + start)[TOKENS][: count - start]


def text_or_why(run: RunRecord, step: int) -> dict[str, Any]:
    """`batch_text`, or why there is none: {"why": text}."""
    try:
        return batch_text(run, step)
    except CoreError as error:
        return {"why": short_text(error.message, run.folders)}
