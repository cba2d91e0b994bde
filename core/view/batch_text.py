"""The text of a step's batch, without running the step: a batch follows from the number of tokens before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from core.data import Data
from core.errors import CoreError, UsageError
from core.train.display import Display
from core.train.runs import number
from core.train.start import find_weights
from core.train.wiring import find_data
from core.view.private import short_text
from core.view.replay import tokenizer_of_run
from core.view.run_record import RunRecord
from core.words import printable

ROWS, CHARACTERS = 8, 400  # of a batch; of a row


@dataclass
class BatchTexts:
    """Batches of a run by step, as text. `data` is opened with the first one."""

    run: RunRecord
    data: Data | None = None

    def of(self, step: int) -> dict[str, Any]:
        """rows: texts of the first sequences of step `step`'s batch, in its order; count: how many there are.

        Raises UsageError for a step that is not in the metrics or data without a tokenizer, DataError, CheckpointError.
        """
        if self.data is None:
            self.data = opened(self.run)
        line = self.run.metrics_by_step.get(step)
        if line is None:
            raise UsageError(f"{self.run.name} has no step {step} in its metrics", hint="core runs says how far it is")
        if self.data.tokenizer is None:
            raise UsageError(f"the data of {self.run.name} are ids without a tokenizer: they have no text")
        source = self.data.train
        tokens = number(line.get("tokens"))
        if tokens is None:
            raise UsageError(f"the metrics of {self.run.name} have no tokens of step {step}")
        before = number(self.run.metrics_by_step.get(step - 1, {}).get("tokens"))
        before = tokens - self.per_step if before is None else before
        first, count = int(before) // source.T, int(tokens - before) // source.T
        rows = [self._text(ids) for ids in sequences(source, first, min(count, ROWS))]
        return {"rows": rows, "count": count}

    @property
    def per_step(self) -> int:
        """Tokens of a step, as the config says."""
        return int(self.run.config.train.tokens_per_step)

    def _text(self, ids: Any) -> str:
        assert self.data is not None and self.data.tokenizer is not None
        text = printable(self.data.tokenizer.decode([int(i) for i in ids]))
        return text if len(text) <= CHARACTERS else text[: CHARACTERS - 3] + "..."


def sequences(source: Any, first: int, count: int) -> Iterator[Any]:
    """The ids (T,) of `count` sequences, from number `first` of the run on."""
    for start in range(0, count, source.B):
        tokens, _ = source.batch(0, first=first + start)
        yield from tokens[: count - start]


def opened(run: RunRecord) -> Data:
    """The run's data with the tokenizer that it recorded."""
    start = tokenizer_of_run(run)
    display = Display(quiet=True)
    weights = find_weights(run.config, run.registry, run.engine) if start is None else None
    return find_data(run.config, run.engine, start, weights, display)


def text_or_why(texts: BatchTexts, step: int) -> dict[str, Any]:
    """`BatchTexts.of`, or why there is none: {"why": text}."""
    try:
        return texts.of(step)
    except CoreError as error:
        return {"why": short_text(error.message, texts.run.folders)}
