"""The parameters of a run's model that do not come from `weights`: new ones, and frozen ones under a prefix."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from core.by_name import ByName
from core.config import RunConfig
from core.engine import Engine
from core.errors import CheckpointError, UsageError, did_you_mean
from core.expr import trim
from core.graph import Graph
from core.interop.opened import Opened, open_path
from core.registry import Registry

Array = np.ndarray[Any, Any]


def overlaid(layers: Sequence[Mapping[str, Array]]) -> ByName:
    """Parameters by name, those of a later mapping in place of an earlier one's, each read at its use."""
    names = (name for layer in layers for name in layer)
    return ByName(names, lambda name: next(layer[name] for layer in reversed(layers) if name in layer))


def prefixed(prefix: str, own: Mapping[str, Array]) -> ByName:
    """Parameters under a prefix."""
    return ByName((prefix + name for name in own), lambda name: own[name.removeprefix(prefix)])


def new_names(config: RunConfig, graph: Graph) -> list[str]:
    """The parameters that may start fresh. UsageError for a glob of `new` that matches none."""
    matching: dict[str, None] = {}
    for glob in config.new:
        names = fnmatch.filter(graph.parameters, glob)
        if not names:
            raise UsageError(
                f'{config.where("new")}: "{glob}" matches no parameter of {graph.name}'
                f"{did_you_mean(glob, graph.parameters)}"
            )
        matching |= dict.fromkeys(names)
    return list(matching)


def under_prefixes(config: RunConfig, graph: Graph) -> list[str]:
    """The parameters of [[reference]]. UsageError for a prefix without any, or two tables that share one."""
    names: list[str] = []
    for table in config.reference:
        own = [name for name in graph.parameters if name.startswith(table.prefix)]
        if not own or set(own) & set(names):
            why = "is another table's too" if own else f"is that of no parameter of {graph.name}"
            raise UsageError(f'{config.where("reference")}: the prefix "{table.prefix}" {why}')
        names += own
    return names


def expected_of(config: RunConfig, graph: Graph) -> Graph:
    """The graph with the parameters alone that `weights` must have."""
    others = {*new_names(config, graph), *under_prefixes(config, graph)}
    return replace(graph, parameters={n: p for n, p in graph.parameters.items() if n not in others})


def open_references(config: RunConfig, registry: Registry, graph: Graph) -> list[Opened]:
    """The models of [[reference]]. CheckpointError where their parameters are not those under the prefix."""
    under_prefixes(config, graph)
    return [_reference(config, registry, graph, table.weights, table.prefix) for table in config.reference]


def _reference(config: RunConfig, registry: Registry, graph: Graph, path: str, prefix: str) -> Opened:
    opened, where = open_path(path, registry), f"{config.where('reference')}: {path}"
    if opened.weights is None:
        raise CheckpointError(f"{where}: a model without weights")
    own = {n.removeprefix(prefix): p for n, p in graph.parameters.items() if n.startswith(prefix)}
    missing, extra = ([n for n in a if n not in b] for a, b in ((own, opened.weights), (opened.weights, own)))
    if missing or extra:
        words = [f"{w} {', '.join(n[:3])}" for w, n in (("it lacks", missing), ("the model lacks", extra)) if n]
        raise CheckpointError(f'{where}: it is not a model under "{prefix}": {"; ".join(words)}')
    for name, parameter in own.items():
        if opened.weights[name].shape != trim(parameter.shape):
            shapes = f"{opened.weights[name].shape}, and {prefix}{name} {trim(parameter.shape)}"
            raise CheckpointError(f"{where}: {name} has shape {shapes}")
    return opened


def completed(
    config: RunConfig, engine: Engine, values: Mapping[str, Array] | None, references: list[Opened]
) -> tuple[Mapping[str, Array], list[str]]:
    """`values` (None: drawn) completed by drawn parameters and those of references; lines about them."""
    graph, lines = engine.graph, []
    engine.initialize(config.seed)
    drawn, new = engine.parameters(), new_names(config, graph)
    layers: list[Mapping[str, Array]] = []
    if values is None:
        layers.append(drawn)
    else:
        fresh = [name for name in new if name not in values]
        layers += [{name: np.array(drawn[name]) for name in fresh}, values]
        if fresh:
            count = sum(graph.parameters[name].size for name in fresh)
            shown = ", ".join(fresh[:3]) + (f" and {len(fresh) - 3} more" if len(fresh) > 3 else "")
            lines.append(f"new parameters, drawn: {count:,} elements, {shown}")
    for table, opened in zip(config.reference, references, strict=True):
        assert opened.weights is not None
        layers.append(prefixed(table.prefix, opened.weights))
        lines.append(f"frozen weights {table.prefix}*: {table.weights}")
    return overlaid(layers), lines
