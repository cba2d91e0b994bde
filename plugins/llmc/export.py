"""llm.c's model file of a model, by its [llmc] run backwards: header, then the parameters, the layers of each stacked.

The padding of the vocabulary is written as zeros, as in llm.c. A file that llm.c wrote, imported and exported
again in its own precision, is the same to the byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from core import files
from core.errors import BuildError
from core.interop import Array, Export, Registry, check_meaning
from core.outputs import staged

from . import model_file
from .model_file import FIRST, INTEGERS, TABLE

VERSIONS = {"f32": 3, "bf16": 5}
CHUNK = 1 << 24  # bytes of one write, about


def write(export: Export, registry: Registry, out: Path) -> None:
    """Write the file `out`, whole or not at all.

    Raises BuildError for a model that llm.c's format cannot hold, CheckpointError when the disk refuses.
    """
    source = export.graph.source
    if TABLE not in source.document:
        raise BuildError(
            f"{source.where()} has no [{TABLE}]: llm.c has no format for it", hint="--to hf writes it for transformers"
        )
    with staged(out) as path:
        with files.create(path) as file:
            files.write(file, path, _header(export).tobytes())
            for chunk in _payload(export, registry):
                files.write(file, path, chunk.data)
            files.sync(file, path)
        check_meaning(
            export, registry, lambda: model_file.find(model_file.open_file(path), registry, {}), "llm.c's format"
        )


def _header(export: Export) -> Array:
    """256 int32: magic, version, and the dims that [llmc] lists."""
    source = export.graph.source
    numbers = np.zeros(INTEGERS, "<i4")
    numbers[:FIRST] = source.document[TABLE]["magic"], VERSIONS[export.precision]
    for place, name in enumerate(source.document[TABLE]["header"], FIRST):
        size = export.graph.dims[name]
        if not isinstance(size, int) or not 0 < size < 2**31 or place >= INTEGERS:
            raise BuildError(f"{source.where(TABLE, 'header')}: {name} = {size} does not fit llm.c's header")
        numbers[place] = size
    return numbers


def _payload(export: Export, registry: Registry) -> Iterator[Array]:
    """The bytes of all parameters in the file's order, padded, in parts."""
    source = export.graph.source
    header = {name: int(export.graph.dims[name]) for name in source.document[TABLE]["header"]}
    shapes = model_file.shapes(source, export.graph, registry, header)
    for name in model_file.order(source, export.graph):
        values = export.stored(f"parameter {name}", export.weights[name])
        rows = max(1, CHUNK // max(1, 4 * values[:1].size))
        for start in range(0, shapes[name][0], rows):
            stop = min(start + rows, shapes[name][0])
            part = np.zeros((stop - start, *shapes[name][1:]), values.dtype.newbyteorder("<"))
            have = values[start:stop]
            part[tuple(slice(n) for n in have.shape)] = have
            yield part.reshape(-1)
