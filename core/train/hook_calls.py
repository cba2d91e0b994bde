"""Plugins' hooks of a run: `core_train_start`, `core_step_end`, `core_train_end`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.containment import PASSES, contained
from core.errors import BuildError, CoreError, words_of
from core.train.job import Job
from core.train.training import TrainingRun

START, STEP_END = "core_train_start", "core_step_end"


def call(name: str, job: Job, training: TrainingRun, metrics: Mapping[str, Any], failed: set[int]) -> None:
    """Call every hook of that name. One that raises is reported once, noted in `failed` by its index, and called again;
    before the first step it ends the run."""
    for index, hook in enumerate(job.hooks):
        if getattr(hook, "name", STEP_END) != name:  # a plain function is called after each step
            continue
        own = (training,) if hasattr(hook, "name") else ()
        who = str(getattr(hook, "plugin", None) or getattr(hook, "__qualname__", repr(hook)))
        try:
            with contained(job.display.line):
                hook(job.run, training.step, dict(metrics), *own)
        except PASSES:
            raise
        except BaseException as error:  # SystemExit too: a plugin does not end the run
            if name == START:
                raise started(who, error) from error
            if index not in failed:
                failed.add(index)
                job.display.line(
                    f"warning: {name} of {who} raised {words_of(error)} (reported once; training continues)"
                )


def started(plugin: str, error: BaseException) -> CoreError:
    """The error for a hook that failed before the first step."""
    return error if isinstance(error, CoreError) else BuildError(f"{START} of {plugin} raised {words_of(error)}")
