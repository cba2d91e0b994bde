"""Another program's model as a checkpoint of ours, which `weights`, `core sample` and `core.load` take.

It holds the parameters in f32, with the exact values of the file. It has no optimizer state, since such files have
none: a run starts from it with `weights`, and cannot resume it.
"""

from __future__ import annotations

from pathlib import Path

from core import checkpoint
from core.checkpoint import Contents
from core.errors import UsageError
from core.graph import Graph
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
            f"{opened.path} is {opened.kind}, not another program's", hint=f"expected {kinds}; ours need no import"
        )
    graph = opened.source.build(registry, dict(opened.dims))
    contents = Contents(
        parameters=opened.parameters(graph),
        optimizer={},
        model_toml=opened.source.to_toml(dict(opened.dims)),
        tokenizer_json=tokenizer_json,
        state={
            "step": 0,
            "steps": 0,
            "tokens": 0,
            "imported": {"from": opened.path.resolve().name, "as": opened.kind},
            **opened.generation.state(),
        },
    )
    with staged(new_path(out)) as path:
        checkpoint.stage(path, contents)
    return graph
