"""`core models`: every model that a config can name."""

from __future__ import annotations

from typing import Any

import click

from core.cli.show import emit_json, emit_table, json_option, plugin_option
from core.errors import CoreError
from core.loader import load_registry
from core.registry import Registry, shorten


@click.command("models")
@plugin_option
@json_option
def command(plugin: tuple[str, ...], as_json: bool) -> None:
    """List models: parameters, file, plugin."""
    registry = load_registry(plugin)
    descriptions = [describe(registry, name) for name in sorted(registry.models)]
    if as_json:
        emit_json(descriptions)
        return
    rows = [(m["name"], parameters(m), shorten(m["file"]), m["origin"]) for m in descriptions]
    emit_table(("MODEL", "PARAMETERS", "FILE", "ORIGIN"), rows)
    for model in descriptions:
        if model["error"]:
            click.echo(f"core: error: {model['error']}", err=True)


def describe(registry: Registry, name: str) -> dict[str, Any]:
    """One model; a graph that cannot be built is listed with its error, and the others still are."""
    from core.graph import load_model

    file = registry.models[name]
    count, error = None, ""
    try:
        count = load_model(name, registry).build(registry).parameter_count
    except CoreError as failed:
        error = str(failed)
    return {"name": name, "parameters": count, "file": str(file.path), "origin": file.origin, "error": error}


def parameters(model: dict[str, Any]) -> str:
    return "cannot be built" if model["parameters"] is None else f"{model['parameters']:,}"
