"""The start of a run: its own newest checkpoint, another run's, a model's weights, or drawn parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from core import checkpoint
from core.checkpoint import pointers
from core.config import RunConfig
from core.engine import Engine
from core.errors import BuildError, CheckpointError, UsageError
from core.registry import Registry
from core.train.display import Display
from core.train.run import Run

if TYPE_CHECKING:
    from core.interop.weights import Start


def repair(run: Run, pointer: str, step: int | None, display: Display) -> None:
    """Make LATEST or BEST name the checkpoint of a step (None: none), and say so where it did not, as after a kill."""
    if not run.writes:
        return
    said = pointers.repair(run.path, pointer, None if step is None else checkpoint.folder_name(step))
    if said is not None:
        display.line(said)


def fill(config: RunConfig, engine: Engine, weights: Start | None) -> None:
    """Parameters of `weights`, or drawn."""
    if weights is None:
        engine.initialize(config.seed)
        return
    with of_weights(config):
        engine.load_parameters(weights.parameters)
    weights.release()


def find_weights(config: RunConfig, registry: Registry, engine: Engine) -> Start | None:
    """The weights that `weights` names, not yet read; None for a fresh start. CheckpointError if they do not fit."""
    if not config.weights:
        return None
    with of_weights(config):
        from core.interop.weights import open_weights  # with every format of weights

        return open_weights(config.weights, engine.graph, registry)


@contextmanager
def of_weights(config: RunConfig) -> Iterator[None]:
    """A fault of `weights` as a CheckpointError that names the key's place."""
    try:
        yield
    except (BuildError, CheckpointError, UsageError) as error:
        raise CheckpointError(f"{config.where('weights')}: {error.message}", hint=error.hint) from None
