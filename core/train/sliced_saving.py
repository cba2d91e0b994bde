"""Checkpoints of a run of which each rank has a slice of the optimizer's state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from core.checkpoint import Contents
from core.checkpoint.manifest import shard_name
from core.engine import Engine
from core.engine.slice_pieces import GatheredParameters, own_pieces
from core.ranks.slices import Slices
from core.train.saving_on_ranks import save_on_ranks


def saver(engine: Engine) -> Callable[[Path, int, Contents], Path]:
    """`checkpoint.save` for all ranks together: contents.parameters are read again, in full precision."""
    store = engine.store
    ranges = {name: (p.first, p.last) for name, p in own_pieces(store).items() if not p.whole}

    def save(checkpoints: Path, step: int, contents: Contents) -> Path:
        gathered = GatheredParameters(store)
        whole = replace(contents, parameters=gathered)
        return save_on_ranks(engine.ranks, ranges, gathered, checkpoints, step, whole)

    return save


def state_sizes(slices: Slices, width: int) -> dict[str, int]:
    """The ranks' files and their bytes, of `width` bytes an element, padding included."""
    sizes = [b - a for a, b in zip(slices.cuts, slices.cuts[1:], strict=False)]
    return {shard_name(rank, len(sizes)): width * size for rank, size in enumerate(sizes)}
