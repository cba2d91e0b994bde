"""The format of a path's files, and the parameters in them: our checkpoints, and the formats that plugins bring.

The contents of a path decide its format. A path that two formats claim, or none, is an error that lists the formats.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from core import checkpoint
from core.checkpoint.pointers import CHECKPOINTS
from core.checkpoint.tensor_file import TensorFile
from core.containment import PASSES, contained, of_plugin
from core.errors import CheckpointError, CoreError, UsageError, did_you_mean, words_of
from core.graph import Graph
from core.interop.fitting import Array
from core.interop.generation import Generation, of_state
from core.outside import open_file, reads
from core.registry import Registry
from core.weight_format import WeightFormat

T = TypeVar("T")
MODEL, CHECKPOINT = "a model", "a checkpoint"
HEAD = 256  # bytes of a file that a format looks at
PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # torch.save, pickle, npz


def expected(registry: Registry) -> str:
    """The known formats of a path, for a hint."""
    formats = "".join(f"{one.expected or one.kind}, " for one in registry.formats.values())
    return f"expected a run's or checkpoint's folder, {formats}a model's TOML, or the name of a model (`core models`)"


def identify(path: str | Path, registry: Registry) -> str | WeightFormat:
    """MODEL, CHECKPOINT (a run's folder included) or a format of weights. CheckpointError or UsageError otherwise."""
    where = Path(os.path.expanduser(path))
    try:
        there = where.exists()
    except (OSError, ValueError) as error:
        raise UsageError(f"{str(path)!r:.200} is not a path: {error}") from None
    if str(path) in registry.models:
        if there:
            raise UsageError(
                f'"{path}" is the name of a model, and a {"folder" if where.is_dir() else "file"} here',
                hint=f"./{path} is the one here, {registry.models[str(path)].path} the model",
            )
        return MODEL
    if not there and checkpoint.is_kept(where):
        return CHECKPOINT
    if not there:
        run = Path("runs") / where
        hint = checkpoint.why_no_pointer(where) or (f"{run} exists" if run.exists() else expected(registry))
        raise UsageError(f"{path}: no such file, folder or model{did_you_mean(str(path), registry.models)}", hint=hint)
    return _folder(where, registry) if where.is_dir() else _file(where, registry)


def _folder(path: Path, registry: Registry) -> str | WeightFormat:
    ours = (path / checkpoint.MANIFEST).is_file() or checkpoint.STEP.fullmatch(path.name) is not None
    ours = ours or bool(checkpoint.steps(path) or checkpoint.steps(path / CHECKPOINTS))
    recognised = _recognised(path, b"", registry)
    if ours and recognised is not None:
        one, mark = recognised
        raise CheckpointError(
            f"{path}: both {CHECKPOINT} and {one.kind}: it holds {mark} too",
            hint="give the checkpoint's own folder (checkpoints/step_00001000), or move one of them away",
        )
    if ours or recognised is not None:
        return recognised[0] if recognised is not None else CHECKPOINT
    if (path / CHECKPOINTS).is_dir():
        raise CheckpointError(f"{path}: a run without a checkpoint", hint="wait for its first one, or name another run")
    raise _unknown(path, "no file in it is of a known format", registry)


def _file(path: Path, registry: Registry) -> str | WeightFormat:
    if not path.is_file():
        raise CheckpointError(f"{path}: a pipe or a device", hint=expected(registry))
    if checkpoint.is_pointer(path):
        return CHECKPOINT
    if path.suffix == ".toml":
        return MODEL
    with reads(CheckpointError, path):
        with open_file(path) as file:
            head = file.read(HEAD)
        recognised = _recognised(path, head, registry)
    if recognised is not None:
        return recognised[0]
    if path.suffix == ".safetensors":
        raise CheckpointError(f"{path}: tensors alone do not identify a model", hint=f"give {path.parent}")
    if head.startswith(PICKLED):
        raise CheckpointError(
            f"{path}: a pickle or an archive of one, which runs code when it is read: never read here",
            hint="save the model as safetensors where it came from (save_pretrained, safetensors.torch.save_file)",
        )
    raise _unknown(path, "not a file of a known format", registry)


def _recognised(path: Path, head: bytes, registry: Registry) -> tuple[WeightFormat, str] | None:
    """The one format that a path is of, and its mark. CheckpointError where two formats claim it.

    A format that fails while it looks is passed over with a warning: the path may be another one's.
    """
    matches = []
    for one in registry.formats.values():
        if mark := _answer(one, partial(one.recognise, path, head)):
            matches.append((one, mark))
    if len(matches) > 1:
        (first, mark), (second, other) = matches[:2]
        raise CheckpointError(
            f"{path}: both {first.kind} ({mark}) and {second.kind} ({other})",
            hint="leave one of the plugins out: CORELM_PLUGINS, or [plugins] disable",
        )
    return matches[0] if matches else None


def _unknown(path: Path, description: str, registry: Registry) -> CheckpointError:
    lacks = [text for one in registry.formats.values() if (text := _answer(one, partial(one.lacking, path)))]
    return CheckpointError(f"{path}: {lacks[0] if lacks else description}", hint=expected(registry))


def _answer(one: WeightFormat, question: Callable[[], str]) -> str:
    """A format's answer; "" with a warning where it fails."""
    try:
        with contained():
            return str(question() or "")
    except (CoreError, OSError, *PASSES):
        raise
    except BaseException as error:
        warnings.warn(f"{one.origin}: its format {one.name} is passed over: {words_of(error)}", stacklevel=2)
        return ""


def of_format(one: WeightFormat, work: Callable[[], T]) -> T:
    """Call a format's method. BuildError, naming the plugin, for any exception but a CoreError."""
    return of_plugin(one.origin, f"format {one.name}", work)


@dataclass(frozen=True)
class Start:
    """The start of a run: parameters by the model's names, read on demand, and the tokenizer that came with them.

    kind: a noun phrase. path: the checkpoint's folder, where a run was named. tokenizer_json: a checkpoint's. format:
    of another program's files.
    """

    kind: str
    path: Path
    parameters: Mapping[str, Array]
    tokenizer_json: str | None = None
    generation: Generation = Generation()
    format: WeightFormat | None = None

    def release(self) -> None:
        """Let a checkpoint's files go: see `Checkpoint.release`."""
        if isinstance(self.parameters, TensorFile | checkpoint.KeptWeights):
            self.parameters.release()


def read_weights(path: str | Path, graph: Graph, registry: Registry) -> Mapping[str, Array]:
    """The parameters of `open_weights`."""
    return open_weights(path, graph, registry).parameters


def open_weights(path: str | Path, graph: Graph, registry: Registry) -> Start:
    """The weights at `path` for a settled model: its parameters by name, without padding, each read at its first use.

    path: a run's or checkpoint's folder (its newest), or another program's files. A model of another kind
    or size is a CheckpointError. Of a checkpoint, names and shapes are compared with the engine's later.
    """
    where = Path(os.path.expanduser(path))
    place = identify(path, registry)
    if isinstance(place, WeightFormat):
        fitted = of_format(place, lambda: place.fit(where, graph, registry))
        return Start(place.kind, where, fitted.weights, generation=fitted.generation, format=place)
    if place == MODEL:
        raise CheckpointError(
            f"{path}: a model without weights", hint="leave `weights` out: the parameters are then drawn from the seed"
        )
    saved = checkpoint.find(where)
    return Start(place, saved.path, saved.parameters, saved.tokenizer_json, of_state(saved.state))
