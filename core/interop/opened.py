"""A model opened from a path: its graph, its sizes, its parameters, and its tokenizer and other files.

`weights.py` recognises a path's format; this module brings our checkpoints, other programs' files and model TOMLs to
one form, which `core.load`, `core eval`, `core import` and `core export` take. It computes nothing.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core import checkpoint
from core.checkpoint.tensor_file import TensorFile
from core.errors import CheckpointError
from core.expr import trim
from core.graph import Graph, ModelSource, load_model
from core.interop.fitting import Array, raise_some
from core.interop.generation import Generation, of_state
from core.interop.weights import CHECKPOINT, MODEL, identify, of_format
from core.registry import Registry
from core.weight_format import WeightFormat

Dims = Mapping[str, Any]


@dataclass(frozen=True)
class Opened:
    """The contents of a path.

    kind: a noun phrase. path: the checkpoint's folder, where a run was named. dims: over the model's
    own. weights: by our names, without padding, read on demand; None where they are to be drawn. recorded: node ->
    variant of a run. step: of a checkpoint. tokenizer_json: a checkpoint's. generation: how its texts begin and end.
    format: of another program's files.
    """

    kind: str
    path: Path
    source: ModelSource
    dims: Dims
    weights: Mapping[str, Array] | None = None
    tokenizer_json: str | None = None
    recorded: Mapping[str, str] = field(default_factory=dict)
    step: int = 0
    generation: Generation = Generation()
    format: WeightFormat | None = None

    def release(self) -> None:
        """Let a checkpoint's files go once its weights were read: see `Checkpoint.release`."""
        if isinstance(self.weights, TensorFile | checkpoint.KeptWeights):
            self.weights.release()

    def parameters(self, graph: Graph) -> Mapping[str, Array]:
        """The weights, their names and shapes compared with the graph's. CheckpointError for a misfit."""
        weights = self.weights
        if weights is None:
            raise CheckpointError(f"{self.path}: a model without weights", hint="name a run, a checkpoint or a file")
        problems = [f'there is no parameter "{name}"' for name in graph.parameters if name not in weights]
        problems += [f'the model has no parameter "{name}"' for name in weights if name not in graph.parameters]
        for name, parameter in graph.parameters.items():
            if name in weights and weights[name].shape != trim(parameter.shape):
                problems.append(f"{name} has shape {weights[name].shape}, expected {trim(parameter.shape)}")
        raise_some([f"{self.path}: does not fit its model: {problem}" for problem in problems])
        return weights


def open_path(path: str | Path, registry: Registry, dims: Dims | None = None) -> Opened:
    """The contents of `path`, found by looking. `dims` are the caller's own, over all others.

    Raises UsageError for nothing found or two answers, CheckpointError for files that are damaged or fit no model.
    """
    where, own = Path(os.path.expanduser(path)), dims or {}
    place = identify(path, registry)
    if isinstance(place, WeightFormat):
        return _of_format(place, where, registry, own)
    return _checkpoint(where, registry, own) if place == CHECKPOINT else _model(where, registry, own)


def _model(path: Path, registry: Registry, dims: Dims) -> Opened:
    return Opened(MODEL, path, load_model(path, registry), dims)


def _checkpoint(path: Path, registry: Registry, dims: Dims) -> Opened:
    saved = checkpoint.find(path)
    return Opened(
        CHECKPOINT,
        saved.path,
        load_model(saved.path / checkpoint.MODEL_TOML, registry, saved.model_toml),
        dims,
        saved.parameters,
        saved.tokenizer_json,
        saved.state.get("variants", {}),
        saved.step,
        of_state(saved.state),
    )


def _of_format(one: WeightFormat, path: Path, registry: Registry, dims: Dims) -> Opened:
    match = of_format(one, lambda: one.open(path, registry, dims))
    for note in match.notes:
        warnings.warn(f"{path}: {note}", stacklevel=2)
    return Opened(one.kind, path, match.source, match.dims, match.weights, generation=match.generation, format=one)
