"""The resolved settings of a run: the engine and data that the training loop needs, periods, and state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from core.expr import cdiv
from core.ranks.group import Ranks
from core.train.detect import Detector
from core.train.display import Display
from core.train.run import Run

if TYPE_CHECKING:
    from core.config.schema import TrainTable
    from core.engine import Engine
    from core.registry.step_hooks import StepHook
    from core.tokenizers.tokenizer import Tokenizer

Array = np.ndarray[Any, Any]
MOST_COLUMNS = 16  # of the ring of statistics on the device


@dataclass
class Job:
    """The parts and settings of a run.

    table: [train] of the config; a period of 0 is never, any other also ends with one after the last step.
    ranks: the processes of the run, of which each has such a job; files and lines are rank 0's. batches(step): this
    rank's micro-batches of step 0 .. steps-1, graph input -> (B, T) i32. lr(step): its learning rate.
    val_batches(): those of one validation; None without validation data. detector: watches losses and norms. state:
    the fields of state.json in addition to the loop's own.
    """

    run: Run
    engine: Engine
    display: Display
    table: TrainTable
    batches: Callable[[int], Sequence[Mapping[str, Array]]]
    lr: Callable[[int], float]
    model_toml: str
    ranks: Ranks
    seed: int
    detector: Detector
    val_batches: Callable[[], Iterator[Mapping[str, Array]]] | None
    tokenizer: Tokenizer | None
    tokenizer_json: str | None
    keep_best: bool  # never without checkpoints: checkpoint_every = 0
    health_columns: int  # steps whose statistics the engine holds until they are taken
    peak_tokens_per_s: float | None  # at the chip's peak, where it is known
    least_seconds: Callable[[], float | None]  # of a step on this chip, by a model
    memory: Callable[[], int | None]  # bytes
    hooks: Sequence[StepHook | Callable[[Any, int, dict[str, Any]], None]]
    plugin_options: Mapping[str, Mapping[str, Any]]  # [plugins.NAME]
    state: Mapping[str, Any]


def ring_columns(every: int, log_every: int) -> int:
    """Columns of the ring on the device, which is emptied with each printed line; 0 where nothing is recorded."""
    if not every:
        return 0
    return max(1, min(MOST_COLUMNS, cdiv(log_every, every) if log_every else MOST_COLUMNS))
