"""Saving by all ranks together: each its slice of the optimizer's state, rank 0 the rest and, last, the manifest.

All ranks learn of an error before the next part begins, so that all raise or none. A rank that dies leaves a staged
folder without a manifest: the checkpoint before it is unchanged.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from core import files
from core.checkpoint.manifest import FORMAT, MODEL, shard_name
from core.checkpoint.safetensors_file import THREADS, start_tensors
from core.checkpoint.saving import (
    METADATA,
    Contents,
    flat,
    places,
    publish,
    refused,
    write_manifest,
    write_texts,
)
from core.errors import CheckpointError
from core.ranks.group import Ranks


class Served(Protocol):
    """Parameters of which each rank has a part: rank 0 reads them, and all serve the others in turn."""

    def serve(self) -> None: ...


def save_on_ranks(
    ranks: Ranks,
    ranges: Mapping[str, tuple[int, int]],
    served: Served | None,
    checkpoints: Path,
    step: int,
    contents: Contents,
) -> Path:
    """`save`, by all ranks: contents.optimizer is this rank's slice, contents.parameters are read on rank 0.

    ranges: parameter -> its first and last element here, of those of which the slice has a part. Raises CheckpointError
    on every rank where one of them cannot write.
    """
    target, mine = places(checkpoints, step)
    staged = Path(ranks.share(str(mine).encode()).decode())
    try:
        together(ranks, target, lambda: files.make_folder(staged) if ranks.leads else None)
        written = together(ranks, target, lambda: _write(ranks, ranges, served, staged, contents))
        together(ranks, target, lambda: _finish(target, staged, contents, written) if ranks.leads else None)
    except CheckpointError:
        if ranks.leads:
            with contextlib.suppress(OSError):
                files.remove_tree(staged)
        raise
    return target


def together(ranks: Ranks, target: Path, work: Callable[[], Any]) -> list[Any]:
    """The results of `work()` on all ranks, as JSON, in their order.

    CheckpointError on all where the disk refuses it on one."""
    said: dict[str, Any] = {}
    try:
        said["value"] = work()
    except OSError as error:
        problem = refused(target, error)
        said = {"problem": f"{problem.message} ({ranks.name})", "hint": problem.hint}
    answers = [json.loads(part) for part in ranks.gather(json.dumps(said).encode())]
    for answer in answers:
        if "problem" in answer:
            raise CheckpointError(answer["problem"], hint=answer["hint"])
    return [answer["value"] for answer in answers]


def _write(
    ranks: Ranks, ranges: Mapping[str, tuple[int, int]], served: Served | None, staged: Path, contents: Contents
) -> dict[str, tuple[str, int]]:
    """Write this rank's files of tensors, synced: name -> (sha256, bytes)."""
    name = shard_name(ranks.rank, ranks.size)
    own = flat(contents.optimizer)
    parts = {tensor: ranges[p] for tensor in own if (p := tensor.partition(".")[2]) in ranges}
    metadata = {**METADATA, **{tensor: f"{first}:{last}" for tensor, (first, last) in parts.items()}}
    with ThreadPoolExecutor(2 * THREADS, "core-save") as pool:
        large = {}
        try:
            if ranks.leads:
                large[MODEL] = start_tensors(staged / MODEL, contents.parameters, METADATA, pool)
        finally:
            if served is not None:
                served.serve()  # whatever happened here: the others read in turn
        large[name] = start_tensors(staged / name, own, metadata, pool)
        hashes = {file: written.sha256() for file, written in large.items()}
    return {file: (digest, (staged / file).stat().st_size) for file, digest in hashes.items()}


def _finish(target: Path, staged: Path, contents: Contents, written: list[dict[str, tuple[str, int]]]) -> None:
    """The files without tensors, the manifest of all ranks' files, and the checkpoint in its place."""
    listed = {name: (digest, size) for files_of in written for name, (digest, size) in files_of.items()}
    hashes = write_texts(staged, contents, FORMAT)
    listed |= {name: (digest, (staged / name).stat().st_size) for name, digest in hashes.items()}
    write_manifest(staged, listed, FORMAT)
    publish(target, staged, contents)
