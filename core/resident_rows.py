"""The core's own rows of plugins' hooks: its kinds of tokenizers, its readers of data, and early stop."""

from __future__ import annotations

import math
from typing import Any

from core.data.readers import READERS
from core.data_reader import DataReader
from core.tokenizers.kinds import KINDS
from core.tokenizers.tokenizer_kind import TokenizerKind


def core_tokenizers() -> list[type[TokenizerKind]]:
    return list(KINDS)


def core_data() -> list[type[DataReader]]:
    return list(READERS)


EARLY = "early_stop"  # its key in `training.state`


def core_train_start(training: Any) -> None:
    """[train] early_stop, of a run that is resumed: one that had ended so ends again."""
    end_early(training)


def core_step_end(metrics: dict[str, Any], training: Any) -> None:
    """[train] early_stop: the run ends after that many validations in a row without a new best."""
    if not training.early_stop or "val_loss" not in metrics:
        return
    value = metrics["val_losses"][training.best] if "val_losses" in metrics and training.best else metrics["val_loss"]
    state = training.state.get(EARLY, {})
    best = state.get("best") if state.get("by") == training.best else None
    better = math.isfinite(value) and (best is None or value < best)
    stale = 0 if better or best is None else state["stale"] + 1
    training.state[EARLY] = {"by": training.best, "best": value if better else best, "stale": stale}
    end_early(training)


def end_early(training: Any) -> None:
    """Stop where the best is too old."""
    state = training.state.get(EARLY, {})
    if training.early_stop and state.get("by") == training.best and state["stale"] >= training.early_stop:
        training.stop(f"{state['stale']} validations without a new best (early_stop = {training.early_stop})")
