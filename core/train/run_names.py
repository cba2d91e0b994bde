"""RUN of a command line: a path, a name under runs/, or the newest run."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import tomli

from core import checkpoint
from core.errors import UsageError, did_you_mean
from core.outside import read_whole
from core.train.run import METRICS, RESOLVED, RUNS


def newest_run(runs: Path = RUNS) -> Path:
    """The run whose metrics changed last. Raises UsageError when there is none."""
    runs_here = [p for p in runs.iterdir() if (p / RESOLVED).is_file()] if runs.is_dir() else []
    if not runs_here:
        raise UsageError(f"no runs in {runs}{os.sep}", hint="train one: core train configs/tiny.toml")
    return max(runs_here, key=lambda p: ((p / METRICS).stat().st_mtime if (p / METRICS).exists() else 0.0, p.name))


def find_run(name: str | None) -> Path:
    """RUN as the command line has it: a path, a name under runs/, or nothing for the newest. Raises UsageError."""
    if not name:
        return newest_run()
    for path in (Path(name), RUNS / name):
        if os.path.exists(path) or checkpoint.is_kept(path):  # Path's own question raises for a name that is too long
            return path
    runs = [p.name for p in RUNS.iterdir()] if RUNS.is_dir() else []
    hint = checkpoint.why_no_pointer(Path(name)) or checkpoint.why_no_pointer(RUNS / name)
    problem = f'no run "{name}": neither a path nor a name under {RUNS}{os.sep}{did_you_mean(name, runs)}'
    raise UsageError(problem, hint=hint)


def resolved_config(run: Path) -> dict[str, Any] | None:
    """The config that a run had last; None where there is none that can be read."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        return tomli.loads(read_whole(run / RESOLVED, follow=False).decode())
    return None
