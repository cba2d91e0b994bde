"""The base of a model, which its `extends` names: a registered model, or a file near it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.config.shipped import within
from core.config.spelling import show_path
from core.errors import UsageError, did_you_mean
from core.graph.document import is_path

if TYPE_CHECKING:
    from core.registry import Registry


def base_of(name: Any, place: str, chain: Sequence[tuple[Path, str]], registry: Registry) -> Path:
    """The file of the base `name`. place: of the key; chain: (path, as it is shown) of the model and its bases so far.

    Raises UsageError for a name without a model, one outside the folders that models may come from, or closes a circle.
    """
    base = _path_of(name, f"{place} extends", chain, registry)
    if base.resolve() in {path.resolve() for path, _ in chain}:
        shown = " -> ".join([*(shown for _, shown in chain), show_path(base)])
        raise UsageError(f"extends runs in a circle: {shown}", hint="a model cannot be its own base")
    return base


def _path_of(name: Any, where: str, chain: Sequence[tuple[Path, str]], registry: Registry) -> Path:
    if not isinstance(name, str) or not name:
        raise UsageError(f"{where} is {name!r}; expected a model's name or the path of its file")
    if name in registry.models:
        return Path(registry.models[name].path)
    shown = " -> ".join([*(shown for _, shown in chain), name])
    if not is_path(name):
        raise UsageError(
            f'{where}: no model is called "{name}"{did_you_mean(name, registry.models)} (extends: {shown})',
            hint="`core models` lists the names; a path ends in .toml and is relative to the file that names it",
        )
    base = chain[-1][0].parent / name
    if not os.path.isfile(base):
        raise UsageError(
            f"{where}: expected the file of a model, got {name!r}, which does not exist (extends: {shown})"
        )
    if not within(base, [Path.cwd(), chain[0][0].parent, *(Path(m.path).parent for m in registry.models.values())]):
        raise UsageError(
            f"{where}: {show_path(base)} is outside the folders that a model may come from (extends: {shown})",
            hint="a base is below the current directory, beside the loaded model, or a registered model",
        )
    return base
