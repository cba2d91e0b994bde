"""Whether the hosts of all ranks see one folder for checkpoints: tried with a few bytes before step 1."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
from pathlib import Path

from core import files
from core.checkpoint.manifest import STAGED
from core.errors import UsageError
from core.ranks.group import Ranks

LEADER = "rank 0"  # the name of the file of rank 0; each rank has one of this form


def check_shared(checkpoints: Path, ranks: Ranks) -> None:
    """Every rank writes a file into `checkpoints`, a folder that rank 0 made, and rank 0 reads all of them.

    Raises UsageError on all ranks, with the rank and the host that do not see it or may not write there.
    """
    name = ranks.share(f"{STAGED}ranks-{secrets.token_hex(6)}".encode()).decode()
    folder = checkpoints / name
    problem = ""
    try:
        if ranks.leads:
            with contextlib.suppress(OSError):  # reported below, for the file that cannot be written
                files.make_folder(folder)
                files.write_durably(folder / LEADER, name.encode())
        ranks.wait()
        problem = _tried(folder, name, ranks)
        said = [json.loads(part) for part in ranks.gather(json.dumps([socket.gethostname(), problem]).encode())]
        if ranks.leads:
            unseen = [rank for rank in range(ranks.size) if not said[rank][1] and not _holds(_file(folder, rank), name)]
            for rank in unseen:
                said[rank][1] = "files of this rank there are not visible to rank 0"
        said = json.loads(ranks.share(json.dumps(said).encode()))
    finally:
        if ranks.leads:
            with contextlib.suppress(OSError):
                files.remove_tree(folder)
    for rank, (host, problem) in enumerate(said):
        if problem:
            raise UsageError(
                f"rank {rank} on {host}: {checkpoints} is not the folder of rank 0 on {said[0][0]}: {problem}",
                hint="ranks on several hosts save into one folder: --out on a disk that all of them see",
            )


def _file(folder: Path, rank: int) -> Path:
    return folder / f"rank {rank}"


def _holds(path: Path, name: str) -> bool:
    with contextlib.suppress(OSError):
        return path.read_text() == name
    return False


def _tried(folder: Path, name: str, ranks: Ranks) -> str:
    """The obstacle to reading rank 0's file and writing this rank's own; "" without one."""
    if not _holds(folder / LEADER, name):
        return "files of rank 0 there are not visible"
    if ranks.leads:
        return ""
    try:
        files.write_durably(_file(folder, ranks.rank), name.encode())
    except OSError as error:
        return f"it cannot be written: {error.strerror or error}"
    return ""
