"""The commands of plugins, which follow the verbs: found without importing a plugin that brings none."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from core.registry import Registry


def commands_beside(verbs: Collection[str]) -> dict[str, click.Command]:
    """Commands by name that shipped and installed plugins bring. Plugins that mention none are not imported."""
    commands: dict[str, click.Command] = {}
    for command in _commands():
        name = command.name or ""
        if name in verbs:
            click.echo(f'core: warning: a plugin\'s command "{name}" is hidden by the verb of that name', err=True)
        else:
            commands[name] = command
    return commands


def _commands() -> Sequence[click.Command]:
    """All of them, verbs' names included. Shipped plugins are imported alone, which takes no NumPy; an installed one
    that mentions a command needs the loader and its guard, and so does a shipped one that an edit broke."""
    from core.discovery import SHIPPED, discover
    from core.mentions import mentions

    bringing = [c for c in discover().candidates if mentions(c, "core_commands")]
    if all(c.kind == SHIPPED for c in bringing):
        with contextlib.suppress(Exception):
            return [command for c in bringing for command in import_module(c.module).core_commands()]
    return _registry().commands


def _registry() -> Registry:
    from core.loader import load_registry

    return load_registry(strict=False)


def suspects(name: str) -> str:
    """The broken and disabled plugins that mention a command, a line each; "" for none."""
    from core.registry.unknown_names import state

    return "".join(f"\n{state(record)}, and it mentions {name}" for record in _registry().suspects(name))
