"""Saving checkpoints: staged beside their place, synced, hashed and renamed; and the retention of older ones."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core import files
from core.by_name import ByName
from core.checkpoint import pointers
from core.checkpoint.manifest import (
    DOOMED,
    MANIFEST,
    MODEL,
    MODEL_TOML,
    ONE_FILE,
    OPTIMIZER,
    STAGED,
    STATE,
    TOKENIZER,
    Manifest,
    decode,
    folder_name,
    is_whole,
    read,
    steps,
)
from core.checkpoint.safetensors_file import THREADS, start_tensors
from core.errors import CheckpointError
from core.outside import way_out
from core.words import human

Array = np.ndarray[Any, Any]

METADATA = {"format": "corelm"}  # of the safetensors files


@dataclass(frozen=True)
class Contents:
    """The contents of a checkpoint. `optimizer` is state name -> parameter -> array; `state` is for state.json."""

    parameters: Mapping[str, Array]
    optimizer: Mapping[str, Mapping[str, Array]]
    model_toml: str
    tokenizer_json: str | None
    state: Mapping[str, Any]


def flat(nested: Mapping[str, Mapping[str, Array]]) -> ByName:
    """`{"m": {"wte.weight": a}}` as `{"m.wte.weight": a}`, looked up at its use."""
    places = {f"{state}.{name}": (tensors, name) for state, tensors in nested.items() for name in tensors}

    def read(name: str) -> Array:
        tensors, parameter = places[name]
        return tensors[parameter]

    return ByName(places, read)


def save(checkpoints: Path, step: int, contents: Contents) -> Path:
    """Write `checkpoints/step_XXXXXXXX` whole or not at all, and point LATEST at it; BEST too if it is the best.

    Memory: a few chunks in addition to `contents`. One of this step that is there already stays if its files are
    the same; else it belongs to another history, or is damaged, and gives way once the new one is whole. Raises
    CheckpointError when the disk refuses; nothing older is touched.
    """
    target, staged = places(checkpoints, step)
    try:
        stage(staged, contents)
        publish(target, staged, contents)
    except OSError as error:
        with contextlib.suppress(OSError):
            files.remove_tree(staged)
        raise refused(target, error) from error
    return target


def places(checkpoints: Path, step: int) -> tuple[Path, Path]:
    """The folder of a step's checkpoint, and the one in which this process writes it."""
    target = checkpoints / folder_name(step)
    return target, checkpoints / f"{STAGED}{target.name}-{os.getpid()}"


def publish(target: Path, staged: Path, contents: Contents) -> None:
    """Put a whole staged checkpoint at `target`, and point at it. OSError passes."""
    _replace(target, staged)
    files.sync_folder(target.parent)
    pointers.point(target.parent.parent, pointers.LATEST, target.name)
    best = contents.state.get("best_step")
    if best is not None and target.name == folder_name(best):
        pointers.point(target.parent.parent, pointers.BEST, target.name)


def refused(target: Path, error: OSError) -> CheckpointError:
    """The error for a disk that refuses a save."""
    return CheckpointError(
        f"{target}: cannot be saved: {error.strerror or error}",
        hint=f"earlier checkpoints are unchanged; {way_out(error)}, then continue with --resume",
    )


def _replace(target: Path, staged: Path) -> None:
    """Put the staged checkpoint at `target`, in the place of one that is damaged or has other contents."""
    doomed = None
    if os.path.lexists(target):
        if _same(target, staged):
            return files.remove_tree(staged)
        doomed = target.with_name(f"{DOOMED}{target.name}-{os.getpid()}")
        files.rename(target, doomed)
    files.rename(staged, target)
    if doomed is not None:
        files.remove_tree(doomed)
    return None


def _same(target: Path, staged: Path) -> bool:
    """Whether a valid checkpoint is at `target`, with the very contents of the staged one."""
    try:
        ours, theirs = (decode(p / MANIFEST, read(p / MANIFEST), Manifest) for p in (staged, target))
        from core.checkpoint.opening import load  # read only where a checkpoint is there already

        return not target.is_symlink() and ours == theirs and bool(load(target))
    except CheckpointError:
        return False


def stage(staged: Path, contents: Contents) -> None:
    """Write a checkpoint's files into a new folder, synced, the manifest last. OSError passes.

    The largest first: it is hashed and brought to the disk while the others are written.
    """
    files.make_folder(staged)
    with ThreadPoolExecutor(2 * THREADS, "core-save") as pool:
        large = {
            OPTIMIZER: start_tensors(staged / OPTIMIZER, flat(contents.optimizer), METADATA, pool),
            MODEL: start_tensors(staged / MODEL, contents.parameters, METADATA, pool),
        }
        hashes = write_texts(staged, contents, ONE_FILE)
        hashes |= {name: written.sha256() for name, written in large.items()}
    write_manifest(staged, {n: (digest, (staged / n).stat().st_size) for n, digest in hashes.items()}, ONE_FILE)


def write_texts(staged: Path, contents: Contents, version: int) -> dict[str, str]:
    """Write the files without tensors, synced: name -> sha256. version: the format that they name."""
    texts = {MODEL_TOML: contents.model_toml.encode()}
    if contents.tokenizer_json is not None:
        texts[TOKENIZER] = contents.tokenizer_json.encode()
    texts[STATE] = files.to_json({"format": version, **contents.state})
    return {name: files.write_durably(staged / name, text) for name, text in texts.items()}


def write_manifest(staged: Path, listed: Mapping[str, tuple[str, int]], version: int) -> None:
    """Write the list of the folder's files, name -> (sha256, bytes), and sync the folder."""
    entries = {name: {"sha256": digest, "bytes": size} for name, (digest, size) in listed.items()}
    files.write_durably(staged / MANIFEST, files.to_json({"format": version, "files": entries}))
    files.sync_folder(staged)


def retain(checkpoints: Path, newest: int, keep_last: int, keep_every: int, best: int | None = None) -> list[str]:
    """Remove superfluous checkpoints, after this process saved `newest`; returns those that could not be removed.

    Kept: the last `keep_last` whole ones up to `newest`, which is one of them, each that `keep_every` (0: none)
    divides, and step `best`. One with a missing or cut file is not whole and does not count; if `newest` is not,
    nothing is removed. Later ones than `newest` are another history's (a resume that fell back) and go when their turn
    comes.
    """
    try:
        saved = [s for s in steps(checkpoints) if s <= newest]
        whole = [s for s in saved if is_whole(checkpoints / folder_name(s))][: max(1, keep_last)]
    except OSError as error:
        return [f"{error.filename or checkpoints}: {error.strerror or error}: no older checkpoint was removed"]
    if newest not in whole:
        return []
    problems = []
    for step in saved:
        if step not in whole and step != best and not (keep_every and step % keep_every == 0):
            path = checkpoints / folder_name(step)
            try:
                _remove(path)
            except OSError as error:
                problems.append(f"{path}: cannot be removed: {error.strerror or error}")
    return problems


def _remove(path: Path) -> None:
    """Rename first: a removal that is killed must not leave half a checkpoint under a checkpoint's name."""
    doomed = path.with_name(f"{DOOMED}{path.name}-{os.getpid()}")
    files.rename(path, doomed)
    files.remove_tree(doomed)


def sweep(checkpoints: Path) -> list[str]:
    """Remove the remains of killed saves; to be called while the run's lock is held. Returns the names."""
    left = [p for p in checkpoints.glob(".*") if p.name.startswith((STAGED, DOOMED))]
    for path in left:
        files.remove_tree(path)
    return [p.name for p in left]


def try_out(checkpoints: Path) -> None:
    """Do once, with a few bytes, all that a save and a removal do, so that a disk's refusal shows before training.

    Raises OSError.
    """
    staged, doomed = (checkpoints / f"{prefix}try-{os.getpid()}" for prefix in (STAGED, DOOMED))
    files.make_folder(staged)
    files.write_durably(staged / MANIFEST, b"{}\n")
    files.sync_folder(staged)
    files.rename(staged, doomed)
    files.sync_folder(checkpoints)
    files.remove_tree(doomed)


def check_room(checkpoints: Path, sizes: Mapping[str, int], keep_last: int, saves: int) -> None:
    """CheckpointError when the disk cannot hold a run's checkpoints, before its first step.

    sizes: file -> bytes; saves: how many the run will make. At most `keep_last` + 1 are there at a time: the new one
    is whole before an old one is removed. Those that are there already have their room.
    """
    most = min(saves, max(1, keep_last + 1 - len(steps(checkpoints))))
    size, limit = sum(sizes.values()), files.largest_file()
    for name, bytes_of in sizes.items():
        if most and limit is not None and bytes_of > limit:
            raise CheckpointError(
                f"{checkpoints}: {name} will have {human(bytes_of)}, and this process may write {human(limit)} a file",
                hint="`ulimit -f unlimited` lifts the limit, where you may",
            )
    free = files.free_bytes(checkpoints)
    if most * size > free:
        raise CheckpointError(
            f"{checkpoints}: {human(free)} are free, and {most} checkpoint{'s' * (most > 1)} of {human(size)} "
            f"need {human(most * size)}",
            hint="make room, lower train.keep_last, or put the run on another disk with --out",
        )
