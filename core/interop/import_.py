"""Another program's model as a checkpoint of corelm, which `weights`, `core sample` and `core.load` take.

It holds the parameters in f32, with the exact values of the file. It has no optimizer state, since such files have
none: a run starts from it with `weights`, and cannot resume it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core import checkpoint
from core.checkpoint import Contents
from core.errors import UsageError
from core.graph import Graph
from core.interop.fitting import Array
from core.interop.opened import Opened
from core.outputs import new_path, staged
from core.registry import Registry


def import_model(opened: Opened, registry: Registry, out: Path, tokenizer_json: str | None) -> Graph:
    """Write the checkpoint `out`, whole or not at all; the model that it holds.

    Raises UsageError for a path without weights of another program, and for an `out` that exists;
    CheckpointError when the disk refuses.
    """
    if opened.format is None:
        kinds = " or ".join(one.kind for one in registry.formats.values()) or "a format that a plugin brings"
        raise UsageError(
            f"{opened.path} is {opened.kind}, not weights of another program",
            hint=f"expected {kinds}; checkpoints of corelm need no import",
        )
    graph = opened.source.build(registry, dict(opened.dims))
    state = {"imported": {"from": opened.path.resolve().name, "as": opened.kind}, **opened.generation.state()}
    toml = opened.source.to_toml(dict(opened.dims))
    save_model(opened.parameters(graph), toml, out, tokenizer_json, state)
    return graph


def save_model(
    parameters: Mapping[str, Array], model_toml: str, out: Path, tokenizer_json: str | None, state: Mapping[str, Any]
) -> None:
    """Write the checkpoint `out` of a model without optimizer state, whole or not at all. Raises UsageError for an
    `out` that exists, CheckpointError when the disk refuses."""
    own = {"step": 0, "steps": 0, "tokens": 0, **state}
    with staged(new_path(out)) as path:
        checkpoint.stage(path, Contents(parameters, {}, model_toml, tokenizer_json, own))
