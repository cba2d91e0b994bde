"""A run config together with the registry of its plugins: the first step of every verb that takes a config.

A config names plugins, and a plugin may bring the device for which the config is resolved: so the plugins that its
files name outside of `[on.DEVICE]` are loaded first, then the config is resolved, then the plugins of `[on.DEVICE]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.config.layers import find_config, read_chain
from core.config.load import RunConfig, load_config
from core.devices import AUTO
from core.loader import load_registry
from core.registry import Registry


def resolve_config(
    path: str | Path,
    *,
    overrides: Sequence[str] = (),
    device: str = AUTO,
    plugins: Sequence[str] = (),
    whole: bool = True,
) -> tuple[RunConfig, Registry]:
    """The config at `path` for `--device device`, and the registry with its plugins and those at the paths `plugins`.

    whole: False leaves out parts that `Registry.complete` can bring later, such as other devices' variants.
    Raises UsageError for the config and an unknown device, BuildError for plugins.
    """
    load, disable = plugins_named(path, overrides)
    begins_on = "" if whole else device
    registry = load_registry([*plugins, *load], disable=disable, device=begins_on)
    kind = registry.device(device)
    config = load_config(path, overrides=overrides, device=kind.name, devices=registry.devices)
    if (config.plugins.load, config.plugins.disable) != (load, disable):
        registry = load_registry([*plugins, *config.plugins.load], disable=config.plugins.disable, device=begins_on)
    return config, registry


def plugins_named(path: str | Path, overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """[plugins] load and disable of the files and overrides, outside of `[on.DEVICE]`.

    Values of a wrong type count as absent: `load_config` reports them. Raises UsageError for a file that is absent.
    """
    chain, _ = read_chain(find_config(path)[0])
    documents = [source.document for source in chain]
    if overrides:
        from core.config.overrides import parse_override

        settings = [parse_override(text) for text in overrides]
        documents += [setting.document for setting in settings if not isinstance(setting, str)]
    plugins: dict[str, list[str]] = {"load": [], "disable": []}
    for document in documents:
        table = document.get("plugins")
        for key in plugins:
            if isinstance(table, dict) and (names := texts(table.get(key))) is not None:
                plugins[key] = names
    return plugins["load"], plugins["disable"]


def texts(value: Any) -> list[str] | None:
    """A string, or a list of strings, as a list; None for anything else."""
    if isinstance(value, str):
        return [value]
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else None
