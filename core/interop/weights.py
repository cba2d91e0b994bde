"""What a path is, and the parameters that lie there: our checkpoints, Hugging Face folders, llm.c's files.

What it is gets found by looking. Two answers, and none, are errors that say what was looked for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.errors import CheckpointError, UsageError, did_you_mean
from core.graph import Graph
from core.interop import checkpoint, huggingface, llama2c, llmc
from core.interop.foreign import Array
from core.interop.generation import Generation, of_folder, of_ids, of_state
from core.interop.huggingface_config import CONFIG
from core.interop.tensors import TensorFile
from core.outside import open_file, way_out
from core.registry import Registry

MODEL, CHECKPOINT, HUGGINGFACE, LLMC = "a model", "a checkpoint", "a Hugging Face folder", "an llm.c file"
LLAMA2C = "a llama2.c file"
EXPECTED = (
    "expected a run's or checkpoint's folder, a Hugging Face folder (config.json and *.safetensors), an llm.c or "
    "llama2.c model file (.bin), a model's TOML, or the name of a model (`core models`)"
)
LLMC_MAGICS = range(20240000, 20250000)  # llm.c begins its files with the day that a format was made
PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # torch.save, pickle, npz


def identify(path: str | Path, registry: Registry) -> str:
    """MODEL, CHECKPOINT (a run's folder included), HUGGINGFACE or LLMC. CheckpointError or UsageError otherwise."""
    where = Path(os.path.expanduser(path))
    try:
        there = where.exists()
    except (OSError, ValueError) as error:
        raise UsageError(f"{str(path)!r:.200} is no path: {error}") from None
    if str(path) in registry.models:
        if there:
            raise UsageError(
                f'"{path}" is the name of a model, and a {"folder" if where.is_dir() else "file"} here',
                hint=f"./{path} is the one here, {registry.models[str(path)].path} the model",
            )
        return MODEL
    if not there:
        run = Path("runs") / where
        hint = checkpoint.why_no_pointer(where) or (f"{run} exists" if run.exists() else EXPECTED)
        raise UsageError(f"{path}: no such file, folder or model{did_you_mean(str(path), registry.models)}", hint=hint)
    return _folder(where) if where.is_dir() else _file(where)


def _folder(path: Path) -> str:
    ours = (path / checkpoint.MANIFEST).is_file() or checkpoint.STEP.fullmatch(path.name) is not None
    ours = ours or bool(checkpoint.steps(path) or checkpoint.steps(path / "checkpoints"))
    theirs = (path / CONFIG).is_file()
    if ours and theirs:
        raise CheckpointError(
            f"{path}: both {CHECKPOINT} and {HUGGINGFACE}: it holds {CONFIG} too",
            hint="give the checkpoint's own folder (checkpoints/step_00001000), or move one of them away",
        )
    if ours or theirs:
        return CHECKPOINT if ours else HUGGINGFACE
    if (path / "checkpoints").is_dir():
        raise CheckpointError(f"{path}: a run without a checkpoint so far")
    if list(path.glob("*.safetensors")):
        raise CheckpointError(f"{path}: there is no {CONFIG} beside the safetensors files", hint=EXPECTED)
    raise CheckpointError(f"{path}: nothing here is known", hint=EXPECTED)


def _file(path: Path) -> str:
    if not path.is_file():
        raise CheckpointError(f"{path}: a pipe or a device", hint=EXPECTED)
    if checkpoint.is_pointer(path):
        return CHECKPOINT
    if path.suffix == ".toml":
        return MODEL
    if path.suffix == ".safetensors":
        raise CheckpointError(f"{path}: tensors alone do not say which model they are", hint=f"give {path.parent}")
    try:
        with open_file(path) as file:
            first = file.read(4)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}", hint=way_out(error)) from None
    if first.startswith(PICKLED):
        raise CheckpointError(
            f"{path}: a pickle or an archive of one, which runs code when it is read: never read here",
            hint="save the model as safetensors where it came from (save_pretrained, safetensors.torch.save_file)",
        )
    if int.from_bytes(first, "little") in LLMC_MAGICS:
        return LLMC
    if int.from_bytes(first, "little") == llama2c.MAGIC or llama2c.is_legacy(path):
        return LLAMA2C
    raise CheckpointError(f"{path}: nothing that is known", hint=EXPECTED)


@dataclass(frozen=True)
class Start:
    """What a run can start from: parameters by the model's names, read when asked for, and what came with them.

    kind: as `identify` names it. path: the checkpoint's folder, where a run was named. tokenizer_json: a checkpoint's.
    """

    kind: str
    path: Path
    parameters: Mapping[str, Array]
    tokenizer_json: str | None = None
    generation: Generation = Generation()

    def release(self) -> None:
        """Let a checkpoint's files go: see `Checkpoint.release`."""
        if isinstance(self.parameters, TensorFile):
            self.parameters.release()


def read_weights(path: str | Path, graph: Graph, registry: Registry) -> Mapping[str, Array]:
    """The parameters of `open_weights`."""
    return open_weights(path, graph, registry).parameters


def open_weights(path: str | Path, graph: Graph, registry: Registry) -> Start:
    """What is at `path` for a model that is settled: its parameters by name, without padding, each read when asked for.

    path: a run's or checkpoint's folder (its newest), a Hugging Face folder, an llm.c file. A model of another kind
    or size is a CheckpointError. Of a checkpoint, names and shapes are left to be checked against the engine's.
    """
    where = Path(os.path.expanduser(path))
    kind = identify(path, registry)
    if kind == MODEL:
        raise CheckpointError(f"{path}: a model without weights", hint="leave `weights` out: they are drawn")
    if kind == CHECKPOINT:
        found = checkpoint.find(where)
        return Start(kind, found.path, found.parameters, found.tokenizer_json, of_state(found.state))
    if kind == HUGGINGFACE:
        folder = huggingface.open_folder(where)
        generation = of_folder(where, folder.config)
        return Start(kind, where, huggingface.fitting(folder, graph), generation=generation)
    if kind == LLAMA2C:
        return Start(kind, where, llama2c.fitting(llama2c.open_file(where), graph), generation=of_ids(llama2c.BEGIN))
    return Start(kind, where, llmc.fitting(llmc.open_file(where), graph, registry))
