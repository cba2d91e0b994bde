"""Tensors that every rank of a run holds whole: the same bits on each, or the first that differs is named."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from core.engine import Engine
from core.errors import NumericsError
from core.ranks.group import Ranks

Array = np.ndarray[Any, Any]
DIGEST = 16  # bytes


def held_by_all(engine: Engine) -> Iterator[tuple[str, Array]]:
    """Parameters, and the optimizer's tensors unless each rank has a slice of them: (name, f32 or f64)."""
    for name, array in engine.parameters().items():
        yield f"parameter {name}", array
    states = {} if engine.slices else engine.optimizer_state()
    for state, arrays in states.items():
        for name, array in arrays.items():
            yield f"{state} of {name}", array


def compare_replicas(ranks: Ranks, step: int, tensors: Iterable[tuple[str, Array]]) -> None:
    """Every rank calls it with (name, array of any shape and dtype) of the arrays that each holds whole, in one order.

    Raises NumericsError for the first tensor whose bits are not rank 0's on another rank.
    """
    names, digests = [], []
    for name, array in tensors:
        names.append(name)
        contents = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        digests.append(hashlib.sha256(contents.data).digest()[:DIGEST])
    every = ranks.gather(b"".join(digests))
    for at, name in enumerate(names):
        part = slice(at * DIGEST, (at + 1) * DIGEST)
        for rank, theirs in enumerate(every):
            if theirs[part] != every[0][part]:
                raise NumericsError(
                    f"step {step}: {name} of rank {rank} on {ranks.host(rank)} differs from that of rank 0 on "
                    f"{ranks.host(0)}: replicas differ; this step is not saved",
                    hint="a machine made an error (memory, heat), or an update does not repeat; --resume continues "
                    "from the newest checkpoint",
                )
