"""A checkpoint that all ranks of a run read and verify together: each hashes a part of its files."""

from __future__ import annotations

import json
from pathlib import Path

from core import checkpoint
from core.checkpoint import Checkpoint
from core.errors import CheckpointError
from core.ranks.group import Ranks


def load_together(ranks: Ranks, path: Path) -> Checkpoint:
    """`checkpoint.load` by all ranks: a fault that one of them finds is one of all. Raises CheckpointError."""
    loaded, said = None, {"path": path.name, "problem": "", "hint": ""}
    try:
        loaded = checkpoint.load(path, (ranks.rank, ranks.size))
    except CheckpointError as error:
        said |= {"problem": error.message, "hint": error.hint}
    answers = [json.loads(answer) for answer in ranks.gather(json.dumps(said).encode())]
    for rank, answer in enumerate(answers):
        if answer["path"] != answers[0]["path"]:
            raise CheckpointError(
                f"rank 0 reads {answers[0]['path']} of {path.parent}, and rank {rank} on {ranks.host(rank)} "
                f"{answer['path']}",
                hint="ranks on several hosts continue from one folder, which all of them see alike",
            )
    for answer in answers:
        if answer["problem"]:
            raise CheckpointError(answer["problem"], hint=answer["hint"])
    assert loaded is not None  # else this rank has a problem
    return loaded
