"""Runs of `core train` under mpiexec, for tests: as a user starts them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands_on_ranks import END
from small_run import config, write

from core import cli

ROOT = Path(__file__).parents[2]
NEEDS_MPI = pytest.mark.skipif(
    find_spec("mpi4py") is None or shutil.which("mpiexec") is None, reason="needs mpi4py and mpiexec: the extra mpi"
)
SMALL = {"steps": 20, "tokens_per_step": 128, "val_every": 5, "val_tokens": 128, "sample_every": 0, "check": False,
         "checkpoint_every": 0}  # fmt: skip
STEADY = 3e-3  # a learning rate at which rounding does not grow; at 1e-2 a peak of the norm made 2.6e-6 of 7e-8
DROPPING = """
extends = "gpt2_124m"
[block.layer]
drop = { op = "dropout", in = "act", p = 0.2 }
down = { op = "matmul", in = "drop", features = "C" }
"""


def environment(folder: Path) -> dict[str, str]:
    """The environment of a run: one thread a rank, the tests' cache, root may start MPI."""
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "CORELM_THREADS": "1"}
    return {**os.environ, **allowed, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}


def mpiexec(ranks: int) -> list[str]:
    """The launcher's part of a command."""
    return ["mpiexec", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)]


def commands_on(ranks: int, *commands: Sequence[str], folder: Path) -> list[str]:
    """The output of commands as commands_on_ranks.py has them, on that many ranks, each successful."""
    script = str(Path(__file__).with_name("commands_on_ranks.py"))
    done = finished([*mpiexec(ranks), sys.executable, script, json.dumps(commands)], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split(f"{END}\n")[:-1]


def finished(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A command, run to its end."""
    variables = environment(folder)
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=240, check=False)


def small_config(folder: Path, C: int = 16, **train: Any) -> str:
    """A config of a few seconds, written into a folder: C channels, dropout, validation, and `[train]` as SMALL and
    `train` say."""
    (folder / "drop.toml").write_text(DROPPING)
    data = {"train": str(folder / "text.txt"), "val": str(folder / "val.txt")}
    tables = {"dims": {"C": C}, "data": data, "train": {**SMALL, **train}, "optimizer": {"lr": STEADY}}
    write(folder, config(model=str(folder / "drop.toml"), **tables))
    return str(folder / "small.toml")


def train_here(*words: str) -> None:
    """`core train` on one rank, in this process."""
    assert not cli.core.main(["train", *words], standalone_mode=False)


def read_metrics(out: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics."""
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def steps_on_ranks(folder: Path, cases: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each case what steps_on_ranks.py writes, by name: losses, norms, the first step's gradients, the parameters
    behind. folder: holds the models. All cases are one start of two ranks."""
    usual = {"device": "cpu", "precision": "f32", "optimizer": "adamw", "options": {"clip": 1.0}}
    whole = {name: {"alone": False, "micro_steps": 1, "parts": None, **usual, **case} for name, case in cases.items()}
    script = str(Path(__file__).with_name("steps_on_ranks.py"))
    command = [*mpiexec(2), sys.executable, script, str(folder), json.dumps(whole)]
    done = finished(command, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: dict(np.load(folder / f"{name}.npz")) for name in cases}
