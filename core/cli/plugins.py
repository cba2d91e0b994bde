"""`core plugins`: every plugin with its contents, and the reason why one is broken or switched off."""

from __future__ import annotations

from typing import Any

import click

from core.cli.show import emit_json, emit_table, json_option, plugin_option
from core.errors import BuildError, did_you_mean
from core.loader import load_registry
from core.registry import PluginRecord, Registry

LABELS = {"tuned": "tuned files"}  # kinds whose name is no plural noun
SINGULARS = {"lenses": "lens"}  # of plurals with more than an s


@click.command("plugins")
@click.argument("name", required=False)
@plugin_option
@json_option
def command(name: str | None, plugin: tuple[str, ...], as_json: bool) -> None:
    """List plugins; with NAME, its contents, or the traceback of its failure."""
    registry = load_registry(plugin, strict=False)
    records = registry.plugins if name is None else _named(registry, name)
    if as_json:
        emit_json([as_data(record) for record in records])
        return
    if name is not None:
        click.echo("\n\n".join(detail(record) for record in records))
        return
    rows = [(r.name, r.version or "-", r.status, r.origin, summary(r)) for r in records]
    emit_table(("PLUGIN", "VERSION", "STATUS", "ORIGIN", "BRINGS"), rows)
    for problem in registry.problems:
        click.echo(f"core: error: {problem}", err=True)


def _named(registry: Registry, name: str) -> list[PluginRecord]:
    matches = [r for r in registry.plugins if r.name == name]
    if not matches:
        names = [r.name for r in registry.plugins]
        raise BuildError(
            f'there is no plugin "{name}"{did_you_mean(name, names)}', hint=f"there are: {', '.join(names)}"
        )
    return matches


def summary(record: PluginRecord) -> str:
    """`9 ops, 12 variants`, or the reason why there is nothing."""
    if record.reason:
        return record.reason
    words = {kind: LABELS.get(kind, kind) for kind in record.brings}
    single = {kind: SINGULARS.get(kind, plural[:-1]) for kind, plural in words.items()}
    counts = [f"{len(n)} {words[kind] if len(n) > 1 else single[kind]}" for kind, n in record.brings.items()]
    return ", ".join(counts) or "-"


def detail(record: PluginRecord) -> str:
    """All facts of one plugin."""
    lines = [
        f"{record.name} {record.version}".rstrip(),
        f"  {record.status}, {record.origin}, {record.path or 'no path'}",
    ]
    lines += [f"  {kind}: {', '.join(names)}" for kind, names in record.brings.items()]
    if record.reason:
        lines += [f"  {record.reason}", "", record.traceback.rstrip()]
    return "\n".join(lines)


def as_data(record: PluginRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "version": record.version,
        "kind": record.kind,
        "origin": record.origin,
        "path": str(record.path) if record.path else None,
        "status": record.status,
        "reason": record.reason,
        "traceback": record.traceback,
        "brings": record.brings,
    }
