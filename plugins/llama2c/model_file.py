"""llama2.c's model files in f32: version 0, seven int32 and the weights; version 1, a header of 256 bytes.

https://github.com/karpathy/llama2.c, export.py (legacy_export, version1_export) and run.c. Which dims the header holds,
and the order of the weights in each version, is the models' data ([llama2c]). Pairs that rotary positions turn are
neighbours there, and half a head apart here: `Part.heads`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import BuildError, CheckpointError
from core.expr import Number, evaluate, trim
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
    of_ids,
    read_head,
    read_numbers,
    with_length,
)

TABLE = "llama2c"
MAGIC = 0x616B3432  # "24ka", before version 1 and later
NUMBERS, HEADER = 7, 256  # int32 of sizes; bytes of version 1's header
TABLES = {"cos": np.cos, "sin": np.sin}  # of version 0's positions, which run.c recomputes
BEGIN = 1  # the id that begins a text and ends the one before it


@dataclass(frozen=True)
class ModelFile:
    """A file whose header was read. numbers: dim, hidden_dim, layers, heads, kv_heads, vocabulary, length. shared: the
    head is the embedding. start: the first byte of the weights."""

    path: Path
    version: int
    numbers: tuple[int, ...]
    shared: bool
    start: int
    size: int

    @property
    def vocabulary(self) -> int:
        return self.numbers[5]


@dataclass(frozen=True)
class Part:
    """Rows of a parameter as they come in a file: `rows` from row `first` on; of `heads` heads that are turned."""

    parameter: str
    first: int
    rows: int
    heads: int = 0


def mark_of(path: Path, head: bytes) -> str:
    """The mark by which a file that begins with `head` is llama2.c's, as text; "" for any other file."""
    if int.from_bytes(head[:4], "little") == MAGIC:
        return f"magic number {MAGIC:#x}"
    return "sizes that make up its length" if is_legacy(head, path.stat().st_size) else ""


def is_legacy(head: bytes, size: int) -> bool:
    """Whether a file of `size` bytes without a magic number is of version 0: its seven numbers describe that length."""
    raw = head[: 4 * NUMBERS]
    if len(raw) < 4 * NUMBERS:
        return False
    C, F, L, H, K, V, S = (int(n) for n in np.frombuffer(raw, "<i4"))
    shared, V = V > 0, abs(V)
    if min(C, F, L, H, K, V, S) < 1 or C % H:
        return False
    D = C // H
    layer = 2 * C + 2 * C * C + 2 * C * K * D + 3 * C * F
    return size == 4 * (NUMBERS + V * C * (1 if shared else 2) + L * layer + C + S * D)


def open_file(path: Path) -> ModelFile:
    """Read the header. CheckpointError for a version that is not read."""
    raw, size = read_head(path, HEADER)
    if len(raw) < 4 * NUMBERS:
        raise CheckpointError(f"{path}: {size} bytes, too short for llama2.c's header")
    first = int(np.frombuffer(raw[:4], "<u4")[0])
    if first != MAGIC:
        numbers = tuple(int(n) for n in np.frombuffer(raw[: 4 * NUMBERS], "<i4"))
        made = ModelFile(path, 0, (*numbers[:5], abs(numbers[5]), numbers[6]), numbers[5] > 0, 4 * NUMBERS, size)
    else:
        version = int(np.frombuffer(raw[4:8], "<i4")[0])
        if version != 1 or len(raw) < HEADER:
            raise CheckpointError(
                f"{path}: version {version} of llama2.c's format; known: 0 and 1, in f32",
                hint="version 2 holds 8-bit integers: export the model again with --version 1",
            )
        numbers = tuple(int(n) for n in np.frombuffer(raw[8 : 8 + 4 * NUMBERS], "<i4"))
        made = ModelFile(path, 1, numbers, raw[8 + 4 * NUMBERS] != 0, HEADER, size)
    if min(made.numbers) < 1:
        raise CheckpointError(f"{path}: the header's sizes are {made.numbers}: damaged")
    return made


def find(file: ModelFile, registry: Registry, overrides: Mapping[str, Number | str]) -> ModelMatch:
    """The registered model that a file holds, with the sizes of its header; `overrides` are dims on top."""

    def attempt(source: ModelSource) -> ModelMatch | None:
        if source.document[TABLE].get("shared", True) != file.shared:
            return None
        dims = {**with_length(source, _dims(source, file)), **overrides}
        return ModelMatch(source, dims, weights(file, build(source, registry, dims)))

    with about(str(file.path)):
        match = find_model(registry, TABLE, attempt)
    if match is None:
        raise CheckpointError(
            f"{file.path}: no model has a [{TABLE}] for it",
            hint="install a plugin whose model has one, or name it: --plugin PATH",
        )
    return match


def match_of(path: Path, registry: Registry, overrides: Mapping[str, Number | str]) -> ModelMatch:
    """`find` of the file at `path`, with the id that its texts begin and end with."""
    return replace(find(open_file(path), registry, overrides), generation=of_ids(BEGIN))


def fitting(file: ModelFile, graph: Graph) -> Weights:
    """The file's parameters for a model that is settled. CheckpointError unless it is the same model and size."""
    table = graph.source.document.get(TABLE)
    if table is None or table.get("shared", True) != file.shared:
        raise CheckpointError(f"{file.path}: is not of model {graph.name}: see its [{TABLE}]")
    with about(str(file.path)):
        return weights(file, graph)


def _dims(source: ModelDocument, file: ModelFile) -> Dims:
    """The header's dims, and those that llama2.c's program computes with always."""
    table = source.document[TABLE]
    return {**dict(zip(table["header"], file.numbers, strict=True)), **table.get("fixed", {})}


def weights(file: ModelFile, graph: Graph) -> Weights:
    """The file's parameters for `graph`, read on demand. CheckpointError when the sizes do not add up."""
    own = _dims(graph.source, file)
    check_dims(own, graph, {name: f"{name} of llama2.c" for name in own})
    places: dict[str, list[tuple[Part, int]]] = {}
    at = file.start
    for part in parts(graph, file.version):
        if isinstance(part, Part):
            places.setdefault(part.parameter, []).append((part, at))
        at += 4 * _size(part, graph)
    if at != file.size:
        raise CheckpointError(f"{file.size:,} bytes, and its header describes {at:,}: cut short, or another model")
    return Weights({name: _maker(file, graph, places[name]) for name in graph.parameters})


def parts(graph: Graph, version: int) -> Iterator[Part | str]:
    """The weights in the file's order: parts of parameters, and names of TABLES.

    BuildError unless [llama2c] names every row of every parameter once.
    """
    source, where = graph.source, graph.source.where(TABLE)
    table, rows = source.document[TABLE], {name: trim(p.shape)[0] for name, p in graph.parameters.items()}
    covered = dict.fromkeys(rows, 0)
    for entry in table["order"][str(version)]:
        if entry in TABLES:
            yield entry
            continue
        rule = table["parts"].get(entry, {"of": entry})
        names = named_by(rule["of"], rows)
        if not names:
            raise BuildError(f"{where}: the model has no parameter {rule['of']}")
        for name in names:
            values = {key: int(evaluate(rule.get(key, 0), graph.dims, where)) for key in ("from", "rows", "heads")}
            part = Part(name, values["from"], values["rows"] or rows[name], values["heads"])
            covered[name] += part.rows
            yield part
    for name, count in rows.items():
        if covered[name] != count:
            raise BuildError(f"{where}: {covered[name]} of the {count} rows of {name} are in the file's order")


def _size(part: Part | str, graph: Graph) -> int:
    """The numbers of a part."""
    if isinstance(part, str):
        return int(graph.dims["S"]) * (int(graph.dims["C"]) // int(graph.dims["H"])) // 2
    return part.rows * math.prod(trim(graph.parameters[part.parameter].shape)[1:])


def _maker(file: ModelFile, graph: Graph, places: list[tuple[Part, int]]) -> Any:
    of = trim(graph.parameters[places[0][0].parameter].shape)[1:]

    def make() -> Array:
        tensors = []
        for part, at in sorted(places, key=lambda place: place[0].first):
            raw = read_numbers(file.path, "<f4", at, (part.rows, *of))
            tensors.append(halves(raw, part.heads) if part.heads else raw)
        whole = tensors[0] if len(tensors) == 1 else np.concatenate(tensors)
        return whole.astype(np.float32, copy=False)

    return make


def halves(rows: Array, heads: int) -> Array:
    """Rows (heads * D, n) whose pairs are neighbours, with the pairs half a head apart."""
    return rows.reshape(heads, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def pairs(rows: Array, heads: int) -> Array:
    """`halves` backwards."""
    return rows.reshape(heads, 2, -1, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)
