"""Commands of `core` one after the other on ranks that are started once.

    mpiexec -n 2 python tests/ranks/commands_on_ranks.py COMMANDS_AS_JSON

A command is a list of words. The word "again" in place of a verb copies a run's folder without its last checkpoint.
Rank 0 prints END after each.
"""

from __future__ import annotations

import json
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

from core import cli, signals
from core.loader import load_registry
from core.ranks.launched import launched

END = "=== the end of a command ==="


def copy_again(run: str, copy: str) -> None:
    """Copy a run as it was before its last checkpoint."""
    shutil.copytree(run, copy)
    shutil.rmtree(max((Path(copy) / "checkpoints").glob("step_*")))


def main(commands: list[list[str]], mpi: Any) -> None:
    for words in commands:
        if words[0] != "again":
            with signals.listening():
                code = cli.run(words)
                cli.ended(code)
            if code:
                mpi.COMM_WORLD.Abort(code)  # the other ranks would wait for this one
        elif launched().rank == 0:
            copy_again(*words[1:])
        mpi.COMM_WORLD.Barrier()
        if not launched().rank:
            print(END, flush=True)


if __name__ == "__main__":
    load_registry()  # by which a plugin's modules have names
    from core.plugins.mpi.begun import MPI, begin

    begin()
    try:
        main(json.loads(sys.argv[1]), MPI)
    except BaseException:
        traceback.print_exc()
        MPI.COMM_WORLD.Abort(1)
