"""Small runs on several ranks, in which one of them goes wrong: see `faulty_gelu`."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mpi_runs import ROOT, environment, mpiexec
from small_run import TEXT, unwatched, write

PLUGIN = Path(__file__).parent / "faulty_gelu.py"


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
    """The config of a run on that many ranks in a folder, with its text."""
    train = {"steps": 8, "tokens_per_step": 32 * ranks, "rank_timeout": 5, "checkpoint_every": 2, "check": False}
    data = {"train": str(folder / "text.txt")}
    write(folder, unwatched(train=train, data=data, ops={"gelu": "faulty"}))
    return folder / "small.toml"


def run_faulty(folder: Path, fault: str, *arguments: str, ranks: int = 2, on: int = 1, apart: bool = False) -> Ended:
    """A run into folder/run in which that fault happens on the rank `on`. arguments: more of the command line. apart:
    rank 1 has a folder of its own, with another text."""
    core = [sys.executable, "-m", "core", "train", str(config_in(folder, ranks)), "--device", "cpu", "--plugin",
            str(PLUGIN), "--out", str(folder / "run"), *arguments]  # fmt: skip
    command = [*mpiexec(ranks), *core]
    if apart:
        (folder / "other").mkdir()
        (folder / "other" / "text.txt").write_text(TEXT.upper())
        core += ["--set", "data.train=text.txt"]
        command = [*mpiexec(1), "--wdir", str(folder), *core, ":", "-n", "1", "--wdir", str(folder / "other"), *core]
    variables = {**environment(folder), "FAULT": fault, "FAULT_RANK": str(on)}
    return ended(command, variables)


def ended(command: list[str], variables: dict[str, str] | None = None) -> Ended:
    """A command, run to its end."""
    done = subprocess.run(
        command, cwd=ROOT, env=variables or dict(os.environ), capture_output=True, timeout=100, check=False
    )
    return Ended(done.returncode, *(text.decode(errors="replace") for text in (done.stdout, done.stderr)))
