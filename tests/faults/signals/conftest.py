"""Fixtures of signals, terminals and disks at fault: a folder with a config, and runs in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_run
from signalled_runs import CONFIG, ROOT, SLOW, Start


@pytest.fixture
def here(workdir: Path) -> Path:
    small_run.write(workdir, CONFIG)
    return workdir


@pytest.fixture
def start(here: Path) -> Iterator[Start]:
    """Starts a run that takes its time; one that a test leaves behind is killed."""
    (here / "slow.py").write_text(SLOW)
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, **kwargs: Any) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", **kwargs.pop("env", {})}
        command = ["-m", "core.cli", "train", "small.toml", "--device", "cpu", "--plugin", "slow.py", "--out", "a"]
        kwargs = {"stdout": subprocess.PIPE, **kwargs}
        started.append(subprocess.Popen([sys.executable, *command, *arguments], cwd=here, env=environment, **kwargs))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
