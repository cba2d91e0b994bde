"""What differs between two documents: a config as it was and as it is, or two records of what a run was made with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys."""
    keys: dict[str, Any] = {}
    for key, value in document.items():
        name = f"{prefix}{key}"
        keys |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return keys


def differences(before: Mapping[str, Any], after: Mapping[str, Any], most: int = 20) -> list[str]:
    """`key: before -> after`, a line each."""
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    lines = [f"{key}: {before.get(key, 'absent')!s} -> {after.get(key, 'absent')!s}" for key in keys[:most]]
    return lines + ([f"... and {len(keys) - most} more"] if len(keys) > most else [])
