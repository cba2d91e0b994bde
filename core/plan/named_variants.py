"""The variants that a config names, `[ops]`, `[ops.generate]` and `[nodes]`: whether there are such, and which one an
entry of `[nodes]` means."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence

from core.errors import UsageError, did_you_mean
from core.graph import Graph, Node
from core.plan.steps import AUTO
from core.registry import Registry


def check_names(
    graph: Graph, registry: Registry, tables: Iterable[tuple[str, Mapping[str, str]]], globs: Mapping[str, str]
) -> None:
    """UsageError for an op, node glob or variant that does not exist. tables: by their names, op -> variant; globs:
    those of [nodes]."""
    by_node = {n.name: n.op.name for n in graph.nodes}
    for table, entries in tables:
        for op, variant in entries.items():
            if op not in registry.ops:
                raise UsageError(f"{table} {op}: no op of that name{did_you_mean(op, registry.ops)}")
            _check_variant(registry, f"{table} {op}", op, variant)
    for pattern, variant in globs.items():
        matched = {by_node[n] for n in fnmatch.filter(by_node, pattern)}
        if not matched:
            raise UsageError(
                f'[nodes] "{pattern}" matches no node of {graph.name}{did_you_mean(pattern, by_node)}',
                hint="`core plan` lists the nodes",
            )
        for op in sorted(matched):
            _check_node_variant(registry, f'[nodes] "{pattern}"', op, variant)


def _check_variant(registry: Registry, where: str, op: str, variant: str) -> None:
    variants = registry.variants_of(op)
    if variant != AUTO and variant not in variants:
        variants = registry.complete().variants_of(op)
    if variant != AUTO and variant not in variants:
        raise UsageError(
            f'{where}: op "{op}" has no variant "{variant}"{did_you_mean(variant, variants)}',
            hint=f"it has: {', '.join(sorted(variants)) or 'none'}, or {AUTO}",
        )


def _check_node_variant(registry: Registry, where: str, op: str, variant: str) -> None:
    """A variant of the node's own op, or of a fused op that ends in it: the fused node has its last part's name."""
    ending = [f for f, o in registry.ops.items() if o.statements and o.statements[-1].op == op]
    if not any(meant(registry, name, variant) for name in (op, *ending)):
        named, _, short = variant.partition(".")
        _check_variant(registry, where, *((named, short) if named in (op, *ending) else (op, variant)))


def meant(registry: Registry, op: str, variant: str) -> str | None:
    """The variant of `op` that an entry of [nodes] means, "warp" or "mlp_gelu.warp"; None where it means none."""
    if "." in variant:
        named, _, variant = variant.partition(".")
        if named != op:
            return None
    if variant == AUTO or variant in registry.variants_of(op):
        return variant
    return variant if variant in registry.complete().variants_of(op) else None


def check_applied(registry: Registry, globs: Mapping[str, str], nodes: Sequence[Node]) -> None:
    """UsageError for an entry of [nodes] that names a fused op's variant where the node does not run as that op.

    nodes: those of a plan, fused.
    """
    for pattern, variant in globs.items():
        for node in nodes:
            if fnmatch.fnmatchcase(node.name, pattern) and meant(registry, node.op.name, variant) is None:
                raise UsageError(
                    f'[nodes] "{pattern}" = "{variant}": node {node.name} runs as {node.op.name} here, which '
                    "has no such variant",
                    hint=f"it has: {', '.join(sorted(registry.variants_of(node.op.name))) or 'none'}",
                )
