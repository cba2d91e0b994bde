"""Plugins' `core_step_end`: the calls after a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.containment import PASSES, contained
from core.errors import words_of
from core.train.job import Job


def call(job: Job, step: int, metrics: Mapping[str, Any], failed: set[int]) -> None:
    """Call every hook of a job. One that raises is reported once, noted in `failed` by its index, and called again."""
    for index, hook in enumerate(job.hooks):
        try:
            with contained(job.display.line):
                hook(job.run, step, dict(metrics))
        except PASSES:
            raise
        except BaseException as error:  # SystemExit too: a plugin does not end the run
            if index not in failed:
                failed.add(index)
                who = getattr(hook, "plugin", None) or getattr(hook, "__qualname__", repr(hook))
                job.display.line(
                    f"warning: core_step_end of {who} raised {words_of(error)} (reported once; training continues)"
                )
