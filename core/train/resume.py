"""The continuation of a run: its checkpoint, the facts that must be the same, and the restored engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tomli

from core import checkpoint
from core.checkpoint import Checkpoint, pointers
from core.checkpoint.opening import Reader
from core.config import RunConfig
from core.engine import Engine
from core.errors import BuildError, CheckpointError
from core.roles import BATCH
from core.train.differences import differences
from core.train.display import Display
from core.train.run import Run, occupied
from core.train.start import repair


def find_start(
    origin: Path | None, resume: bool, run: Run, display: Display, reader: Reader | None = None
) -> Checkpoint | None:
    """The checkpoint to continue from, None for a fresh start. reader: in place of `checkpoint.load`.

    resume: the newest valid one of the run; LATEST is repaired where it names another, as after a kill. origin: the one
    that it names. Raises CheckpointError where none is valid, and for an imported model, which has no optimizer state.
    """
    if origin is not None:
        named = checkpoint.find(origin, reader)
        if "imported" in named.state:
            raise CheckpointError(
                f"{named.path}: an imported model has no optimizer state to resume from",
                hint=f'weights = "{named.path}" in the config starts from its parameters',
            )
        return named
    if not resume:
        return None
    newest, problems = checkpoint.newest(run.checkpoints, reader)
    for problem in problems:
        display.line(f"warning: a checkpoint is passed over: {problem}")
    if newest is None and problems:
        raise CheckpointError(
            f"{run.path}: none of its checkpoints is valid; nothing was changed",
            hint="a different --out starts a new run; --from CHECKPOINT starts it from a valid checkpoint",
        )
    if newest is None:
        if occupied(run.path):
            display.line(f"{run.path} has no checkpoint: it starts at step 1")
        return None
    repair(run, pointers.LATEST, newest.step, display)
    return newest


def resumed_state(start: Checkpoint, run: Run, keep: bool, best: str) -> dict[str, Any]:
    """The state that the loop continues from. keep: whether this run keeps the best checkpoint by validation, and best:
    by which loss; the best by another one is none.

    The best so far must be whole and in the run's own folder; without one, as in a new folder, the next validation is
    the best.
    """
    if start.state.get("best", "") != best:
        return {**start.state, "best_step": None, "best_val": None}
    step = start.state["best_step"]
    ours = keep and step is not None and start.path.parent == run.checkpoints
    if ours and checkpoint.is_whole(run.checkpoints / checkpoint.folder_name(step)):
        return start.state
    return {**start.state, "best_step": None, "best_val": None if keep else start.state["best_val"]}


def same_architecture(start: Checkpoint, model_toml: str) -> None:
    """CheckpointError with the differences when the config's model is not the checkpoint's; B and T may differ."""
    ours, theirs = tomli.loads(model_toml), tomli.loads(start.model_toml)
    for document in (ours, theirs):
        for name in BATCH:
            document.get("dims", {}).pop(name, None)
    if ours != theirs:
        raise CheckpointError(
            f"{start.path}: the config's model differs from the checkpoint's:\n"
            + "\n".join(f"  {line}" for line in differences(theirs, ours)),
            hint="train the new model in its own folder (--out), or restore the config",
        )


def fill_from(start: Checkpoint, config: RunConfig, engine: Engine, display: Display) -> dict[str, dict[str, Any]]:
    """Parameters and optimizer state of the checkpoint. Returns the arrays that it keeps for hooks.

    The states of another optimizer than the run's are left out, with a message.
    """
    before, now = start.state.get("optimizer", config.optimizer.name), config.optimizer.name
    load_state(engine, start, states=before == now)
    own = own_states(start)
    others = {n: {k: np.array(v) for k, v in start.optimizer[n].items()} for n in start.optimizer if n not in own}
    start.release()
    engine.set_step(start.step, start.state.get("updates") if before == now else 0)
    engine.scaling.load(start.state)
    if before != now:
        left = ", ".join(own) or "none"
        display.line(f"optimizer state: {before}'s ({left}) is left out; {now} begins with its own at 0")
    return others


def own_states(start: Checkpoint) -> dict[str, Any]:
    """The optimizer's state in a checkpoint, without the hooks' tensors."""
    return {name: state for name, state in start.optimizer.items() if name not in start.state.get("kept", [])}


def load_state(engine: Engine, loaded: Checkpoint, states: bool = True) -> None:
    """Copy a checkpoint's tensors into the engine. CheckpointError when names or shapes are not the model's."""
    try:
        engine.load_parameters(loaded.parameters)
        if states:
            engine.load_optimizer_state(own_states(loaded))
    except BuildError as error:
        raise CheckpointError(f"{loaded.path}: does not fit the model: {error.message}", hint=error.hint) from None
