"""Checkpoints: a folder that holds a whole model and what it takes to go on training it.

    step_00001000/
        model.safetensors      parameters by the graph's names, without padding; of a bf16 run, in f32 as they are kept
        optimizer.safetensors  "<state>.<parameter>": m.wte.weight, v.wte.weight
        model.toml             the model, nothing left to look up
        tokenizer.json         the run's tokenizer; absent where the data had none
        state.json             step, seed, tokens drawn, what the data was, ...: `State`
        manifest.json          sha256 and size of each of these files; written last

A save is staged beside its place, synced, hashed and renamed, then LATEST and BEST are replaced (`pointers.py`): a kill
at any moment leaves the checkpoint before it valid. Reading trusts nothing: hashes, headers, names, types. Knows no
engine and no run.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from msgspec import Meta, Struct

from core import files
from core.errors import CheckpointError
from core.interop import pointers
from core.interop.safetensors_file import THREADS, TensorFile, start_tensors
from core.outside import LINK, WAYS_OUT, read_whole, way_out
from core.words import human

Array = np.ndarray[Any, Any]

FORMAT = 1  # of state.json and manifest.json; a newer one is refused
STEP = re.compile(r"step_(\d{8,})")
STAGED, DOOMED = ".staged-", ".doomed-"  # prefixes of what a killed save or removal leaves behind
MODEL, OPTIMIZER, MODEL_TOML, TOKENIZER = "model.safetensors", "optimizer.safetensors", "model.toml", "tokenizer.json"
STATE, MANIFEST = "state.json", "manifest.json"
REQUIRED = (MODEL, OPTIMIZER, MODEL_TOML, STATE)
TRIES = 9  # to open a run's newest checkpoint, where its retention removes what was found
METADATA = {"format": "corelm"}  # of the safetensors files


class CheckpointWarning(UserWarning):
    """A damaged checkpoint was passed over for an older one."""


# --- what the JSON files hold ------------------------------------------------------------------------------------

Count = Annotated[int, Meta(ge=0)]


class Versioned(Struct):
    """What every version of the two files has."""

    format: int


class Entry(Struct, forbid_unknown_fields=True):
    """A file of the checkpoint."""

    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    bytes: Count


class Manifest(Struct):
    files: dict[str, Entry]


class FileRecord(Struct):
    """A token shard by its name, size and contents, independent of its folder."""

    file: str
    tokens: Count
    bytes: Count
    hash: str  # of samples
    sha256: str = ""  # of the file; older checkpoints have none


class SourceRecord(Struct):
    """What decides the order and contents of batches: see `core.data`."""

    name: str
    seed: int
    T: int
    tokens: Count
    sequences: Count
    files: list[FileRecord]


class DataRecord(Struct):
    train: SourceRecord | None = None
    val: SourceRecord | None = None


class State(Struct):
    """What state.json must hold, as far as a resume relies on it; other keys are kept as they are.

    tokens: drawn so far, which is where the data stands. best_step: whose checkpoint is the best by validation.
    updates: of the optimizer, fewer than steps where some were skipped. windows, skipped, zeros: what spikes and
    gradients of zero are judged by. variants: node -> variant. made_with: what the numbers depend on besides the
    config: sources of kernels and plugins by hash, versions.
    """

    step: Count
    tokens: Count = 0
    best_val: float | None = None
    best_step: Count | None = None
    updates: Count | None = None
    windows: dict[str, list[float]] = {}
    skipped: Count = 0
    zeros: dict[str, Count] = {}
    data: DataRecord | None = None
    variants: dict[str, str] = {}
    made_with: dict[str, str] = {}


Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Contents:
    """What goes into a checkpoint. `optimizer` is state name -> parameter -> array; `state` goes to state.json."""

    parameters: Mapping[str, Array]
    optimizer: Mapping[str, Mapping[str, Array]]
    model_toml: str
    tokenizer_json: str | None
    state: Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and found whole. Tensors are read from their files when they are asked for.

    state: at least the keys of `State`.
    """

    path: Path
    step: int
    state: dict[str, Any]
    model_toml: str
    tokenizer_json: str | None
    parameters: TensorFile
    optimizer: dict[str, Mapping[str, Array]]
    files: tuple[TensorFile, ...] = ()

    def release(self) -> None:
        """Let its files go once its tensors were read: held open, one that is removed takes its room all the same."""
        for file in self.files:
            file.release()

    def __str__(self) -> str:
        return f"{self.path} (step {self.step})"


class _Renamed(Mapping[str, Array]):
    """Some tensors of a file under shorter names."""

    def __init__(self, source: Mapping[str, Array], names: Mapping[str, str]) -> None:
        self._source, self._names = source, dict(names)

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Any:
        return iter(self._names)

    def __getitem__(self, name: str) -> Array:
        return self._source[self._names[name]]


class _Flat(Mapping[str, Array]):
    """`{"m": {"wte.weight": a}}` as `{"m.wte.weight": a}`, looked up when asked for."""

    def __init__(self, nested: Mapping[str, Mapping[str, Array]]) -> None:
        self._nested = nested
        self._names = {f"{state}.{name}": (state, name) for state, tensors in nested.items() for name in tensors}

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Any:
        return iter(self._names)

    def __getitem__(self, name: str) -> Array:
        state, parameter = self._names[name]
        return self._nested[state][parameter]


# --- writing ---------------------------------------------------------------------------------------------------


def folder_name(step: int) -> str:
    return f"step_{step:08d}"


def save(checkpoints: Path, step: int, contents: Contents) -> Path:
    """Write `checkpoints/step_XXXXXXXX` whole or not at all, and point LATEST at it; BEST too where its state says so.

    Memory: a few chunks beside what `contents` holds. One of this step that is there already stays if its files are
    the same; else it belongs to another history, or is damaged, and gives way once the new one is whole. Raises
    CheckpointError when the disk refuses; nothing older is touched.
    """
    target = checkpoints / folder_name(step)
    staged = checkpoints / f"{STAGED}{target.name}-{os.getpid()}"
    try:
        stage(staged, contents)
        _replace(target, staged)
        files.sync_folder(checkpoints)
        pointers.point(checkpoints.parent, pointers.LATEST, target.name)
        if contents.state.get("best_step") == step:
            pointers.point(checkpoints.parent, pointers.BEST, target.name)
    except OSError as error:
        with contextlib.suppress(OSError):
            files.remove_tree(staged)
        raise CheckpointError(
            f"{target}: cannot be saved: {error.strerror or error}",
            hint=f"earlier checkpoints are as they were; {way_out(error)}, then go on with --resume",
        ) from error
    return target


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
        ours, theirs = (_decode(p / MANIFEST, _read(p / MANIFEST), Manifest) for p in (staged, target))
        return not target.is_symlink() and ours == theirs and bool(load(target))
    except CheckpointError:
        return False


def stage(staged: Path, contents: Contents) -> None:
    """Write a checkpoint's files into a new folder, synced, the manifest last. OSError as it comes.

    The largest first: it is hashed and brought to the disk while the others are written.
    """
    files.make_folder(staged)
    texts = {MODEL_TOML: contents.model_toml.encode()}
    if contents.tokenizer_json is not None:
        texts[TOKENIZER] = contents.tokenizer_json.encode()
    texts[STATE] = files.to_json({"format": FORMAT, **contents.state})
    with ThreadPoolExecutor(2 * THREADS, "core-save") as pool:
        large = {
            OPTIMIZER: start_tensors(staged / OPTIMIZER, _Flat(contents.optimizer), METADATA, pool),
            MODEL: start_tensors(staged / MODEL, contents.parameters, METADATA, pool),
        }
        hashes = {name: files.write_durably(staged / name, text) for name, text in texts.items()}
        hashes |= {name: written.sha256() for name, written in large.items()}
    listed = {n: {"sha256": digest, "bytes": (staged / n).stat().st_size} for n, digest in hashes.items()}
    files.write_durably(staged / MANIFEST, files.to_json({"format": FORMAT, "files": listed}))
    files.sync_folder(staged)


def retain(checkpoints: Path, newest: int, keep_last: int, keep_every: int, best: int | None = None) -> list[str]:
    """Remove what need not be kept, after this process saved checkpoint `newest`; returns what could not be removed.

    Kept: the last `keep_last` whole ones up to `newest`, which is one of them, each that `keep_every` (0: none)
    divides, and step `best`. One with a missing or cut file is not whole and does not count; if `newest` is not,
    nothing is removed. Later ones than `newest` are another history's (a resume that fell back) and go when their turn
    comes.
    """
    try:
        found = [s for s in steps(checkpoints) if s <= newest]
        whole = [s for s in found if is_whole(checkpoints / folder_name(s))][: max(1, keep_last)]
    except OSError as error:
        return [f"{error.filename or checkpoints}: {error.strerror or error}: no older checkpoint was removed"]
    if newest not in whole:
        return []
    problems = []
    for step in found:
        if step not in whole and step != best and not (keep_every and step % keep_every == 0):
            path = checkpoints / folder_name(step)
            try:
                _remove(path)
            except OSError as error:
                problems.append(f"{path}: cannot be removed: {error.strerror or error}")
    return problems


def is_whole(path: Path) -> bool:
    """Whether all files are there in full length, without the cost of hashing them."""
    try:
        _check_sizes(path, _decode(path / MANIFEST, _read(path / MANIFEST), Manifest))
    except CheckpointError:
        return False
    return True


def _remove(path: Path) -> None:
    """Rename first: a removal that is killed must not leave half a checkpoint under a checkpoint's name."""
    doomed = path.with_name(f"{DOOMED}{path.name}-{os.getpid()}")
    files.rename(path, doomed)
    files.remove_tree(doomed)


def sweep(checkpoints: Path) -> list[str]:
    """Remove what killed saves left; to be called while the run's lock is held. Returns the names."""
    left = [p for p in checkpoints.glob(".*") if p.name.startswith((STAGED, DOOMED))]
    for path in left:
        files.remove_tree(path)
    return [p.name for p in left]


def try_out(checkpoints: Path) -> None:
    """Do once, with a few bytes, all that a save and a removal do, so that what a disk refuses shows before training.

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
    """CheckpointError when the disk cannot hold what a run will save, before it has taken a step.

    sizes: file -> bytes; saves: how many the run will make. At most `keep_last` + 1 are there at a time: the new one
    is whole before an old one goes. Those that are there already have their room.
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


# --- reading ---------------------------------------------------------------------------------------------------


def steps(checkpoints: Path) -> list[int]:
    """The steps that have a folder, newest first; whether it is valid is another question. A link is none."""
    if not os.path.isdir(checkpoints):  # Path's own question raises for a name that is too long
        return []
    found = [STEP.fullmatch(p.name) for p in checkpoints.iterdir() if p.is_dir() and not p.is_symlink()]
    return sorted((int(m.group(1)) for m in found if m), reverse=True)


def newest(checkpoints: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest valid checkpoint, and what was wrong with newer ones.

    The folders decide, not LATEST: it may be missing, or name one that is gone. One that a run's retention removes
    before it is open makes way for the run's next.
    """
    for _ in range(TRIES):
        problems: list[str] = []
        for step in steps(checkpoints):
            path = checkpoints / folder_name(step)
            try:
                return load(path), problems
            except CheckpointError as error:
                if not path.exists():
                    break  # out of this list: look again
                problems.append(error.message)
        else:
            break
    return None, problems


def is_pointer(path: Path) -> bool:
    """Whether `path` is LATEST or BEST of a run."""
    return path.name in pointers.POINTERS and bool(steps(path.parent / "checkpoints"))


def why_no_pointer(path: Path) -> str:
    """Why a run has no such pointer, as a hint; "" where `path` is none of a run's."""
    said = f"{path.parent} is a run without one: it does not validate, or train.keep_best is false"
    return said if is_pointer(path) else ""


def best(checkpoints: Path) -> int | None:
    """The step whose checkpoint is the best by validation, as the newest whole checkpoint says; None without one.

    A pointer may be a save behind, after a kill; the state of the newest checkpoint is not.
    """
    for step in steps(checkpoints):
        path = checkpoints / folder_name(step)
        with contextlib.suppress(CheckpointError):  # it is not whole, or removed meanwhile
            _check_sizes(path, _decode(path / MANIFEST, _read(path / MANIFEST), Manifest))
            return _decode(path / STATE, _read(path / STATE), State).best_step
    return None


def find(path: Path) -> Checkpoint:
    """The checkpoint at `path`, the best one for a run's BEST, or the newest valid one of the run at `path`, with a
    CheckpointWarning for each newer one that is damaged. Raises CheckpointError."""
    if is_pointer(path) and path.name == pointers.LATEST:
        return find(path.parent)
    if is_pointer(path):
        return _find_best(path)
    if os.path.isfile(path / MANIFEST) or STEP.fullmatch(path.name):
        return load(path)
    for checkpoints in (path / "checkpoints", path):
        if steps(checkpoints):
            found, problems = newest(checkpoints)
            if found is None:
                raise CheckpointError(f"{path}: no valid checkpoint:\n" + "\n".join(f"  {p}" for p in problems))
            for problem in problems:
                warnings.warn(f"{problem}; {found.path.name} is taken instead", CheckpointWarning, stacklevel=2)
            return found
    what = "no such folder" if not os.path.exists(path) else "a file" if path.is_file() else "no checkpoint in it"
    raise CheckpointError(
        f"{path}: {what}",
        hint="expected a run's folder or a checkpoint's (step_00001000); a .pt, .npz or pickle file is never read",
    )


def _find_best(path: Path) -> Checkpoint:
    """The checkpoint of a run's BEST at `path`; the next best where that one is removed before it is open."""
    before = None
    while True:
        step = best(path.parent / "checkpoints")
        if step is None:
            raise CheckpointError(f"{path}: this run keeps no best checkpoint", hint=f"{path.parent} is its newest")
        try:
            return load(path.parent / "checkpoints" / folder_name(step))
        except CheckpointError:
            if step == before or (path.parent / "checkpoints" / folder_name(step)).exists():
                raise
            before = step


def load(path: Path) -> Checkpoint:
    """Read and verify one checkpoint. CheckpointError names the file and the fault.

    Its files are held open until `Checkpoint.release`: a run's retention may remove it meanwhile. No link in its folder
    is followed.
    """
    try:
        return _load(path)
    except OSError as error:
        where = error.filename or path
        raise CheckpointError(f"{where}: cannot be read: {error.strerror or error}", hint=way_out(error)) from None


def _load(path: Path) -> Checkpoint:
    manifest = _decode(path / MANIFEST, _read(path / MANIFEST), Manifest)
    _check_sizes(path, manifest)
    held = {name: files.Held(path / name) for name in manifest.files}
    _check_hashes(held, manifest)
    raw = held[STATE].read()
    state = _decode(path / STATE, raw, State)
    tensors = {name: TensorFile(path / name, held[name]) for name in (MODEL, OPTIMIZER)}
    return Checkpoint(
        path=path,
        step=state.step,
        state={**_decode(path / STATE, raw, dict[str, Any]), **msgspec.to_builtins(state)},
        model_toml=_text(held[MODEL_TOML]),
        tokenizer_json=_text(held[TOKENIZER]) if TOKENIZER in held else None,
        parameters=tensors[MODEL],
        optimizer=_by_state(tensors[OPTIMIZER]),
        files=tuple(tensors.values()),
    )


def _by_state(tensors: TensorFile) -> dict[str, Mapping[str, Array]]:
    names: dict[str, dict[str, str]] = {}
    for full in tensors:
        state, dot, parameter = full.partition(".")
        if not dot:
            raise CheckpointError(f'{tensors.path}: tensor "{full}" is not named <state>.<parameter>')
        names.setdefault(state, {})[parameter] = full
    return {state: _Renamed(tensors, table) for state, table in names.items()}


def _read(path: Path) -> bytes:
    try:
        return read_whole(path, follow=False)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}", hint=way_out(error)) from None


def _decode(path: Path, raw: bytes, kind: type[Kind]) -> Kind:
    """One of the two JSON files. CheckpointError for another version, and for anything that is not as it must be."""
    try:
        found = msgspec.json.decode(raw, type=Versioned).format
        if found > FORMAT:
            raise CheckpointError(
                f"{path}: format {found}; this version reads up to {FORMAT}", hint="a newer corelm wrote it: update"
            )
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged: {error}") from None


def _text(held: files.Held) -> str:
    try:
        return held.read().decode()
    except UnicodeDecodeError:
        raise CheckpointError(f"{held.path}: damaged: not UTF-8") from None


def _check_sizes(path: Path, manifest: Manifest) -> None:
    for name in REQUIRED:
        if name not in manifest.files:
            raise CheckpointError(f"{path / MANIFEST}: damaged: it does not list {name}")
    for name, entry in manifest.files.items():
        if name not in (*REQUIRED, TOKENIZER):
            raise CheckpointError(f"{path / MANIFEST}: entry {name!r} is not one of a checkpoint's files")
        if (path / name).is_symlink():
            raise CheckpointError(f"{path / name}: {LINK}", hint=WAYS_OUT[errno.ELOOP])
        size = (path / name).stat().st_size if (path / name).is_file() else None
        if size != entry.bytes:
            came = "missing" if size is None else f"{size:,} bytes"
            raise CheckpointError(f"{path / name}: {came}, expected {entry.bytes:,} bytes: cut short or changed")


def _check_hashes(held: Mapping[str, files.Held], manifest: Manifest) -> None:
    """Two files at a time: the large two are most of the work."""
    with ThreadPoolExecutor(2, "core-hash") as pool:
        digests = dict(zip(held, pool.map(files.Held.sha256, held.values()), strict=True))
    for name, entry in manifest.files.items():
        if digests[name] != entry.sha256:
            raise CheckpointError(f"{held[name].path}: sha256 is {digests[name]}, expected {entry.sha256}: damaged")
