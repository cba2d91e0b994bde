"""A model on small sizes, with reproducible weights and a reproducible batch, for `check_model`.

Weights and the batch come from `numpy.random.RandomState`, whose streams NumPy has frozen, so that a committed file of
golden values holds results alone. No model and no op is named here.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from core.checkpoint.tensor_file import TensorFile
from core.engine import Engine, Settings
from core.errors import BuildError
from core.expr import Number, trim
from core.graph import Graph, ModelSource, load_model
from core.interop.export import prepare
from core.interop.opened import Opened
from core.interop.weights import MODEL
from core.loader import load_registry
from core.registry import Registry

Array = np.ndarray[Any, Any]

SEED = 20230227
IGNORED = -1  # a target that does not count
STEPS = 10
RATE, OPTIONS = 1e-2, {"betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}
SMALL: Mapping[str, Number | str] = {
    "B": 2, "T": 13, "S": 64, "V": 37, "P": "pad(V, 64)", "C": 16, "H": 4, "K": 2, "F": 24, "L": 2,
}  # fmt: skip

CHOICES = ("auto", "references", "unfused")

TABLE, TARGET, CONFIG = "hf", "hf", "config.json"  # of the format that transformers reads

Objective = Callable[[Any, Any, Any], Any]  # (transformers' model, tokens, targets) -> the loss, a tensor


@cache
def shared_registry() -> Registry:
    """The built-in, shipped and installed plugins, loaded once in a process."""
    return load_registry()


@dataclass
class SmallModel:
    """A model on small sizes, with weights that are drawn by the names of Hugging Face's tensors.

    dims: over `SMALL`, of which only the dims that the model has are taken. config: keys of config.json over those
    that export writes, None for null. peer, golden, objective, undecayed: see `check_model`.
    """

    name: str
    dims: Mapping[str, Number | str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    peer: str = ""
    golden: Path | None = None
    objective: Objective | None = None
    registry: Registry = field(default_factory=shared_registry)
    undecayed: Sequence[str] = ()

    @property
    def golden_values(self) -> dict[str, Array]:
        """The golden values, f32: logits (B, T, V), loss, gradients as "d" + our parameter, each of its shape, and the
        losses of `STEPS` AdamW steps. BuildError where there are none."""
        if self.golden is None or not self.golden.is_file():
            raise BuildError(
                f"{self.golden}: there are no golden values", hint="check_model(..., write=True) writes them"
            )
        return dict(TensorFile(self.golden))

    @cached_property
    def format(self) -> Any:
        """The format that [hf] tables describe. BuildError where the plugin that brings it is not loaded."""
        return self.registry.format_of(TABLE)

    @cached_property
    def source(self) -> ModelSource:
        """The model's document by its registered name."""
        return load_model(self.name, self.registry)

    @cached_property
    def sizes(self) -> dict[str, Number | str]:
        """The dims of the check: `SMALL` where the model has them, and the case's own over these."""
        dims = self.source.document.get("dims", {})
        return {dim: size for dim, size in SMALL.items() if dim in dims} | dict(self.dims)

    @cached_property
    def graph(self) -> Graph:
        """Raises BuildError for a model that has no [hf] table."""
        graph = self.source.build(self.registry, self.sizes)
        if TABLE not in self.source.document:
            raise BuildError(f"{self.source.where()} has no [{TABLE}]", hint="docs/models.md shows the table")
        return graph

    @cached_property
    def weights(self) -> dict[str, Array]:
        """Our parameters, f32, without padding: normal(0, 0.25), a norm's weight around 1. Nothing is 0 or equal."""
        drawn = {}
        for name, tensors in self.format.tensors(self.graph).items():
            whole = drawn[name] = np.empty(trim(self.graph.parameters[name].shape), np.float32)
            for tensor, view in tensors:
                part = view(whole)
                stream = np.random.RandomState(zlib.crc32(tensor.encode()))
                part[...] = 0.25 * stream.standard_normal(part.shape) + ("norm" in tensor)
        return drawn

    @property
    def batch(self) -> dict[str, Array]:
        """{"tokens", "targets"} of (B, T) i32; three of the targets do not count."""
        stream, shape = np.random.RandomState(SEED), (self.graph.dims["B"], self.graph.dims["T"])
        tokens, targets = (stream.randint(0, self.graph.dims["V"], shape).astype(np.int32) for _ in range(2))
        targets.reshape(-1)[stream.permutation(targets.size)[:3]] = IGNORED
        return {"tokens": tokens, "targets": targets}

    def engine(self, choice: str = "auto", **how: Any) -> Engine:
        """Our model with those weights and AdamW. choice: one of `CHOICES`. how: device and precision of Settings."""
        chosen: dict[str, Any] = {}
        if choice == "references":
            variants = self.registry.variants
            chosen["ops"] = {op: "reference" for op in variants if "reference" in variants[op]}
        elif choice == "unfused":
            chosen["fusion"] = {name: False for name, op in self.registry.ops.items() if op.replaces}
        options = {**OPTIONS, "clip": 1e9}
        settings = {"precision": "f32", "optimizer": "adamw", "options": options, "dims": self.sizes, **chosen, **how}
        built = Engine(load_model(self.name, self.registry), self.registry, Settings(**settings))
        built.load_parameters(self.weights)
        return built

    def folder(self, path: Path, **changes: Any) -> Path:
        """An export at `path`, config.json with `config` and `changes`; a value `...` removes a key."""
        opened = Opened(MODEL, path, self.source, self.sizes, self.weights)
        self.format.write(prepare(opened, self.registry, "f32"), self.registry, path, TARGET)
        config = json.loads((path / CONFIG).read_text("utf-8")) | dict(self.config) | changes
        config = {key: value for key, value in config.items() if value is not ...}
        (path / CONFIG).write_text(json.dumps(config), "utf-8")
        return path

    def read(self, path: Path) -> Mapping[str, Array]:
        """The parameters that this model's [hf] finds in a folder, f32 arrays of the same shape as the graph's.
        CheckpointError for a folder of another model."""
        arrays: Mapping[str, Array] = self.format.read_strictly(path, self.graph)
        return arrays
