"""llm.c's model files: 256 int32 of header, then the parameters, the layers of each stacked, all f32 or all bf16.

https://github.com/karpathy/llm.c, train_gpt2.py, write_model. Which dims the header holds, and the order of the
parameters, is the models' data ([llmc]). The vocabulary has padding of the file's own, which is cut off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.data.magics import FILES
from core.errors import BuildError, CheckpointError
from core.expr import Number, trim
from core.interop import (
    Array,
    Dims,
    Graph,
    ModelDocument,
    ModelMatch,
    ModelSource,
    Registry,
    Weights,
    about,
    build,
    check_dims,
    find_model,
    named_by,
    read_head,
    read_numbers,
    with_length,
)

TABLE, MODEL = "llmc", "a model checkpoint"
INTEGERS = 256
BYTES = 4 * INTEGERS
FIRST = 2  # of the header's numbers, after magic and version
DTYPES: dict[int, np.dtype[Any]] = {
    3: np.dtype("<f4"),
    5: np.dtype("<u2"),
}  # version -> layout of numbers; bf16 is the upper half of an f32


@dataclass(frozen=True)
class ModelFile:
    """A file whose header was read: its numbers, and the bytes that the file has."""

    path: Path
    header: tuple[int, ...]
    size: int

    @property
    def magic(self) -> int:
        return self.header[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        return DTYPES[self.header[1]]


def open_file(path: Path) -> ModelFile:
    """Read the header. CheckpointError for another kind of file, or a version that is unknown."""
    data, size = read_head(path, BYTES)
    if len(data) < BYTES:
        raise CheckpointError(f"{path}: {size} bytes, too short for llm.c's header of {BYTES}")
    header = tuple(int(n) for n in np.frombuffer(data, "<i4"))
    if FILES.get(header[0], MODEL) != MODEL:
        raise CheckpointError(f"{path}: this is {FILES[header[0]]} of llm.c, not a model")
    return ModelFile(path, header, size)


def find(file: ModelFile, registry: Registry, overrides: Mapping[str, Number | str]) -> ModelMatch:
    """The registered model that a file holds, with the sizes of its header; `overrides` are dims on top."""

    def attempt(source: ModelSource) -> ModelMatch | None:
        if source.document[TABLE]["magic"] != file.magic:
            return None
        dims = {**with_length(source, _own_dims(source, file)), **overrides}
        return ModelMatch(source, dims, weights(file, build(source, registry, dims), registry))

    with about(str(file.path)):
        match = find_model(registry, TABLE, attempt)
    if match is None:
        raise CheckpointError(
            f"{file.path}: no model has the magic {file.magic} in its [{TABLE}]",
            hint="install a plugin whose model has it, or name it: --plugin PATH",
        )
    return match


def fitting(file: ModelFile, graph: Graph, registry: Registry) -> Weights:
    """The file's parameters for a model that is settled. CheckpointError unless it is the same model and size."""
    source = graph.source
    if source.document.get(TABLE, {}).get("magic") != file.magic:
        raise CheckpointError(f"{file.path}: magic {file.magic} is not of model {graph.name}: see its [{TABLE}]")
    with about(str(file.path)):
        return weights(file, graph, registry)


def _header_dims(source: ModelDocument, file: ModelFile) -> Dims:
    """Dim -> its size in the header. CheckpointError for a version or number that means nothing here."""
    if file.header[1] not in DTYPES:
        raise CheckpointError(
            f"version {file.header[1]} of llm.c's format is unknown; known: 3 (all f32), 5 (all bf16)",
            hint="versions 1 and 2 came before the padded vocabulary: write the file again with llm.c of today",
        )
    names = source.document[TABLE]["header"]
    dims: Dims = {}
    for place, name in enumerate(names, FIRST):
        if file.header[place] < 1:
            raise CheckpointError(f"the header's number {place}, {name}, is {file.header[place]}: damaged")
        dims[name] = file.header[place]
    for place in range(FIRST + len(names), INTEGERS):
        if file.header[place] != 0:
            raise CheckpointError(f"the header's number {place} is {file.header[place]}, expected 0: damaged")
    return dims


def _own_dims(source: ModelDocument, file: ModelFile) -> Dims:
    """The header's dims that are the model's too: without the file's own padding."""
    padding = source.document[TABLE].get("padding", [])
    return {name: size for name, size in _header_dims(source, file).items() if name not in padding}


def weights(file: ModelFile, graph: Graph, registry: Registry) -> Weights:
    """The file's parameters for `graph`, read on demand, bf16 as f32. CheckpointError when the sizes do not add up."""
    source = graph.source
    own = _own_dims(source, file)
    check_dims(own, graph, {name: f"{name} in the header" for name in own})
    in_file = shapes(source, graph, registry, _header_dims(source, file))
    in_order = order(source, graph)
    total = BYTES + file.dtype.itemsize * sum(math.prod(in_file[name]) for name in in_order)
    if total != file.size:
        raise CheckpointError(f"{file.size:,} bytes, and its header describes {total:,}: cut short, or another model")
    makers = {}
    position = BYTES
    for name in in_order:
        wanted = trim(graph.parameters[name].shape)
        if any(w > s for w, s in zip(wanted, in_file[name], strict=True)):
            raise CheckpointError(f"{name} has shape {in_file[name]}; the model's has {wanted}")
        makers[name] = _maker(file, position, in_file[name], wanted)
        position += file.dtype.itemsize * math.prod(in_file[name])
    return Weights({name: makers[name] for name in graph.parameters})


def shapes(
    source: ModelDocument, graph: Graph, registry: Registry, header: Mapping[str, Number | str]
) -> dict[str, tuple[int, ...]]:
    """Parameter -> its shape in a file with these dims in its header, the file's padding included."""
    sizes: Dims = {name: size + 0 for name, size in graph.dims.items()}  # + 0: a padded size becomes a plain one
    in_file = build(source, registry, {**sizes, **header})
    return {name: tuple(int(n) for n in p.shape) for name, p in in_file.parameters.items()}


def order(source: ModelDocument, graph: Graph) -> list[str]:
    """Parameters in the file's order. BuildError unless [llmc] params names each exactly once."""
    names: list[str] = []
    for template in source.document[TABLE]["params"]:
        matches = named_by(template, graph.parameters)
        if not matches:
            raise BuildError(f"{source.where(TABLE, 'params')}: the model has no parameter {template}")
        names += matches
    if sorted(names) != sorted(graph.parameters):
        odd = sorted(set(graph.parameters) - set(names)) or sorted({n for n in names if names.count(n) > 1})
        raise BuildError(f"{source.where(TABLE, 'params')}: {odd[0]} must be named once")
    return names


def _maker(file: ModelFile, position: int, shape: tuple[int, ...], wanted: tuple[int, ...]) -> Any:
    def make() -> Array:
        raw = read_numbers(file.path, file.dtype, position, shape)[tuple(slice(n) for n in wanted)]
        if file.dtype.kind == "u":
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.astype(raw.dtype.newbyteorder("="), copy=False)

    return make
