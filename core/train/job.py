"""The resolved settings of a run: the engine and data that the training loop needs, periods, and state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from core.device.process_memory import resident
from core.expr import cdiv
from core.ranks.group import ALONE, Ranks
from core.train.detect import Detector
from core.train.display import Display
from core.train.run import Run

if TYPE_CHECKING:
    from core.engine import Engine
    from core.registry.step_hooks import StepHook
    from core.tokenizers.tokenizer import Tokenizer

Array = np.ndarray[Any, Any]
MOST_COLUMNS = 16  # of the ring of statistics on the device


@dataclass
class Job:
    """The parts and settings of a run.

    ranks: the processes of the run, of which each has such a job; files and lines are rank 0's. batches(step): this
    rank's micro-batches of step 0 .. steps-1, graph input -> (B, T) i32. lr(step): its learning rate.
    val_batches(): those of one validation; None without validation data. detector: watches losses and norms. state:
    the fields of state.json in addition to the loop's own. A period of 0 is never; any other also ends with one after
    the last step.
    """

    run: Run
    engine: Engine
    display: Display
    steps: int
    tokens_per_step: int
    batches: Callable[[int], Sequence[Mapping[str, Array]]]
    lr: Callable[[int], float]
    model_toml: str
    ranks: Ranks = ALONE
    seed: int = 0
    detector: Detector = field(default_factory=Detector)
    val_batches: Callable[[], Iterator[Mapping[str, Array]]] | None = None
    tokenizer: Tokenizer | None = None
    tokenizer_json: str | None = None
    val_every: int = 0
    sample_every: int = 0
    sample_tokens: int = 64
    sample_prompt: str = ""
    sample_temperature: float = 0.8
    checkpoint_every: int = 0
    keep_best: bool = False  # never without checkpoints: checkpoint_every = 0
    best: str = ""  # the key of [loss] by which a validation is the best; "" is the weighted sum
    keep_last: int = 2
    keep_every: int = 0
    save_errors: str = "stop"
    log_every: int = 1
    health_every: int = 0
    health_columns: int = 1  # steps whose statistics the engine holds until they are taken
    peak_tokens_per_s: float | None = None  # at the chip's peak, where it is known
    least_seconds: Callable[[], float | None] = lambda: None  # of a step on this chip, by a model
    memory: Callable[[], int | None] = resident  # bytes
    early_stop: int = 0  # validations in a row without a new best after which the run ends; 0: none
    hooks: Sequence[StepHook | Callable[[Any, int, dict[str, Any]], None]] = ()
    plugin_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # [plugins.NAME]
    state: Mapping[str, Any] = field(default_factory=dict)


def ring_columns(every: int, log_every: int) -> int:
    """Columns of the ring on the device, which is emptied with each printed line; 0 where nothing is recorded."""
    if not every:
        return 0
    return max(1, min(MOST_COLUMNS, cdiv(log_every, every) if log_every else MOST_COLUMNS))
