"""Reading checkpoints, which trusts nothing: hashes, headers, names, types."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from core.by_name import ByName
from core.checkpoint import pointers
from core.checkpoint.manifest import (
    MANIFEST,
    MODEL,
    MODEL_TOML,
    OPTIMIZER,
    STATE,
    STEP,
    TOKENIZER,
    Count,
    Manifest,
    check_sizes,
    decode,
    folder_name,
    optimizer_files,
    read,
    steps,
)
from core.checkpoint.tensor_file import TensorFile
from core.errors import CheckpointError
from core.held_files import Held
from core.outside import reads

Array = np.ndarray[Any, Any]

SMALL = 1 << 20  # bytes of a file that every process hashes
TRIES = 9  # to open a run's newest checkpoint, where its retention removes it meanwhile


class CheckpointWarning(UserWarning):
    """A damaged checkpoint was passed over for an older one."""


class FileRecord(Struct):
    """A token shard by its name, size and contents, independent of its folder."""

    file: str
    tokens: Count
    bytes: Count
    hash: str  # of samples
    sha256: str = ""  # of the file; older checkpoints have none


class SourceRecord(Struct):
    """The facts that determine order and contents of batches: see `core.data`."""

    name: str
    seed: int
    T: int
    tokens: Count
    sequences: Count
    files: list[FileRecord]
    layout: str | None = None
    members: dict[str, dict[str, Any]] | None = None
    quotas: dict[str, Count] | None = None


class DataRecord(Struct):
    """The sources of a run's tokens."""

    train: SourceRecord | None = None
    val: SourceRecord | None = None


class SavedState(Struct):
    """The keys of state.json that a resume relies on; other keys are preserved.

    tokens: the number drawn so far, which is the position in the data. best_step: that of the best checkpoint by
    validation.
    updates: of the optimizer, fewer if some were skipped. windows, skipped, zeros: the history for spikes and
    gradients of zero. loss_scale: that of the next step in fp16, and its history. variants: node -> variant.
    made_with: dependencies of the numbers in addition to the config: sources of kernels and plugins by hash, versions.
    kept: the names in optimizer.safetensors that are other weights, which plugins keep. hooks: the state that hooks of
    a run left for its continuation, by plugin.
    """

    step: Count
    tokens: Count = 0
    best_val: float | None = None
    best_step: Count | None = None
    updates: Count | None = None
    windows: dict[str, list[float]] = {}
    skipped: Count = 0
    zeros: dict[str, Count] = {}
    loss_scale: dict[str, float] = {}
    data: DataRecord | None = None
    variants: dict[str, str] = {}
    made_with: dict[str, str] = {}
    kept: list[str] = []
    hooks: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and found whole. Tensors are read from their files at their use.

    state: at least the keys of `SavedState`.
    """

    path: Path
    step: int
    state: dict[str, Any]
    model_toml: str
    tokenizer_json: str | None
    parameters: TensorFile | KeptWeights
    optimizer: dict[str, Mapping[str, Array]]
    files: tuple[TensorFile, ...] = ()

    def release(self) -> None:
        """Let its files go once its tensors were read: held open, one that is removed takes its room all the same."""
        for file in self.files:
            file.release()

    def __str__(self) -> str:
        return f"{self.path} (step {self.step})"


def _renamed(source: Mapping[str, Array], names: Mapping[str, str]) -> ByName:
    """Some tensors of a file under shorter names."""
    return ByName(names, lambda name: source[names[name]])


def newest(checkpoints: Path, reader: Reader | None = None) -> tuple[Checkpoint | None, list[str]]:
    """The newest valid checkpoint, and the faults of newer ones. reader: in place of `load`.

    The folders decide, not LATEST: it may be missing, or name one that is gone. One that a run's retention removes
    before it is open makes way for the run's next.
    """
    for _ in range(TRIES):
        problems: list[str] = []
        for step in steps(checkpoints):
            path = checkpoints / folder_name(step)
            try:
                return (reader or load)(path), problems
            except CheckpointError as error:
                if not path.exists():
                    break  # out of this list: look again
                problems.append(error.message)
        else:
            break
    return None, problems


Reader = Callable[[Path], Checkpoint]


def is_pointer(path: Path) -> bool:
    """Whether `path` is LATEST or BEST of a run."""
    return path.name in pointers.POINTERS and bool(steps(path.parent / pointers.CHECKPOINTS))


def is_kept(path: Path) -> bool:
    """Whether `path` is RUN/NAME, CHECKPOINT/NAME or RUN/BEST/NAME: other weights of the model, such as an average of
    them, that a plugin keeps in the checkpoint by that name."""
    if not path.name.isidentifier() or os.path.lexists(path):
        return False
    folder = path.parent
    if is_pointer(folder) or not os.path.isfile(folder / STATE):
        run = folder.parent if is_pointer(folder) else folder
        saved = steps(run / pointers.CHECKPOINTS) or [0]
        folder = run / pointers.CHECKPOINTS / folder_name(saved[0])
    with contextlib.suppress(CheckpointError, OSError):
        return path.name in decode(folder / STATE, read(folder / STATE), SavedState).kept
    return False


class KeptWeights(ByName):
    """A checkpoint's parameters, of which those that were kept by a name are in the place of the model's."""

    def __init__(self, checkpoint: Checkpoint, others: Mapping[str, Array]) -> None:
        own = checkpoint.parameters
        self._checkpoint = checkpoint
        self.shapes: Mapping[str, tuple[int, ...]] = own.shapes
        super().__init__(own, lambda name: others[name] if name in others else own[name])

    def release(self) -> None:
        """See `Checkpoint.release`."""
        self._checkpoint.release()


def _with_kept(checkpoint: Checkpoint, name: str) -> Checkpoint:
    """The checkpoint with the weights that it keeps by that name. CheckpointError without any."""
    if name not in checkpoint.optimizer or name not in checkpoint.state["kept"]:
        raise CheckpointError(f"{checkpoint.path}: it keeps no weights {name}")
    return replace(checkpoint, parameters=KeptWeights(checkpoint, checkpoint.optimizer[name]))


def why_no_pointer(path: Path) -> str:
    """Why a run has no such pointer, as a hint; "" where `path` is none of a run's."""
    said = f"{path.parent} is a run without one: it does not validate, or train.keep_best is false"
    return said if is_pointer(path) else ""


def best(checkpoints: Path) -> int | None:
    """The step whose checkpoint is the best by validation, by the newest whole checkpoint; None without one.

    A pointer may be one save too old, after a kill; the state of the newest checkpoint is not.
    """
    for step in steps(checkpoints):
        path = checkpoints / folder_name(step)
        with contextlib.suppress(CheckpointError):  # it is not whole, or removed meanwhile
            check_sizes(path, decode(path / MANIFEST, read(path / MANIFEST), Manifest))
            return decode(path / STATE, read(path / STATE), SavedState).best_step
    return None


def find(path: Path, reader: Reader | None = None) -> Checkpoint:
    """The checkpoint at `path`, the best one for a run's BEST, or the newest valid one of the run at `path`, with a
    CheckpointWarning for each newer one that is damaged. reader: in place of `load`. Raises CheckpointError."""
    if is_kept(path):
        return _with_kept(find(path.parent, reader), path.name)
    reader = reader or load
    if is_pointer(path) and path.name == pointers.LATEST:
        return find(path.parent, reader)
    if is_pointer(path):
        return _find_best(path, reader)
    if os.path.isfile(path / MANIFEST) or STEP.fullmatch(path.name):
        return reader(path)
    for checkpoints in (path / pointers.CHECKPOINTS, path):
        if steps(checkpoints):
            checkpoint, problems = newest(checkpoints, reader)
            if checkpoint is None:
                raise CheckpointError(f"{path}: no valid checkpoint:\n" + "\n".join(f"  {p}" for p in problems))
            for problem in problems:
                warnings.warn(f"{problem}; {checkpoint.path.name} is taken instead", CheckpointWarning, stacklevel=2)
            return checkpoint
    reason = "no such folder" if not os.path.exists(path) else "a file" if path.is_file() else "no checkpoint in it"
    raise CheckpointError(
        f"{path}: {reason}",
        hint="expected a run's folder or a checkpoint's (step_00001000); a .pt, .npz or pickle file is never read",
    )


def _find_best(path: Path, reader: Reader) -> Checkpoint:
    """The checkpoint of a run's BEST at `path`; the next best where that one is removed before it is open."""
    before = None
    while True:
        step = best(path.parent / pointers.CHECKPOINTS)
        if step is None:
            raise CheckpointError(f"{path}: this run keeps no best checkpoint", hint=f"{path.parent} is its newest")
        try:
            return reader(path.parent / pointers.CHECKPOINTS / folder_name(step))
        except CheckpointError:
            if step == before or (path.parent / pointers.CHECKPOINTS / folder_name(step)).exists():
                raise
            before = step


def load(path: Path, part: tuple[int, int] = (0, 1)) -> Checkpoint:
    """Read and verify one checkpoint. CheckpointError names the file and the fault. part: (index, count) of the files
    that are hashed, where `count` processes verify them together.

    Its files are held open until `Checkpoint.release`: a run's retention may remove it meanwhile. No link in its folder
    is followed.
    """
    with reads(CheckpointError, path):
        return _load(path, part)


def _load(path: Path, part: tuple[int, int]) -> Checkpoint:
    manifest = decode(path / MANIFEST, read(path / MANIFEST), Manifest)
    check_sizes(path, manifest)
    held = {name: Held(path / name) for name in manifest.files}
    _check_hashes(held, manifest, part)
    raw = held[STATE].read()
    state = decode(path / STATE, raw, SavedState)
    parameters = TensorFile(path / MODEL, held[MODEL])
    states, files = _optimizer(path, manifest, held, parameters)
    return Checkpoint(
        path=path,
        step=state.step,
        state={**decode(path / STATE, raw, dict[str, Any]), **msgspec.to_builtins(state)},
        model_toml=_text(held[MODEL_TOML]),
        tokenizer_json=_text(held[TOKENIZER]) if TOKENIZER in held else None,
        parameters=parameters,
        optimizer=states,
        files=(parameters, *files),
    )


def _optimizer(
    path: Path, manifest: Manifest, held: Mapping[str, Held], parameters: TensorFile
) -> tuple[dict[str, Mapping[str, Array]], list[TensorFile]]:
    """The optimizer's state, and the files that hold it."""
    if OPTIMIZER in held:
        file = TensorFile(path / OPTIMIZER, held[OPTIMIZER])
        return _by_state(file), [file]
    from core.checkpoint.joined_state import join  # of runs on several ranks

    files = [TensorFile(path / name, held[name]) for name in optimizer_files(path, manifest)]
    return join(files, parameters.shapes), files


def _by_state(tensors: TensorFile) -> dict[str, Mapping[str, Array]]:
    names: dict[str, dict[str, str]] = {}
    for full in tensors:
        state, dot, parameter = full.partition(".")
        if not dot:
            raise CheckpointError(f'{tensors.path}: tensor "{full}" is not named <state>.<parameter>')
        names.setdefault(state, {})[parameter] = full
    return {state: _renamed(tensors, table) for state, table in names.items()}


def _text(held: Held) -> str:
    try:
        return held.read().decode()
    except UnicodeDecodeError:
        raise CheckpointError(f"{held.path}: damaged: not UTF-8") from None


def _check_hashes(held: Mapping[str, Held], manifest: Manifest, part: tuple[int, int]) -> None:
    """Two files at a time: the large two are most of the work. A part of the large ones, and all small ones."""
    index, count = part
    order = sorted(held, key=lambda name: (-manifest.files[name].bytes, name))
    large = [name for name in order if manifest.files[name].bytes > SMALL]
    names = [*large[index::count], *order[len(large) :]]
    with ThreadPoolExecutor(2, "core-hash") as pool:
        digests = dict(zip(names, pool.map(Held.sha256, (held[name] for name in names)), strict=True))
    for name in names:
        entry = manifest.files[name]
        if digests[name] != entry.sha256:
            raise CheckpointError(f"{held[name].path}: sha256 is {digests[name]}, expected {entry.sha256}: damaged")
