"""Graph shapes that random models meet rarely, written by hand, in tests/graph_shapes.toml of a checkout."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import tomli

from core.errors import UsageError
from core.testing.graph_document import RandomModel

SHAPES = Path(__file__).parents[2] / "tests" / "graph_shapes.toml"


@lru_cache
def shapes() -> dict[str, RandomModel]:
    """Name -> the model as core.testing.graphs takes one. UsageError where corelm is installed without its tests."""
    if not SHAPES.exists():
        raise UsageError(f"{SHAPES}: no such file; the faults that it is for are planted in a checkout of corelm only")
    written = tomli.loads(SHAPES.read_text("utf-8"))
    return {name: _model(shape, written) for name, shape in written["shape"].items()}


def _model(shape: dict[str, Any], written: dict[str, Any]) -> RandomModel:
    document = {**written["base"], "graph": {**written["first"], **shape["graph"], **written["last"]}}
    settings: dict[str, Any] = {"alias": True, "in_place": True, "fusion": {}, "ops": {}}
    settings |= {name: tuple(shape.get(name, ())) for name in ("freeze", "recompute")}
    return RandomModel(0, document, settings, shape.get("micro_steps", 1))
