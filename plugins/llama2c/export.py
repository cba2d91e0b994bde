"""llama2.c's model file of a model, by its [llama2c] run backwards; its tokenizer.bin goes beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from core import atomic_files, files
from core.errors import BuildError, DataError
from core.expr import evaluate
from core.interop import Array, Export, Registry, check_meaning
from core.outputs import staged
from core.outside import read_whole

from . import model_file
from .model_file import HEADER, MAGIC, TABLE, TABLES


def write(export: Export, registry: Registry, out: Path, version: int = 0) -> str:
    """Write the file `out`, whole or not at all; a line on its tokenizer. version 0 is the format of run.c.

    Raises BuildError for a model that the format cannot hold, CheckpointError when the disk refuses.
    """
    source = export.graph.source
    if TABLE not in source.document:
        raise BuildError(f"{source.where()} has no [{TABLE}]: llama2.c has no format for it", hint="--to hf writes it")
    with staged(out) as path:
        with files.create(path) as file:
            files.write(file, path, _header(export, version))
            for chunk in _payload(export, version):
                files.write(file, path, np.ascontiguousarray(chunk, "<f4").data)
            files.sync(file, path)
        check_meaning(
            export, registry, lambda: model_file.find(model_file.open_file(path), registry, {}), "llama2.c's format"
        )
    return _tokenizer_beside(export, out)


def _tokenizer_beside(export: Export, out: Path) -> str:
    """Write llama2.c's tokenizer.bin beside its model file, where there is none; a line about it."""
    from core.tokenizers.scored import FILE, ScoredTokenizer, scored_of

    tokenizer, beside = export.tokenizer(), out.parent / FILE
    if tokenizer is None:
        return f"without a {FILE}: the model has no tokenizer"
    if not isinstance(tokenizer, ScoredTokenizer):
        try:
            tokenizer = scored_of(tokenizer)
        except DataError as error:
            way = "llama2.c's tokenizer.py writes one from the model's tokenizer.model"
            return f"without a {FILE}: {error.message}; {way}"
    if beside.exists() and not _holds(beside, tokenizer.to_bytes()):
        return f"{beside} belongs to a different tokenizer and was kept: pass the model's own to run.c with -z"
    atomic_files.replace(beside, tokenizer.to_bytes())
    return f"with {beside}"


def _holds(path: Path, data: bytes) -> bool:
    try:
        return read_whole(path) == data
    except OSError:
        return False


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
    for part in model_file.parts(export.graph, version):
        if isinstance(part, str):
            half = int(dims["C"]) // int(dims["H"]) // 2
            turns = float(dims["base"]) ** (-np.arange(half) / half)
            yield TABLES[part](np.outer(np.arange(int(dims["S"])), turns)).astype(np.float32)
            continue
        rows = export.weights[part.parameter][part.first : part.first + part.rows]
        yield model_file.pairs(rows, part.heads) if part.heads else rows
