"""Commands of `core` one after the other on ranks that are started once.

    mpiexec -n 2 python tests/ranks/commands_on_ranks.py COMMANDS_AS_JSON

A command is a list of words. The word "again" in place of a verb copies a run's folder without its last checkpoint.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from core import cli, signals
from core.loader import load_registry
from core.ranks.launched import launched

load_registry()  # by which a plugin's modules have names
from core.plugins.mpi.begun import MPI, begin  # noqa: E402


def copy_again(run: str, copy: str) -> None:
    """Copy a run as it was before its last checkpoint."""
    shutil.copytree(run, copy)
    shutil.rmtree(max((Path(copy) / "checkpoints").glob("step_*")))


def main(commands: list[list[str]]) -> None:
    begin()
    for words in commands:
        if words[0] != "again":
            with signals.listening():
                code = cli.run(words)
                cli.ended(code)  # ends all ranks where it is an error
        elif launched().rank == 0:
            copy_again(*words[1:])
        MPI.COMM_WORLD.Barrier()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
