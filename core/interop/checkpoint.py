"""Checkpoints: a folder that holds a whole model and what it takes to go on training it.

    step_00001000/
        model.safetensors      parameters by the graph's names, without padding
        optimizer.safetensors  "<state>.<parameter>": m.wte.weight, v.wte.weight
        model.toml             the model, nothing left to look up
        tokenizer.json         the run's tokenizer; absent where the data had none
        state.json             step, seed, tokens seen, what the data was, ...
        manifest.json          sha256 and size of each of these files; written last

A save is staged beside its place, synced, hashed and renamed, then LATEST is replaced: a kill at any moment leaves
the checkpoint before it valid. Reading trusts nothing: hashes, headers, names. Knows no engine and no run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import CheckpointError
from core.interop import files
from core.interop.tensors import TensorFile, write_tensors

Array = np.ndarray[Any, Any]

FORMAT = 1  # of state.json and manifest.json; a newer one is refused
STEP = re.compile(r"step_(\d{8,})")
STAGED, DOOMED = ".staged-", ".doomed-"  # prefixes of what a killed save or removal leaves behind
MODEL, OPTIMIZER, MODEL_TOML, TOKENIZER = "model.safetensors", "optimizer.safetensors", "model.toml", "tokenizer.json"
STATE, MANIFEST, LATEST = "state.json", "manifest.json", "LATEST"
REQUIRED = (MODEL, OPTIMIZER, MODEL_TOML, STATE)


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
    """A checkpoint that was read and found whole. Tensors are read from their files when they are asked for."""

    path: Path
    step: int
    state: dict[str, Any]
    model_toml: str
    tokenizer_json: str | None
    parameters: TensorFile
    optimizer: dict[str, Mapping[str, Array]]

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
    """Write `checkpoints/step_XXXXXXXX` whole or not at all, and point LATEST (beside `checkpoints`) at it.

    Memory: a few chunks beside what `contents` holds. One of this step that is valid stays as it is: a run's state
    after a step is always the same. Raises CheckpointError when the disk refuses; nothing older is touched.
    """
    target = checkpoints / folder_name(step)
    staged = checkpoints / f"{STAGED}{target.name}-{os.getpid()}"
    try:
        if not _clear(target):
            _stage(staged, contents)
            files.rename(staged, target)
            files.sync_folder(checkpoints)
        files.replace_durably(checkpoints.parent / LATEST, f"{target.name}\n".encode())
    except OSError as error:
        with contextlib.suppress(OSError):
            files.remove_tree(staged)
        raise CheckpointError(
            f"{target}: cannot be saved: {error.strerror or error}",
            hint="earlier checkpoints are as they were; make room or fix the folder, then go on with --resume",
        ) from error
    return target


def _clear(target: Path) -> bool:
    """Whether a valid checkpoint is at `target`; a damaged one is moved out of the way."""
    if not target.exists():
        return False
    try:
        load(target)
        return True
    except CheckpointError:
        _remove(target)
        return False


def _stage(staged: Path, contents: Contents) -> None:
    files.make_folder(staged)
    hashes = {
        MODEL: write_tensors(staged / MODEL, contents.parameters, {"format": "corelm"}),
        OPTIMIZER: write_tensors(staged / OPTIMIZER, _Flat(contents.optimizer), {"format": "corelm"}),
        MODEL_TOML: files.write_durably(staged / MODEL_TOML, contents.model_toml.encode()),
    }
    if contents.tokenizer_json is not None:
        hashes[TOKENIZER] = files.write_durably(staged / TOKENIZER, contents.tokenizer_json.encode())
    hashes[STATE] = files.write_durably(staged / STATE, files.to_json({"format": FORMAT, **contents.state}))
    listed = {n: {"sha256": digest, "bytes": (staged / n).stat().st_size} for n, digest in hashes.items()}
    files.write_durably(staged / MANIFEST, files.to_json({"format": FORMAT, "files": listed}))
    files.sync_folder(staged)


def retain(checkpoints: Path, newest: int, keep_last: int, keep_every: int) -> list[Path]:
    """Remove what need not be kept, after checkpoint `newest` is on disk; returns what was removed.

    Kept: `newest`, the last `keep_last` of those up to it, and each that `keep_every` (0: none) divides. Later
    ones than `newest` are another history's (a resume that fell back) and are removed when their turn comes.
    """
    found = [s for s in steps(checkpoints) if s <= newest]
    kept = {newest, *found[: max(1, keep_last)]}
    removed = []
    for step in found:
        if step not in kept and not (keep_every and step % keep_every == 0):
            path = checkpoints / folder_name(step)
            _remove(path)
            removed.append(path)
    return removed


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


# --- reading ---------------------------------------------------------------------------------------------------


def steps(checkpoints: Path) -> list[int]:
    """The steps that have a folder, newest first; whether it is valid is another question."""
    if not checkpoints.is_dir():
        return []
    found = [STEP.fullmatch(p.name) for p in checkpoints.iterdir() if p.is_dir()]
    return sorted((int(m.group(1)) for m in found if m), reverse=True)


def newest(checkpoints: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest valid checkpoint, and what was wrong with newer ones.

    The folders decide, not LATEST: it may be missing, or name one that is gone.
    """
    problems: list[str] = []
    for step in steps(checkpoints):
        try:
            return load(checkpoints / folder_name(step)), problems
        except CheckpointError as error:
            problems.append(error.message)
    return None, problems


def find(path: Path) -> Checkpoint:
    """The checkpoint at `path`, or the newest valid one of the run at `path`. Raises CheckpointError."""
    if (path / MANIFEST).is_file() or STEP.fullmatch(path.name):
        return load(path)
    for checkpoints in (path / "checkpoints", path):
        if steps(checkpoints):
            found, problems = newest(checkpoints)
            if found is None:
                raise CheckpointError(f"{path}: no valid checkpoint:\n" + "\n".join(f"  {p}" for p in problems))
            return found
    what = "no such folder" if not path.exists() else "a file" if path.is_file() else "no checkpoint in it"
    raise CheckpointError(f"{path}: {what}", hint="expected a run's folder or a checkpoint's (step_00001000)")


def load(path: Path) -> Checkpoint:
    """Read and verify one checkpoint. CheckpointError names the file and what is wrong with it."""
    manifest = _read_json(path / MANIFEST)
    _verify(path, manifest)
    state = _read_json(path / STATE)
    step = state.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise CheckpointError(f"{path / STATE}: step is {step!r}, expected a count of steps")
    tokenizer = path / TOKENIZER
    return Checkpoint(
        path=path,
        step=step,
        state=state,
        model_toml=(path / MODEL_TOML).read_text(encoding="utf-8"),
        tokenizer_json=tokenizer.read_text(encoding="utf-8") if TOKENIZER in manifest["files"] else None,
        parameters=TensorFile(path / MODEL),
        optimizer=_by_state(TensorFile(path / OPTIMIZER)),
    )


def _by_state(tensors: TensorFile) -> dict[str, Mapping[str, Array]]:
    names: dict[str, dict[str, str]] = {}
    for full in tensors:
        state, dot, parameter = full.partition(".")
        if not dot:
            raise CheckpointError(f'{tensors.path}: tensor "{full}" is not named <state>.<parameter>')
        names.setdefault(state, {})[parameter] = full
    return {state: _Renamed(tensors, table) for state, table in names.items()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path}: not valid JSON: damaged") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: not a JSON object: damaged")
    if not isinstance(value.get("format"), int) or value["format"] > FORMAT:
        raise CheckpointError(
            f"{path}: format {value.get('format')!r}; this version reads up to {FORMAT}",
            hint="a newer corelm wrote it: update",
        )
    return value


def _verify(path: Path, manifest: Mapping[str, Any]) -> None:
    """Sizes first, then hashes, two files at a time: the large two are most of the work."""
    listed = manifest.get("files")
    if not isinstance(listed, dict):
        raise CheckpointError(f"{path / MANIFEST}: lists no files: damaged")
    for name in REQUIRED:
        if name not in listed:
            raise CheckpointError(f"{path / MANIFEST}: does not list {name}: damaged")
    for name, entry in listed.items():
        if name not in (*REQUIRED, TOKENIZER) or not isinstance(entry, dict):
            raise CheckpointError(f"{path / MANIFEST}: entry {name!r} is not one of a checkpoint's files")
        size = (path / name).stat().st_size if (path / name).is_file() else None
        if size != entry.get("bytes"):
            came = "missing" if size is None else f"{size:,} bytes"
            raise CheckpointError(f"{path / name}: {came}, expected {entry.get('bytes'):,} bytes: cut short or changed")
    with ThreadPoolExecutor(2, "core-hash") as pool:
        digests = dict(zip(listed, pool.map(lambda name: files.sha256(path / name), listed), strict=True))
    for name, entry in listed.items():
        if digests[name] != entry.get("sha256"):
            raise CheckpointError(f"{path / name}: sha256 is {digests[name]}, expected {entry.get('sha256')}: damaged")
