"""llama2.c's model file of a model, by its [llama2c] run backwards; its tokenizer.bin goes beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from core import files
from core.errors import BuildError
from core.expr import evaluate
from core.interop import llama2c
from core.interop.export import Export, check_meaning
from core.interop.foreign import Array
from core.interop.llama2c import HEADER, MAGIC, TABLE, TABLES
from core.outputs import staged
from core.registry import Registry


def write(export: Export, registry: Registry, out: Path, version: int = 0) -> None:
    """Write the file `out`, whole or not at all. version 0 is what run.c reads.

    Raises BuildError for a model that the format cannot hold, CheckpointError when the disk refuses.
    """
    source = export.graph.source
    if TABLE not in source.document:
        raise BuildError(f"{source.where()} has no [{TABLE}]: llama2.c has no format for it", hint="--to hf writes it")
    if export.precision != "f32":
        raise BuildError(f"llama2.c's files of version {version} are f32", hint="leave --precision out")
    with staged(out) as path:
        with files.create(path) as file:
            files.write(file, path, _header(export, version))
            for chunk in _payload(export, version):
                files.write(file, path, np.ascontiguousarray(chunk, "<f4").data)
            files.sync(file, path)
        check_meaning(
            export, registry, lambda: llama2c.find(llama2c.open_file(path), registry, {}), "llama2.c's format"
        )


def _header(export: Export, version: int) -> bytes:
    graph = export.graph
    table, where = graph.source.document[TABLE], graph.source.where(TABLE)
    for name, value in table.get("fixed", {}).items():
        if graph.dims[name] != evaluate(value, graph.dims, where):
            raise BuildError(f"model {graph.name} has {name} = {graph.dims[name]}; llama2.c computes with {value}")
    shared, numbers = bool(table.get("shared", True)), [int(graph.dims[name]) for name in table["header"]]
    if version == 0:
        vocabulary = table["header"].index("V")
        numbers[vocabulary] *= 1 if shared else -1
        return np.array(numbers, "<i4").tobytes()
    head = np.array([MAGIC, version], "<u4").tobytes() + np.array(numbers, "<i4").tobytes() + bytes([shared])
    return head.ljust(HEADER, b"\0")


def _payload(export: Export, version: int) -> Iterator[Array]:
    dims = export.graph.dims
    for part in llama2c.parts(export.graph, version):
        if isinstance(part, str):
            half = int(dims["C"]) // int(dims["H"]) // 2
            turns = float(dims["base"]) ** (-np.arange(half) / half)
            yield TABLES[part](np.outer(np.arange(int(dims["S"])), turns)).astype(np.float32)
            continue
        rows = export.weights[part.parameter][part.first : part.first + part.rows]
        yield llama2c.together(rows, part.heads) if part.heads else rows
