"""The differences of two records: configs, variants, versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flat(document: Mapping[Any, Any], prefix: str = "", whole_lists: bool = False) -> dict[str, Any]:
    """Nested tables and lists as dotted keys, entries of a list by their number from 0. whole_lists: a list is one
    value."""
    keys: dict[str, Any] = {}
    for key, value in document.items():
        inner = dict(enumerate(value)) if isinstance(value, list) and not whole_lists else value
        keys |= flat(inner, f"{prefix}{key}.", whole_lists) if isinstance(inner, Mapping) else {f"{prefix}{key}": value}
    return keys


def differences(before: Mapping[str, Any], after: Mapping[str, Any], most: int | None = 20) -> list[str]:
    """`key: before -> after` of two documents, a line for each `flat` key, of at most `most`; "absent" for a missing
    one."""
    ours, theirs = flat(before, whole_lists=True), flat(after, whole_lists=True)
    keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    lines = [f"{key}: {ours.get(key, 'absent')!s} -> {theirs.get(key, 'absent')!s}" for key in keys[:most]]
    return lines + ([f"... and {len(keys) - len(lines)} more"] if len(keys) > len(lines) else [])
