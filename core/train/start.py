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
    """Make LATEST or BEST name the checkpoint of a step (None: none), with a line where it did not, as after a kill."""
    if not run.writes:
        return
    said = pointers.repair(run.path, pointer, None if step is None else checkpoint.folder_name(step))
    if said is not None:
        display.line(said)


def fill(config: RunConfig, engine: Engine, weights: Start | None, display: Display | None = None) -> None:
    """Parameters of `weights`, or drawn; with `new` ones, and those of [[reference]]."""
    if weights is None and not config.reference:
        engine.initialize(config.seed)
        return
    references = []
    if config.reference:
        from core.train.fresh import open_references  # of runs with such weights

        references = open_references(config, engine.registry, engine.graph)
    with of_weights(config):
        values = weights.parameters if weights is not None else None
        if values is None or config.new or config.reference:
            from core.train.fresh import completed

            values, lines = completed(config, engine, values, references)
            if display is not None:
                for line in lines:
                    display.line(line)
        engine.load_parameters(values)
    if weights is not None:
        weights.release()


def find_weights(config: RunConfig, registry: Registry, engine: Engine) -> Start | None:
    """The weights that `weights` names, not yet read; None for a fresh start. CheckpointError if they do not fit."""
    if not config.weights:
        return None
    with of_weights(config):
        from core.interop.weights import open_weights  # with every format of weights

        graph = engine.graph
        if config.new or config.reference:
            from core.train.fresh import expected_of

            graph = expected_of(config, graph)
        return open_weights(config.weights, graph, registry)


@contextmanager
def of_weights(config: RunConfig) -> Iterator[None]:
    """A fault of `weights` as a CheckpointError that names the key's place."""
    try:
        yield
    except (BuildError, CheckpointError, UsageError) as error:
        lacks = "missing" in error.message and not error.hint
        hint = 'new = ["GLOB"] in the config names parameters that may start fresh' if lacks else error.hint
        raise CheckpointError(f"{config.where('weights')}: {error.message}", hint=hint) from None
