"""Small runs on several ranks, in which one of them goes wrong: see `faulty_gelu`."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mpi_runs import ROOT, environment, mpiexec

PLUGIN = Path(__file__).parent / "faulty_gelu.py"
CONFIG = """
model = "gpt2_124m"
[dims]
V = 257
C = 16
H = 2
L = 1
S = 16
T = 16
B = 1
[data]
train = "{text}"
tokenizer = "bpe"
vocab_size = 257
[ops]
gelu = "faulty"
[optimizer]
name = "adamw"
lr = 1e-3
[schedule]
name = "constant"
warmup = 1
[train]
steps = 8
tokens_per_step = {tokens}
rank_timeout = 5
checkpoint_every = 2
check = false
log_every = 1
"""
TEXT = "a step of the run waits for the slowest rank; "


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code and what it printed, rank 0's lines and all ranks' errors."""

    code: int
    out: str
    errors: str

    def line(self, part: str) -> str:
        """The one line of the errors that holds a text."""
        (line,) = [line for line in self.errors.splitlines() if part in line]
        return line


def config_in(folder: Path, ranks: int = 2) -> Path:
    """The config of a run on that many ranks, with a text of its own, in a folder."""
    (folder / "text.txt").write_text(TEXT * 60)
    config = folder / "run.toml"
    config.write_text(CONFIG.format(text=folder / "text.txt", tokens=16 * ranks))
    return config


def run_faulty(folder: Path, fault: str, *arguments: str, ranks: int = 2, on: int = 1, **variables: str) -> Ended:
    """A run into folder/run in which that fault happens on the rank `on`. arguments: more of the command line."""
    command = [*mpiexec(ranks), sys.executable, "-m", "core", "train", str(config_in(folder, ranks)), "--device", "cpu",
               "--plugin", str(PLUGIN), "--out", str(folder / "run"), *arguments]  # fmt: skip
    variables = {**environment(folder), "FAULT": fault, "FAULT_RANK": str(on), **variables}
    return ended(command, variables)


def ended(command: list[str], variables: dict[str, str] | None = None) -> Ended:
    """A command, run to its end."""
    done = subprocess.run(
        command, cwd=ROOT, env=variables or dict(os.environ), capture_output=True, timeout=100, check=False
    )
    return Ended(done.returncode, *(text.decode(errors="replace") for text in (done.stdout, done.stderr)))
