"""Errors for names that the registry lacks: the nearest known name, and the plugins that may bring it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from core.errors import BuildError, did_you_mean
from core.registry.contribution import DISABLED, PluginRecord


def state(record: PluginRecord) -> str:
    """`plugin "mine" (./mine) is broken: ImportError: ...`"""
    reason = f": {record.reason}" if record.reason else ""
    return f'plugin "{record.name}" ({record.origin}) is {record.status}{reason}'


def _remedy(record: PluginRecord) -> str:
    if record.status == DISABLED:
        return f"take {record.name} out of [plugins] disable, or add it to CORELM_PLUGINS"
    return f"`core plugins {record.name}` shows its traceback"


def unknown(kind: str, name: str, names: Iterable[str], where: str, suspects: Sequence[PluginRecord]) -> BuildError:
    """The error for a name that is not among `names`. suspects: the plugins that may bring it."""
    names = sorted(names)
    prefix = f"{where}: " if where else ""
    message = f'{prefix}there is no {kind} "{name}"{did_you_mean(name, names)}'
    for record in suspects:
        message += f"\n    {state(record)}, and it mentions {name}"
    if suspects:
        return BuildError(message, hint=_remedy(suspects[0]))
    return BuildError(message, hint=f"there are: {', '.join(names) or 'none'}")


def not_loaded(name: str, plugins: Sequence[PluginRecord], where: str) -> BuildError:
    """The error for a plugin that is broken, disabled or missing."""
    prefix = f"{where}: " if where else ""
    for record in plugins:
        if record.name == name:
            return BuildError(f"{prefix}{state(record)}", hint=_remedy(record))
    names = [r.name for r in plugins]
    return BuildError(
        f'{prefix}there is no plugin "{name}"{did_you_mean(name, names)}',
        hint=f"install it, or give its folder: --plugin PATH. There are: {', '.join(names)}",
    )
